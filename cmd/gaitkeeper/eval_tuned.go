package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// What eval --tuned does: every capture is a stream whose threshold begins far off. A
// simulated operator answers one alarm or reports one miss a round, from the labels,
// and is wrong now and then; after every answer each method sets the threshold anew
// from what it was told. Then it is counted, with the labels, what those settings do.

const (
	tunedAnswers = 20
	tunedSeeds   = 5
	tunedWrong   = 0.05
	tunedTrials  = 12 // settings that a search tries after each answer
	tunedBudget  = 1  // false rotations an hour: the captures have under an hour
	episodeHops  = 10 * episode.HopsPerSecond
)

// tunedStream is a capture as a stream.
type tunedStream struct {
	name     string
	replayer *tune.Replayer
	trace    *tune.Trace
	truth    []tune.Span
	made     []tune.Case // anomalies made in its baseline
}

// tunedStarts are the settings that streams begin with.
var tunedStarts = []struct {
	name   string
	cutoff float64
}{{"far too jumpy", 0.25}, {"far too dull", 3}}

var tunedMethods = []string{"controller", "bayesian", "random", "grid"}

func (c *evalCommand) tuned(ctx context.Context, con console) error {
	streams, err := c.tunedStreams(ctx)
	if err != nil {
		return err
	}
	report := tunedReport{Fixed: bestFixed(streams)}
	for _, start := range tunedStarts {
		for _, method := range tunedMethods {
			fmt.Fprintf(con.err, "%s, %s\n", start.name, method)
			curve := tunedCurve{Start: start.name, Method: method, Runs: make([][]tunedPoint, tunedSeeds)}
			together(tunedSeeds, func(seed int) {
				curve.Runs[seed] = tunedRun(ctx, fresh(streams), start.cutoff, method, uint64(seed))
			})
			if err := ctx.Err(); err != nil {
				return err
			}
			report.Curves = append(report.Curves, curve)
		}
	}
	fmt.Fprintln(con.err, "streams that nothing was learned from")
	report.New = tunedNew(ctx, streams)
	for _, every := range []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour} {
		fmt.Fprintln(con.err, "a budget of one in", every)
		report.Long = append(report.Long, tunedLong(ctx, streams, every))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Figures != "" {
		if err := os.WriteFile(filepath.Join(c.Figures, "tuning-cost.svg"), report.svg(), 0o644); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(con.out, report)
	}
	return report.print(con.out)
}

