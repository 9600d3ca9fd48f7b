package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/synth"
)

type evalCommand struct {
	engineFlags
	Labels   string   `arg:"" optional:"" type:"existingdir" help:"Directory of labels, one JSON file a capture. Without it, the small captures in this program are measured."`
	Captures string   `type:"existingdir" placeholder:"DIR" help:"Directory of the captures NAME.pcap[.gz] or NAME.pcapng[.gz], instead of that of the labels."`
	Repeats  bool     `help:"Judge also where a quiet recording's content comes a second time."`
	Tuned    bool     `help:"Let thresholds that begin far off tune themselves by a simulated operator's answers, each capture as a stream, and compare ways to do it. Takes minutes."`
	Join     bool     `help:"With --tuned, the captures of one encoder and footage are one stream. Weights for a fleet are not searched then."`
	Days     int      `default:"6" help:"With --tuned, so many days of every stream are put together to see how the budget is kept; 0: none."`
	JSON     bool     `name:"json" help:"Print JSON."`
	Ablation bool     `help:"Show what each detector finds alone, and what changes without it."`
	List     bool     `help:"List every false alarm with its evidence and the harmless events around it."`
	Figures  string   `type:"path" placeholder:"DIR" help:"Write roc.svg and time.svg, and with --trace traces.svg, into a directory."`
	Trace    []string `placeholder:"CAPTURE" help:"With --figures, draw this capture's scores. Repeatable."`
	Plot     string   `type:"path" placeholder:"FILE" help:"Write the curve of detections over false alarms and every capture's scores as one HTML file."`
}

// evalReport is what eval prints as JSON.
type evalReport struct {
	All    detect.Result   `json:"all"`    // alarms of any class
	Source detect.Result   `json:"source"` // alarms that change the key
	ROC    []detect.Result `json:"roc"`    // of any class, over thresholds

	ROCSource []detect.Result `json:"roc_source"`
	Ablation  []ablated       `json:"ablation,omitempty"`
}

// pathKinds are attacks that nobody can tell from a change of the network at the
// receiver; they do not count against the source's alarms.
var pathKinds = []string{"mitm_relay", "throttle"}

