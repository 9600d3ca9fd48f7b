package detect

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// A receiver that sees the first TS packet of each datagram only may see payload for
// minutes before it sees a PES header.
func TestHeadersThatCutPacketsDidNotShow(t *testing.T) {
	const (
		inside   = aUnit | 1<<24
		opens    = aUnit | 6<<24
		pes      = aUnit | 3<<24
		describe = aUnit | 5<<24
		picture  = 0x100
		sound    = 0x101
		video    = 0xe0
		audio    = 0xc0
	)
	seen := []feature.Token{inside | picture, inside | sound, opens | (audio&0x7f)<<13 | sound, pes | audio<<8 | 2, describe | audio<<14 | 5}
	first := []feature.Token{opens | (video&0x7f)<<13 | picture, pes | 1<<16 | video<<8 | 3, describe | video<<14 | 10}
	for _, c := range []struct {
		what    string
		partial bool
		base    []feature.Token
		hop     []feature.Token
		news    bool
	}{
		{"the first header of a stream", true, seen, first, false},
		{"where whole packets would have shown it", false, seen, first, true},
		{"of a PID that was not there", true, seen, []feature.Token{opens | (video&0x7f)<<13 | 0x102}, true},
		{"another stream where one was seen", true, seen, []feature.Token{opens | (video&0x7f)<<13 | sound}, true},
		{"another header where one was seen", true, seen, []feature.Token{pes | audio<<8 | 1<<2 | 2}, true},
		{"all headers were seen", true, append(first[:len(first):len(first)], seen...), []feature.Token{pes | 0xe1<<8 | 2}, true},
	} {
		l := newVocabularyLearner(feature.TS)
		l.partial = c.partial
		for i := range 40 {
			l.add(hopOfWords(c.base...), i)
		}
		y := l.finish()
		if n := y.novelty(hopOfWords(c.hop...)); n != [feature.Families]float64{} != c.news {
			t.Errorf("%s: %v, news %v", c.what, n, c.news)
		}
	}
}

// A TS whose packets have all kinds of times has thousands of steps, between which every
// unknown one would have to be looked for.
func TestFamilyOfTooManyWordsIsNotLookedThrough(t *testing.T) {
	l := newVocabularyLearner(feature.TS)
	for i := range 40 {
		l.add(hopOfWords(aCode|0x41, stepWord(301+7*i)), i)
	}
	y := l.finish()
	if y.Families[feature.FamilyStep].Limit != 0 || y.Families[feature.FamilySlice].Limit == 0 {
		t.Fatalf("limits %v", y.Families)
	}
	if n := y.novelty(hopOfWords(stepWord(299), aCode|0x02)); n[feature.FamilyStep] != 0 || n[feature.FamilySlice] == 0 {
		t.Errorf("news %v", n)
	}
}
