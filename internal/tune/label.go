package tune

import (
	"math"
	"time"
)

// Origin is who or what a label comes from.
type Origin string

// The origins of labels. Calm and persistence of evidence are no labels: they say
// nothing of its cause.
const (
	FromOperator  Origin = "operator"  // an answer to an alert, or a report of a miss
	FromOutcome   Origin = "outcome"   // what became of the rotation proved it
	FromSimulated Origin = "simulated" // made in recorded windows
)

// Label is what is known of a stretch of a stream.
type Label struct {
	ID     string // of the alert, or of the report
	Origin Origin
	Real   bool
	From   time.Time
	To     time.Time
	Kind   string  // the detector that said most, or what was reported
	Peak   float64 // greatest score of the episode at a sensitivity of 0.5
	Proven bool    // there is proof of a second key holder, whatever anybody says
	By     string
	Note   string
	At     time.Time // of the label
}

// Contested reports whether an operator called false what is proven.
func (l *Label) Contested() bool { return l.Proven && !l.Real }

const (
	// wrongAnswers is the share of operators' answers that is taken to be wrong, and
	// unnoticed the chance that an episode nobody spoke of was a real one.
	wrongAnswers = 0.05
	unnoticed    = 0.02
	// most and power shape how much more often real episodes than quiet ones reach a
	// score: its square, beyond the limit, up to so much.
	mostLikelihood = 500
	likelihood     = 2
)

// ratio is how much likelier a real episode is to reach a peak than a quiet one.
func ratio(peak float64) float64 {
	return min(math.Pow(max(peak, 1), likelihood), mostLikelihood)
}

// Beliefs weighs the labels of one stream: the chance that each says the truth. One
// answer against overwhelming evidence weighs little; answers that agree about one kind
// multiply. What is proven is real, and nobody's word changes it: a false answer to it
// weighs nothing.
func Beliefs(labels []Label) []float64 {
	score := map[string]int{} // answers by kind: false ones less real ones
	for i := range labels {
		if l := &labels[i]; l.Origin == FromOperator && !l.Contested() {
			if l.Real {
				score[l.Kind]--
			} else {
				score[l.Kind]++
			}
		}
	}
	out := make([]float64, len(labels))
	const odds = wrongAnswers / (1 - wrongAnswers)
	for i := range labels {
		l := &labels[i]
		switch {
		case l.Contested():
			out[i] = 0
		case l.Proven || l.Origin != FromOperator || l.Peak == 0:
			out[i] = 1 // or the report of a miss, which nothing contradicts
		case l.Real:
			out[i] = 1 / (1 + math.Pow(odds, float64(max(1, -score[l.Kind])))/ratio(l.Peak))
		default:
			out[i] = 1 / (1 + math.Pow(odds, float64(max(1, score[l.Kind])))*ratio(l.Peak))
		}
	}
	return out
}

// quietBelief is the chance that an alarm where nobody noticed anything would have
// been false.
func quietBelief(peak float64) float64 {
	return 1 / (1 + unnoticed/(1-unnoticed)*ratio(peak))
}
