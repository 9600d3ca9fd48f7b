package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/capture"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// engineFlags are what analyze and eval share.
type engineFlags struct {
	Baseline    time.Duration                          `default:"90s" help:"How long the stream is learned before it is judged."`
	Sensitivity float64                                `default:"0.5" help:"From above 0 to 1: more finds more and errs more often."`
	Flow        string                                 `placeholder:"[ADDR:]PORT" help:"UDP destination of the stream, where a capture holds several."`
	keep        func(*feature.Window)                  // sees every window, those of the baseline as well
	learned     func(windowLine, *detect.Engine) error // is told of every window of the baseline

	Weight map[string]float64 `placeholder:"DETECTOR=FACTOR" help:"Factor on a detector's scores; 0 switches it off. Repeatable."`
}

type analyzeCommand struct {
	engineFlags
	Captures []string `arg:"" name:"capture" type:"existingfile" help:"pcap or pcapng files, gzip or not."`
	JSONL    bool     `name:"jsonl" help:"Print a JSON object for every window of 250 ms: an alarm is a line with a score of at least 1. Those of the baseline say so, and have the score 0."`
	Plot     string   `type:"path" placeholder:"FILE" help:"Draw the scores into an HTML file."`
	Detail   bool     `help:"With --jsonl, add the score of every detector and the numbers of the last second."`
}

// windowLine is one window of analyze --jsonl.
type windowLine struct {
	Capture  string             `json:"capture"`
	T        float64            `json:"t"` // seconds from the flow's first packet to the window's end
	Score    float64            `json:"score"`
	Baseline bool               `json:"baseline,omitempty"` // learned from, and not judged: the score says nothing
	Kind     string             `json:"kind,omitempty"`
	Class    detect.Class       `json:"class,omitempty"`
	Evidence string             `json:"evidence,omitempty"`
	Code     string             `json:"code,omitempty"`    // exact words of the grammar that the evidence tells of
	Partial  bool               `json:"partial,omitempty"` // payload features come from cut packets
	Scores   map[string]float64 `json:"scores,omitempty"`
	Features map[string]float64 `json:"features,omitempty"` // over 1 s

	held bool // no alarm could be told
}

