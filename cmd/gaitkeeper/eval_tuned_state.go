package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// tunedState is how far one stream is: its settings with everything that guards them, and
// what its operator said.
type tunedState struct {
	guard  tune.Guard
	labels []tune.Label
	spans  []tune.Span
	wrong  []bool // of each label
	last   asked  // what the last search was asked
}

// asked is what a search depends on. Asked the same again, with the same seed, it finds the
// same, as the service's does.
type asked struct {
	labels int
	live   tune.Params
	prior  float64
}

func (st *tunedState) params() tune.Params {
	live := st.guard.Live()
	return live.Params
}

var tunedDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newState(cutoff float64) tunedState {
	return tunedState{guard: tune.NewGuard(tunedDay, atCutoff(cutoff), "the start")}
}

func begin(streams []*tunedStream, cutoff float64) []tunedState {
	states := make([]tunedState, len(streams))
	for i := range states {
		states[i] = newState(cutoff)
	}
	return states
}

// enough is evidence for any proposal: captures have minutes, where a stream has days.
var enough = tune.Basis{Hours: 24}

// answer has the operator answer one thing, if there is any, and the settings follow it.
func (st *tunedState) answer(s *tunedStream, now time.Time, rng *rand.Rand) {
	type open struct {
		span tune.Span
		real bool
		kind string
		peak float64
	}
	var todo []open
	known := func(from, to int) bool {
		return slices.ContainsFunc(st.spans, func(sp tune.Span) bool { return sp.From < to && from < sp.To })
	}
	alarms := s.replayer.Alarms(s.trace, st.params())
	for _, sp := range s.truth {
		if sp.Verdict != tune.Real || known(sp.From, sp.To) {
			continue
		}
		o := open{span: sp, real: true}
		if i := slices.IndexFunc(alarms, func(a tune.Alarm) bool { return sp.From <= a.Hop && a.Hop < sp.To }); i >= 0 {
			o.kind, o.peak = alarms[i].Kind, alarms[i].Peak
		}
		todo = append(todo, o)
	}
	for _, a := range alarms {
		from, to := max(a.Hop-5*episode.HopsPerSecond, 0), min(a.Hop+episodeHops, s.trace.Len())
		if !s.spoken(a.Hop) && !known(a.Hop, a.Hop+1) {
			todo = append(todo, open{tune.Span{From: from, To: to}, false, a.Kind, a.Peak})
		}
	}
	if len(todo) == 0 {
		return
	}
	o := todo[rng.IntN(len(todo))]
	missed := o.peak == 0
	real := o.real
	if !missed && rng.Float64() < tunedWrong { // a report of a miss is no guess
		real = !real
	}
	l := tune.Label{ID: fmt.Sprint(len(st.labels)), Origin: tune.FromOperator, Real: real, Kind: o.kind, Peak: o.peak}
	st.labels, st.wrong = append(st.labels, l), append(st.wrong, real != o.real)
	sp := tune.Span{From: o.span.From, To: o.span.To, Verdict: tune.False, Name: o.span.Name}
	if real {
		sp.Verdict = tune.Real
	}
	st.spans = append(st.spans, sp)
	if done, _ := st.guard.Answer(now, &l, true, missed, tune.Basis{}); len(done) > 0 {
		st.shadow(s, now, tunedGoal)
	}
}

// data is what a method is told.
func (st *tunedState) data(s *tunedStream) *tune.Data {
	c := tune.Case{Trace: s.trace}
	for i, w := range tune.Beliefs(st.labels) {
		sp := st.spans[i]
		sp.Weight = w
		c.Spans = append(c.Spans, sp)
	}
	for _, a := range s.replayer.Alarms(s.trace, st.params()) {
		if !slices.ContainsFunc(st.spans, func(sp tune.Span) bool { return sp.From <= a.Hop && a.Hop < sp.To+tune.Aftermath }) {
			c.Spans = append(c.Spans, tune.Span{From: max(a.Hop-5, 0), To: min(a.Hop+episodeHops, s.trace.Len())})
		}
	}
	return &tune.Data{Replayer: s.replayer, Cases: append([]tune.Case{c}, s.made...)}
}

// night has a method search, and what it found go through the rails.
func (st *tunedState) night(s *tunedStream, now time.Time, method string, prior float64, seed uint64) {
	live := st.params()
	ask := asked{len(st.labels), live, prior}
	if ask == st.last && st.guard.InShadow() == nil {
		return
	}
	st.last = ask
	d := st.data(s)
	space := tune.Space{Base: tune.DefaultParams()}
	rng := rand.New(rand.NewPCG(seed, uint64(len(st.labels))))
	search := func(m tune.Method) tune.Params {
		best, _ := tune.Search(&space, tunedGoal, live, d.Judge, m, func(n int) bool { return n < tunedTrials })
		return space.Params(best.X)
	}
	found := tune.Proposal{Params: live}
	switch method {
	case "controller":
		found.Params.Sensitivity = episode.SensitivityAt(tune.Control(d, tunedGoal, live, prior))
	case "bayesian":
		found.Params = search(&tune.Bayes{Rand: rng})
	case "random":
		found.Params = search(tune.Random{Rand: rng})
	case "grid":
		found.Params = search(&tune.Grid{Side: tunedTrials, Rand: rng})
	}
	found.Then = d.Judge(found.Params)
	found.Bound(d, live)
	// The revision is the one just read, and there is evidence: it is never refused.
	_ = st.guard.Propose(now, st.guard.Revision, tune.Setting{By: "tuning", Method: method, Params: found.Params, Basis: enough, Expected: found.Then.Expected()})
	st.shadow(s, now, tunedGoal)
}

