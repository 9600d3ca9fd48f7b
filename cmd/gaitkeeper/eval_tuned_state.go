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
	watch  tune.Tally
	rails  tunedRails
	last   asked // what the last search was asked
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

// day lets the stream come once, from some hop on, while its settings are watched and the
// operator answers one thing, if there is any; then the settings follow the answer.
func (st *tunedState) day(s *tunedStream, now time.Time, rng *rand.Rand) {
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
	pass := func() {
		st.young(now, tunedGoal, s.trace.Len(), hopsOf(alarms, func(hop int) bool { return st.calledReal(s, hop) }))
	}
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
		pass()
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
	pass()
	st.guard.Answer(now, &l, true, missed, tune.Basis{})
	st.shadowed(s, now, rng)
}

// calledReal reports whether nothing is blamed for an alarm: the operator called real what
// it is about, today or when it came before, or it was announced.
func (st *tunedState) calledReal(s *tunedStream, hop int) bool {
	in := func(sp tune.Span) bool {
		return sp.Verdict == tune.Real && sp.From <= hop && hop < sp.To+tune.Aftermath
	}
	return slices.ContainsFunc(st.spans, in) ||
		slices.ContainsFunc(s.truth, func(sp tune.Span) bool { return sp.Verdict == tune.Ignored && sp.From <= hop && hop < sp.To })
}

// shadowed lets what is in the shadow see the stream from some hop on.
func (st *tunedState) shadowed(s *tunedStream, now time.Time, rng *rand.Rand) {
	sh := st.guard.InShadow()
	if sh == nil {
		return
	}
	from, n := rng.IntN(s.trace.Len()), s.trace.Len()
	within := min(n, int(shadowFor/hopTime)+2*episodeHops)
	none := func(int) bool { return false }
	live := hopsOf(s.replayer.Alarms(s.trace, st.params()), none)
	alarms := hopsOf(s.replayer.Alarms(s.trace, sh.Params), func(hop int) bool { return st.calledReal(s, hop) })
	st.shadow(now, tunedGoal, within, turned(alarms, from, n, within), turned(live, from, n, within))
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
func (st *tunedState) night(s *tunedStream, now time.Time, days int, method string, prior float64, seed uint64) {
	live := st.params()
	ask := asked{len(st.labels), live, prior}
	if ask == st.last && st.guard.InShadow() == nil {
		return
	}
	st.last = ask
	d := st.data(s)
	space := tune.Space{Base: tune.DefaultParams()}
	rng := rand.New(rand.NewPCG(seed, uint64(len(st.labels))))
	found := tune.Proposal{Params: live}
	if method == "controller" {
		found.Params.Sensitivity = episode.SensitivityAt(tune.Control(d, tunedGoal, live, prior))
	} else {
		best, _ := tune.Search(&space, tunedGoal, live, d.Judge, searchBy(method, rng), func(n int) bool { return n < tunedTrials })
		found.Params = space.Params(best.X)
	}
	found.Then = d.Judge(found.Params)
	found.Bound(d, live)
	// The stream came once for every day that it is known: so much is in its history.
	hours := d.Judge(live).Hours * float64(days)
	before := st.rails
	st.propose(now, tune.Setting{Method: method, Params: found.Params, Basis: tune.Basis{Hours: hours}, Expected: found.Then.Expected()})
	st.shadowed(s, now, rng)
	if st.rails.Refused > before.Refused || st.rails.Rejected > before.Rejected {
		st.last = asked{} // the next night tries again
	}
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

// fleetAfter is after how many answers for each stream it is looked what new ones begin with.
var fleetAfter = []int{1, 2, 3, 5, 7, 10, 15, tunedAnswers}

// newCutoff is what streams begin with of which nothing is known, by what the others went
// through: see [tune.Proposal.ForNew].
func (p *tunedPart) newCutoff(method string, start float64, seed uint64) float64 {
	d := &tune.Data{Replayer: p.streams[0].replayer}
	for i, s := range p.streams {
		d.Cases = append(d.Cases, p.states[i].data(s).Cases...)
	}
	if method == "controller" {
		return tune.Control(d, tunedGoal, tune.DefaultParams(), start)
	}
	space := tune.Space{Base: tune.DefaultParams()}
	best, _ := tune.Search(&space, tunedGoal, atCutoff(start), d.Judge, searchBy(method, rand.New(rand.NewPCG(seed, 3))), func(n int) bool { return n < tunedTrials })
	return tune.CutoffOf(space.Params(best.X).Sensitivity)
}

// searchBy is one of the searches for a single cut-off.
func searchBy(method string, rng *rand.Rand) tune.Method {
	switch method {
	case "bayesian":
		return &tune.Bayes{Rand: rng}
	case "random":
		return tune.Random{Rand: rng}
	}
	return &tune.Grid{Side: tunedTrials, Rand: rng}
}

// tunedRun lets a half of the streams be answered for, and judges the other, whose
// settings are what new streams begin with.
func tunedRun(ctx context.Context, streams, judged []*tunedStream, start float64, method string, seed uint64) *tunedPart {
	p := &tunedPart{streams: streams, judged: judged, states: begin(streams, start)}
	fresh := start // what streams begin with of which nothing is known
	point := func(answers int) {
		if slices.Contains(fleetAfter, answers) && ctx.Err() == nil {
			fresh = p.newCutoff(method, start, seed)
		}
		own := pointOf(totalTruth(streams, func(i int) tune.Params { return p.states[i].params() }))
		held := pointOf(totalTruth(judged, func(int) tune.Params { return atCutoff(fresh) }))
		own.Cutoff, held.Cutoff = middleCutoff(p.states), fresh
		p.own, p.held = append(p.own, own), append(p.held, held)
	}
	point(0)
	for n := range tunedAnswers {
		if ctx.Err() == nil {
			tunedRound(p.streams, p.states, start, method, seed, uint64(n))
		}
		point(n + 1)
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

// tunedRound is one answer for each stream, and a night. The prior stays what streams began with.
func tunedRound(streams []*tunedStream, states []tunedState, prior float64, method string, seed, n uint64) {
	now := tunedDay.Add(time.Duration(n) * 24 * time.Hour)
	for i, s := range streams {
		rng := rand.New(rand.NewPCG(seed, n<<16|uint64(i)))
		states[i].day(s, now, rng)
		states[i].night(s, now.Add(12*time.Hour), int(n)+1, method, prior, seed<<32|uint64(i))
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
