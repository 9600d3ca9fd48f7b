package episode

import "math"

// Level is a score on a grid of 7 bits: 0 for less than [Least], then steps of 5 %
// up to 22.7. A score of 1 is on the grid, and levels round down: a level is at least
// 1 exactly where its score was.
type Level uint8

const (
	levelBits = 7
	unit      = 63 // the level of score 1
	top       = 1<<levelBits - 1
	step      = 1.05
)

// grid has the score of each level.
var grid = func() (g [top + 1]float64) {
	for l := 1; l <= top; l++ {
		g[l] = math.Pow(step, float64(l-unit))
	}
	g[unit] = 1
	return g
}()

// Least is the smallest score that is told from none, 0.0485. With gains of up to
// [MostGain] nothing below it comes to [Said].
var Least = grid[1]

// Most is the greatest score that is told from greater ones, 22.7.
var Most = grid[top]

// MostGain bounds what scores may be multiplied by.
const MostGain = 10

// LevelOf gives the level of a score; what is no number is 0.
func LevelOf(score float64) Level {
	if !(score >= grid[1]) {
		return 0
	}
	if score >= grid[top] {
		return top
	}
	l := unit + int(math.Floor(math.Log(score)/math.Log(step)))
	l = min(max(l, 1), top)
	// The logarithm may miss the grid by a rounding.
	if l < top && grid[l+1] <= score {
		l++
	}
	if grid[l] > score {
		l--
	}
	return Level(l)
}

// Score is the score that a level stands for.
func (l Level) Score() float64 { return grid[l&top] }

// span is by what scores are multiplied at sensitivity 1, and divided near 0.
const span = 5

// Scale is what every score is multiplied by at a sensitivity in (0, 1]: 1 at 0.5, 5
// at 1, a fifth near 0. The cut-off on scores as the detectors gave them is 1 / Scale.
func Scale(sensitivity float64) float64 { return math.Pow(span, 2*sensitivity-1) }

// SensitivityAt is the sensitivity whose cut-off is the given one, within (0, 1].
func SensitivityAt(cutoff float64) float64 {
	return min(max((1-math.Log(cutoff)/math.Log(span))/2, 0.001), 1)
}

// Gain is what the scores of a detector of some weight are multiplied by.
func Gain(weight, sensitivity float64) float64 { return min(weight*Scale(sensitivity), MostGain) }
