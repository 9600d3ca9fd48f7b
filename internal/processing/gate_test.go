package processing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// many makes streams as a restart finds them.
func (w *world) many(name string, n int) (all []*stream) {
	for i := range n {
		id := fmt.Sprintf("%s-%d", name, i)
		w.enroll(gk.DeviceID(id))
		all = append(all, w.svc.stream(gk.StreamID(id), gk.DeviceID(id), 0))
	}
	return all
}

// TestGateLetsAFewPass: of what all streams want together a few are under way at a time,
// all come to their turn, and who waits when the service ends is let go.
func TestGateLetsAFewPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		var now, most, passed, gone atomic.Int32
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		for _, st := range w.many("cam", 200) {
			go func() {
				err := w.svc.keeps.pass(ctx, w.svc, st.id, func() error {
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(10 * time.Millisecond)
					now.Add(-1)
					passed.Add(1)
					return nil
				})
				if errors.Is(err, context.Canceled) {
					gone.Add(1)
				}
			}()
		}
		time.Sleep(100 * time.Millisecond)
		cancel()
		synctest.Wait()
		time.Sleep(20 * time.Millisecond)
		if n := passed.Load(); most.Load() > gateWidth || n < 8*gateWidth || n+gone.Load() != 200 {
			t.Errorf("after %v %d have passed, %d at most at a time, %d were let go", time.Since(began), n, most.Load(), gone.Load())
		}
		w.close()
	})
}

// TestKeysAreAskedForOnce, whatever the state machine asks meanwhile, and again when there
// was an answer that is none.
func TestKeysAreAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		asked := map[gk.StreamID]int{}
		w.kms.refuse = func(r bus.KMSOpenRequest) error {
			asked[r.Stream]++
			return bus.Refuse(bus.CodeUnavailable, "not now")
		}
		all := w.many("cam", 50)
		for round := range 2 {
			for _, st := range all {
				st.post(func() {
					x := &gkrp.Session{}
					for range 3 {
						st.openKeys(x, gkrp.OpenKeys{})
					}
				})
			}
			time.Sleep(time.Second)
			for _, st := range all {
				w.kms.mu.Lock()
				if n := asked[st.id]; n != round+1 {
					t.Fatalf("%s: asked %d times in %d rounds", st.id, n, round+1)
				}
				w.kms.mu.Unlock()
			}
		}
		w.close()
	})
}

// TestDevicesOfKnownStreamsAreLookedUpAtOnce: after a restart nobody's record is there,
// and all devices come together. Those that nobody knows wait all the same.
func TestDevicesOfKnownStreamsAreLookedUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		door, known := w.svc.door, 0
		for _, st := range w.many("cam", 200) {
			if !door.stranger(st.device, st.id) && door.lookup(t.Context(), st.device) != nil {
				known++
			}
		}
		for i := range 200 {
			d := w.enroll(gk.DeviceID(fmt.Sprintf("new-%d", i)))
			door.open(t.Context(), knock{topic: gkrp.Topic(d.scope.Device, d.scope.Stream, gkrp.Up)})
		}
		synctest.Wait()
		door.mu.Lock()
		strange := len(door.devices) - 200
		door.mu.Unlock()
		if strange == 0 || known != 200 || strange > unknownRate {
			t.Errorf("in one moment %d of 200 devices with streams are known, %d others", known, strange)
		}
		w.close()
	})
}
