package synth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/capture"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// smallPlan makes one harmless capture and one with attacks, each 10 s long before
// anything happens.
func smallPlan(t *testing.T, encoder *Encoder) *Plan {
	t.Helper()
	return &Plan{
		Out: t.TempDir(), Seed: 7, Split: Dev, Hours: 0.008, PerKind: 1, Paths: 1, Seconds: 41, Baseline: 10, Kbps: 100, Jobs: 2, Encoder: encoder,
		Kinds: []string{"inject_30%", "encoder_swap", "jitter_step"},
	}
}

func newTestEncoder(t *testing.T) *Encoder {
	t.Helper()
	e, err := NewEncoder(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err) // ffmpeg is one of the packages that scripts/packages.sh installs
	}
	return e
}

// TestSameSeedSameCaptures makes a batch twice, the second time with every encoding
// made anew, and reads it as eval does.
func TestSameSeedSameCaptures(t *testing.T) {
	first, second := smallPlan(t, newTestEncoder(t)), smallPlan(t, newTestEncoder(t))
	done, err := Run(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(first.Out, "*"))
	if err != nil || len(files) != 2*done.Captures || done.Captures != 2 {
		t.Fatalf("%d files for %d captures (%v), want 2 captures", len(files), done.Captures, err)
	}
	for _, name := range files {
		a, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second.Out, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two runs of one seed", filepath.Base(name))
		}
		if filepath.Ext(name) == ".json" {
			checkCapture(t, first.Out, a)
		}
	}
	// What is there is kept: a run that was stopped goes on.
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if done, err = Run(t.Context(), smallPlanIn(first)); err != nil || done.Captures != 2 {
		t.Fatalf("going on: %d captures, %v", done.Captures, err)
	}
	if _, err := os.Stat(files[0]); err != nil && filepath.Ext(files[0]) == ".json" {
		t.Errorf("what was missing was not made: %v", err)
	}
}

// smallPlanIn is the same plan for the same directory.
func smallPlanIn(p *Plan) *Plan {
	return &Plan{
		Out: p.Out, Seed: p.Seed, Split: p.Split, Hours: p.Hours, PerKind: p.PerKind, Paths: p.Paths, Seconds: 41, Baseline: p.Baseline,
		Kbps: p.Kbps, Jobs: p.Jobs, Encoder: p.Encoder, Kinds: p.Kinds,
	}
}

// checkCapture holds a capture against its label.
func checkCapture(t *testing.T, dir string, label []byte) {
	t.Helper()
	var l Label
	if err := json.Unmarshal(label, &l); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, l.Capture+".pcap.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := capture.Open(f, capture.Flow{})
	if err != nil {
		t.Fatalf("%s: %v", l.Capture, err)
	}
	if form := r.Form(); (form == feature.TS) != (l.PayloadForm == "ts") {
		t.Errorf("%s: labelled %s, reads as %v", l.Capture, l.PayloadForm, form)
	}
	var p feature.Packet
	n := 0
	for ; ; n++ {
		if err := r.Next(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != l.Packets {
		t.Errorf("%s: labelled %d packets, holds %d", l.Capture, l.Packets, n)
	}
	for _, e := range l.Events {
		if e.Start >= e.End || e.Malicious && (e.Start < l.Baseline || e.End > l.Duration) {
			t.Errorf("%s of %.1f s: %s from %.2f to %.2f s", l.Capture, l.Duration, e.Kind, e.Start, e.End)
		}
	}
}

// TestSplitsAreApart: no picture size, no key-picture distance of a codec and no film
// is drawn in both halves.
func TestSplitsAreApart(t *testing.T) {
	distance := regexp.MustCompile(`-g (\d+)|keyint=(\d+)`)
	drawn := func(split Split) map[string]bool {
		all := map[string]bool{}
		for i := range uint64(200) {
			r := drawRecipe(newDice(i, "split"), split, 60, 0, nil, "")
			all[fmt.Sprintf("picture %dx%d", r.Frame.w, r.Frame.h)] = true
			all["film "+r.Content.Graph] = true
			if r.Codec != "vp8" && r.Codec != "vp9" { // theirs are the same in both
				all[r.Codec+" "+distance.FindString(strings.Join(r.Encoder, " "))] = true
			}
		}
		return all
	}
	dev := drawn(Dev)
	for what := range drawn(HeldOut) {
		if dev[what] {
			t.Errorf("both halves drew %s", what)
		}
	}
}

func TestUnknownKindIsNamed(t *testing.T) {
	p := &Plan{Split: Dev, Hours: 1, Seconds: 480, Baseline: 90, Paths: 1, Kinds: []string{"earthquake"}, Encoder: &Encoder{}}
	if _, err := Run(context.Background(), p); err == nil {
		t.Error("an attack that nobody knows was carried out")
	}
}
