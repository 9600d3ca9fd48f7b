package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// rig is an agent and a service on one in-memory broker, on virtual time.
type rig struct {
	t      *testing.T
	w      *world
	bus    *bus.Memory
	svc    *service
	agent  *Agent
	events []gk.Event
	mu     sync.Mutex
	done   chan error
	cancel context.CancelFunc
	dial   dialer // nil: the service is found at once
}

func newRig(t *testing.T, timing gkrp.Timing, source Source, state *State) *rig {
	t.Helper()
	w := newWorld(t)
	r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
	r.svc = newService(t, w, r.bus, timing)
	r.begin(source, state)
	return r
}

// begin starts an agent, as a process would be started.
func (r *rig) begin(source Source, state *State) {
	r.t.Helper()
	courier := r.bus.Courier()
	agent, err := New(Config{
		Identity: r.w.identity(r.t), State: state, Streams: []StreamConfig{{Source: source}},
		Tell: func(e gk.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}, courier)
	if err != nil {
		r.t.Fatal(err)
	}
	r.agent = agent
	agent.streams[0].dial = r.dial
	if r.dial == nil {
		agent.streams[0].dial = func(context.Context, string) (sender, error) { return r.svc, nil }
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer courier.Close()
		r.done <- agent.Run(ctx)
	}()
}

// wait waits for the agent's end, and for what it sent last to arrive.
func (r *rig) wait() error {
	err := <-r.done
	synctest.Wait()
	return err
}

func (r *rig) close() {
	r.svc.close()
	r.bus.Close()
}

func (r *rig) kinds() (out []gk.EventKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		out = append(out, e.Kind)
	}
	return out
}

// clock is a transport stream of the given length and its source.
func clock(length time.Duration) ([]byte, Source) {
	data := newTS(0, time.Millisecond, 10).packets(nil, int(length/time.Millisecond))
	return data, NewClipSource(bytes.NewReader(data), false)
}

func TestWholeStreamOverManyRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(20 * time.Second)
		dir := t.TempDir()
		state := openState(t, dir)
		r := newRig(t, gkrp.Timing{Every: 500 * time.Millisecond, Policy: gkrp.Policy{ReportEveryMs: 1000, RejectAfterS: 60}}, src, state)
		defer r.close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) {
			t.Errorf("%d bytes arrived of %d, or they differ", len(r.svc.received), len(data))
		}
		if n := r.svc.completed(); n < 39 || n > 42 {
			t.Errorf("%d epochs in 20 s at one each 500 ms", n)
		}
		st := r.agent.Stats()[0]
		if st.Bytes != uint64(len(data)) || int(st.Epoch) != r.svc.completed() || st.Sessions != 1 || st.Rotations+1 != uint64(r.svc.completed()) || st.Unkeyed != 0 || st.SendErrors != 0 {
			t.Errorf("stats %+v after %d epochs", st, r.svc.completed())
		}
		if len(r.svc.byes) != 2 || r.svc.byes[0].Text != "source ended" || r.svc.byes[0].End != r.svc.last+1 {
			t.Errorf("byes %+v, last index %d", r.svc.byes, r.svc.last)
		}
		next := gk.Index(0)
		for i, rep := range r.svc.reports[:len(r.svc.reports)-1] { // the last comes twice
			if next != 0 && rep.From != next || rep.To < rep.From || rep.Number != uint64(i+1) || rep.Renew {
				t.Errorf("report %d: %+v, the one before ended at %d", i, rep, next)
			}
			next = rep.To
		}
		if n := len(r.svc.reports); n < 20 || n > 23 {
			t.Errorf("%d reports in 20 s", n)
		}
		if k := r.kinds(); k[0] != gk.EventSessionStarted || k[1] != gk.EventRotationDone || k[len(k)-1] != gk.EventSessionEnded {
			t.Errorf("events %v", k)
		}
		if state.HighWater("cam-1") != gk.Epoch(r.svc.completed()) {
			t.Errorf("high-water mark %d after %d epochs", state.HighWater("cam-1"), r.svc.completed())
		}
	})
}

