package tune

import "time"

// Rotations is what enforces the budget, whatever the thresholds are: in any Burst times
// Every, evidence about a source changes the key Burst times at most. So no more than
// one in Every comes in the long run, and one false alarm leaves something for a theft
// that follows it.
type Rotations struct{ Every time.Duration } // in which one false rotation is granted

const (
	// MostBurst is the greatest [Rotations.Burst].
	MostBurst = 3
	// seldom is from when on a budget is one that people count by the day: three on one
	// day is not what they mean by one a day, and none in the three days after it neither.
	seldom = 12 * time.Hour
)

// Burst is how many rotations may come in a row.
func (r Rotations) Burst() int {
	if r.Every >= seldom {
		return 2
	}
	return MostBurst
}

// Since is when rotations began that count at a time.
func (r Rotations) Since(now time.Time) time.Time {
	return now.Add(-time.Duration(r.Burst()) * r.Every)
}

// Left is how many there may be now. spent are when those were that nobody called or
// proved real, in any order; none may be later than now.
func (r Rotations) Left(now time.Time, spent []time.Time) int {
	left := r.Burst()
	for _, at := range spent {
		if at.After(r.Since(now)) {
			left--
		}
	}
	return max(left, 0)
}
