package processing

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// still is a host whose clock stands.
type still struct{ host.Real }

func (still) Now() time.Time { return time.Unix(1_800_000_000, 0) }

// Whoever floods topics of streams that a device does not have takes nothing from the
// rate of its own, also where those were never heard before.
func TestStrangeTopicsTakeNothingFromADevicesOwn(t *testing.T) {
	d := newDoor(&Service{cfg: Config{Host: still{}}})
	dev := &enrolled{DeviceRecord: bus.DeviceRecord{Device: "cam-1", Streams: []gk.StreamID{"cam-1", "cam-2"}}, rates: map[gk.StreamID]*rate.Limiter{}}
	let := 0
	for i := range 10 * topicBurst {
		if d.allow(dev, gk.StreamID(fmt.Sprintf("strange-%d", i))) {
			let++
		}
	}
	if let != topicBurst {
		t.Errorf("%d messages of strange topics were let in, want %d", let, topicBurst)
	}
	for _, own := range dev.Streams {
		for i := range topicBurst {
			if !d.allow(dev, own) {
				t.Fatalf("message %d of %s was not let in", i, own)
			}
		}
		if d.allow(dev, own) {
			t.Errorf("%s has no bound", own)
		}
	}
	if len(dev.rates) > len(dev.Streams)+1 {
		t.Errorf("%d rates are kept for %d streams", len(dev.rates), len(dev.Streams))
	}
}

// A device's record is asked for anew while nobody waits, and an answer that was on its
// way when the record was forgotten is not believed again.
func TestRecordsAreRefreshedBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		d.kill()
		door := w.svc.door
		look := func() (*enrolled, time.Duration) {
			began := time.Now()
			dev := door.lookup(t.Context(), "cam-1")
			if dev == nil {
				t.Fatal("no record")
			}
			return dev, time.Since(began)
		}
		look()
		w.kms.mu.Lock()
		w.kms.slowRead = 3 * time.Second
		w.kms.mu.Unlock()
		time.Sleep(recordFresh + time.Second)
		old, took := look()
		if took != 0 {
			t.Errorf("waited %v for a record that is there", took)
		}
		time.Sleep(w.kms.slowRead + time.Second)
		if dev, took := look(); !dev.fetched.After(old.fetched) || took != 0 {
			t.Errorf("record of %v, %v later still, after %v", old.fetched, dev.fetched.Sub(old.fetched), took)
		}

		time.Sleep(recordFresh)
		look()
		time.Sleep(time.Second)
		door.forget("cam-1")
		time.Sleep(w.kms.slowRead)
		w.revoke("cam-1")
		if dev, _ := look(); !dev.Revoked {
			t.Error("a record from before it was forgotten is believed")
		}

		time.Sleep(recordMaxAge)
		if _, took := look(); took != w.kms.slowRead {
			t.Errorf("an old record was believed after %v", took)
		}
		w.close()
	})
}

// TestStrangersKeepNobodyWaiting: who has an account at the broker and a name that nobody
// enrolled can send what he likes, and key management may be slow: keys of devices that
// send change on time, and a device that was just enrolled begins.
func TestStrangersKeepNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		w.kms.mu.Lock()
		w.kms.slowRead = 3 * time.Second
		w.kms.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		flood.Go(func() {
			courier := w.memory.Courier()
			for n := 0; ctx.Err() == nil; n++ {
				_ = courier.Send(gkrp.Topic("nobody", gk.StreamID(fmt.Sprintf("strange-%d", n%1000)), gkrp.Up), []byte{1})
				time.Sleep(2 * time.Millisecond)
			}
		})
		time.Sleep(2 * time.Second)
		began := time.Now()
		rep, err := bus.ProcessingRotate.Do(t.Context(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: true})
		if took := time.Since(began); err != nil || !rep.Done || took > time.Second {
			t.Errorf("a rotation under the flood: %+v, %v, after %v", rep, err, took)
		}
		fresh := w.enroll("cam-2")
		fresh.run()
		time.Sleep(20 * time.Second)
		fresh.look(func() {
			if fresh.epoch == 0 {
				t.Error("a device that was just enrolled has no key after 20 s")
			}
		})
		door := w.svc.door
		door.mu.Lock()
		if n, left := len(door.sought), door.unknown.TokensAt(time.Now()); n > 2*unknownRate || left < unknownRate-3 {
			t.Errorf("%d names are remembered; %.0f of %d look-ups are left for others", n, left, unknownRate)
		}
		door.mu.Unlock()
		cancel()
		flood.Wait()
		d.kill()
		fresh.kill()
		w.close()
		time.Sleep(time.Minute) // what key management was asked is answered
	})
}
