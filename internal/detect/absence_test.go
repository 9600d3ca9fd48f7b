package detect

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// TestWhatMayBeMissing: for how long an encoder makes no key picture is its choice, and
// what comes with them is missing only where they come without; who announced refreshes may
// begin with key pictures instead; and a stream with pauses has no rhythm.
func TestWhatMayBeMissing(t *testing.T) {
	const key, set, delimiter = aUnit | 0x65, often | 7, often | 9
	const note = often | 6 // a message
	sound := aUnit | 6<<24 | (0xc0&0x7f)<<13 | 0x101
	every := func(hops int, words ...feature.Token) func(hop int) []feature.Token {
		return func(hop int) []feature.Token {
			if hop%hops == 0 {
				return words
			}
			return nil
		}
	}
	for _, c := range []struct {
		what          string
		form          feature.Form
		before, after func(hop int) []feature.Token
		accuses       bool
	}{
		{"key pictures without their sets", feature.H264, every(20, key, set), every(20, key), true},
		{"no key picture any more", feature.H264, every(20, key, set), every(1), false},
		{"key pictures instead of refreshes", feature.H264, every(20, note), every(12, key, set), false},
		{"neither", feature.H264, every(20, note), every(1), true},
		{"no delimiters", feature.H264, every(1, delimiter), every(1), true},
		{"no sound", feature.TS, every(2, sound), every(1), true},
		{"no subtitles", feature.TS, every(24, sound), every(1), false},
	} {
		l := newVocabularyLearner(c.form)
		var packets []uint64
		const hops = 90 * hopsPerSecond
		for hop := range hops {
			l.add(hopOfWords(c.before(hop)...), hop)
			packets = append(packets, 20)
		}
		p := &Profile{Form: c.form, Vocabulary: l.finish(), Rhythms: l.rhythms(packets)}
		a, accused := newAbsence(p), false
		for hop := range hops {
			v := &View{Hop: *hopOfWords(c.after(hop)...)}
			v.Hop.Packets = 20
			accused = accused || a.Score(v).Score >= 1
		}
		if accused != c.accuses {
			t.Errorf("%s: accused %v", c.what, accused)
		}
	}
}
