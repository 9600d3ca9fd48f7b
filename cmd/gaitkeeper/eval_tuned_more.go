package main

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// tunedFold is how streams fared that began with what was learned from others.
type tunedFold struct {
	Method string `json:"method"`
	tunedPoint
	Least float64 `json:"cost_least"`
	Most  float64 `json:"cost_most"`
}

// tunedNew has the fleet's settings found on two thirds of the captures, and judged on
// the others as new streams, which nobody answered for.
func tunedNew(ctx context.Context, all []*tunedStream) (out []tunedFold) {
	const folds = 3
	seeds := len(tunedStarts) // one from each start
	methods := []string{"controller", "bayesian", "random", "grid"}
	parts := make([][]tune.Stats, seeds*folds)
	together(seeds*folds, func(k int) {
		seed, fold := uint64(k/folds), k%folds
		streams := fresh(all)
		var train, later []*tunedStream
		for i, s := range streams {
			if i%folds == fold {
				later = append(later, s)
			} else {
				train = append(train, s)
			}
		}
		states := begin(train, tunedStarts[seed].cutoff)
		for n := range uint64(tunedAnswers) {
			if ctx.Err() != nil {
				return
			}
			tunedRound(train, states, "controller", seed, n)
		}
		middle := middleCutoff(states)
		data := &tune.Data{Replayer: train[0].replayer}
		for i, s := range train {
			for _, c := range states[i].data(s).Cases {
				c.Shift = tune.CutoffOf(states[i].params.Sensitivity) / middle
				data.Cases = append(data.Cases, c)
			}
		}
		for _, method := range methods {
			p := fleetBy(method, data, middle, seed)
			parts[k] = append(parts[k], totalTruth(later, func(int) tune.Params { return p }))
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	sums := make([][]tune.Stats, len(methods)) // by seed
	for m := range methods {
		sums[m] = make([]tune.Stats, seeds)
		for k := range parts {
			sum, st := &sums[m][k/folds], parts[k][m]
			sum.False += st.False
			sum.Hours += st.Hours
			sum.Real += st.Real
			sum.Missed += st.Missed
			sum.Late += st.Late
		}
	}
	for m, method := range methods {
		f := tunedFold{Method: method, Least: math.Inf(1), Most: math.Inf(-1)}
		for _, s := range sums[m] {
			p := pointOf(s)
			f.False += p.False / float64(seeds)
			f.Hours += p.Hours / float64(seeds)
			f.Bound += p.Bound / float64(seeds)
			f.Detected += p.Detected / float64(seeds)
			f.Events += p.Events / float64(seeds)
			f.Cost += p.Cost / float64(seeds)
			f.Least, f.Most = min(f.Least, p.Cost), max(f.Most, p.Cost)
		}
		out = append(out, f)
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
	longBurst   = 3 // rotations in three times the budget's length
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
	window := longBurst * int(every.Seconds()) * episode.HopsPerSecond
	parts := make([]tunedDays, min(longStreams, len(all)))
	together(len(parts), func(i int) {
		streams, out := fresh(all), &parts[i]
		rng := rand.New(rand.NewPCG(uint64(i), uint64(every)))
		s := streams[i*len(streams)/longStreams]
		st := tunedState{params: atCutoff(0.3)}
		var rotations []int
		for day := range longDays {
			if ctx.Err() != nil {
				return
			}
			trace := quietDay(streams, s, rng, day)
			st.labels, st.spans = nil, nil
			answers := 0
			for hour := range 24 {
				part := trace.Cut(hour*dayHops/24, (hour+1)*dayHops/24)
				for _, a := range s.replayer.Alarms(part, st.params) {
					at := hour*dayHops/24 + a.Hop
					if day == 0 {
						out.First++
					} else {
						out.Later++
					}
					now := day*dayHops + at
					recent := 0
					for _, r := range rotations {
						if r > now-window {
							recent++
						}
					}
					if recent < longBurst {
						rotations = append(rotations, now)
						out.Worst = max(out.Worst, recent+1)
					}
					sp := tune.Span{From: max(at-5*episode.HopsPerSecond, 0), To: min(at+episodeHops, dayHops)}
					if answers < longAnswers {
						answers++
						sp.Verdict = tune.False
						if rng.Float64() < tunedWrong {
							sp.Verdict = tune.Real
						}
						st.params.Sensitivity = tune.Step(st.params.Sensitivity, sp.Verdict == tune.False)
						st.labels = append(st.labels, tune.Label{Origin: tune.FromOperator, Real: sp.Verdict == tune.Real, Kind: a.Kind, Peak: a.Peak})
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
			want := st.params
			want.Sensitivity = episode.SensitivityAt(tune.Control(d, goal, st.params, tune.CutoffOf(st.params.Sensitivity)))
			st.params = tune.Bounded(st.params, want)
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
