package processing

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A second session that insists has the stream held, as long as it does; one that
// is let in after a moment, as after a restart, has not.
func TestInsistingNewcomerHoldsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		d := w.enroll("cam-1")
		twin := func() *fakeDevice {
			return &fakeDevice{w: w, scope: d.scope, signer: d.signer, rng: d.rng, used: map[gk.Epoch]gk.SessionID{}, offer: d.offer, suites: d.suites, high: 1}
		}
		holds := func() []bus.HoldRequest {
			w.tr.mu.Lock()
			defer w.tr.mu.Unlock()
			return w.tr.holds
		}
		d.run()
		time.Sleep(3 * time.Second)
		if h := holds(); len(h) != 1 || h[0].Held {
			t.Fatalf("a transport that may hold the stream since long ago is told %+v", h)
		}
		d.kill()
		d = twin() // restarted
		d.run()
		time.Sleep(40 * time.Second) // nonces that were given out before the restart are no evidence
		if h := holds(); len(h) != 1 {
			t.Errorf("a restart holds the stream: %+v", h)
		}
		clone := twin()
		clone.run()
		time.Sleep(8 * time.Second)
		if h := holds(); len(h) != 2 || !h[1].Held || h[1].Stream != "cam-1" || !strings.Contains(h[1].Why, "second session") {
			t.Errorf("while a clone insists: %+v", h)
		}
		clone.kill()
		time.Sleep(20 * time.Second)
		if h := holds(); len(h) != 3 || h[2].Held {
			t.Errorf("when it has given up: %+v", h)
		}
		d.kill()
		w.close()
	})
}

// A source that stays changed has its stream held where the operator wants it,
// until he says that the change is right.
func TestUnresolvedSourceHoldsTheStream(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		s := learned(t)
		cfg := *s.b.cfg
		cfg.HoldUnresolved = wanted
		s.b.cfg = &cfg
		st := &stream{behaviour: s.b}
		s.e.style = foreign
		s.play(20 * time.Second)
		if why := st.why(s.now); why != "" || s.rotates != 1 {
			t.Errorf("held before anybody was asked: %q, %d rotations", why, s.rotates)
		}
		s.play(40 * time.Second)
		if why := st.why(s.now); (why != "") != wanted {
			t.Errorf("wanted %v, held: %q", wanted, why)
		}
		if err := s.b.relearn(s.now); err != nil {
			t.Fatal(err)
		}
		if why := st.why(s.now); why != "" {
			t.Errorf("held though the change is right: %q", why)
		}
	}
}

// Nothing that needs no key and no identity holds a stream.
func TestOutsidersHoldNothing(t *testing.T) {
	s := learned(t)
	cfg := *s.b.cfg
	cfg.HoldUnresolved = true
	s.b.cfg = &cfg
	st := &stream{behaviour: s.b}
	s.e.cut = true
	for n := range uint64(90) {
		s.play(time.Second)
		s.b.status(s.now, &bus.StreamStatus{Session: s.session, Dropped: map[string]uint64{"auth-failed": 1e6 * n, "unknown-epoch": 1e6 * n}})
		if why := st.why(s.now); why != "" {
			t.Fatalf("held after %d s of a flood and an outage: %q", n, why)
		}
	}
}
