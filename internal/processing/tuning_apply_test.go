package processing

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestAppliedSettingDecides goes the way of tune --apply: refused while too little is
// known, in the shadow when there is enough, then the running detectors judge by it; and
// when more alarms come than were expected, it is taken back by itself.
func TestAppliedSettingDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := behaviourConfig()
		cfg.Behaviour.Tuning.Shadow, cfg.Behaviour.Tuning.Watch = time.Minute, time.Hour
		w, d := newCamera(t, cfg)
		f := w.film(d)
		defer func() {
			f.end()
		}()
		judgedBy := func() float64 {
			e, err := bus.ProcessingExplain.Do(context.Background(), w.memory.Conn(), bus.ExplainRequest{Stream: "cam-1"})
			if err != nil {
				t.Error(err)
			}
			return e.Sensitivity
		}
		time.Sleep(2 * time.Minute)
		apply := bus.TuningRequest{Stream: "cam-1", Do: bus.TuningApply, By: "anna"}
		if _, err := bus.ProcessingTuning.Do(context.Background(), w.memory.Conn(), apply); bus.CodeOf(err) != bus.CodeConflict {
			t.Errorf("applied before a stretch of scores was full: %v", err)
		}
		time.Sleep(5 * time.Minute)
		i := w.tuning(apply)
		if i.Shadow == nil || i.Shadow.By != "anna" || i.Shadow.Sensitivity <= 0.5 || judgedBy() != 0.5 {
			t.Fatalf("applied: shadow %+v, proposal %+v; judged by %g", i.Shadow, i.Proposal, judgedBy())
		}
		want := i.Shadow.Sensitivity
		time.Sleep(90 * time.Second)
		if i = w.tuning(bus.TuningRequest{}); i.Live.Sensitivity != want || i.Live.By != "anna" || judgedBy() != want {
			t.Fatalf("after its shadow %+v; judged by %g, want %g", i.Live, judgedBy(), want)
		}
		episode := func() (score float64) {
			f.style(foreign)
			time.Sleep(6 * time.Second)
			f.style(own)
			time.Sleep(time.Minute)
			for _, a := range w.alerts() {
				if a.Class == bus.ClassSource {
					score = a.Score
					break // the newest is the first
				}
			}
			return score
		}
		tuned := episode()
		episode()
		episode()
		i = w.tuning(bus.TuningRequest{})
		if i.Live.Sensitivity != 0.5 || i.Live.By != "tuning" || w.count(gk.EventSettingReverted) != 1 || judgedBy() != 0.5 {
			t.Errorf("after three alarms that nobody called real: %+v; judged by %g", i.Live, judgedBy())
		}
		// The detectors themselves follow, not only what is told of them.
		before := episode()
		gain := tune.CutoffOf(0.5) / tune.CutoffOf(want)
		if got := tuned / before; math.Abs(got-gain) > 0.15*gain {
			t.Errorf("scores were multiplied by %.2f, want %.2f", got, gain)
		}
	})
}
