package transport

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"pgregory.net/rapid"
)

func TestGaps(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, row := range []struct {
		name string
		play func(g *gaps)
		at   time.Duration
		to   gk.Index // reported
		want uint64
	}{
		{"below what is reported", func(g *gaps) { g.add(now, 10, 13) }, 0, 100, 3},
		{"above it", func(g *gaps) { g.add(now, 10, 13) }, 0, 10, 0},
		{"across it", func(g *gaps) { g.add(now, 10, 1000) }, 0, 15, 5},
		{"above it for long", func(g *gaps) { g.add(now, 10, 13) }, gapDoubt, 10, 3},
		{"leapt over", func(g *gaps) { g.add(now, 10, 12); g.add(now, 20, 1<<40); g.void(25) }, time.Hour, 0, 7},
		{"leapt over altogether", func(g *gaps) { g.add(now, 10, 12); g.add(now, 20, 1<<40); g.void(15) }, time.Hour, 0, 2},
		{"counted before the leap was known", func(g *gaps) { g.add(now, 10, 12); g.count(now, 11); g.void(5) }, time.Hour, 0, 1},
	} {
		var g gaps
		row.play(&g)
		if got := g.count(now.Add(row.at), row.to); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}

// TestGapsProperty: what is counted never falls, and is in the end what was neither
// leapt over nor counted twice, however many gaps there are.
func TestGapsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g gaps
		now := time.Unix(1000, 0)
		var all uint64
		next, last := gk.Index(1), uint64(0)
		for range rapid.IntRange(0, 3*maxGaps).Draw(t, "gaps") {
			next += gk.Index(rapid.IntRange(1, 5).Draw(t, "arrived"))
			n := gk.Index(rapid.IntRange(1, 1000).Draw(t, "lost"))
			g.add(now, next, next+n)
			next += n
			all += uint64(n)
			if rapid.Bool().Draw(t, "ask") {
				got := g.count(now, gk.Index(rapid.Uint64Range(0, uint64(next)).Draw(t, "reach")))
				if got < last || got > all {
					t.Fatalf("%d after %d, of %d", got, last, all)
				}
				last = got
			}
		}
		if got := g.count(now.Add(gapDoubt), 0); got != all {
			t.Fatalf("%d in the end, of %d", got, all)
		}
	})
}