// Where the service asks for it and both speak version 1, the reports list every
// packet that was sent, by index and tag, whatever the epoch.
func TestReportsListEveryPacket(t *testing.T) {
	for _, row := range []struct {
		name   string
		newest gkrp.Version
		asked  bool
		length time.Duration
		every  time.Duration // between reports
		want   bool
	}{
		{"asked for", gkrp.Version1, true, 10 * time.Second, time.Second, true},
		{"more than one report has room for", gkrp.Version1, true, 2 * time.Minute, time.Minute, true},
		{"not asked for", gkrp.Version1, false, 10 * time.Second, time.Second, false},
		{"asked by a service of version 0", gkrp.Version0, true, 10 * time.Second, time.Second, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data, src := clock(row.length)
				w := newWorld(t)
				r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
				r.svc = newService(t, w, r.bus, gkrp.Timing{Every: 700 * time.Millisecond, Policy: gkrp.Policy{ReportEveryMs: uint32(row.every.Milliseconds()), Tags: row.asked}})
				r.svc.newest = row.newest
				r.begin(src, nil)
				defer r.close()
				if err := r.wait(); err != nil {
					t.Fatal(err)
				}
				if !r.svc.equalReceived(data) {
					t.Fatalf("%d bytes arrived of %d, or they differ", len(r.svc.received), len(data))
				}
				listed := map[gk.Index][]byte{}
				for _, rep := range r.svc.reports {
					for i := 0; i < len(rep.Tags); i += gkrp.TagPrefix {
						listed[rep.From+gk.Index(i/gkrp.TagPrefix)] = rep.Tags[i : i+gkrp.TagPrefix]
					}
				}
				if !row.want {
					if len(listed) > 0 {
						t.Errorf("%d packets are listed", len(listed))
					}
					return
				}
				if len(listed) != len(r.svc.tags) || len(listed) == 0 {
					t.Errorf("%d packets are listed, %d arrived", len(listed), len(r.svc.tags))
				}
				for i, tag := range r.svc.tags {
					if !bytes.Equal(listed[i], tag) {
						t.Fatalf("index %d has tag %x, the report says %x", i, tag, listed[i])
					}
				}
			})
		})
	}
}

// Hundreds of rotations over a broker that loses, doubles, delays and damages:
// every one completes, and not a byte of media is touched.
func TestRotationsOverABadBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		data, src := clock(40 * time.Second)
		w := newWorld(t)
		r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
		var mu sync.Mutex
		r.bus.Tamper(func(_ string, payload []byte) (out []bus.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			for range 2 {
				if rng.Float64() < 0.2 {
					continue // lost
				}
				p := payload
				if rng.Float64() < 0.05 {
					p = bytes.Clone(p)
					p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
				}
				out = append(out, bus.Delivery{After: time.Duration(rng.IntN(60)) * time.Millisecond, Payload: p})
				if rng.Float64() < 0.7 {
					break // not doubled
				}
			}
			return out
		})
		r.svc = newService(t, w, r.bus, gkrp.Timing{Every: 50 * time.Millisecond, Policy: gkrp.Policy{ReportEveryMs: 1000}})
		defer r.close()
		r.begin(src, nil)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(data, r.svc.received) || len(r.svc.received) != len(data) {
			t.Errorf("%d bytes arrived of %d, or they differ", len(r.svc.received), len(data))
		}
		if n := r.svc.completed(); n < 300 {
			t.Errorf("%d rotations in 40 s", n)
		}
		if st := r.agent.Stats()[0]; st.Sessions != 1 {
			t.Errorf("stats %+v", st)
		}
		t.Logf("%d rotations, %d prekeys used", r.svc.completed(), len(r.svc.prekeys))
	})
}

func TestMediaGoesOnWithoutTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(30 * time.Second)
		r := newRig(t, gkrp.Timing{Every: time.Second, Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		time.Sleep(5 * time.Second)
		r.bus.Tamper(func(string, []byte) []bus.Delivery { return nil }) // nothing passes
		time.Sleep(15 * time.Second)
		before := r.svc.completed()
		r.bus.Tamper(nil)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) {
			t.Errorf("%d bytes arrived of %d", len(r.svc.received), len(data))
		}
		if after := r.svc.completed(); after-before < 8 || r.agent.Stats()[0].Sessions != 1 {
			t.Errorf("%d rotations after the broker came back", after-before)
		}
	})
}

// A key is not used past its life, however long the service is away.
func TestKeyIsNotUsedPastItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(30 * time.Second)
		r := newRig(t, gkrp.Timing{Every: time.Hour, Policy: gkrp.Policy{ReportEveryMs: 1000, RejectAfterS: 10}}, src, nil)
		defer r.close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		st := r.agent.Stats()[0]
		if len(r.svc.received) > len(data)*11/30 || !bytes.HasPrefix(data, r.svc.received) || st.Unkeyed == 0 {
			t.Errorf("%d bytes of %d left under a key that may be used for a third of the time; %+v", len(r.svc.received), len(data), st)
		}
	})
}

func TestNewSessionWhenTheServiceForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(20 * time.Second)
		r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		time.Sleep(5 * time.Second)
		r.svc.forget()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) { // the old key served until the new one came
			t.Errorf("%d bytes arrived of %d", len(r.svc.received), len(data))
		}
		if len(r.svc.sessions) != 2 || r.svc.sessions[0] == r.svc.sessions[1] || r.svc.epoch != 2 {
			t.Errorf("sessions %v, epoch %d", r.svc.sessions, r.svc.epoch)
		}
		if st := r.agent.Stats()[0]; st.Session != r.svc.sessions[1] || st.Bytes >= uint64(len(data)) || st.Bytes == 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A restarted agent is a new session under a new key, and tells how far it was.
func TestRestartIsANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		state := openState(t, dir)
		_, src := clock(time.Minute)
		r := newRig(t, gkrp.Timing{Every: time.Second, Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, state)
		defer r.close()
		time.Sleep(5500 * time.Millisecond)
		r.cancel()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if len(r.svc.byes) == 0 || r.svc.byes[0].Text != "agent stopped" || r.svc.byes[0].End != r.svc.last+1 {
			t.Errorf("byes %+v, last index %d", r.svc.byes, r.svc.last)
		}
		used := r.svc.epoch
		if state.HighWater("cam-1") != used {
			t.Errorf("high-water mark %d, epoch %d", state.HighWater("cam-1"), used)
		}
		_ = state.Close()

		r.svc.lose() // the device's word stands in for the service's count
		_, src = clock(3 * time.Second)
		r.begin(src, openState(t, dir))
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if len(r.svc.sessions) != 2 || r.svc.epoch <= used {
			t.Errorf("sessions %v, epoch %d after %d", r.svc.sessions, r.svc.epoch, used)
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		code  gkrp.Code
		wants []string
	}{
		{gkrp.CodeUnsupportedVersion, []string{"unsupported-version", "supported: [7]"}},
		{gkrp.CodeRevoked, []string{"revoked", "words of the service"}},
		{gkrp.CodeNotYours, []string{"not-yours"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, src := clock(time.Minute)
			r := newRig(t, gkrp.Timing{}, src, nil)
			defer r.close()
			r.svc.mu.Lock()
			r.svc.refuse = c.code
			r.svc.mu.Unlock()
			err := r.wait()
			if !errors.Is(err, ErrStopped) {
				t.Fatalf("%s: %v", c.code, err)
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestBusyServiceIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(5 * time.Second)
		r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		r.svc.mu.Lock()
		r.svc.refuse = gkrp.CodeBusy
		r.svc.mu.Unlock()
		time.Sleep(10 * time.Second)
		r.svc.mu.Lock()
		r.svc.refuse = ""
		r.svc.mu.Unlock()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) { // a file waits for its key
			t.Errorf("%d bytes arrived of %d", len(r.svc.received), len(data))
		}
		if r.kinds()[0] != gk.EventSessionRejected {
			t.Errorf("events %v", r.kinds())
		}
	})
}

func TestStop(t *testing.T) {
	for code, again := range map[gkrp.Code]bool{gkrp.CodeRevoked: false, gkrp.CodeUnavailable: true} {
		synctest.Test(t, func(t *testing.T) {
			_, src := clock(10 * time.Second)
			r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
			defer r.close()
			time.Sleep(3 * time.Second)
			r.svc.end(code)
			synctest.Wait()
			err := r.wait()
			if again && (err != nil || len(r.svc.sessions) != 2) {
				t.Errorf("%s: %v, %d sessions", code, err, len(r.svc.sessions))
			}
			if !again && (!errors.Is(err, ErrStopped) || len(r.svc.sessions) != 1) {
				t.Errorf("%s: %v, %d sessions", code, err, len(r.svc.sessions))
			}
		})
	}
}

// An envelope that is not what its grant says is refused, and nothing is sent.
func TestSpoiledEnvelopes(t *testing.T) {
	for name, spoil := range map[string]func(*gkrp.KeyEnvelope){
		"epoch":    func(e *gkrp.KeyEnvelope) { e.Epoch++ },
		"session":  func(e *gkrp.KeyEnvelope) { e.Session[0] ^= 1 },
		"stream":   func(e *gkrp.KeyEnvelope) { e.Stream = "cam-2" },
		"receiver": func(e *gkrp.KeyEnvelope) { e.Receiver = "device/cam-2" },
		"ssrc":     func(e *gkrp.KeyEnvelope) { e.SSRC++ },
		"key id":   func(e *gkrp.KeyEnvelope) { e.KeyID = make([]byte, 16) },
		"suite":    func(e *gkrp.KeyEnvelope) { e.Suite = gkrp.SuiteX25519 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, src := clock(time.Minute)
				r := newRig(t, gkrp.Timing{}, src, nil)
				defer r.close()
				r.svc.mu.Lock()
				r.svc.spoil = spoil
				r.svc.mu.Unlock()
				time.Sleep(5 * time.Second)
				r.cancel()
				if err := r.wait(); err != nil {
					t.Error(err)
				}
				if len(r.svc.received) != 0 || r.svc.completed() != 0 {
					t.Errorf("%d bytes left", len(r.svc.received))
				}
			})
		})
	}
}

