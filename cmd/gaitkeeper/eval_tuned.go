package main

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// What eval --tuned does: every capture is a stream whose threshold begins far off, or,
// with --join, the captures of one encoding. A stream's day is its capture, which comes
// again every day. A simulated operator answers one alarm or reports one miss a day, from
// the labels, and is wrong now and then. The answer, the step that follows it, the nightly
// search, the evidence that it needs, the shadow, the watch over young settings and the
// rails are those of the service (tune.Guard, tune.Tally); only which search it is differs.
// The streams are divided in two halves: each half is tuned on once, and judged once as
// streams that nobody answered for, which begin with what was found for the other half.

const (
	tunedAnswers = 20
	tunedSeeds   = 5
	tunedWrong   = 0.05
	tunedTrials  = 12 // settings that a search tries after each answer
	tunedBudget  = 1  // false rotations an hour: the captures have under an hour
	tunedFolds   = 2
	fixedSteps   = 55 // of 5 %
	fixedShown   = 6  // every so many-th is listed
	episodeHops  = 10 * episode.HopsPerSecond
	skippedHops  = 40 // of a baseline, before the windows that anomalies are made in
)

// tunedStream is a capture as a stream.
type tunedStream struct {
	name     string
	source   string // its encoding
	replayer *tune.Replayer
	trace    *tune.Trace
	truth    []tune.Span
	made     []tune.Case // anomalies made in its baseline

	// What they are made with, until they are.
	windows []feature.Window
	profile *detect.Profile
}

// tunedStart is how streams begin: at a cut-off, with the weight of every detector that an
// operator configured. The least cut-off is a fifth; what is to be far too jumpy needs
// limits that are wrong as well.
type tunedStart struct {
	name   string
	cutoff float64
	weight float64
}

var tunedStarts = []tunedStart{{"far too jumpy", 0.25, 5}, {"far too dull", 3, 1}}

var tunedMethods = []string{"controller", "bayesian", "random", "grid"}

func (c *evalCommand) tuned(ctx context.Context, con console) error {
	streams, err := c.tunedStreams(ctx)
	if err != nil {
		return err
	}
	var report tunedReport
	for k := range tunedFolds {
		tunedOn, judged := halves(streams, k)
		report.Folds = append(report.Folds, tunedFoldNames{captureNames(tunedOn), captureNames(judged)})
	}
	var fleet []fleetRun
	for _, start := range tunedStarts {
		report.Fixed = append(report.Fixed, fixedCutoffs(start, fresh(streams, start.weight)))
		for _, method := range tunedMethods {
			fmt.Fprintf(con.err, "%s, %s\n", start.name, method)
			curve := tunedCurve{Start: start.name, Method: method, Runs: make([][]tunedPoint, tunedSeeds), Held: make([][]tunedPoint, tunedSeeds), Lost: make([][]string, tunedSeeds)}
			parts := make([]*tunedPart, tunedSeeds*tunedFolds)
			together(len(parts), func(k int) {
				tunedOn, judged := halves(fresh(streams, start.weight), k%tunedFolds)
				parts[k] = tunedRun(ctx, tunedOn, judged, start.cutoff, method, uint64(k/tunedFolds))
				if method == "controller" && start == tunedStarts[0] && !c.Join {
					parts[k].searchFleet(start.cutoff, uint64(k/tunedFolds))
				}
			})
			if err := ctx.Err(); err != nil {
				return err
			}
			for k, p := range parts {
				seed := k / tunedFolds
				curve.Runs[seed], curve.Held[seed] = joined(curve.Runs[seed], p.own), joined(curve.Held[seed], p.held)
				curve.Lost[seed] = append(curve.Lost[seed], p.lost...)
				for i := range p.states {
					curve.Rails.add(p.states[i].rails)
				}
				fleet = append(fleet, p.fleet...)
			}
			for seed := range curve.Runs {
				settle(curve.Runs[seed])
				settle(curve.Held[seed])
			}
			report.Curves = append(report.Curves, curve)
		}
	}
	if !c.Join {
		report.New = compareFleet(fleet)
	}
	for _, every := range []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour} {
		if c.Days <= 0 {
			break
		}
		fmt.Fprintln(con.err, "a budget of one in", every)
		report.Long = append(report.Long, c.tunedLong(ctx, streams, every))
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
	all := make([]*tunedStream, len(labels))
	errs := make([]error, len(labels))
	together(len(labels), func(i int) { all[i], errs[i] = c.tunedStream(ctx, &labels[i]) })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s *tunedStream) bool { return s == nil })
	together(len(all), func(i int) { all[i].make(all[(i+1)%len(all)].windows) })
	if c.Join {
		all = joinStreams(all)
	}
	for _, s := range all {
		s.prepare()
	}
	return all, nil
}

