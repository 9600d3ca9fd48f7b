package episode

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestLevelsRoundDown: a score is at its limit exactly where its level is, and a
// level is never more than its score nor less by more than a step.
func TestLevelsRoundDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		score := math.Exp(rapid.Float64Range(-6, 6).Draw(t, "log"))
		got := LevelOf(score).Score()
		switch {
		case score < Least && got != 0, score >= Most && got != Most:
			t.Fatalf("%g is %g", score, got)
		case score >= Least && score < Most && (got > score || got*step <= score*(1-1e-12)):
			t.Fatalf("%g is %g", score, got)
		case (score >= 1) != (got >= 1):
			t.Fatalf("%g is %g: on the other side of the limit", score, got)
		}
	})
	for l := range grid {
		if got := LevelOf(grid[l]); int(got) != l {
			t.Errorf("level %d reads back as %d", l, got)
		}
	}
	for _, odd := range []float64{math.NaN(), math.Inf(-1), -1, 0} {
		if LevelOf(odd) != 0 {
			t.Errorf("%g has a level", odd)
		}
	}
	if LevelOf(math.Inf(1)).Score() != Most {
		t.Error("infinity is not the greatest level")
	}
	if Least*MostGain >= Said {
		t.Error("with the greatest gain, a score that is told from none would matter before")
	}
}

// steps feeds a tracker of one source and one path subject.
func steps(persistence int, scores ...[2]float64) (alarms []int) {
	tr := Tracker{Persistence: persistence}
	tr.Add(SourceSubject)
	tr.Add(PathSubject)
	for _, s := range scores {
		alarms = append(alarms, tr.Step(s[:]))
	}
	return alarms
}

func repeat(n int, s [2]float64) (out [][2]float64) {
	for range n {
		out = append(out, s)
	}
	return out
}

func TestOneDisturbanceIsOneAlarm(t *testing.T) {
	var in [][2]float64
	in = append(in, repeat(8, [2]float64{1.5, 0})...)
	in = append(in, repeat(SourceSubject.Calm-1, [2]float64{0.4, 0})...)
	in = append(in, [2]float64{1.5, 0}) // not calm for long enough
	in = append(in, repeat(SourceSubject.Calm, [2]float64{0.4, 0})...)
	in = append(in, [2]float64{1.5, 0})
	got := steps(1, in...)
	for i, a := range got {
		if want := i == 0 || i == len(got)-1; want != (a == 0) {
			t.Errorf("hop %d of %d: alarm %d", i, len(got), a)
		}
	}
}

func TestPersistence(t *testing.T) {
	for _, c := range []struct {
		persistence int
		in          [][2]float64
		want        int // hop of the alarm, -1 for none
	}{
		{0, repeat(3, [2]float64{1, 0}), 0},
		{3, repeat(3, [2]float64{1, 0}), 2},
		{3, repeat(2, [2]float64{9, 0}), -1},
		{2, [][2]float64{{1, 0}, {0.9, 0}, {1, 0}, {1, 0}}, 3},
	} {
		at := -1
		for i, a := range steps(c.persistence, c.in...) {
			if a == 0 {
				at = i
			}
		}
		if at != c.want {
			t.Errorf("persistence %d over %v: alarm at %d, want %d", c.persistence, c.in, at, c.want)
		}
	}
}

// TestSourceSpeaksForThePath: a running source episode covers the path's evidence,
// and of two equals the source is told.
func TestSourceSpeaksForThePath(t *testing.T) {
	if got := steps(1, [2]float64{1, 1}, [2]float64{1, 3}); got[0] != 0 || got[1] != -1 {
		t.Errorf("equal scores, then more of the path: %v", got)
	}
	if got := steps(1, [2]float64{1, 2}, [2]float64{1, 2}); got[0] != 1 || got[1] != 0 {
		t.Errorf("the path first: %v, want it told, then the source", got)
	}
}
