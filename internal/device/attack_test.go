package device

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// encoder is one that sends RTP under a fixed SSRC: each run of it is a sequence
// number to begin at and a number of packets, one a millisecond. Between two runs
// it is silent.
type encoder struct {
	m      rtpMap
	runs   [][2]int
	pause  time.Duration
	sent   int // in this run
	played []byte
}

func (e *encoder) Probe(context.Context) (gkrp.Payload, error) {
	return gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90000, Encoding: "H264"}, nil
}
func (e *encoder) Dropped() uint64 { return 0 }
func (e *encoder) Close() error    { return nil }
func (e *encoder) Read(ctx context.Context, b *Batch) error {
	b.reset()
	wait := time.Millisecond
	if e.sent == e.runs[0][1] {
		if len(e.runs) == 1 {
			return io.EOF
		}
		e.runs, e.sent, wait = e.runs[1:], 0, e.pause
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
	}
	payload := binary.BigEndian.AppendUint64(nil, uint64(len(e.played)))
	u, jump, ok := e.m.take(rtp(96, uint16(e.runs[0][0]+e.sent), uint32(e.sent*90), 0xfeed, payload), time.Now())
	e.sent++
	if ok {
		b.Units, b.Break = append(b.Units, u), jump
		e.played = append(e.played, payload...)
	}
	return nil
}

// TestEncoderRestartsUnderALiveAgent: an encoder with a fixed SSRC restarts again
// and again, at sequence numbers that it used before and far from them. The index
// only rises, every packet arrives and opens, and each restart gets a new key.
func TestEncoderRestartsUnderALiveAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &encoder{runs: [][2]int{{20000, 3000}, {20000, 3000}, {60000, 7000}, {5, 3000}, {0, 3000}}, pause: 6 * time.Second}
		r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(src.played) || len(src.played) != 8*19000 {
			t.Errorf("%d bytes arrived of %d, of %d from the encoder", len(r.svc.received), len(src.played), 8*19000)
		}
		var reasons []gk.Reason
		for _, e := range r.svc.done {
			reasons = append(reasons, e.Reason)
		}
		if len(reasons) != 5 || reasons[0] != gk.ReasonStart {
			t.Errorf("keys for %v", reasons)
		}
		for _, why := range reasons[1:] {
			if why != gk.ReasonDiscontinuity {
				t.Errorf("keys for %v", reasons)
			}
		}
	})
}

// silence is a source that pauses.
type silence struct {
	Source
	after, pause time.Duration
	begun        time.Time
	paused       bool
}

func (s *silence) Read(ctx context.Context, b *Batch) error {
	if s.begun.IsZero() {
		s.begun = time.Now()
	}
	if !s.paused && time.Since(s.begun) >= s.after {
		s.paused = true
		time.Sleep(s.pause)
	}
	return s.Source.Read(ctx, b)
}

// TestAckLostWithTheSourceSilent: the key changes while no packet is sent, and the
// ACK is lost, so that nothing but a repetition can tell where the new epoch
// begins. It is told, and nothing of what the source sends then is lost.
func TestAckLostWithTheSourceSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, inner := clock(10 * time.Second)
		src := &silence{Source: inner, after: 4 * time.Second, pause: 20 * time.Second}
		w := newWorld(t)
		r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
		r.svc = newService(t, w, r.bus, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}})
		var mu sync.Mutex
		acks, lose := map[string]int{}, false
		r.bus.Tamper(func(topic string, wire []byte) []bus.Delivery {
			mu.Lock()
			defer mu.Unlock()
			m, err := gkrp.Parse(wire, gkrp.Up)
			if err == nil && m.Type == gkrp.TypeAck && topic == gkrp.Topic("cam-1", "cam-1", gkrp.Up) {
				acks[string(m.Payload)]++
				if lose {
					return nil
				}
			}
			return []bus.Delivery{{Payload: wire}}
		})
		r.begin(src, nil)
		defer r.close()
		time.Sleep(10 * time.Second) // the source is silent
		mu.Lock()
		lose = true
		mu.Unlock()
		r.svc.mu.Lock()
		before := r.svc.last
		r.svc.step(gkrp.Rotate{Reason: gk.ReasonOperator})
		r.svc.mu.Unlock()
		time.Sleep(8 * time.Second)
		if n := r.svc.completed(); n != 1 {
			t.Errorf("%d epochs confirmed though every ACK is lost", n)
		}
		mu.Lock()
		lose = false
		if len(acks) != 2 {
			t.Errorf("%d different ACKs", len(acks))
		}
		mu.Unlock()
		time.Sleep(4 * time.Second)
		r.svc.mu.Lock()
		if len(r.svc.done) != 2 || r.svc.done[1].Index != before+1 || r.svc.last != before {
			t.Errorf("%+v after index %d; last is %d", r.svc.done, before, r.svc.last)
		}
		r.svc.mu.Unlock()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) {
			t.Errorf("%d bytes arrived of %d", len(r.svc.received), len(data))
		}
		if n := len(r.svc.sessions); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// TestStolenKeyHook: what the hook hands out is the key in use, and is wiped when
// it returns.
func TestStolenKeyHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, src := clock(3 * time.Second)
		w := newWorld(t)
		r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
		r.svc = newService(t, w, r.bus, gkrp.Timing{Every: time.Second, Policy: gkrp.Policy{ReportEveryMs: 1000}})
		courier := r.bus.Courier()
		defer courier.Close()
		defer r.close()
		var kept []keyring.MediaKey
		same := 0
		agent, err := New(Config{Identity: w.identity(t), Streams: []StreamConfig{{Source: src}}, OnKey: func(id gk.StreamID, ssrc uint32, e gk.Epoch, k keyring.MediaKey) {
			r.svc.mu.Lock()
			defer r.svc.mu.Unlock()
			if k.Equal(r.svc.keys[e]) && id == "cam-1" && ssrc == r.svc.ssrc {
				same++
			}
			kept = append(kept, k)
		}}, courier)
		if err != nil {
			t.Fatal(err)
		}
		agent.streams[0].dial = func(context.Context, string) (sender, error) { return r.svc, nil }
		if err := agent.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if same < 3 || same != len(kept) {
			t.Errorf("%d keys were handed out, %d of them the service's", len(kept), same)
		}
		for _, k := range kept {
			if !k.IsZero() {
				t.Error("a key outlived the hook")
			}
		}
	})
}
