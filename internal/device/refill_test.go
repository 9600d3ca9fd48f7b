package device

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// TestKeptRefillIsAnsweredAsBefore: a broker says the service's REFILL again and again.
// The device makes four prekeys a second for it at most, keeps those that the service
// has, and rotations go on with them.
func TestKeptRefillIsAnsweredAsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, src := clock(10 * time.Second)
		r := newRig(t, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 1000}}, src, nil)
		defer r.close()
		var answers [][]byte
		ear := r.bus.Courier()
		defer ear.Close()
		if err := ear.Listen(gkrp.ServiceFilter(), func(_ string, wire []byte) {
			if m, err := gkrp.Parse(wire, gkrp.Up); err == nil && m.Type == gkrp.TypeRefill {
				answers = append(answers, bytes.Clone(m.Payload))
			}
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		kept, err := gkrp.Sign(r.svc.signer, []byte("p1"), r.svc.controller, r.svc.scope, &gkrp.Refill{Stream: "cam-1", Session: r.agent.Stats()[0].Session})
		if err != nil {
			t.Fatal(err)
		}
		broker := r.bus.Courier()
		defer broker.Close()
		for range 1000 { // as many a second as the device looks at
			_ = broker.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Down), kept)
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		all := len(answers)
		slices.SortFunc(answers, bytes.Compare)
		fresh := len(slices.CompactFunc(answers, bytes.Equal))
		if all < 45 || all > 51 || fresh < 5 || fresh > 6 {
			t.Errorf("%d answers, %d of them different, in 5 s", all, fresh)
		}
		for range 3 { // none of those that the service holds is gone
			r.svc.mu.Lock()
			r.svc.step(gkrp.Rotate{Reason: "operator"})
			r.svc.mu.Unlock()
			time.Sleep(200 * time.Millisecond)
		}
		if n := r.svc.completed(); n != 4 {
			t.Errorf("%d epochs, want 4", n)
		}
		r.cancel()
		if err := r.wait(); err != nil {
			t.Error(err)
		}
	})
}