func (c *analyzeCommand) Run(ctx context.Context, con console) error {
	enc := json.NewEncoder(con.out)
	var plots []capturePlot
	var short error
	if c.Plot != "" { // what cannot be written is said before the work
		if err := os.WriteFile(c.Plot, nil, 0o644); err != nil {
			return fmt.Errorf("plot: %w: choose another file", err)
		}
	}
	print := func(line windowLine, engine *detect.Engine) error {
		if c.Detail {
			line.detail(engine)
		}
		return enc.Encode(line)
	}
	if c.JSONL {
		c.learned = print
	}
	for _, path := range c.Captures {
		var alarms []windowLine
		var scores []detect.Reading
		sum, err := c.analyse(ctx, path, func(line windowLine, engine *detect.Engine) error {
			scores = append(scores, detect.Reading{T: line.T, Score: line.Score, Class: line.Class})
			if line.Score >= 1 {
				alarms = append(alarms, line)
			}
			if !c.JSONL {
				return nil
			}
			return print(line, engine)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, broken := range sum.damage {
			fmt.Fprintf(con.err, "%s: damaged: %s\n", sum.name, broken)
		}
		if !c.JSONL {
			sum.print(con.out, alarms)
		}
		if sum.profile == nil {
			short = errors.Join(short, fmt.Errorf("%s: nothing is left to judge: it lasts %s, and the baseline takes %s: learn for less with --baseline",
				sum.name, sum.length.Round(time.Second), sum.baseline))
		}
		plots = append(plots, capturePlot{sum, scores, alarms})
	}
	if c.Plot != "" {
		if err := os.WriteFile(c.Plot, plotCaptures(plots), 0o644); err != nil {
			return fmt.Errorf("plot: %w", err)
		}
	}
	return short
}

// detail adds the score of every detector, where the window was judged, and the numbers of
// the last second.
func (l *windowLine) detail(engine *detect.Engine) {
	for _, e := range engine.Evidence() {
		if l.Scores == nil {
			l.Scores = map[string]float64{}
		}
		l.Scores[e.Kind] = round(e.Score)
	}
	if v, ok := engine.Vector(); ok {
		l.Features = map[string]float64{}
		for f, x := range v {
			l.Features[feature.Descriptions[f].Name] = round(x)
		}
	}
}

// leastBaseline is what serve wants at least as well.
const leastBaseline = 5 * time.Second

// known refuses a weight for a detector that is none.
func (f *engineFlags) known(engine *detect.Engine) error {
	if len(f.Weight) == 0 {
		return nil
	}
	var names []string
	for _, e := range engine.Evidence() {
		names = append(names, e.Kind)
	}
	for name := range f.Weight {
		if !slices.Contains(names, name) {
			return fmt.Errorf("weight: %q is no detector: choose among %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// captureSummary is what a capture held.
type captureSummary struct {
	name     string
	flow     capture.Flow
	ssrc     uint32
	form     feature.Form
	start    time.Time
	length   time.Duration
	packets  uint64
	partial  bool
	baseline time.Duration
	profile  *detect.Profile
	damage   []string // what was broken in the file
}

func (s captureSummary) print(w io.Writer, alarms []windowLine) {
	fmt.Fprintf(w, "%s: %d packets to %s, SSRC %08x, payload %s, %s from %s\n", s.name, s.packets, s.flow, s.ssrc, s.form,
		s.length.Round(time.Second), s.start.UTC().Format("2006-01-02 15:04:05"))
	if s.profile == nil {
		return
	}
	if s.partial {
		fmt.Fprintln(w, "  packets are cut: what depends on payload is seen in part")
	}
	fmt.Fprintf(w, "  learned %d windows, %d words of grammar\n", s.profile.Hops, len(s.profile.Vocabulary.Words))
	if len(alarms) == 0 {
		fmt.Fprintln(w, "  no alarm")
	}
	for _, a := range alarms {
		fmt.Fprintf(w, "  %8.2f s  %-6s %-18s %.2f  %s\n", a.T, a.Class, a.Kind, a.Score, a.Evidence)
	}
}

// captureName is a file's name without its endings.
func captureName(path string) string {
	name := filepath.Base(path)
	for _, end := range []string{".gz", ".pcapng", ".pcap", ".cap"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}

// analyse runs the engine over one capture on the capture's own clock. each is
// called for every window after the baseline.
func (f *engineFlags) analyse(ctx context.Context, path string, each func(windowLine, *detect.Engine) error) (captureSummary, error) {
	sum := captureSummary{name: captureName(path), baseline: f.Baseline}
	if !(f.Sensitivity > 0 && f.Sensitivity <= 1) {
		return sum, fmt.Errorf("sensitivity %g is not above 0 and at most 1: 0.5 is the default", f.Sensitivity)
	}
	if f.Baseline < leastBaseline {
		return sum, fmt.Errorf("baseline %s is too short to learn anything from: at least %s, better 90s", f.Baseline, leastBaseline)
	}
	var want capture.Flow
	if f.Flow != "" {
		var err error
		if want, err = capture.ParseFlow(f.Flow); err != nil {
			return sum, err
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	r, err := capture.Open(file, want)
	if err != nil {
		return sum, err
	}
	sum.flow, sum.ssrc, sum.form, sum.start = r.Flow(), r.SSRC(), r.Form(), r.Start()

	meter := feature.NewMeter(r.Form())
	engine := detect.NewEngine(r.Form(), detect.Settings{Sensitivity: f.Sensitivity, Weights: f.Weight})
	var p feature.Packet
	var w feature.Window
	end := int64(feature.Hop)
	for {
		err := r.Next(&p)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return sum, err
		}
		for !last && p.At >= end {
			if err := ctx.Err(); err != nil {
				return sum, err
			}
			meter.Roll(&w, end)
			if f.keep != nil {
				f.keep(&w)
			}
			sum.partial = sum.partial || w.Partial()
			verdict := engine.Observe(&w)
			if engine.Learning() {
				if f.learned != nil {
					line := windowLine{Capture: sum.name, T: float64(end) / 1e9, Baseline: true, Partial: w.Partial()}
					if err := f.learned(line, engine); err != nil {
						return sum, err
					}
				}
				if end >= f.Baseline.Nanoseconds() {
					sum.profile = engine.Settle()
				}
			} else if err := f.known(engine); err != nil {
				return sum, err
			} else if err := each(lineOf(sum.name, end, w.Partial(), verdict), engine); err != nil {
				return sum, err
			}
			end += feature.Hop
		}
		if last {
			sum.damage = r.Damage()
			return sum, nil
		}
		meter.Observe(&p)
		sum.packets++
		sum.length = time.Duration(p.At)
	}
}

func lineOf(name string, end int64, partial bool, v detect.Verdict) windowLine {
	return windowLine{
		Capture: name, T: float64(end) / 1e9, Score: round(v.Score), Kind: v.Kind, Class: v.Class, Evidence: v.Text, Code: v.Code, Partial: partial, held: v.Held,
	}
}

// round keeps a score short without lifting it over the limit.
func round(x float64) float64 { return float64(int(x*1000)) / 1000 }
