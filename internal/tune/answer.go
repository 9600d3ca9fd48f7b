package tune

import (
	"time"
)

// Change is what became of a setting.
type Change struct {
	To      Phase // [Shadow], [Rejected] or [Reverted]
	Setting Setting
}

// Answer lets the settings follow one label: a step, or back to what was before where a
// young setting made the stream duller and something was missed. Only the first word on
// an alert counts for a step; the label itself is replaced by the last. text says what
// followed, for people.
func (g *Guard) Answer(now time.Time, l *Label, first, missed bool, basis Basis) (done []Change, text string) {
	live := g.Live()
	switch {
	case !g.Auto:
		return nil, "noted; automatic tuning is off"
	case !first && l.Real && !missed && g.InShadow() != nil && g.InShadow().By == "feedback":
		// The step that the earlier answer led to must not come.
		told := *g.InShadow()
		g.Reject(now, "the answer was taken back")
		return []Change{{Rejected, told}}, "noted in the place of the earlier answer, and its step was taken back"
	case !first:
		return nil, "noted in the place of the earlier answer"
	case l.Real && !missed:
		return nil, "noted"
	}
	if missed && now.Before(g.Watching) {
		back := g.Clone()
		if back.Revert(now, back.Revision, 0, "tuning", "something was missed since the sensitivity fell") == nil && back.Live().Params.Sensitivity > live.Params.Sensitivity {
			*g = back
			return []Change{{Reverted, g.Live()}}, "noted; the last setting was taken back, because it is duller than the one before"
		}
	}
	from, reason := live.Params, "a false alarm: sensitivity falls"
	if sh := g.InShadow(); sh != nil && sh.By == "feedback" {
		from = sh.Params
	}
	if l.Real {
		reason = "a miss: sensitivity rises"
	}
	want := from
	want.Sensitivity = Step(from.Sensitivity, !l.Real)
	err := g.Propose(now, g.Revision, Setting{
		By: "feedback", Method: "step", Reason: reason, Params: want, Basis: basis,
		// What a step leads to is not known: what the budget grants is borne in the shadow.
		Expected: Expected{High: 24, Detected: 1},
	})
	if err != nil || g.InShadow() == nil {
		return nil, "noted"
	}
	return []Change{{Shadow, *g.InShadow()}}, "noted; " + reason
}

// Allowed is how many alarms a setting may raise in so many hours: what was expected or
// the budget grants, not what little evidence cannot rule out.
func (g Goal) Allowed(e Expected, hours float64) int {
	return Allowed(min(e.High, max(e.FalsePerDay, 24*g.Budget)), hours)
}
