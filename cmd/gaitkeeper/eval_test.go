package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestOwnCaptures measures the engine on the captures in the program. What is
// expected of each kind is what the packets show: words that the encoder never said
// (encoder_swap), bytes that no packet of the stream had (exfil_append,
// exfil_extra), a film that was there before (loop_replay). Not asked for: injection of 1 %
// into a stream of null packets for the most part, of which copies say nothing, and a
// picture that stands in a stream whose rate control refines it.
func TestOwnCaptures(t *testing.T) {
	dir := t.TempDir()
	status, out, errs := gaitkeeper(t.Context(), "eval", "--json", "--figures", dir, "--trace", "dev5_a0000")
	if status != 0 {
		t.Fatal(errs)
	}
	var r evalReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.All.False != 0 || r.All.Hours < 0.2 {
		t.Errorf("%d false alarms in %.2f h, want none in at least 0.2 h: %+v", r.All.False, r.All.Hours, r.All.FalseAlarms)
	}
	found := map[string]int{}
	for _, k := range r.Source.Kinds {
		found[k.Kind] = k.Detected
	}
	for _, kind := range []string{"encoder_swap", "exfil_append", "exfil_extra", "loop_replay"} {
		if found[kind] != 1 {
			t.Errorf("%s was not detected; missed: %v", kind, r.Source.Missed)
		}
	}
	// Blind to grammar, sizes and repetition, the engine must find less: or the captures prove nothing.
	status, out, errs = gaitkeeper(t.Context(), "eval", "--json", "--weight", "grammar=0;echo=0;loop=0;packet-size=0;parameter-set=0;over-cap=0;order=0")
	if status != 0 {
		t.Fatal(errs)
	}
	var blind evalReport
	if err := json.Unmarshal([]byte(out), &blind); err != nil {
		t.Fatal(err)
	}
	if blind.Source.Detected > 2 {
		t.Errorf("without its main detectors the engine still finds %d of %d", blind.Source.Detected, blind.Source.Events)
	}
	for _, name := range []string{"roc.svg", "time.svg", "traces.svg"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 1000 || len(b) > 200_000 {
			t.Errorf("%s has %d bytes", name, len(b))
		}
	}
}
