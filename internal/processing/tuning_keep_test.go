package processing

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestOlderTuningDoesNotComeBack: whoever can write the store puts the settings of
// before an operator's word back, as they were. They are refused and told of, and
// nothing is tuned by itself until an operator says so again.
func TestOlderTuningDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, behaviourConfig())
		time.Sleep(10 * time.Second)
		ctx := context.Background()
		w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: false})
		w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: true})
		e, err := w.records.Get(ctx, "tuning.cam-1")
		if err != nil {
			t.Fatal(err)
		}
		old := bytes.Clone(e.Value)
		if i := w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: false}); i.Auto {
			t.Fatalf("%+v", i)
		}
		w.crash()
		if _, err := w.records.Put(ctx, "tuning.cam-1", old); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.tuning(bus.TuningRequest{}); i.Auto || !strings.Contains(i.Live.Reason, "put back") {
			t.Errorf("it tunes itself: %v; %+v", i.Auto, i.Live)
		}
		if n := w.count(gk.EventTuningRefused); n != 1 {
			t.Errorf("told %d times", n)
		}
		// An operator's word stands, over the next start too.
		w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: true})
		w.crash()
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.tuning(bus.TuningRequest{}); !i.Auto || w.count(gk.EventTuningRefused) != 1 {
			t.Errorf("after one more start it tunes itself: %v, told %d times", i.Auto, w.count(gk.EventTuningRefused))
		}
		// Nor does an operator's off go with its record.
		w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: false})
		w.crash()
		if err := w.records.Erase(ctx, "tuning.cam-1"); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.tuning(bus.TuningRequest{}); i.Auto || !strings.Contains(i.Live.Reason, "gone") || w.count(gk.EventTuningRefused) != 2 {
			t.Errorf("when its record was removed it tunes itself: %v, told %d times: %+v", i.Auto, w.count(gk.EventTuningRefused), i.Live)
		}
		d.kill()
		w.close()
	})
}
