package processing

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestSSRCOfAnotherSession: another owner's session has the SSRC that was drawn, twice.
// The device is told to begin anew, and each of its sessions is
// asked for with another SSRC until one is free.
func TestSSRCOfAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		asked := map[gk.SessionID]uint32{}
		w.kms.refuse = func(r bus.KMSOpenRequest) error {
			if before, again := asked[r.Session]; again && before != r.SSRC {
				t.Errorf("session %s is asked for with %08x and with %08x", r.Session, before, r.SSRC)
			}
			for session, ssrc := range asked {
				if session != r.Session && ssrc == r.SSRC {
					t.Errorf("ssrc %08x is drawn again", ssrc)
				}
			}
			asked[r.Session] = r.SSRC
			if len(asked) <= 2 {
				return bus.Refuse(bus.CodeConflict, "ssrc %08x belongs to another session", r.SSRC)
			}
			return nil
		}
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		var overs []gkrp.Code
		d.look(func() { overs = slices.Clone(d.overs) })
		if !slices.Equal(overs, []gkrp.Code{gkrp.CodeUnknownSession, gkrp.CodeUnknownSession}) {
			t.Errorf("the device's sessions ended with %v", overs)
		}
		if e := d.at(); e == 0 {
			t.Error("the device never got a key")
		}
		w.end(d, 1)
	})
}
