package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDemoTellsItsStory runs the demonstration as whoever meets the project first
// does, and wants the whole story: alarm, new key, thief locked out, nothing lost. The
// thief of the built program sends from a socket of his own, and from the source's own
// addresses, by a relay in the path.
func TestDemoTellsItsStory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 40 s")
	}
	t.Parallel()
	for _, c := range []struct{ kind, from string }{{"inject", "aside"}, {"replay", "path"}} {
		t.Run(c.kind+" from "+c.from, func(t *testing.T) {
			t.Parallel()
			demonstrates(t, c.kind, c.from)
		})
	}
}

func demonstrates(t *testing.T, kind, from string) {
	cmd := exec.CommandContext(t.Context(), program, "demo", "--attack", kind, "--from", from, "--json", "--listen=127.0.0.1:0", "--data", t.TempDir())
	var out, news bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &news
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), news.String())
	}
	var sum struct {
		Attacks     []map[string]any `json:"attacks"`
		FalseAlarms *uint64          `json:"false_alarms"`
		Displaced   *uint64          `json:"displaced"`
		Lost        *uint64          `json:"lost_after_switch"`
	}
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(sum.Attacks) != 1 || sum.FalseAlarms == nil || *sum.FalseAlarms != 0 || sum.Displaced == nil || sum.Lost == nil || *sum.Lost != 0 {
		t.Fatalf("%s", out.String())
	}
	a := sum.Attacks[0]
	if a["kind"] != kind || a["from"] != from || a["class"] != "proof" || a["response"] != "rotate" || a["evidence"] == "" || len(a) != 9 {
		t.Errorf("%v", a)
	}
	var times []float64
	for _, name := range []string{"onset_ms", "alarm_ms", "rotated_ms"} {
		ms, ok := a[name].(float64)
		if !ok {
			t.Fatalf("%s is %v", name, a[name])
		}
		times = append(times, ms)
	}
	if !slices.IsSorted(times) {
		t.Errorf("first packet, alarm and new key at %v ms", times)
	}
	at := 0
	for _, told := range []string{"learning it for 12s", "is learned: clean", "ATTACK " + kind + " from " + from, "ALARM, class proof", "attack is over", "closed: stale-proven"} {
		i := strings.Index(news.String()[at:], told)
		if i < 0 {
			t.Fatalf("the news do not tell %q in its turn:\n%s", told, news.String())
		}
		at += i
	}
	for _, told := range []string{"NEW KEY", "LOCKED OUT"} { // whichever is heard of first
		if !strings.Contains(news.String(), told) {
			t.Errorf("the news do not tell %q:\n%s", told, news.String())
		}
	}
}
