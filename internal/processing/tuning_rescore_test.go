package processing

import (
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestWindowsThatEndBeforeTheAlert: where parts were lost, what is left says nothing of it.
func TestWindowsThatEndBeforeTheAlert(t *testing.T) {
	s := learned(t)
	s.play(time.Minute)
	live := s.b.liveView()
	replayer := tune.NewReplayer(live.layout, live.weights)
	for _, n := range []int{1, tune.LeadHops, tune.LeadHops + 1} {
		from := s.now.Add(-time.Minute)
		r := &reel{from: from, form: s.b.form, by: 1}
		for _, h := range s.b.tuned.films.recent.all()[:n] {
			var w feature.Window
			if err := w.Decode(h.window); err != nil {
				t.Fatal(err)
			}
			r.windows, r.flags = append(r.windows, w), append(r.flags, h.flags)
		}
		if _, err := r.judge(live, replayer, from.Add(30*time.Second)); err == nil {
			t.Errorf("%d windows before an alert say something of it", n)
		}
	}
}
