package detect

import "github.com/gaitkeeper/gaitkeeper/internal/feature"

// timedByVolume reports whether the RTP timestamps of a TS are no frames' times: RFC 2250
// §2 has them say when a packet is to leave, and of a volume that varies every packet has
// its own distance. There is a step that divides all, of any numbers, but it is not
// among them; or there is none, and many steps.
func (y *Vocabulary) timedByVolume() bool {
	if y.Form != feature.TS {
		return false
	}
	if y.Quantum == 0 {
		return y.Families[feature.FamilyStep].Known > variedKnown
	}
	return !y.says(feature.FamilyStep, func(t feature.Token) bool {
		s := max(t.Step(), -t.Step())
		return s-y.Quantum <= 2 && y.Quantum-s <= 2
	})
}

const (
	// wanderShare of all frames have a step that tells the clock's usual ones, which
	// lie within wanderWidth of the least.
	wanderShare, wanderWidth = 0.05, 0.1
	// wanderFrames is how many frames at most may be missing in a row.
	wanderFrames = 8
)

// wanders reports whether a step is of a clock without a fixed step, such as one that counts
// milliseconds or reads a camera's: a frame's time, or some frames' of which those between
// were not sent, a little more or less.
func (y *Vocabulary) wanders(step int) bool {
	if y.Quantum != 0 || y.Form == feature.TS || step <= 0 {
		return false
	}
	total := uint32(0)
	for _, w := range y.family(feature.FamilyStep) {
		total += w.Count
	}
	least, most := 0, 0
	for _, w := range y.family(feature.FamilyStep) {
		s := w.Token.Step()
		if w.Token.Varied() || float64(w.Count) < wanderShare*float64(total) {
			continue
		}
		if s <= 0 {
			return false
		}
		if least == 0 {
			least = s // they rise
		}
		most = s
	}
	width := most - least
	if least == 0 || float64(width) > wanderWidth*float64(least) {
		return false
	}
	frames := (step + most/2) / most
	slack := 2 + width
	return frames >= 1 && frames <= wanderFrames && step >= frames*least-slack && step <= frames*most+slack
}