// tunedStreams has the engine look at every capture, at plain settings.
func (c *evalCommand) tunedStreams(ctx context.Context) ([]*tunedStream, error) {
	labels, err := readLabels(c.Labels)
	if err != nil {
		return nil, err
	}
	dir := c.Captures
	if dir == "" {
		dir = c.Labels
	}
	var streams []*tunedStream
	var windows [][]feature.Window
	var profiles []*detect.Profile
	for _, l := range labels {
		path, err := findCapture(dir, l.Capture)
		if err != nil {
			return nil, err
		}
		end := l.Duration
		if l.RepeatsFrom > 0 && !c.Repeats {
			end = min(end, l.RepeatsFrom)
		}
		s := &tunedStream{name: l.Capture}
		var baseline []feature.Window
		var levels []episode.Level
		flags := c.engineFlags
		flags.keep = func(w *feature.Window) {
			if len(baseline) < tune.StretchHops+40 {
				baseline = append(baseline, *w)
			}
		}
		first := 0.0
		sum, err := flags.analyse(ctx, path, func(line windowLine, engine *detect.Engine) error {
			if line.T > end {
				return nil
			}
			if s.trace == nil {
				kinds, where := detect.Accusing(engine.Evidence())
				first = line.T
				s.trace = &tune.Trace{Layout: &tune.Layout{Kinds: kinds, Path: where}}
			}
			levels = detect.Levels(levels[:0], engine.Evidence())
			s.trace.Add(levels, 0)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if s.trace == nil {
			continue
		}
		s.replayer = tune.NewReplayer(s.trace.Layout, tune.Plain)
		s.truth = truthOf(l, first, s.trace.Len())
		streams, windows, profiles = append(streams, s), append(windows, baseline[min(40, len(baseline)):]), append(profiles, sum.profile)
	}
	for i, s := range streams {
		s.make(profiles[i], windows[i], windows[(i+1)%len(windows)])
	}
	return streams, nil
}

// fresh gives streams that share nothing with others but what is only read.
func fresh(streams []*tunedStream) []*tunedStream {
	out := make([]*tunedStream, len(streams))
	for i, s := range streams {
		one := *s
		one.replayer = tune.NewReplayer(s.trace.Layout, tune.Plain)
		out[i] = &one
	}
	return out
}

// together runs f for 0 to n-1, as many at a time as there are processors.
func together(n int, f func(int)) {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = g.Wait() // nothing fails
}

// truthOf turns labels into spans of a trace whose first hop ends at first.
func truthOf(l detect.Label, first float64, hops int) (spans []tune.Span) {
	at := func(t float64) int {
		return min(max(int(math.Ceil((t-first)*episode.HopsPerSecond)), 0), hops)
	}
	for _, e := range l.Events {
		sp := tune.Span{From: at(e.Start), To: at(e.End), Weight: 1, Name: l.Capture + " " + e.Kind}
		switch {
		case e.Malicious && slices.Contains(pathKinds, e.Kind), e.Planned:
			sp.To = min(sp.To+tune.Aftermath, hops)
		case e.Malicious:
			sp.Verdict, sp.Within = tune.Real, episodeHops
			if strings.Contains(e.Kind, "drift") {
				sp.Within = 6 * episodeHops
			}
		default:
			continue
		}
		if sp.From < sp.To {
			spans = append(spans, sp)
		}
	}
	return spans
}

// make simulates anomalies in the recorded windows.
func (s *tunedStream) make(p *detect.Profile, own, other []feature.Window) {
	for k := range tune.Anomalies {
		a := &tune.Anomalies[k]
		if a.HeldOut {
			continue
		}
		for _, strength := range a.Strengths {
			windows := a.Make(own, other, strength, uint64(k))
			if windows == nil {
				continue
			}
			e := detect.Resume(p, detect.Settings{})
			t := &tune.Trace{Layout: s.trace.Layout}
			for i := range windows {
				e.Observe(&windows[i])
				t.Add(detect.Levels(nil, e.Evidence()), 0)
			}
			if _, peak := s.replayer.Peak(t, tune.LeadHops, t.Len()); peak >= tune.Floor {
				s.made = append(s.made, tune.Simulated(t, a.Name(strength), 1))
			}
		}
	}
	s.replayer.Alarms(s.trace, tune.DefaultParams()) // traces are prepared before they are shared
	for i := range s.made {
		s.replayer.Alarms(s.made[i].Trace, tune.DefaultParams())
		s.made[i].Spans[0].Weight = tune.SimulatedWeight / float64(len(s.made))
	}
}

// judgeTruth says, with the labels, what settings do.
func (s *tunedStream) judgeTruth(p tune.Params) (st tune.Stats) {
	st = tune.Judge(s.replayer, &tune.Case{Trace: s.trace, Spans: s.truth}, p)
	st.False = 0
	for _, a := range s.replayer.Alarms(s.trace, p) {
		if !s.spoken(a.Hop) {
			st.False++
		}
	}
	return st
}

// spoken reports whether an alarm belongs to a labelled event.
func (s *tunedStream) spoken(hop int) bool {
	return slices.ContainsFunc(s.truth, func(sp tune.Span) bool {
		to := sp.To
		if sp.Verdict == tune.Real {
			to += tune.Aftermath
		}
		return sp.From <= hop && hop < to
	})
}

func totalTruth(streams []*tunedStream, p func(i int) tune.Params) (sum tune.Stats) {
	for i, s := range streams {
		st := s.judgeTruth(p(i))
		sum.False += st.False
		sum.Hours += st.Hours
		sum.Real += st.Real
		sum.Missed += st.Missed
		sum.Late += st.Late
	}
	return sum
}

var tunedGoal = tune.Goal{Budget: tunedBudget, MissCost: 20}

func atCutoff(c float64) tune.Params {
	p := tune.DefaultParams()
	p.Sensitivity = episode.SensitivityAt(c)
	return p
}

// bestFixed is the one cut-off for all streams that costs least, found with the labels
// themselves.
func bestFixed(streams []*tunedStream) (best tunedPoint) {
	best.Cost = math.Inf(1)
	for c := tune.Floor; c <= tune.Ceiling; c *= 1.05 {
		p := pointOf(totalTruth(streams, func(int) tune.Params { return atCutoff(c) }))
		if p.Cost < best.Cost {
			best, best.Cutoff = p, c
		}
	}
	return best
}

// tunedPoint is what the settings of all streams do.
type tunedPoint struct {
	Cutoff   float64 `json:"cutoff,omitempty"` // the median
	False    float64 `json:"false_alarms"`
	Hours    float64 `json:"hours"`
	Bound    float64 `json:"false_per_hour_at_most"`
	Detected float64 `json:"detected"`
	Events   float64 `json:"events"`
	Cost     float64 `json:"cost"`
}

func pointOf(s tune.Stats) tunedPoint {
	return tunedPoint{False: s.False, Hours: s.Hours, Bound: s.Bound(), Detected: s.Real - s.Missed, Events: s.Real, Cost: tunedGoal.Cost(s)}
}

// tunedState is how far one stream is.
type tunedState struct {
	params tune.Params
	labels []tune.Label
	spans  []tune.Span
}

// answer has the operator answer one thing, if there is any.
func (st *tunedState) answer(s *tunedStream, rng *rand.Rand) bool {
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
	alarms := s.replayer.Alarms(s.trace, st.params)
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
		return false
	}
	o := todo[rng.IntN(len(todo))]
	real := o.real
	if o.peak > 0 && rng.Float64() < tunedWrong { // a report of a miss is no guess
		real = !real
	}
	st.labels = append(st.labels, tune.Label{ID: fmt.Sprint(len(st.labels)), Origin: tune.FromOperator, Real: real, Kind: o.kind, Peak: o.peak})
	sp := tune.Span{From: o.span.From, To: o.span.To, Verdict: tune.False}
	if real {
		sp.Verdict = tune.Real
	}
	st.spans = append(st.spans, sp)
	return true
}

// data is what a method is told.
func (st *tunedState) data(s *tunedStream) *tune.Data {
	c := tune.Case{Trace: s.trace}
	for i, w := range tune.Beliefs(st.labels) {
		sp := st.spans[i]
		sp.Weight = w
		c.Spans = append(c.Spans, sp)
	}
	for _, a := range s.replayer.Alarms(s.trace, st.params) {
		if !slices.ContainsFunc(st.spans, func(sp tune.Span) bool { return sp.From <= a.Hop && a.Hop < sp.To+tune.Aftermath }) {
			c.Spans = append(c.Spans, tune.Span{From: max(a.Hop-5, 0), To: min(a.Hop+episodeHops, s.trace.Len())})
		}
	}
	return &tune.Data{Replayer: s.replayer, Cases: append([]tune.Case{c}, s.made...)}
}

// set has a method set a threshold.
func (st *tunedState) set(s *tunedStream, method string, prior float64, seed uint64) {
	d := st.data(s)
	space := tune.Space{Base: tune.DefaultParams()}
	rng := rand.New(rand.NewPCG(seed, uint64(len(st.labels))))
	search := func(m tune.Method) tune.Params {
		best, _ := tune.Search(&space, tunedGoal, st.params, d.Judge, m, func(n int) bool { return n < tunedTrials })
		return space.Params(best.X)
	}
	want := st.params
	switch method {
	case "controller":
		want.Sensitivity = episode.SensitivityAt(tune.Control(d, tunedGoal, st.params, prior))
	case "bayesian":
		want = search(&tune.Bayes{Rand: rng})
	case "random":
		want = search(tune.Random{Rand: rng})
	case "grid":
		want = search(&tune.Grid{Side: tunedTrials, Rand: rng})
	}
	st.params = tune.Bounded(st.params, want)
}

// tunedRun lets all streams be answered for, and gives what their settings do after
// each answer.
func tunedRun(ctx context.Context, streams []*tunedStream, start float64, method string, seed uint64) (run []tunedPoint) {
	states := begin(streams, start)
	point := func() {
		p := pointOf(totalTruth(streams, func(i int) tune.Params { return states[i].params }))
		p.Cutoff = middleCutoff(states)
		run = append(run, p)
	}
	point()
	for n := range tunedAnswers {
		if ctx.Err() == nil {
			tunedRound(streams, states, method, seed, uint64(n))
		}
		point()
	}
	return run
}

func begin(streams []*tunedStream, cutoff float64) []tunedState {
	states := make([]tunedState, len(streams))
	for i := range states {
		states[i].params = atCutoff(cutoff)
	}
	return states
}

// tunedRound is one answer for each stream. The prior is the fleet's middle.
func tunedRound(streams []*tunedStream, states []tunedState, method string, seed, n uint64) {
	prior := middleCutoff(states)
	for i, s := range streams {
		rng := rand.New(rand.NewPCG(seed, n<<16|uint64(i)))
		states[i].answer(s, rng)
		states[i].set(s, method, prior, seed<<32|n<<16|uint64(i))
	}
}

func middleCutoff(states []tunedState) float64 {
	var all []float64
	for i := range states {
		all = append(all, tune.CutoffOf(states[i].params.Sensitivity))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
