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

// tunedDays is how a budget was kept by streams over long quiet traffic.
type tunedDays struct {
	Every   string `json:"one_in"`
	Streams int    `json:"streams"` // of all seeds
	Days    int    `json:"days"`    // of each
	Budget  int    `json:"budget"`  // false rotations that were granted to all
	First   int    `json:"false_alarms_first_day"`
	Later   int    `json:"false_alarms_later"`

	Rotations int     `json:"false_rotations"`
	Worst     int     `json:"most_of_a_stream"`
	Granted   float64 `json:"granted_a_stream"`
	InOne     int     `json:"most_in_one"`      // of a stream, in any stretch as long as one is granted in
	InTen     int     `json:"most_in_ten"`      // in ten times that
	Spent     float64 `json:"share_spent"`      // of the time, in which nothing is left
	SpentMost float64 `json:"share_spent_most"` // of a stream
	Taken     int     `json:"settings_taken_back"`
	Rejected  int     `json:"settings_rejected"`
}

func (d *tunedDays) add(o tunedDays) {
	d.First += o.First
	d.Later += o.Later
	d.Rotations += o.Rotations
	d.Worst = max(d.Worst, o.Worst)
	d.InOne, d.InTen = max(d.InOne, o.InOne), max(d.InTen, o.InTen)
	d.Spent += o.Spent
	d.SpentMost = max(d.SpentMost, o.SpentMost)
	d.Taken += o.Taken
	d.Rejected += o.Rejected
}

const (
	longStreams = 6
	longSeeds   = 2
	longAnswers = 5                          // a day
	contextHops = 30 * episode.HopsPerSecond // that are kept before and behind an answer
	hourHops    = 3600 * episode.HopsPerSecond
	dayHops     = 24 * hourHops
)

// longStarts are how streams begin, in turns.
var longStarts = []tunedStart{{"jumpy", 0.3, 1}, {"far too jumpy", 0.25, 5}}

// tunedLong lets streams run for days on resampled quiet traffic: blocks of their own
// captures and, as if the network had changed, of others; scores drift up and down by a
// fifth over four days. Thresholds begin too low; an operator answers five alarms a day,
// and every night the controller sets them, through shadow, watch and rails. Rotations
// are counted as the budget lets them through.
func (c *evalCommand) tunedLong(ctx context.Context, all []*tunedStream, every time.Duration) tunedDays {
	n := min(longStreams, len(all))
	parts := make([]tunedDays, n*longSeeds)
	together(len(parts), func(k int) {
		i, seed := k%n, k/n
		start := longStarts[(i+seed)%len(longStarts)]
		parts[k] = c.longStream(ctx, fresh(all, start.weight), i*len(all)/n, start.cutoff, every, rand.New(rand.NewPCG(uint64(k), uint64(every))))
	})
	out := tunedDays{Every: every.String(), Streams: len(parts), Days: c.Days}
	for _, p := range parts {
		out.add(p)
	}
	out.Spent /= float64(len(parts))
	out.Granted = float64(c.Days) * float64(24*time.Hour) / float64(every)
	out.Budget = int(out.Granted * float64(len(parts)))
	return out
}

// longStream is one stream of [evalCommand.tunedLong].
func (c *evalCommand) longStream(ctx context.Context, streams []*tunedStream, i int, cutoff float64, every time.Duration, rng *rand.Rand) (out tunedDays) {
	goal := tune.Goal{Budget: float64(time.Hour) / float64(every), MissCost: tunedGoal.MissCost}
	rule := tune.Rotations{Every: every}
	s, st := streams[i], newState(cutoff)
	var rotations []time.Time
	spent := 0
	none := func(int) bool { return false }
	var kept []tune.Case // the scores around answers of the days before
	for day := range c.Days {
		if ctx.Err() != nil {
			return out
		}
		trace := quietDay(streams, s, rng, day)
		st.labels, st.spans = nil, nil
		var unsaid []tune.Span
		for hour := range 24 {
			first := hour * hourHops
			part := trace.Cut(first, first+hourHops)
			// What an answer of the hour before led to is in the shadow, and what decides is
			// watched, in this one.
			alarms := s.replayer.Alarms(part, st.params())
			live := hopsOf(alarms, none)
			st.young(part.From, goal, part.Len(), live)
			if sh := st.guard.InShadow(); sh != nil {
				st.shadow(part.From, goal, part.Len(), hopsOf(s.replayer.Alarms(part, sh.Params), none), live)
			}
			for _, a := range alarms {
				if day == 0 {
					out.First++
				} else {
					out.Later++
				}
				now, at := part.At(a.Hop), first+a.Hop
				if rule.Left(now, rotations) > 0 {
					rotations = append(rotations, now)
				}
				sp := tune.Span{From: max(at-5*episode.HopsPerSecond, 0), To: min(at+episodeHops, dayHops)}
				if len(st.labels) >= longAnswers {
					unsaid = append(unsaid, sp)
					continue
				}
				l := tune.Label{Origin: tune.FromOperator, Real: rng.Float64() < tunedWrong, Kind: a.Kind, Peak: a.Peak}
				sp.Verdict = tune.False
				if l.Real {
					sp.Verdict = tune.Real
				}
				st.labels, st.spans = append(st.labels, l), append(st.spans, sp)
				st.guard.Answer(now, &l, true, false, tune.Basis{})
			}
			if rule.Left(part.At(part.Len()), rotations) == 0 {
				spent++
			}
		}
		for k, w := range tune.Beliefs(st.labels) {
			st.spans[k].Weight = w
		}
		d := &tune.Data{Replayer: s.replayer, Cases: append([]tune.Case{{Trace: trace, Spans: append(slices.Clone(st.spans), unsaid...)}}, s.made...)}
		d.Cases = append(d.Cases, kept...)
		live := st.params()
		found := tune.Proposal{Params: live}
		found.Params.Sensitivity = episode.SensitivityAt(tune.Control(d, goal, live, tune.CutoffOf(live.Sensitivity)))
		found.Then = d.Judge(found.Params)
		found.Bound(d, live)
		for _, sp := range st.spans {
			from, to := max(sp.From-contextHops, 0), min(sp.To+contextHops, dayHops)
			around := &tune.Trace{Layout: trace.Layout, From: trace.At(from)} // a copy: the day goes
			for h := from; h < to; h++ {
				around.AddShifted(trace, h, 0)
			}
			sp.From, sp.To = sp.From-from, sp.To-from
			kept = append(kept, tune.Case{Trace: around, Spans: []tune.Span{sp}, Made: true})
		}
		st.propose(trace.At(trace.Len()), tune.Setting{Params: found.Params, Basis: tune.Basis{Hours: found.Then.Hours}, Expected: found.Then.Expected()})
	}
	out.Rotations, out.Worst = len(rotations), len(rotations)
	out.InOne, out.InTen = mostWithin(rotations, every), mostWithin(rotations, 10*every)
	out.Spent = float64(spent) / float64(24*c.Days)
	out.SpentMost = out.Spent
	out.Taken, out.Rejected = st.rails.Taken, st.rails.Rejected
	return out
}

// mostWithin is the most of what came within any stretch of time. at rises.
func mostWithin(at []time.Time, long time.Duration) (most int) {
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) >= long {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
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
