package tune

import (
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// The range of cut-offs, on scores at a sensitivity of 0.5. Whatever is learned, a
// detector that reaches [Ceiling] times its limit accuses, and one below [Floor] does
// not.
const (
	Floor   = 0.2
	Ceiling = 3.0
)

const (
	// cutoffs is how many cut-offs are tried from Floor to Ceiling: steps of 5 %, as
	// levels have.
	cutoffs = 56
	// headRoom is kept above what quiet traffic reached: the next hours reach a little
	// more than the last.
	headRoom = 1.3
	// tie is a share of real episodes that makes no difference.
	tie = 0.005
)

// CutoffOf is the cut-off that a sensitivity stands for.
func CutoffOf(sensitivity float64) float64 { return 1 / episode.Scale(sensitivity) }

// gridCutoff gives the cut-offs that are tried, in rising order.
func gridCutoff(i int) float64 {
	return Floor * math.Pow(Ceiling/Floor, float64(i)/(cutoffs-1))
}

// sweep is what each cut-off of the grid would have led to.
type sweep [cutoffs]Stats

func (d *Data) sweep(base Params) (w sweep) {
	for i := range w {
		base.Sensitivity = episode.SensitivityAt(gridCutoff(i))
		w[i] = d.Judge(base)
	}
	return w
}

func (w *sweep) add(o *sweep) {
	for i := range w {
		w[i].Add(o[i])
	}
}

// Control is the default rule. It begins at the smallest cut-off whose upper bound on
// false alarms keeps the budget, or comes as near to it as the highest does: what was
// called false and alarms at any cut-off moves none. It goes up from there, to the prior or to some head
// room, as far as that misses no more of what is known to be real. base has what is not
// tuned here; prior is a cut-off.
func Control(d *Data, g Goal, base Params, prior float64) float64 {
	w := d.sweep(base)
	return w.control(g, prior)
}

func (w *sweep) control(g Goal, prior float64) float64 {
	least := cutoffs - 1
	reach := max(g.Over(w[least]), 0) + 1e-9
	for least > 0 && g.Over(w[least-1]) <= reach {
		least--
	}
	highest := min(prior, Ceiling)
	if least > 0 { // something quiet comes up to here
		least = min(least+1, cutoffs-1)
		highest = min(max(prior, gridCutoff(least)*headRoom), Ceiling)
	}
	missed := math.Inf(1)
	for i := least; i < cutoffs; i++ {
		missed = min(missed, 1-w[i].Detected())
	}
	// Too low a cut-off misses as well: an episode that never ends hides the next. So
	// where nothing up to the highest finds as much, it is the first above that does.
	best, found := gridCutoff(least), false
	for i := least; i < cutoffs; i++ {
		c := gridCutoff(i)
		if 1-w[i].Detected() <= missed+tie && (c <= highest || !found) {
			best, found = c, true
		}
	}
	if w[least].Real == 0 {
		return max(highest, best)
	}
	return best
}

// ForNew makes of a proposal for all streams one for those of which nothing is known:
// its cut-off is the controller's over what every stream went through, without what
// each has learned since. The middle of their own would not do: where most streams are
// quiet and some are not, that is too jumpy for the next of those. It stays within one
// step of the prior, and says what would come of it if all streams were new.
func (p *Proposal) ForNew(d *Data, g Goal, prior Params) {
	plain := Data{Replayer: d.Replayer, Cases: slices.Clone(d.Cases)}
	for i := range plain.Cases {
		plain.Cases[i].Shift = 0
	}
	p.Params.Sensitivity = episode.SensitivityAt(Control(&plain, g, p.Params, CutoffOf(prior.Sensitivity)))
	p.Params = Bounded(prior, p.Params)
	p.Now, p.Then = plain.Judge(prior), plain.Judge(p.Params)
}

// Steps that one answer moves a cut-off by before more is known: a miss is the
// costlier mistake.
const (
	stepFalse = 1.10
	stepMiss  = 1.25
)

// Step is the immediate answer to one piece of feedback: a false alarm raises the
// cut-off (sensitivity falls), a miss lowers it (sensitivity rises). It stays within
// [Floor] and [Ceiling].
func Step(sensitivity float64, falseAlarm bool) float64 {
	c := CutoffOf(sensitivity)
	if falseAlarm {
		c *= stepFalse
	} else {
		c /= stepMiss
	}
	return episode.SensitivityAt(min(max(c, Floor), Ceiling))
}
