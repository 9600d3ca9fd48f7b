package detect

import (
	"math"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

func hopOf(bytes float64) *View {
	v := &View{}
	v.Hop.Bytes = uint64(bytes)
	return v
}

// A walk goes on for block after block; a picture's detail rises in line only for as
// long as it takes to see five blocks.
func TestDriftMustGoOn(t *testing.T) {
	const hops, step = 80 * hopsPerSecond, 0.1 / (8 * hopsPerSecond) // octaves a hop
	alarm := func(until int) int {
		d := &drift{p: &Profile{Hops: matureHops}, r: newRamp()}
		for i := range hops {
			if d.Score(hopOf(50000*math.Exp2(step*float64(min(i, until))))).Score >= 1 {
				return i
			}
		}
		return -1
	}
	if at := alarm(hops); at < rampBlocks*rampBlock || at > (rampBlocks+1)*rampBlock+driftSpan {
		t.Errorf("a walk alarms at hop %d", at)
	}
	// The line of five blocks is seen while the rise ends.
	if at := alarm(rampBlocks*rampBlock - 4*hopsPerSecond); at >= 0 {
		t.Errorf("a rise that ends alarms at hop %d", at)
	}
}

func TestFallOfAHeldVolume(t *testing.T) {
	base := Spread{Median: 14.7, Min: 14.3, Max: 14.9}
	score := func(mad, rate float64) float64 {
		p := &Profile{Hops: matureHops}
		p.Fours[feature.ByteRate], p.Seconds[feature.ByteRate] = base, Spread{Min: 13.3, Max: 15.3}
		p.Fours[feature.ByteRate].MAD = mad
		p.Fours[feature.MediaRate].Median = 1
		var x feature.Vector
		x[feature.ByteRate], x[feature.MediaRate] = rate, 1
		return (&volume{p: p}).below(&feature.Window{}, &x, true, &p.Fours) / volumeRanges
	}
	for _, c := range []struct {
		mad, rate float64
		alarm     bool
	}{
		{0.1, 10.7, true},   // a picture that had its own volume
		{0.03, 10.7, false}, // what a rate control held says less
		{0.03, 9.5, true},
		{0.1, 11.6, false}, // not below the baseline's quiet seconds by much
	} {
		if s := score(c.mad, c.rate); s >= 1 != c.alarm {
			t.Errorf("deviation %g, %g octaves: score %.2f", c.mad, c.rate, s)
		}
	}
}

// A baseline of small pictures does not know how a full packet is cut, and a cut TS of
// small pictures does not show how they begin.
func TestQuietBaselineDoesNotKnow(t *testing.T) {
	learn := func(form feature.Form, cut bool, words ...feature.TokenCount) Vocabulary {
		l := newVocabularyLearner(form)
		for range 40 {
			w := &feature.Window{}
			if cut {
				w.CutPackets = 1
			}
			for _, c := range words {
				w.Tokens.Put(c)
			}
			l.add(w, 0)
		}
		return l.finish()
	}
	size := feature.TokenCount{Token: 5<<28 | 1412, Count: 1}
	if y := learn(feature.H264, false); y.Families[feature.FamilySize].Limit != 0 {
		t.Error("sizes accuse that were never seen")
	}
	if y := learn(feature.H264, false, size); y.Families[feature.FamilySize].Limit == 0 {
		t.Error("a known size does not accuse others")
	}
	start := feature.TokenCount{Token: 1<<28 | 1<<24 | 1<<16 | 0x100, Count: 10}
	video := feature.TokenCount{Token: 1<<28 | 6<<24 | 0x60<<13 | 0x100, Count: 1}
	if y := learn(feature.TS, true, start, video); y.Families[feature.FamilySlice].Limit != 0 {
		t.Error("beginnings that hardly ever showed accuse")
	}
	if y := learn(feature.TS, false, start, video); y.Families[feature.FamilySlice].Limit == 0 {
		t.Error("whole packets hide nothing")
	}
	video.Count = 9
	if y := learn(feature.TS, true, start, video); y.Families[feature.FamilySlice].Limit == 0 {
		t.Error("beginnings that showed do not accuse")
	}
}
