package detect

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Tail is what a stream's quiet time shows of how high its score climbs by itself: how
// often it leaves the ground, and by how much. It predicts how often it will reach the
// limit; nothing is decided by it. It is plain data, to be stored.
type Tail struct {
	Hours  float64 // judged
	Peaks  float64 // episodes above [TailGround]
	Excess float64 // sum of their greatest scores above it

	peak float64 // of the episode that goes on
	calm int     // hops below the ground
}

// TailGround is the score from which an episode counts, at sensitivity 0.5.
const TailGround = 0.3

// What is known before a stream has shown anything: 2.97 quiet hours of 32 other
// captures had 6.4 peaks an hour, 0.13 above the ground on average. It weighs as much as an
// hour of the stream's own time, and as four of its peaks: enough to keep a young
// stream's prediction sane, and soon outweighed.
const (
	fleetHours  = 1.0
	fleetPeaks  = 6.4  // in fleetHours
	fleetHeight = 0.13 // mean excess of a peak
	fleetWeight = 4.0  // peaks that it counts as
)

// Add takes the greatest score of class source of a quiet hop, at sensitivity 0.5.
func (t *Tail) Add(score float64) {
	t.Hours += 1 / (3600.0 * hopsPerSecond)
	if score >= TailGround {
		t.peak, t.calm = max(t.peak, score), 0
		return
	}
	if t.calm++; t.peak > 0 && t.calm >= 5*hopsPerSecond {
		t.Peaks++
		t.Excess += t.peak - TailGround
		t.peak = 0
	}
}

// Drop forgets the episode that goes on: it turned out to be none of the quiet time's.
func (t *Tail) Drop() { t.peak = 0 }

// Expected is how many episodes a day are expected to reach a score of 1 by themselves
// at a sensitivity: the posterior's median, and its central 95 % interval. Peaks come at a constant rate and their
// excess is exponential; both rates have gamma posteriors over the fleet's prior, from
// which the interval is drawn, always the same way. What it cannot know is what the stream has
// never done: the day that content or path do something new.
func (t *Tail) Expected(s Settings) (median, low, high float64) {
	height := 1/s.Gain("") - TailGround // that a peak must still climb
	src := rand.NewPCG(1, 2)
	rate := distuv.Gamma{Alpha: fleetPeaks + t.Peaks, Beta: fleetHours + t.Hours, Src: src}
	slope := distuv.Gamma{Alpha: fleetWeight + t.Peaks, Beta: fleetWeight*fleetHeight + t.Excess, Src: src}
	const draws = 4000
	all := make([]float64, draws)
	for i := range all {
		all[i] = 24 * rate.Rand() * math.Exp(-max(0, height)*slope.Rand())
	}
	slices.Sort(all)
	return all[draws/2], all[draws/40], all[draws-1-draws/40]
}
