package tune

import (
	"fmt"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Tally counts what one setting does against what it may do: in the shadow before it
// decides, and while it is young. It takes every hop that was judged, and comes to one
// verdict at most.
type Tally struct {
	Revision uint64 // of the setting; 0: there is none
	Expected Expected
	Until    time.Time // when a young setting is young no more
	Hops     int
	Alarms   int
	told     bool
}

// Shadow takes a hop of a setting in the shadow. alarm is one that it would have raised
// where nothing was told; calm, that no episode runs. end is [Rejected] where it alarms
// more than it may, [Live] when it was in the shadow for so long, and empty before. saw
// says why, for people.
func (t *Tally) Shadow(g Goal, alarm, calm bool, long time.Duration) (end Phase, saw string) {
	if t.Revision == 0 || t.told {
		return "", ""
	}
	over := t.count(g, alarm)
	switch {
	case over:
		end = Rejected
	case t.seen() >= long && calm:
		end = Live
	default:
		return "", ""
	}
	t.told = true
	return end, t.saw(g)
}

// Young takes a hop in which a setting decided. alarm is one that was told; calm, that
// no episode runs. end is [Reverted] where a young setting alarms more than it may.
func (t *Tally) Young(now time.Time, g Goal, alarm, calm bool) (end Phase, saw string) {
	if t.told || !now.Before(t.Until) {
		return "", ""
	}
	if over := t.count(g, alarm); !over || !calm {
		return "", ""
	}
	t.told = true
	return Reverted, t.saw(g)
}

// Real takes an alarm back that was called real.
func (t *Tally) Real() { t.Alarms = max(0, t.Alarms-1) }

// Again has the verdict on a setting given once more, because it was not written down.
func (t *Tally) Again(revision uint64) {
	if t.Revision == revision {
		t.told = false
	}
}

// count takes a hop, and reports whether there were more alarms than may be.
func (t *Tally) count(g Goal, alarm bool) bool {
	t.Hops++
	if alarm {
		t.Alarms++
	}
	return t.Alarms > 1 && t.Alarms > t.allowed(g) // one may always be
}

func (t *Tally) allowed(g Goal) int { return g.Allowed(t.Expected, t.seen().Hours()) }

func (t *Tally) seen() time.Duration {
	return time.Duration(t.Hops) * time.Second / episode.HopsPerSecond
}

func (t *Tally) saw(g Goal) string {
	return fmt.Sprintf("%d alarms in %v, up to %d are borne", t.Alarms, t.seen(), t.allowed(g))
}
