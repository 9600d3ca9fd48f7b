package tune

import (
	"fmt"
	"math/rand/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Task is one tuning run.
type Task struct {
	Goal    Goal
	Current Params
	Prior   float64 // cut-off of the fleet
	Fleet   bool    // search weights and persistence as well
	Trials  int     // of each search; 0 is [DefaultTrials]
	Seed    uint64
	More    func() bool // false ends the run with what there is; nil: never
}

// DefaultTrials is how many settings each search of a run tries.
const (
	DefaultTrials = 24
	FleetTrials   = 60
)

// The ways to a proposal.
const (
	ByController = "controller"
	ByBayes      = "bayesian"
)

// Proposal is what a run found.
type Proposal struct {
	Params  Params
	Method  string // [ByController] or [ByBayes]
	Now     Stats  // with the current settings, on all data
	Then    Stats  // with the proposed ones
	Control Stats  // the controller's on the parts that were held out from it
	Bayes   Stats  // Bayesian optimisation's on the same
	Tried   int    // settings that were replayed
	Why     string
}

// folds is in how many parts data is divided in time, each held out once.
const folds = 4

// advantage is by how much Bayesian optimisation must cost less on held-out data to
// go live.
const advantage = 0.02

// Propose finds settings. The controller's go live unless those of Bayesian
// optimisation cost less on data that was held out from both.
func Propose(d *Data, t Task) Proposal {
	more := t.More
	if more == nil {
		more = func() bool { return true }
	}
	trials := t.Trials
	if trials == 0 {
		trials = DefaultTrials
		if t.Fleet {
			trials = FleetTrials
		}
	}
	base := t.Current
	if t.Fleet {
		base = DefaultParams()
	}
	p := Proposal{Now: d.Judge(t.Current)}
	parts := d.Split(folds)
	sweeps := make([]sweep, folds)
	var all sweep
	for i := range parts {
		sweeps[i] = parts[i].sweep(base)
		all.add(&sweeps[i])
		p.Tried += cutoffs / folds
	}
	control := base
	control.Sensitivity = episode.SensitivityAt(all.control(t.Goal, t.Prior))
	p.Params, p.Method = control, ByController
	space := Space{Base: base, Fleet: t.Fleet}
	search := func(skip int) Params {
		judge := func(q Params) (s Stats) {
			p.Tried++
			for i := range parts {
				if i != skip {
					s.Add(parts[i].Judge(q))
				}
			}
			return s
		}
		m := &Bayes{Rand: rand.New(rand.NewPCG(t.Seed, uint64(skip+1)))}
		best, _ := Search(&space, t.Goal, t.Current, judge, m, func(n int) bool { return n < trials && more() })
		return space.Params(best.X)
	}
	held := 0
	for k := range parts {
		if !more() {
			break
		}
		var train sweep
		for i := range sweeps {
			if i != k {
				train.add(&sweeps[i])
			}
		}
		c := base
		c.Sensitivity = episode.SensitivityAt(train.control(t.Goal, t.Prior))
		p.Control.Add(parts[k].Judge(c))
		p.Bayes.Add(parts[k].Judge(search(k)))
		held++
	}
	control1, bayes1 := t.Goal.Cost(p.Control), t.Goal.Cost(p.Bayes)
	switch {
	case held < folds:
		p.Why = "the run ended before the search (Bayesian optimisation) could be compared with it"
	case p.Bayes.Hours == 0 || p.Bayes.Real == 0:
		p.Why = "there is nothing yet to compare the search (Bayesian optimisation) with it by: that takes quiet traffic, and something real in it"
	case t.Goal.Over(p.Bayes) > max(0, t.Goal.Over(p.Control)):
		p.Why = fmt.Sprintf("what the search (Bayesian optimisation) found would break the budget on data that it had not seen (%.2f false an hour)", p.Bayes.Rate())
	case bayes1 < control1-advantage*max(control1, 1):
		best := search(-1)
		p.Params, p.Method = best, ByBayes
		p.Why = fmt.Sprintf("on data that neither had seen it costs %.2f, the usual rule %.2f: less is better, a false alarm that you bear is 1", bayes1, control1)
	default:
		p.Why = fmt.Sprintf("on data that neither had seen the search (Bayesian optimisation) costs %.2f and this %.2f, where a false alarm that you bear is 1: no reason to leave it", bayes1, control1)
	}
	p.Then = d.Judge(p.Params)
	return p
}
