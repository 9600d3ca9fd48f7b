package processing

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestMissedWhereNothingWas: a report of a time in which there was no stream, or that has
// not come, is refused and makes nothing more sensitive.
func TestMissedWhereNothingWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, behaviourConfig())
		d := w.enroll("cam-1")
		w.kms.mu.Lock()
		r := w.kms.devices["cam-1"]
		r.Enrolled = time.Now()
		w.kms.devices["cam-1"] = r
		w.kms.mu.Unlock()
		d.run()
		f := w.film(d)
		time.Sleep(10 * time.Minute)
		now := time.Now()
		for name, c := range map[string]struct {
			from, to time.Duration
			taken    bool
		}{
			"before the enrolment":  {-20 * time.Minute, -11 * time.Minute, false},
			"years ago":             {-100_000 * time.Hour, -100_000*time.Hour + time.Minute, false},
			"in the future":         {10 * time.Second, 50 * time.Second, false},
			"over the enrolment":    {-11 * time.Minute, -8 * time.Minute, true},
			"with clocks that part": {-time.Minute, 30 * time.Second, true},
		} {
			before := w.tuning(bus.TuningRequest{})
			_, err := w.feedback(bus.FeedbackRequest{Stream: "cam-1", From: now.Add(c.from), To: now.Add(c.to)})
			after := w.tuning(bus.TuningRequest{})
			switch {
			case c.taken && err != nil:
				t.Errorf("%s: %v", name, err)
			case !c.taken && bus.CodeOf(err) != bus.CodeBadRequest:
				t.Errorf("%s: %v", name, err)
			case !c.taken && (after.Labels != before.Labels || after.Live.Sensitivity != before.Live.Sensitivity || (after.Shadow == nil) != (before.Shadow == nil)):
				t.Errorf("%s: %+v became %+v", name, before, after)
			}
		}
		// Its device is enrolled anew, and the profile is older.
		w.kms.mu.Lock()
		r.Enrolled = now
		w.kms.devices["cam-1"] = r
		w.kms.mu.Unlock()
		if _, err := w.feedback(bus.FeedbackRequest{Stream: "cam-1", From: now.Add(-5 * time.Minute), To: now.Add(-4 * time.Minute)}); err != nil {
			t.Errorf("after a second enrolment: %v", err)
		}
		f.end()
	})
}