func (c *evalCommand) Run(ctx context.Context, con console) error {
	if c.Labels == "" {
		dir, err := os.MkdirTemp("", "gaitkeeper-eval-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := os.CopyFS(dir, synth.Own()); err != nil {
			return err
		}
		c.Labels, c.Captures = dir, dir
	}
	if c.Tuned {
		return c.tuned(ctx, con)
	}
	labels, err := readLabels(c.Labels)
	if err != nil {
		return err
	}
	if c.Captures == "" {
		c.Captures = c.Labels
	}
	all, source := map[string][]detect.Reading{}, map[string][]detect.Reading{}
	var parts ablation
	var at [len(thresholds)]sweep
	for i := range at {
		at[i] = sweep{map[string][]detect.Reading{}, map[string][]detect.Reading{}}
	}
	for i := range labels {
		l := &labels[i]
		if c.Repeats {
			l.RepeatsFrom = 0
		}
		path, err := findCapture(c.Captures, l.Capture)
		if err != nil {
			return err
		}
		flags := c.engineFlags
		if l.Baseline > 0 { // what is not clean any more is not learned from
			flags.Baseline = min(flags.Baseline, time.Duration(l.Baseline*float64(time.Second)))
		}
		parts.begin()
		var decisions [len(thresholds)]*detect.Decision
		for i := range decisions {
			decisions[i] = detect.NewDecision()
		}
		_, err = flags.analyse(ctx, path, func(line windowLine, engine *detect.Engine) error {
			reading := detect.Reading{T: line.T, Score: line.Score, Class: line.Class, Kind: line.Kind, Held: line.held}
			if line.Score >= 1 {
				reading.Text = line.Evidence
			}
			all[l.Capture] = append(all[l.Capture], reading)
			if line.Class == detect.Source || line.Class == detect.Proof {
				source[l.Capture] = append(source[l.Capture], reading)
			}
			if c.Ablation {
				parts.add(l.Capture, line.T, engine.Evidence())
			}
			for i, threshold := range thresholds {
				at[i].add(l.Capture, line.T, decisions[i], engine.Evidence(), threshold)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	report := evalReport{
		All:    detect.Evaluate(labels, all, 1),
		Source: detect.Evaluate(withoutPath(labels), source, 1),
	}
	for i, threshold := range thresholds {
		roc, source := detect.Evaluate(labels, at[i].all, 1), detect.Evaluate(withoutPath(labels), at[i].source, 1)
		roc.Threshold, source.Threshold = threshold, threshold
		report.ROC, report.ROCSource = append(report.ROC, roc), append(report.ROCSource, source)
	}
	if c.Figures != "" {
		if err := writeFigures(c.Figures, report, labels, all, c.Trace); err != nil {
			return err
		}
	}
	if c.Plot != "" {
		if err := os.WriteFile(c.Plot, plotEvaluation(labels, all, report.ROC), 0o644); err != nil {
			return err
		}
	}
	report.Ablation = parts.results(labels)
	if c.JSON {
		return printJSON(con.out, report)
	}
	if err := report.print(con.out, c.List); err != nil || !c.Ablation {
		return err
	}
	fmt.Fprintln(con.out)
	return printAblation(con.out, report.Ablation, report.All)
}

// thresholds are the limits on the score that are compared.
var thresholds = [...]float64{0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5, 10, 20}

// sweep has what would have been told at one threshold, by capture: of any class, and
// of class source.
type sweep struct{ all, source map[string][]detect.Reading }

// add decides one window at the threshold as the engine does at 1: an episode is told once.
func (s *sweep) add(capture string, t float64, d *detect.Decision, evidence []detect.Evidence, threshold float64) {
	scaled := slices.Clone(evidence)
	for i := range scaled {
		scaled[i].Score /= threshold
	}
	v := d.Judge(scaled)
	if v.Score < 1 && !v.Held {
		return
	}
	r := detect.Reading{T: t, Score: v.Score, Class: v.Class, Held: v.Held}
	s.all[capture] = append(s.all[capture], r)
	if v.Class == detect.Source || v.Class == detect.Proof {
		s.source[capture] = append(s.source[capture], r)
	}
}

func readLabels(dir string) ([]detect.Label, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var labels []detect.Label
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var l detect.Label
		if err := json.Unmarshal(b, &l); err != nil {
			return nil, fmt.Errorf("%s is no label file: %w", name, err)
		}
		if l.Capture != "" {
			labels = append(labels, l)
		}
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("no labels (*.json with a \"capture\") in %s", dir)
	}
	return labels, nil
}

func findCapture(dir, name string) (string, error) {
	for _, end := range []string{".pcap.gz", ".pcap", ".pcapng.gz", ".pcapng"} {
		if path := filepath.Join(dir, name+end); fileExists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no capture %s.pcap or .pcapng, gzip or not, in %s", name, dir)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// withoutPath takes out as attacks, but not as times, what points to the network only.
func withoutPath(labels []detect.Label) []detect.Label {
	var out []detect.Label
	for _, l := range labels {
		l.Events = slices.Clone(l.Events)
		for i, e := range l.Events {
			if slices.Contains(pathKinds, e.Kind) {
				l.Events[i].Malicious = false
			}
		}
		out = append(out, l)
	}
	return out
}

func (r evalReport) print(w io.Writer, list bool) error {
	for _, part := range []struct {
		title string
		r     detect.Result
	}{{"All alarms", r.All}, {"Alarms that change the key (class source), of attacks that are no relay or throttle", r.Source}} {
		fmt.Fprintf(w, "%s: detected %d of %d (95 %%: %.0f to %.0f %%), median time %.2f s; %d false in %.2f h: %.2f an hour (95 %%: %.2f to %.2f)\n",
			part.title, part.r.Detected, part.r.Events, 100*part.r.DetectedCI[0], 100*part.r.DetectedCI[1], part.r.MedianTime,
			part.r.False, part.r.Hours, part.r.FalseRate, part.r.FalseRateCI[0], part.r.FalseRateCI[1])
		rows := [][]string{{"KIND", "DETECTED", "95 %", "MEDIAN"}}
		for _, k := range part.r.Kinds {
			took := "-"
			if k.Detected > 0 {
				took = fmt.Sprintf("%.2f s", k.Median)
			}
			rows = append(rows, []string{k.Kind, fmt.Sprintf("%d/%d", k.Detected, k.Events), fmt.Sprintf("%.0f to %.0f %%", 100*k.Low, 100*k.High), took})
		}
		for _, b := range part.r.Benign {
			rows = append(rows, []string{b.Kind + " (harmless)", fmt.Sprintf("%d/%d", b.Alarmed, b.Events), "", ""})
		}
		if err := table(w, rows); err != nil {
			return err
		}
		if len(part.r.Missed) > 0 {
			fmt.Fprintln(w, "missed:", strings.Join(part.r.Missed, ", "))
		}
		if err := printFalse(w, part.r, list); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	rows := [][]string{{"THRESHOLD", "DETECTED", "FALSE/H", "95 %"}}
	for _, p := range r.ROC {
		rows = append(rows, []string{fmt.Sprintf("%g", p.Threshold), fmt.Sprintf("%d/%d", p.Detected, p.Events),
			fmt.Sprintf("%.2f", p.FalseRate), fmt.Sprintf("%.2f to %.2f", p.FalseRateCI[0], p.FalseRateCI[1])})
	}
	return table(w, rows)
}

// printFalse counts false alarms by class and detector, and lists them if asked to.
func printFalse(w io.Writer, r detect.Result, list bool) error {
	if r.False == 0 {
		return nil
	}
	counts := map[string]int{}
	for _, f := range r.FalseAlarms {
		counts[string(f.Class)+" "+f.Kind]++
	}
	rows := [][]string{{"FALSE ALARMS", "", "AN HOUR", "95 %"}}
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		low, high := detect.PoissonInterval(counts[kind])
		rows = append(rows, []string{kind, fmt.Sprint(counts[kind]), fmt.Sprintf("%.2f", float64(counts[kind])/r.Hours),
			fmt.Sprintf("%.2f to %.2f", low/r.Hours, high/r.Hours)})
	}
	if err := table(w, rows); err != nil || !list {
		return err
	}
	for _, f := range r.FalseAlarms {
		fmt.Fprintf(w, "  %s %.2f s, %s %s: %s", f.Capture, f.T, f.Class, f.Kind, f.Evidence)
		if len(f.During) > 0 {
			fmt.Fprintf(w, " (during %s)", strings.Join(f.During, ", "))
		}
		fmt.Fprintln(w)
	}
	return nil
}
