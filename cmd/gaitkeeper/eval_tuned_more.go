package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// tunedFold is how streams fared that began with what was learned from others.
type tunedFold struct {
	Method string `json:"method"`
	tunedPoint
	Least float64 `json:"cost_least"` // of the seeds and starts
	Most  float64 `json:"cost_most"`
	// Against the controller's cost: the difference, with the 95 % interval over captures
	// drawn anew (bootstrap).
	Against [3]float64 `json:"against_controller"`
	Seconds float64    `json:"seconds_a_search"`
}

// fleetRun is what the fleet's settings by one method do to each capture that was held out.
type fleetRun struct {
	method  string
	run     int // of start and seed
	capture []string
	stats   []tune.Stats
	took    time.Duration
}

// searchFleet has each method find settings for the fleet on the half that was answered
// for, with equal numbers of trials, and judges them on the other half.
func (p *tunedPart) searchFleet(start float64, seed uint64) {
	middle := middleCutoff(p.states)
	data := &tune.Data{Replayer: p.streams[0].replayer}
	for i, s := range p.streams {
		for _, c := range p.states[i].data(s).Cases {
			c.Shift = tune.CutoffOf(p.states[i].params().Sensitivity) / middle
			data.Cases = append(data.Cases, c)
		}
	}
	for _, method := range append(tunedMethods, "service") {
		began := time.Now()
		settings := fleetBy(method, data, start, middle, seed)
		r := fleetRun{method: method, run: int(seed), took: time.Since(began)}
		for _, s := range p.judged {
			r.capture, r.stats = append(r.capture, s.name), append(r.stats, s.judgeTruth(settings))
		}
		p.fleet = append(p.fleet, r)
	}
}

// draws is how often captures are drawn anew for an interval.
const draws = 2000

// compareFleet adds the runs up, and compares each method with the controller.
func compareFleet(all []fleetRun) (out []tunedFold) {
	captures := map[string]int{}
	for _, r := range all {
		for _, c := range r.capture {
			if _, ok := captures[c]; !ok {
				captures[c] = len(captures)
			}
		}
	}
	methods := append(slices.Clone(tunedMethods), "service")
	sums := make([][]tune.Stats, len(methods)) // by capture, over all runs
	for m, method := range methods {
		sums[m] = make([]tune.Stats, len(captures))
		f := tunedFold{Method: method, Least: math.Inf(1), Most: math.Inf(-1)}
		var total tune.Stats
		runs := 0
		for i := 0; i < len(all); i++ {
			r := &all[i]
			if r.method != method {
				continue
			}
			var one tune.Stats
			for k, st := range r.stats {
				sums[m][captures[r.capture[k]]].Add(st)
				one.Add(st)
			}
			cost := tunedGoal.Cost(one)
			f.Least, f.Most = min(f.Least, cost), max(f.Most, cost)
			f.Seconds += r.took.Seconds()
			total.Add(one)
			runs++
		}
		n := float64(max(runs, 1)) / tunedFolds // runs over all captures
		f.tunedPoint = pointOf(tune.Stats{False: total.False / n, Hours: total.Hours / n, Real: total.Real / n, Missed: total.Missed / n, Late: total.Late / n})
		f.Seconds /= float64(max(runs, 1))
		out = append(out, f)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	diffs := make([][]float64, len(methods))
	for range draws {
		drawn := make([]tune.Stats, len(methods))
		for range captures {
			c := rng.IntN(len(captures))
			for m := range methods {
				drawn[m].Add(sums[m][c])
			}
		}
		for m := range methods {
			diffs[m] = append(diffs[m], tunedGoal.Cost(drawn[m])-tunedGoal.Cost(drawn[0]))
		}
	}
	for m := range methods {
		slices.Sort(diffs[m])
		out[m].Against = [3]float64{out[m].Cost - out[0].Cost, diffs[m][draws/40], diffs[m][draws-1-draws/40]}
	}
	return out
}

// fleetBy has a method find the fleet's settings, each search with the same number of
// trials. What new streams begin with is worked out from it as in the service.
func fleetBy(method string, d *tune.Data, start, middle float64, seed uint64) tune.Params {
	rng := rand.New(rand.NewPCG(seed, 1))
	space := tune.Space{Base: tune.DefaultParams(), Fleet: true}
	var p tune.Proposal
	search := func(m tune.Method) {
		best, _ := tune.Search(&space, tunedGoal, atCutoff(middle), d.Judge, m, func(n int) bool { return n < tune.FleetTrials })
		p.Params = space.Params(best.X)
	}
	switch method {
	case "controller":
		p.Params = tune.DefaultParams()
	case "bayesian":
		search(&tune.Bayes{Rand: rng})
	case "random":
		search(tune.Random{Rand: rng})
	case "grid":
		search(&tune.Grid{Side: 2, Rand: rng})
	case "service": // as gaitkeeper tune --fleet does, which compares on what it holds out
		p = tune.Propose(d, tune.Task{Goal: tunedGoal, Current: atCutoff(middle), Prior: middle, Fleet: true, Seed: seed})
	}
	// One step at a time, until no more changes: a fleet is tuned more than once.
	from := atCutoff(start)
	for range 8 {
		step := p
		step.ForNew(d, tunedGoal, from)
		from = step.Params
	}
	return from
}