// An envelope that another than the enrolled key management service signed is
// refused, even if a vouched-for processing service brings it.
func TestEnvelopeOfAnotherKMS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, src := clock(time.Minute)
		r := newRig(t, gkrp.Timing{}, src, nil)
		defer r.close()
		r.svc.mu.Lock()
		other, err := gkrp.NewSigner(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		r.svc.kms = other // the controller statement is the right one's
		r.svc.mu.Unlock()
		time.Sleep(5 * time.Second)
		r.cancel()
		if err := r.wait(); err != nil {
			t.Error(err)
		}
		if len(r.svc.received) != 0 {
			t.Errorf("%d bytes left", len(r.svc.received))
		}
	})
}

// A break of the source asks for a new epoch at once.
func TestBreakAsksForANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newTS(900_000_000, time.Millisecond, 10), newTS(0, time.Millisecond, 10)
		data := b.packets(a.packets(nil, 5000), 5000)
		r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 60_000}}, NewClipSource(bytes.NewReader(data), false), nil)
		defer r.close()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if n := r.svc.completed(); n != 2 || r.svc.done[1].Reason != gk.ReasonDiscontinuity {
			t.Errorf("%d epochs: %+v", n, r.svc.done)
		}
		if !r.svc.equalReceived(data) {
			t.Error("bytes differ")
		}
	})
}

// brokenSource delivers and then fails.
type brokenSource struct{ n int }

func (s *brokenSource) Probe(context.Context) (gkrp.Payload, error) { return payloadMP2T, nil }
func (s *brokenSource) Dropped() uint64                             { return 0 }
func (s *brokenSource) Close() error                                { return nil }
func (s *brokenSource) Read(_ context.Context, b *Batch) error {
	b.reset()
	if s.n++; s.n > 3 {
		return io.ErrUnexpectedEOF
	}
	b.Units = append(b.Units, Unit{Payload: make([]byte, 188), Type: media.PayloadTypeTS})
	return nil
}

func TestSourceFailureIsTheAgentsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, gkrp.Timing{}, &brokenSource{}, nil)
		defer r.close()
		if err := r.wait(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("run gave %v", err)
		}
		if len(r.svc.byes) == 0 || r.svc.byes[0].Text != "source failed" {
			t.Errorf("byes %+v", r.svc.byes)
		}
	})
}

// Messages that are not from the service, or more than any service sends, change
// nothing.
func TestForeignMessagesChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, src := clock(10 * time.Second)
		r := newRig(t, gkrp.Timing{Every: time.Second, Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		stranger := newService(t, newWorld(t), bus.NewMemory(), gkrp.Timing{})
		defer stranger.close()
		intruder := r.bus.Courier()
		defer intruder.Close()
		topic := gkrp.Topic("cam-1", "cam-1", gkrp.Down)
		for i := range 50 {
			time.Sleep(150 * time.Millisecond)
			id := r.agent.Stats()[0].Session
			wire, err := gkrp.Sign(stranger.signer, []byte("p1"), stranger.controller, stranger.scope, &gkrp.Stop{Session: id, Code: gkrp.CodeRevoked})
			if err != nil {
				t.Fatal(err)
			}
			_ = intruder.Send(topic, wire)
			_ = intruder.Send(topic, wire[:len(wire)-i])
			_ = intruder.Send(topic, bytes.Repeat([]byte{0xa1}, 40<<10))
			other, err := gkrp.Sign(r.svc.signer, []byte("p1"), r.svc.controller, gkrp.Scope{Device: "cam-1", Stream: "cam-2"}, &gkrp.Stop{Session: id, Code: gkrp.CodeRevoked})
			if err != nil {
				t.Fatal(err)
			}
			_ = intruder.Send(topic, other) // right service, another stream's message
		}
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		if !r.svc.equalReceived(data) || r.svc.completed() < 9 {
			t.Errorf("%d bytes of %d, %d epochs", len(r.svc.received), len(data), r.svc.completed())
		}
	})
}

func TestTwoStreamsOfOneDevice(t *testing.T) {
	w := newWorld(t)
	_, src := clock(time.Second)
	_, err := New(Config{Identity: w.identity(t), Streams: []StreamConfig{{Source: src}, {ID: "cam-1", Source: src}}}, bus.NewMemory().Courier())
	if err == nil || !strings.Contains(err.Error(), "two sources") {
		t.Errorf("two sources for one stream: %v", err)
	}
	if _, err := New(Config{Identity: w.identity(t)}, nil); err == nil {
		t.Error("an agent without streams")
	}
}
