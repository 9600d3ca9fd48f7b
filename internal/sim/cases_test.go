package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Sequences that a seed found once, as they are without the rest of the seed.

// newCase is a world with one transport, in fine weather, whose devices have been
// sending for a while.
func newCase(t *testing.T, set ...func(*streamConfig)) *world {
	t.Helper()
	for seed := uint64(1); ; seed++ {
		w := newWorld(Options{Seed: seed, Calm: true, Dir: t.TempDir()})
		t.Cleanup(w.stop)
		for _, f := range set {
			f(&w.config)
		}
		if w.setUp(); len(w.transports) == 1 {
			w.pass(3 * time.Second)
			return w
		}
	}
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.run(w.engine.now+d, func() bool { return false }) }

// Seed 1889: a clone comes in a moment in which the device's packets do not arrive.
// Transports take its first packet, its ACK never comes, and then it is gone, the key
// service is down and processing is cut off the bus. The device, whose session is
// the live one all the time, must be delivered again without any of them.
func TestCloneWithoutACKDoesNotLockTheDeviceOut(t *testing.T) {
	w := newCase(t)
	e := w.encoders[0]
	w.cutOff[e.id] = w.engine.now + 3*time.Second
	w.withhold = []rule{{w.engine.now + time.Minute, gkrp.Up, gkrp.TypeAck, e.stream()}}
	c := &encoder{world: w, id: e.id, number: e.number + 100, clone: true, key: e.key, kmsKey: e.kmsKey, high: e.high}
	w.clones = append(w.clones, c)
	c.start()
	w.pass(2900 * time.Millisecond)
	if c.dev.Epoch() == 0 || len(w.check.keys[place{c.stream(), c.dev.Session(), c.dev.Epoch()}].begins) == 0 {
		t.Fatal("the clone's packets were not delivered")
	}
	w.kms.p.kill()
	w.isolated[w.processing.p.name] = w.engine.now + time.Minute
	w.pass(500 * time.Millisecond)
	c.p.kill()
	w.pass(cloneFor)
	before := w.check.delivered
	w.pass(3 * time.Second)
	for _, v := range w.check.violations {
		t.Error(v)
	}
	if w.check.delivered == before {
		t.Error("nothing is delivered")
	}
}

// Seed 410066: a device was revoked and enrolled anew, and then its transport started
// anew. What was ordered before that is brought again, and takes no key away.
func TestRecordedOrdersMeanNothingToATransportThatStartedAnew(t *testing.T) {
	w := newCase(t)
	w.revoke()
	w.pass(lateRevocation + 7*time.Second)
	tr := w.transports[0]
	tr.p.kill()
	tr.start()
	w.pass(3 * time.Second)
	w.isolated[w.processing.p.name] = w.engine.now + 2*time.Second // so that nobody makes it good at once
	disarms := 0
	for _, c := range w.bus.commands {
		if strings.HasPrefix(c.subject, disarmSubject) {
			disarms++
		}
		w.bus.again(c)
	}
	if disarms == 0 {
		t.Fatal("nothing was disarmed")
	}
	before := w.check.delivered
	w.pass(2 * time.Second)
	for _, v := range w.check.violations {
		t.Error(v)
	}
	if w.check.delivered == before {
		t.Error("nothing is delivered")
	}
}

// Leases are renewed for as long as all is well: none runs out, for no moment. No key
// changes meanwhile, which would bring a lease of its own.
func TestLeasesAreRenewed(t *testing.T) {
	w := newCase(t, func(c *streamConfig) { c.every, c.packets = time.Hour, 0 })
	length := w.config.lease
	for range 5 {
		before := w.check.delivered
		w.pass(length)
		if w.check.delivered == before {
			t.Fatal("nothing is delivered")
		}
	}
	for id := range w.check.lapsed {
		t.Errorf("a lease at %s ran out", id)
	}
	for _, v := range w.check.violations {
		t.Error(v)
	}
}
