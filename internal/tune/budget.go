package tune

import "time"

// Burst is how many rotations evidence about a source may cause in a row.
const Burst = 3

// Rotations is what enforces the budget, whatever the thresholds are: in any Burst times
// Every, evidence about a source changes the key Burst times at most.
type Rotations struct{ Every time.Duration } // in which one false rotation is granted

// Since is when rotations began that count at a time.
func (r Rotations) Since(now time.Time) time.Time { return now.Add(-Burst * r.Every) }

// Left is how many there may be now. spent are when those were that nobody called or
// proved real, in any order.
func (r Rotations) Left(now time.Time, spent []time.Time) int {
	left := Burst
	for _, at := range spent {
		if at.After(r.Since(now)) {
			left--
		}
	}
	return max(left, 0)
}
