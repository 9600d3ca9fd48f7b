package processing

import (
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// TestKeptHelloHoldsNothing: a broker that repeats the proven HELLO of a session which
// the device gave up a moment ago has no identity, and holds no stream.
func TestKeptHelloHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		d := w.enroll("cam-1")
		b := newBroker(t, w)
		d.run()
		time.Sleep(2 * time.Second)
		var gone gk.SessionID
		d.look(func() {
			gone = d.session
			d.execute(d.d.Step(time.Now(), gkrp.Finish{End: d.index + 1})) // BYE
		})
		d.kill()
		time.Sleep(3 * time.Second)
		again := &fakeDevice{w: w, scope: d.scope, signer: d.signer, rng: d.rng, used: map[gk.Epoch]gk.SessionID{}, offer: d.offer, suites: d.suites, high: 1}
		again.run()
		time.Sleep(4 * time.Second)
		var kept message
		w.kms.mu.Lock()
		verifier, err := gkrp.NewVerifier(w.kms.devices["cam-1"].Public)
		w.kms.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range b.all(gkrp.TypeHello) {
			if r, err := gkrp.Parse(m.wire, gkrp.Up); err == nil {
				if v, err := r.Verify(verifier, d.scope); err == nil && v.(*gkrp.Hello).Nonce != nil && v.(*gkrp.Hello).Session == gone {
					kept = m
				}
			}
		}
		if kept.wire == nil {
			t.Fatal("no proven HELLO was recorded")
		}
		w.memory.Tamper(nil)
		attacker := w.memory.Courier()
		for range 20 {
			if err := attacker.Send(kept.topic, kept.wire); err != nil {
				t.Error(err)
			}
			time.Sleep(400 * time.Millisecond)
		}
		attacker.Close()
		w.tr.mu.Lock()
		for _, h := range w.tr.holds {
			if h.Held {
				t.Errorf("held by a broker: %+v", h)
			}
		}
		w.tr.mu.Unlock()
		again.kill()
		w.close()
	})
}
