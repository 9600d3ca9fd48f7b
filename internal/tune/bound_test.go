package tune

import (
	"math/rand/v2"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// TestScoresAreBounded: whatever detectors say, a second of it takes 64 bytes at most,
// and what is at the limit is kept as it is in five minutes of the worst.
func TestScoresAreBounded(t *testing.T) {
	wide := &Layout{Kinds: make([]string, 18), Path: make([]bool, 18)}
	for i := range wide.Kinds {
		wide.Kinds[i] = "detector-" + string(rune('a'+i))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for name, level := range map[string]func() int{
		"all levels":      func() int { return rng.IntN(1 << levelBits) },
		"above the limit": func() int { return int(limitLevel) + rng.IntN(1<<levelBits-int(limitLevel)) },
		"below the limit": func() int { return rng.IntN(int(limitLevel)) },
		"extremes":        func() int { return []int{0, 1, 126, 127}[rng.IntN(4)] },
		"mostly high":     func() int { return 127 - rng.IntN(1<<levelBits)*rng.IntN(1<<levelBits)>>levelBits },
	} {
		for _, seconds := range []int{5, 30, 300} {
			tr := &Trace{Layout: wide, From: epoch}
			for range seconds * episode.HopsPerSecond {
				levels := make([]episode.Level, 18)
				for i := range levels {
					levels[i] = episode.Level(level())
				}
				tr.Add(levels, Flags(rng.IntN(1<<flagBits)))
			}
			b, fits, err := tr.AppendWithin(MaxRate * seconds)
			if err != nil || !fits || len(b) > MaxRate*seconds {
				t.Fatalf("%s, %d s: %d bytes, %v", name, seconds, len(b), err)
			}
			back, err := ReadTrace(b)
			if err != nil || back.Len() != tr.Len() {
				t.Fatalf("%s, %d s: %v", name, seconds, err)
			}
			for i := range tr.Len() {
				was, f := tr.row(i)
				now, g := back.row(i)
				if f != g {
					t.Fatalf("%s, %d s: flags %b are %b", name, seconds, f, g)
				}
				for k := range was {
					if now[k] > was[k] || seconds == 300 && (now[k]+1 < was[k] || was[k] >= limitLevel && now[k] != was[k] || was[k] > 0 && now[k] == 0) {
						t.Fatalf("%s, %d s: level %d is %d", name, seconds, was[k], now[k])
					}
				}
			}
		}
	}
	quiet := &Trace{Layout: wide, From: epoch}
	quiet.Add(make([]episode.Level, 18), 0)
	if _, fits, err := quiet.AppendWithin(10); fits || err != nil {
		t.Errorf("a quarter of a second in ten bytes: %v, %v", fits, err)
	}
}
