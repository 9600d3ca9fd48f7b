package device

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestHangingNameServerHoldsNothingUp: keys change on time while the name of a transport
// is looked up in vain, media goes there once it is found, and goes on to where it was
// found when the next session looks again and waits for ever.
func TestHangingNameServerHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs, asked atomic.Int64
		hangs.Store(1)
		data, src := clock(30 * time.Second)
		w := newWorld(t)
		r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
		defer r.close()
		r.svc = newService(t, w, r.bus, gkrp.Timing{Every: 500 * time.Millisecond, Policy: gkrp.Policy{ReportEveryMs: 1000, RejectAfterS: 60}})
		r.dial = func(ctx context.Context, _ string) (sender, error) {
			asked.Add(1)
			if hangs.Load() == 0 {
				return r.svc, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		r.begin(src, nil)
		received := func() int {
			r.svc.mu.Lock()
			defer r.svc.mu.Unlock()
			return len(r.svc.received)
		}
		time.Sleep(4 * time.Second)
		if n := r.svc.completed(); n < 6 || received() > 0 {
			t.Errorf("%d keys confirmed in 4 s at one each 500 ms, %d bytes arrived", n, received())
		}
		if n := asked.Load(); n < 2 || n > 3 {
			t.Errorf("%d look-ups of 2 s in 4 s", n)
		}
		hangs.Store(0)
		time.Sleep(4 * time.Second)
		if received() == 0 {
			t.Error("nothing arrived once the transport was found")
		}
		hangs.Store(1)
		sessions := r.agent.Stats()[0].Sessions
		r.svc.end(gkrp.CodeUnknownSession)
		time.Sleep(3 * time.Second)
		before := received()
		time.Sleep(time.Second)
		if n := received() - before; n < len(data)/60 {
			t.Errorf("in a second of the next session %d bytes arrived of %d", n, len(data)/30)
		}
		if n := r.agent.Stats()[0].Sessions; n <= sessions {
			t.Errorf("%d sessions", n)
		}
		r.cancel()
		_ = r.wait()
	})
}
