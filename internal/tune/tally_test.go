package tune

import (
	"testing"
	"time"
)

// TestTally: a setting in the shadow decides after its time, not while an episode runs,
// and is rejected as soon as it alarms more than it may; a young one is taken back then,
// and not for alarms that were called real. Either is said once.
func TestTally(t *testing.T) {
	goal := Goal{Budget: 1.0 / 24}
	const long = 10 * time.Minute
	for _, c := range []struct {
		what   string
		alarms int
		calm   bool
		want   Phase
	}{{"quiet", 0, true, Live}, {"one alarm", 1, true, Live}, {"an episode", 0, false, ""}, {"two alarms", 2, true, Rejected}} {
		s := Tally{Revision: 2}
		var end Phase
		said := 0
		for i := range int(long/hop) + 8 {
			if e, saw := s.Shadow(goal, i%8 == 7 && i/8 < c.alarms, c.calm, long); e != "" {
				end = e
				if said++; saw == "" {
					t.Errorf("%s: %s without a reason", c.what, e)
				}
			}
		}
		if end != c.want || said > 1 {
			t.Errorf("%s: %q, said %d times; want %q", c.what, end, said, c.want)
		}
	}
	young := func(w *Tally, from time.Time, alarms int) (end Phase) {
		for i := range 8 * 3 {
			if e, _ := w.Young(from.Add(time.Duration(i)*hop), goal, i%8 == 0 && i/8 < alarms, true); e != "" {
				end = e
			}
		}
		return end
	}
	w := Tally{Revision: 2, Until: epoch.Add(24 * time.Hour)}
	if end := young(&w, epoch, 1); end != "" {
		t.Errorf("one alarm: %q", end)
	}
	w.Real()
	if end := young(&w, epoch, 1); end != "" {
		t.Errorf("one that was called real, and another: %q", end)
	}
	if end := young(&w, w.Until, 3); end != "" {
		t.Errorf("when it is young no more: %q", end)
	}
	if end := young(&w, epoch, 1); end != Reverted {
		t.Errorf("two alarms: %q", end)
	}
	if end := young(&w, epoch, 1); end != "" {
		t.Errorf("said again: %q", end)
	}
	if w.Again(2); young(&w, epoch, 0) != Reverted {
		t.Error("what was not written down is not said again")
	}
}

// TestBurst: whatever is granted, no more than that comes in the long run; and what is
// counted by the day does not come three times on one.
func TestBurst(t *testing.T) {
	for _, c := range []struct {
		every time.Duration
		want  int
	}{{time.Hour, 3}, {6 * time.Hour, 3}, {24 * time.Hour, 2}, {7 * 24 * time.Hour, 2}} {
		r := Rotations{Every: c.every}
		var spent []time.Time
		row := 0
		for at := range 200 { // evidence all the time
			now := epoch.Add(time.Duration(at) * c.every / 10)
			if r.Left(now, spent) > 0 {
				spent = append(spent, now)
				if now.Before(epoch.Add(c.every)) {
					row++
				}
			}
		}
		if row != c.want || len(spent) > 20+c.want {
			t.Errorf("one in %v: %d at once, want %d; %d in twenty times that", c.every, row, c.want, len(spent))
		}
	}
}
