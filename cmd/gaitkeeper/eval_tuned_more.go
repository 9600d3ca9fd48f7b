package main

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
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
func (p *tunedPart) searchFleet(seed uint64) {
	middle := middleCutoff(p.states)
	data := &tune.Data{Replayer: p.streams[0].replayer}
	for i, s := range p.streams {
		for _, c := range p.states[i].data(s).Cases {
			c.Shift = tune.CutoffOf(p.states[i].params().Sensitivity) / middle
			data.Cases = append(data.Cases, c)
		}
	}
	for _, method := range append(tunedMethods, "service") {
		start := time.Now()
		settings := fleetBy(method, data, middle, seed)
		r := fleetRun{method: method, run: int(seed), took: time.Since(start)}
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
// trials.
func fleetBy(method string, d *tune.Data, middle float64, seed uint64) tune.Params {
	rng := rand.New(rand.NewPCG(seed, 1))
	space := tune.Space{Base: tune.DefaultParams(), Fleet: true}
	search := func(m tune.Method) tune.Params {
		best, _ := tune.Search(&space, tunedGoal, atCutoff(middle), d.Judge, m, func(n int) bool { return n < tune.FleetTrials })
		return space.Params(best.X)
	}
	switch method {
	case "bayesian":
		return search(&tune.Bayes{Rand: rng})
	case "random":
		return search(tune.Random{Rand: rng})
	case "grid":
		return search(&tune.Grid{Side: 2, Rand: rng})
	case "service": // as gaitkeeper tune --fleet does, which compares on what it holds out
		p := tune.Propose(d, tune.Task{Goal: tunedGoal, Current: atCutoff(middle), Prior: middle, Fleet: true, Seed: seed})
		p.Bound(d, atCutoff(middle))
		return p.Params
	}
	p := tune.DefaultParams()
	p.Sensitivity = episode.SensitivityAt(tune.Control(d, tunedGoal, p, middle))
	return p
}

// tunedDays is how a budget was kept.
type tunedDays struct {
	Every     string `json:"one_in"`
	Days      int    `json:"stream_days"`
	Budget    int    `json:"budget"` // false rotations that were granted
	First     int    `json:"false_alarms_first_day"`
	Later     int    `json:"false_alarms_later"`
	Rotations int    `json:"false_rotations"`
	Worst     int    `json:"most_in_three_budgets"` // of one stream
}

const (
	longStreams = 4
	longDays    = 6
	longAnswers = 5 // a day
	dayHops     = 24 * 3600 * episode.HopsPerSecond
)

// tunedLong lets streams run for days on resampled quiet traffic: blocks of their own
// capture and, as if the network had changed, of others; scores drift up and down by a
// fifth over four days. Thresholds begin too low; an operator answers five alarms a day,
// and every night the controller sets them. Rotations are counted as the budget lets
// them through.
func tunedLong(ctx context.Context, all []*tunedStream, every time.Duration) tunedDays {
	out := tunedDays{Every: every.String()}
	goal := tune.Goal{Budget: float64(time.Hour) / float64(every), MissCost: 20}
	rule := tune.Rotations{Every: every}
	parts := make([]tunedDays, min(longStreams, len(all)))
	together(len(parts), func(i int) {
		streams, out := fresh(all), &parts[i]
		rng := rand.New(rand.NewPCG(uint64(i), uint64(every)))
		s := streams[i*len(streams)/longStreams]
		st := newState(0.3)
		var rotations []time.Time
		for day := range longDays {
			if ctx.Err() != nil {
				return
			}
			trace := quietDay(streams, s, rng, day)
			st.labels, st.spans = nil, nil
			answers := 0
			for hour := range 24 {
				part := trace.Cut(hour*dayHops/24, (hour+1)*dayHops/24)
				for _, a := range s.replayer.Alarms(part, st.params()) {
					at := hour*dayHops/24 + a.Hop
					if day == 0 {
						out.First++
					} else {
						out.Later++
					}
					now := part.At(a.Hop)
					if left := rule.Left(now, rotations); left > 0 {
						rotations = append(rotations, now)
						out.Worst = max(out.Worst, rule.Burst()+1-left)
					}
					sp := tune.Span{From: max(at-5*episode.HopsPerSecond, 0), To: min(at+episodeHops, dayHops)}
					if answers < longAnswers {
						answers++
						sp.Verdict = tune.False
						if rng.Float64() < tunedWrong {
							sp.Verdict = tune.Real
						}
						l := tune.Label{Origin: tune.FromOperator, Real: sp.Verdict == tune.Real, Kind: a.Kind, Peak: a.Peak}
						st.labels = append(st.labels, l)
						if done, _ := st.guard.Answer(now, &l, true, false, tune.Basis{}); len(done) > 0 {
							st.guard.Promote(now, 24*time.Hour, "")
						}
						st.spans = append([]tune.Span{sp}, st.spans...)
					} else {
						st.spans = append(st.spans, sp)
					}
				}
			}
			c := tune.Case{Trace: trace, Spans: st.spans}
			for k, w := range tune.Beliefs(st.labels) {
				c.Spans[len(st.labels)-1-k].Weight = w
			}
			d := &tune.Data{Replayer: s.replayer, Cases: append([]tune.Case{c}, s.made...)}
			live := st.params()
			found := tune.Proposal{Params: live}
			found.Params.Sensitivity = episode.SensitivityAt(tune.Control(d, goal, live, tune.CutoffOf(live.Sensitivity)))
			night := trace.At(trace.Len())
			_ = st.guard.Propose(night, st.guard.Revision, tune.Setting{By: "tuning", Params: found.Params, Basis: enough}) // see tunedState.night
			st.guard.Promote(night, 24*time.Hour, "")
		}
		out.Rotations += len(rotations)
	})
	for _, p := range parts {
		out.First += p.First
		out.Later += p.Later
		out.Rotations += p.Rotations
		out.Worst = max(out.Worst, p.Worst)
		out.Days += longDays
	}
	out.Budget = int(float64(out.Days) * float64(24*time.Hour) / float64(every))
	return out
}

// quietDay puts a day of quiet traffic together.
func quietDay(streams []*tunedStream, own *tunedStream, rng *rand.Rand, day int) *tune.Trace {
	t := &tune.Trace{Layout: own.trace.Layout, From: time.Unix(int64(day)*86400, 0)}
	for t.Len() < dayHops {
		s := own
		if rng.Float64() < 0.05 {
			s = streams[rng.IntN(len(streams))]
		}
		n := (20 + rng.IntN(40)) * episode.HopsPerSecond
		from := rng.IntN(max(1, s.trace.Len()-n))
		n = min(n, s.trace.Len()-from, dayHops-t.Len())
		drift := int(math.Round(4 * math.Sin(2*math.Pi*(float64(day)+float64(t.Len())/dayHops)/4)))
		for i := from; i < from+n; i++ {
			if !s.spoken(i) {
				t.AddShifted(s.trace, i, drift)
			}
		}
	}
	return t.Cut(0, min(t.Len(), dayHops))
}