// shadow lets what is in the shadow see the stream once more: it decides then, unless it
// alarms more than was expected where what decides does not.
func (st *tunedState) shadow(s *tunedStream, now time.Time, goal tune.Goal) {
	sh := st.guard.InShadow()
	if sh == nil {
		return
	}
	live := s.replayer.Alarms(s.trace, st.params())
	alarms := 0
	for _, a := range s.replayer.Alarms(s.trace, sh.Params) {
		open := slices.ContainsFunc(live, func(l tune.Alarm) bool { return l.Hop-episodeHops <= a.Hop && a.Hop < l.Hop+episodeHops })
		told := slices.ContainsFunc(st.spans, func(sp tune.Span) bool {
			return sp.Verdict == tune.Real && sp.From <= a.Hop && a.Hop < sp.To+tune.Aftermath
		})
		if !open && !told {
			alarms++
		}
	}
	if alarms > goal.Allowed(sh.Expected, float64(s.trace.Len())/episode.HopsPerSecond/3600) {
		st.guard.Reject(now, "it alarmed too much in the shadow")
		return
	}
	st.guard.Promote(now, 24*time.Hour, "")
}

// tunedPart is a run on one half of the captures: points after each answer, with what the
// settings do to the half that was answered for, and to the other.
type tunedPart struct {
	own, held []tunedPoint
	lost      []string // attacks that are not found at the end, with the answers about them
	streams   []*tunedStream
	judged    []*tunedStream
	states    []tunedState
	fleet     []fleetRun
}

// halves divides streams: fold k is tuned on the first, and judged on the second.
func halves(streams []*tunedStream, k int) (tunedOn, judged []*tunedStream) {
	for i, s := range streams {
		if i%tunedFolds == k {
			judged = append(judged, s)
		} else {
			tunedOn = append(tunedOn, s)
		}
	}
	return tunedOn, judged
}

func captureNames(streams []*tunedStream) (out []string) {
	for _, s := range streams {
		out = append(out, s.name)
	}
	return out
}

// tunedRun lets a half of the streams be answered for, and judges the other, whose
// settings are the middle of those.
func tunedRun(ctx context.Context, streams, judged []*tunedStream, start float64, method string, seed uint64) *tunedPart {
	p := &tunedPart{streams: streams, judged: judged, states: begin(streams, start)}
	point := func() {
		middle := middleCutoff(p.states)
		own := pointOf(totalTruth(streams, func(i int) tune.Params { return p.states[i].params() }))
		held := pointOf(totalTruth(judged, func(int) tune.Params { return atCutoff(middle) }))
		own.Cutoff, held.Cutoff = middle, middle
		p.own, p.held = append(p.own, own), append(p.held, held)
	}
	point()
	for n := range tunedAnswers {
		if ctx.Err() == nil {
			tunedRound(p.streams, p.states, method, seed, uint64(n))
		}
		point()
	}
	for i, s := range streams {
		alarms := s.replayer.Alarms(s.trace, p.states[i].params())
		for _, sp := range s.truth {
			end := min(sp.To, sp.From+sp.Within)
			if sp.Verdict != tune.Real || slices.ContainsFunc(alarms, func(a tune.Alarm) bool { return sp.From <= a.Hop && a.Hop < end }) {
				continue
			}
			p.lost = append(p.lost, fmt.Sprintf("%s at cut-off %.2f: %s", sp.Name, tune.CutoffOf(p.states[i].params().Sensitivity), p.states[i].said(sp)))
		}
	}
	return p
}

// said tells what the operator answered about a stretch.
func (st *tunedState) said(sp tune.Span) string {
	for i, have := range st.spans {
		if have.From < sp.To && sp.From < have.To {
			what := "called false"
			if st.labels[i].Real {
				what = "called real"
			}
			if st.wrong[i] {
				what += ", wrongly,"
			}
			return fmt.Sprintf("%s at a score of %.1f, believed %.2f", what, st.labels[i].Peak, tune.Beliefs(st.labels)[i])
		}
	}
	return "nobody was asked about it"
}

// tunedRound is one answer for each stream, and a night. The prior is the fleet's middle.
func tunedRound(streams []*tunedStream, states []tunedState, method string, seed, n uint64) {
	prior := middleCutoff(states)
	now := tunedDay.Add(time.Duration(n) * 24 * time.Hour)
	for i, s := range streams {
		rng := rand.New(rand.NewPCG(seed, n<<16|uint64(i)))
		states[i].answer(s, now, rng)
		states[i].night(s, now.Add(12*time.Hour), method, prior, seed<<32|uint64(i))
	}
}

func middleCutoff(states []tunedState) float64 {
	var all []float64
	for i := range states {
		all = append(all, tune.CutoffOf(states[i].params().Sensitivity))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// joined adds the points of another half.
func joined(sum, part []tunedPoint) []tunedPoint {
	if sum == nil {
		return slices.Clone(part)
	}
	for i := range sum {
		sum[i].stats.Add(part[i].stats)
		sum[i].Cutoff = (sum[i].Cutoff + part[i].Cutoff) / 2
	}
	return sum
}

// settle works points out from what was added.
func settle(points []tunedPoint) {
	for i := range points {
		c := points[i].Cutoff
		points[i] = pointOf(points[i].stats)
		points[i].Cutoff = c
	}
}