// tunedStream has the engine look at one capture. It is nil where nothing was judged.
func (c *evalCommand) tunedStream(ctx context.Context, l *detect.Label) (*tunedStream, error) {
	dir := c.Captures
	if dir == "" {
		dir = c.Labels
	}
	path, err := findCapture(dir, l.Capture)
	if err != nil {
		return nil, err
	}
	end := l.Duration
	if l.RepeatsFrom > 0 && !c.Repeats {
		end = min(end, l.RepeatsFrom)
	}
	s := &tunedStream{name: l.Capture, source: l.Encoder + " " + l.Footage}
	var levels []episode.Level
	flags := c.engineFlags
	if l.Baseline > 0 { // what is not clean any more is not learned from
		flags.Baseline = min(flags.Baseline, time.Duration(l.Baseline*float64(time.Second)))
	}
	flags.keep = func(w *feature.Window) {
		if len(s.windows) < tune.StretchHops+skippedHops {
			s.windows = append(s.windows, *w)
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
		return nil, nil
	}
	s.profile, s.windows = sum.profile, s.windows[min(skippedHops, len(s.windows)):]
	s.truth = truthOf(*l, first, s.trace.Len())
	return s, nil
}

// joinStreams makes one stream of the captures of one encoding, over whatever network:
// they follow each other, each judged by its own baseline.
func joinStreams(all []*tunedStream) (out []*tunedStream) {
	of := map[string]*tunedStream{}
	for _, s := range all {
		t, ok := of[s.source]
		if !ok || !t.trace.Layout.Equal(s.trace.Layout) {
			of[s.source] = s
			out = append(out, s)
			continue
		}
		for _, sp := range s.truth {
			sp.From, sp.To = sp.From+t.trace.Len(), sp.To+t.trace.Len()
			t.truth = append(t.truth, sp)
		}
		t.trace.Join(s.trace)
	}
	return out
}

// fresh gives streams that share nothing with others but what is only read, with the
// weight of every detector that they have.
func fresh(streams []*tunedStream, weight float64) []*tunedStream {
	out := make([]*tunedStream, len(streams))
	for i, s := range streams {
		one := *s
		one.replayer = tune.NewReplayer(s.trace.Layout, func(string, tune.Flags) float64 { return weight })
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
func (s *tunedStream) make(other []feature.Window) {
	replayer := tune.NewReplayer(s.trace.Layout, tune.Plain)
	for k := range tune.Anomalies {
		a := &tune.Anomalies[k]
		if a.HeldOut {
			continue
		}
		for _, strength := range a.Strengths {
			windows := a.Make(s.windows, other, strength, uint64(k))
			if windows == nil {
				continue
			}
			e := detect.Resume(s.profile, detect.Settings{})
			t := &tune.Trace{Layout: s.trace.Layout}
			for i := range windows {
				e.Observe(&windows[i])
				t.Add(detect.Levels(nil, e.Evidence()), 0)
			}
			if _, peak := replayer.Peak(t, tune.LeadHops, t.Len()); peak >= tune.Floor {
				s.made = append(s.made, tune.Simulated(t, a.Name(strength), 1))
			}
		}
	}
}

// prepare has traces ready before they are shared.
func (s *tunedStream) prepare() {
	replayer := tune.NewReplayer(s.trace.Layout, tune.Plain)
	replayer.Alarms(s.trace, tune.DefaultParams())
	for i := range s.made {
		replayer.Alarms(s.made[i].Trace, tune.DefaultParams())
		s.made[i].Spans[0].Weight = tune.SimulatedWeight / float64(len(s.made))
	}
	s.windows, s.profile = nil, nil
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
		sum.Add(s.judgeTruth(p(i)))
	}
	return sum
}

var tunedGoal = tune.Goal{Budget: tunedBudget, MissCost: 20}

func atCutoff(c float64) tune.Params {
	p := tune.DefaultParams()
	p.Sensitivity = episode.SensitivityAt(c)
	return p
}

// tunedFixed is what fixed cut-offs for all streams do, found with the labels themselves.
type tunedFixed struct {
	Start  string       `json:"start"`
	Weight float64      `json:"weight"`
	Best   tunedPoint   `json:"best"` // the cheapest that keeps the budget that so much traffic can show
	Points []tunedPoint `json:"points"`
}

func fixedCutoffs(start tunedStart, streams []*tunedStream) tunedFixed {
	out := tunedFixed{Start: start.name, Weight: start.weight, Best: tunedPoint{Cost: math.Inf(1)}}
	over := math.Inf(1)
	for i := range fixedSteps {
		c := tune.Floor * math.Pow(tune.Ceiling/tune.Floor, float64(i)/(fixedSteps-1))
		p := pointOf(totalTruth(streams, func(int) tune.Params { return atCutoff(c) }))
		p.Cutoff = c
		if o := max(tunedGoal.Over(p.stats), 0); o < over || o == over && p.Cost < out.Best.Cost {
			out.Best, over = p, o
		}
		if i%fixedShown == 0 {
			out.Points = append(out.Points, p)
		}
	}
	return out
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

	stats tune.Stats
}

func pointOf(s tune.Stats) tunedPoint {
	return tunedPoint{stats: s, False: s.False, Hours: s.Hours, Bound: s.Bound(), Detected: s.Real - s.Missed, Events: s.Real, Cost: tunedGoal.Cost(s)}
}
