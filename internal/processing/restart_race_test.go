package processing

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A service that starts anew under a later term shares nothing with what the run before
// it still answers: requests and messages go on coming all the while.
func TestStartingAnewWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		every := func(f func()) {
			asking.Go(func() {
				for ctx.Err() == nil {
					f()
					time.Sleep(time.Millisecond)
				}
			})
		}
		courier := w.memory.Courier()
		every(func() { _, _ = bus.ProcessingStreams.Do(ctx, w.memory.Conn(), bus.Empty{}) })
		every(func() {
			_, _ = bus.ProcessingRotate.Do(ctx, w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: true})
		})
		every(func() { _ = courier.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Up), []byte{1}) })
		for n := range 5 {
			if _, err := w.records.Put(context.Background(), termKey, []byte("0")); err != nil {
				t.Fatal(err)
			}
			_ = bus.TransportHere.Tell(w.memory.Conn(), bus.TransportAnnouncement{TransportReceiver: bus.TransportReceiver{Transport: "t2"}, Term: uint64(50 * (n + 1))})
			time.Sleep(2 * time.Second)
		}
		cancel()
		asking.Wait()
		if e, err := w.records.Get(context.Background(), termKey); err != nil || string(e.Value) != fmt.Sprint(251) {
			t.Errorf("term %q: %v", e.Value, err)
		}
		d.kill()
		w.close()
	})
}
