package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

// ablated is how one detector fares alone, and what it changes: without it where it
// accuses, with it where it only advises.
type ablated struct {
	Detector string        `json:"detector"`
	Advisory bool          `json:"advisory,omitempty"`
	Alone    detect.Result `json:"alone"`
	Change   detect.Result `json:"change"`
}

// ablation decides every window anew for each detector, as the engine would: an episode is
// told once. What a detector says does not hang on the others.
type ablation struct {
	kinds    []string
	advisory []bool
	alone    []map[string][]detect.Reading // by detector and capture
	change   []map[string][]detect.Reading
	judges   [][2]*detect.Decision // of the capture in work: alone, changed
}

// begin starts a capture.
func (a *ablation) begin() { a.judges = nil }

// add takes a window's evidence.
func (a *ablation) add(capture string, t float64, evidence []detect.Evidence) {
	if a.kinds == nil {
		for _, e := range evidence {
			a.kinds, a.advisory = append(a.kinds, e.Kind), append(a.advisory, e.Advisory)
			a.alone, a.change = append(a.alone, map[string][]detect.Reading{}), append(a.change, map[string][]detect.Reading{})
		}
	}
	if a.judges == nil {
		for range a.kinds {
			a.judges = append(a.judges, [2]*detect.Decision{detect.NewDecision(), detect.NewDecision()})
		}
	}
	told := func(d *detect.Decision, into map[string][]detect.Reading, accuses func(i int) bool) {
		some := slices.Clone(evidence)
		for i := range some {
			some[i].Advisory = !accuses(i)
		}
		if v := d.Judge(some); v.Score >= 1 || v.Held {
			into[capture] = append(into[capture], detect.Reading{T: t, Score: v.Score, Class: v.Class, Kind: v.Kind, Held: v.Held})
		}
	}
	for k := range a.kinds {
		told(a.judges[k][0], a.alone[k], func(i int) bool { return i == k })
		told(a.judges[k][1], a.change[k], func(i int) bool { return i == k && a.advisory[k] || i != k && !a.advisory[i] })
	}
}

func (a *ablation) results(labels []detect.Label) (all []ablated) {
	for k, kind := range a.kinds {
		all = append(all, ablated{kind, a.advisory[k], detect.Evaluate(labels, a.alone[k], 1), detect.Evaluate(labels, a.change[k], 1)})
	}
	slices.SortStableFunc(all, func(x, y ablated) int {
		if x.Advisory != y.Advisory {
			if x.Advisory {
				return 1
			}
			return -1
		}
		return y.Alone.Detected - x.Alone.Detected
	})
	return all
}

// printAblation writes the table.
func printAblation(w io.Writer, all []ablated, as detect.Result) error {
	fmt.Fprintf(w, "Each detector alone, and what the engine (%d detected, %d false) does without it; with it where it only advises:\n", as.Detected, as.False)
	rows := [][]string{{"DETECTOR", "ROLE", "ALONE", "FALSE", "CHANGE", "FALSE"}}
	for _, d := range all {
		role := "accuses"
		if d.Advisory {
			role = "advises"
		}
		rows = append(rows, []string{d.Detector, role, fmt.Sprintf("%d/%d", d.Alone.Detected, d.Alone.Events), fmt.Sprint(d.Alone.False),
			fmt.Sprintf("%d/%d", d.Change.Detected, d.Change.Events), fmt.Sprint(d.Change.False)})
	}
	return table(w, rows)
}
