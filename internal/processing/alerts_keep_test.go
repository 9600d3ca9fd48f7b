package processing

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestAlertsAreSealed: alerts at rest are nobody's to read or to change. Those that were
// changed, put back, removed, or written in the clear are refused and told of, and no later alert
// has the name of an earlier one.
func TestAlertsAreSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(5 * time.Second)
		var session gk.SessionID
		d.look(func() { session = d.session })
		d.kill()
		ctx := context.Background()
		raise := func() {
			_ = bus.TransportProof.Tell(w.tr.conn, bus.Proof{Transport: w.tr.id, Stream: "cam-1", Session: session, Epoch: 1, What: "two-writers"})
			time.Sleep(proofQuiet + 25*time.Second) // and it is over
		}
		stored := func() []byte {
			e, err := w.records.Get(ctx, "alerts.cam-1")
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Clone(e.Value)
		}
		restart := func(value []byte) {
			w.crash()
			var err error
			switch {
			case value == nil:
			case len(value) == 0:
				err = w.records.Erase(ctx, "alerts.cam-1")
			default:
				_, err = w.records.Put(ctx, "alerts.cam-1", value)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.start()
			time.Sleep(3 * time.Second)
		}
		raise()
		old := stored()
		raise()
		last := w.alerts()
		if len(last) == 0 {
			t.Fatal("no alert")
		}
		restart(nil)
		if got := w.alerts(); len(got) != len(last) || w.count(gk.EventAlertsRefused) != 0 {
			t.Fatalf("after a restart %d alerts of %d, refused %d times", len(got), len(last), w.count(gk.EventAlertsRefused))
		}
		highest := func() (n uint64) {
			for _, a := range w.alerts() {
				n = max(n, numberOf(a.ID))
			}
			return n
		}
		changed := stored()
		changed[len(changed)-1] ^= 1
		content, err := keepMode.Marshal(alertsRecord{Number: 1, Alerts: []bus.Alert{{ID: "cam-1.1", Class: bus.ClassSource, Done: bus.DoneRotated}}})
		if err != nil {
			t.Fatal(err)
		}
		clear, err := cbor.Marshal(envelope{Version: 1, Content: content})
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []struct {
			what  string
			value []byte
		}{{"put back", old}, {"changed", changed}, {"in the clear", clear}, {"no record", []byte{1}}, {"removed", []byte{}}} {
			before := highest()
			restart(c.value)
			if got := w.alerts(); len(got) != 0 || w.count(gk.EventAlertsRefused) != i+1 {
				t.Errorf("%s: %+v, refused %d times", c.what, got, w.count(gk.EventAlertsRefused))
			}
			raise()
			if after := highest(); after <= before {
				t.Errorf("%s: the next alert has number %d, the last had %d", c.what, after, before)
			}
			restart(nil)
			if got := w.alerts(); len(got) == 0 || w.count(gk.EventAlertsRefused) != i+1 {
				t.Errorf("%s: what was written afterwards: %+v", c.what, got)
			}
		}
		w.close()
	})
}
