package detect

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestTailPredicts: of streams whose peaks are as the model has them, the true rate lies
// in nearly all intervals; and time makes them narrow.
func TestTailPredicts(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	inside, wide, narrow := 0, 0.0, 0.0
	const streams = 40
	for range streams {
		perHour, height := 4+20*rng.Float64(), 0.06+0.08*rng.Float64()
		want := 24 * perHour * math.Exp(-(1-TailGround)/height)
		var tail Tail
		for hour := range 20 {
			n := 0
			for x := rng.ExpFloat64(); x < perHour; x += rng.ExpFloat64() {
				n++
			}
			hops := 3600 * hopsPerSecond
			for i := range hops {
				score := 0.0
				if every := hops / max(n, 1); n > 0 && i%every == 0 && i/every < n {
					score = TailGround + height*rng.ExpFloat64()
				}
				tail.Add(score)
			}
			if hour != 0 && hour != 19 {
				continue
			}
			_, low, high := tail.Expected(Settings{Sensitivity: 0.5})
			if hour == 0 {
				wide += math.Log(high / low)
			}
			if hour == 19 {
				narrow += math.Log(high / low)
				if low <= want && want <= high {
					inside++
				}
			}
		}
	}
	if inside < 34 {
		t.Errorf("the true rate lies in %d of %d intervals", inside, streams)
	}
	if narrow > 0.75*wide {
		t.Errorf("20 hours narrow the interval from %.1f to %.1f (log of its ends' ratio, mean)", wide/streams, narrow/streams)
	}
}

func TestTailFollowsSensitivity(t *testing.T) {
	var young Tail
	last := 0.0
	for _, s := range []float64{0.1, 0.5, 0.7, 1} {
		median, low, high := young.Expected(Settings{Sensitivity: s})
		if !(low <= median && median <= high) || median <= last {
			t.Errorf("sensitivity %g: %g (%g to %g) after %g", s, median, low, high, last)
		}
		last = median
	}
}

func TestTailCountsEpisodes(t *testing.T) {
	var tail Tail
	add := func(n int, score float64) {
		for range n {
			tail.Add(score)
		}
	}
	add(10, 0.4)
	add(10, 0.1) // a pause
	add(3, 0.5)
	add(30, 0)
	add(2, 0.9)
	tail.Drop() // an alarm
	add(30, 0)
	if tail.Peaks != 1 || math.Abs(tail.Excess-0.2) > 1e-9 {
		t.Errorf("%g peaks, excess %g", tail.Peaks, tail.Excess)
	}
}
