package bus

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// eachConn runs a test over every kind of service bus.
func eachConn(t *testing.T, test func(t *testing.T, a, b Conn)) {
	t.Run("memory", func(t *testing.T) {
		m := NewMemory()
		a, b := m.Conn(), m.Conn()
		defer a.Close()
		defer b.Close()
		test(t, a, b)
	})
	t.Run("nats", func(t *testing.T) {
		s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the server did not start")
		}
		defer s.Shutdown()
		dial := func() Conn {
			nc, err := nats.Connect("", nats.InProcessServer(s))
			if err != nil {
				t.Fatal(err)
			}
			return NewNATS(nc)
		}
		a, b := dial(), dial()
		defer a.Close()
		defer b.Close()
		test(t, a, b)
	})
}

func TestCallsAndRefusals(t *testing.T) {
	eachConn(t, func(t *testing.T, a, b Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if _, err := KMSOpen.Do(ctx, a, KMSOpenRequest{}); !errors.Is(err, ErrNoResponder) {
			t.Fatalf("without a server: %v, want ErrNoResponder", err)
		}
		s, err := KMSOpen.Serve(b, func(_ context.Context, r KMSOpenRequest) (KMSOpenReply, error) {
			if r.HighWater > 100 {
				return KMSOpenReply{}, Refuse(CodeEpochJump, "epoch %d is too far", r.HighWater)
			}
			return KMSOpenReply{Epoch: r.HighWater + 1}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		rep, err := KMSOpen.Do(ctx, a, KMSOpenRequest{HighWater: 6})
		if err != nil || rep.Epoch != 7 {
			t.Fatalf("got %v, %v", rep, err)
		}
		_, err = KMSOpen.Do(ctx, a, KMSOpenRequest{HighWater: 101})
		if CodeOf(err) != CodeEpochJump || err.Error() != "epoch 101 is too far" {
			t.Fatalf("refusal came back as %v (%s)", err, CodeOf(err))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCallToReachesOnlyItsInstance(t *testing.T) {
	eachConn(t, func(t *testing.T, a, b Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		got := make(chan AssignRequest, 1)
		_, err := TransportAssign.Serve(b, "t1", func(_ context.Context, r AssignRequest) (Empty, error) {
			got <- r
			return Empty{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		want := AssignRequest{Stream: "cam-1", Session: gk.SessionID{1, 2}, SSRC: 77, Term: 3}
		if _, err := TransportAssign.Do(ctx, a, "t1", want); err != nil {
			t.Fatal(err)
		}
		if r := <-got; r != want {
			t.Fatalf("got %+v, want %+v", r, want)
		}
		if _, err := TransportAssign.Do(ctx, a, "t2", want); !errors.Is(err, ErrNoResponder) {
			t.Fatalf("another instance: %v", err)
		}
	})
}

func TestNewsKeepsOrder(t *testing.T) {
	eachConn(t, func(t *testing.T, a, b Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		got := make(chan FirstPacket, 100)
		if _, err := TransportFirst.Hear(b, func(f FirstPacket) { got <- f }, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := TransportFirst.Tell(a, FirstPacket{Transport: "t1", Epoch: gk.Epoch(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if f := <-got; f.Epoch != gk.Epoch(i) {
				t.Fatalf("announcement %d came as %d", i, f.Epoch)
			}
		}
	})
}

// TestNewsInAnothersName: the bus keeps transports to their own subjects; what one of
// them says there of itself must be so, too.
func TestNewsInAnothersName(t *testing.T) {
	eachConn(t, func(t *testing.T, a, b Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		got, liars := make(chan FirstPacket, 8), make(chan gk.TransportID, 8)
		if _, err := TransportFirst.Hear(b, func(f FirstPacket) { got <- f }, func(from gk.TransportID) { liars <- from }); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		forged, err := encMode.Marshal(FirstPacket{Transport: "t2", Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			a.Publish(TransportFirst.Subject("t1"), forged),
			a.Publish(string(TransportFirst), forged),
			TransportFirst.Tell(a, FirstPacket{Transport: "t2", Epoch: 2}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if f := <-got; f.Epoch != 2 {
			t.Errorf("heard %+v", f)
		}
		if from := <-liars; from != "t1" || len(liars) > 0 {
			t.Errorf("%q lied, and %d more", from, len(liars))
		}
	})
}

func TestMemoryCourierTampering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		a, b := m.Courier(), m.Courier()
		defer a.Close()
		defer b.Close()
		var got []string
		if err := b.Listen("gkrp/1/+/+/up", func(_ string, p []byte) { got = append(got, string(p)) }); err != nil {
			t.Fatal(err)
		}
		m.Tamper(func(_ string, p []byte) []Delivery {
			switch string(p) {
			case "lost":
				return nil
			case "twice":
				return []Delivery{{Payload: p}, {Payload: p, After: time.Second}}
			}
			return []Delivery{{Payload: p, After: 2 * time.Second}}
		})
		for _, s := range []string{"late", "lost", "twice"} {
			if err := a.Send("gkrp/1/cam/cam/up", []byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Send("gkrp/1/cam/cam/down", []byte("elsewhere")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(got) != 3 || got[0] != "twice" || got[1] != "twice" || got[2] != "late" {
			t.Fatalf("arrived: %v", got)
		}
	})
}

func TestRefusalOfUndecodableRequest(t *testing.T) {
	m := NewMemory()
	c := m.Conn()
	defer c.Close()
	if _, err := KMSKeys.Serve(c, func(context.Context, KMSKeysRequest) (KMSKeysReply, error) { return KMSKeysReply{}, nil }); err != nil {
		t.Fatal(err)
	}
	data, err := c.Request(context.Background(), string(KMSKeys), []byte{0xff}, true)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := decMode.Unmarshal(data, &a); err != nil || a.Refusal == nil || a.Refusal.Code != CodeBadRequest {
		t.Fatalf("answer %x: %+v, %v", data, a, err)
	}
}

func FuzzAnnouncements(f *testing.F) {
	seed, _ := encMode.Marshal(StreamStatus{Stream: "cam-1", Dropped: map[string]uint64{"auth": 3}})
	f.Add(seed)
	f.Fuzz(func(_ *testing.T, data []byte) {
		var s StreamStatus
		_ = decMode.Unmarshal(data, &s)
		var a TransportAnnouncement
		_ = decMode.Unmarshal(data, &a)
	})
}

// TestServiceIsOnItsWay: a service whose server died is at another in a moment, and
// whoever asks in that moment is not refused.
func TestServiceIsOnItsWay(t *testing.T) {
	s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	connect := func() *nats.Conn {
		nc, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	asker, service := connect(), connect()
	if _, err := asker.Request("late", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("before the service is there: %v", err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := NewNATS(asker).Request(t.Context(), "late", []byte("x"), false)
		ended <- err
	}()
	for asker.Stats().OutMsgs < 2 { // the request is out, and reached nobody
		time.Sleep(time.Millisecond)
	}
	if _, err := service.Subscribe("late", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a service that came in the meantime: %v", err)
	}
}

// TestRequestEndsWithItsConnection: nobody waits for an answer that cannot come.
func TestRequestEndsWithItsConnection(t *testing.T) {
	s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	asked := make(chan struct{}, 1)
	if _, err := nc.Subscribe("silent", func(*nats.Msg) { asked <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := NewNATS(nc).Request(t.Context(), "silent", nil, false) // a context without an end
		ended <- err
	}()
	<-asked
	s.Shutdown()
	if err := <-ended; !errors.Is(err, ErrCut) {
		t.Errorf("ended with %v, want ErrCut", err)
	}
}

func TestListOfAThousandStreamsFits(t *testing.T) {
	var list StreamsReply
	for i := range 1000 {
		id := fmt.Sprintf("a-stream-with-a-name-of-usual-length-%04d", i)
		now := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
		status := StreamStatus{Transport: "transport-of-the-site-1", Stream: gk.StreamID(id), Epoch: 1 << 20, Highest: 1 << 40, Delivered: 1 << 40,
			Bytes: 1 << 50, Lost: 1 << 20, Dropped: map[string]uint64{"replay": 1 << 20, "unknown-epoch": 1 << 20, "forged": 1 << 20, "late": 1 << 20},
			SilentMs: 1 << 20, Viewers: 9, Sent: 1 << 40, PathLoss: 1 << 20, Vouched: 1 << 40, Foreign: 1 << 20}
		list.Streams = append(list.Streams, StreamInfo{Stream: gk.StreamID(id), Device: gk.DeviceID(id), State: "recovering", Epoch: 1 << 20, KeySince: now,
			Rotations: 1 << 20, ByReason: map[gk.Reason]uint64{gk.ReasonStart: 1 << 20, gk.ReasonDiscontinuity: 1 << 20, gk.ReasonRecovery: 1 << 20},
			LastTook: time.Second, LastReason: gk.ReasonDiscontinuity, Rotating: true, SSRC: 1 << 31, Sent: 1 << 40, Status: []StreamStatus{status}, Started: now})
	}
	b, err := encMode.Marshal(list)
	if err != nil || len(b) > MaxPayload*3/4 {
		t.Errorf("%d bytes of at most %d: %v", len(b), MaxPayload, err)
	}
	t.Logf("%d bytes a stream", len(b)/len(list.Streams))
}
