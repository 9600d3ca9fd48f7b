package detect

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Words of tests.
const (
	aUnit   = feature.Token(feature.FamilyUnit) << 28
	aSlice  = feature.Token(feature.FamilySlice) << 28
	aStep   = feature.Token(feature.FamilyStep) << 28
	aSet    = feature.Token(feature.FamilyParameter) << 28
	aCode   = aSlice | 1<<24
	often   = aUnit | 7<<24
	message = aUnit | 2<<16 // its type follows
)

func stepWord(ticks int) feature.Token { return aStep | feature.Token(uint32(ticks)&(1<<28-1)) }

func hopOfWords(words ...feature.Token) *feature.Window {
	w := &feature.Window{}
	for _, t := range words {
		w.Tokens.Put(feature.TokenCount{Token: t, Count: 3})
	}
	return w
}

// vocabularyOf is what 40 hops with the same words teach.
func vocabularyOf(form feature.Form, words ...feature.Token) *Vocabulary {
	l := newVocabularyLearner(form)
	for i := range 40 {
		l.add(hopOfWords(words...), i)
	}
	y := l.finish()
	return &y
}

// Each honest hop stands beside the nearest one of somebody else.
func TestPicturesMayBeGroupedAnew(t *testing.T) {
	const avcSlice = aSlice | 1<<16 | 5<<8
	refresh := vocabularyOf(feature.H264, aUnit|0x61, aUnit|0x41, avcSlice, aUnit|1<<16|0x67, often|7, stepWord(3600))
	joined := vocabularyOf(feature.H264, aUnit|0x41, avcSlice, stepWord(3600))
	keyed := vocabularyOf(feature.H264, aUnit|0x41, aUnit|0x65, avcSlice, aSlice|5<<16|7<<8, aUnit|0x67, often|7, stepWord(3600))
	together := vocabularyOf(feature.H264, aUnit|0x41, aUnit|0x65, aUnit|0x06, often|6, message|1, aUnit|1<<16|0x67, often|7)
	hevc := vocabularyOf(feature.H265, aUnit|1<<8|1, aUnit|19<<8|1)
	ts := vocabularyOf(feature.TS, aCode|1<<16|0x41, avcSlice)
	ts265 := vocabularyOf(feature.TS, aCode|1<<16|0x02)
	intra := vocabularyOf(feature.H264, aUnit|0x65, aSlice|5<<16|7<<8, aUnit|0x67, often|7)
	hidden := vocabularyOf(feature.TS, aCode|1<<16|0x09, aCode|1<<16|0x06)
	hidden265 := vocabularyOf(feature.TS, aCode|1<<16|0x46)
	mpeg2 := vocabularyOf(feature.TS, aCode|0xb3, aSlice|2<<24|2)
	for _, c := range []struct {
		what string
		y    *Vocabulary
		hop  []feature.Token
		news bool
	}{
		{"intra refresh: a first key picture", refresh, []feature.Token{aUnit | 0x65, aSlice | 5<<16 | 7<<8}, false},
		{"of another picture parameter set", refresh, []feature.Token{aSlice | 5<<16 | 7<<8 | 1}, true},
		{"joined between key pictures: the first", joined, []feature.Token{aUnit | 0x65, aUnit | 0x67, aUnit | 0x68, often | 7, aSet | 1}, false},
		{"a recovery point", joined, []feature.Token{aUnit | 0x06, often | 6, message | 6}, false},
		{"user data", joined, []feature.Token{message | 5}, true},
		{"with key pictures known: a recovery point", keyed, []feature.Token{aUnit | 0x06, often | 6, message | 6}, false},
		{"user data beside it", keyed, []feature.Token{aUnit | 0x06, often | 6, message | 6, message | 5}, true},
		{"another unit", keyed, []feature.Token{aUnit | 0x6f}, true},
		{"key pictures of another importance", keyed, []feature.Token{aUnit | 0x25}, false},
		{"pictures between others", keyed, []feature.Token{aUnit | 0x01, aUnit | 0x21, avcSlice + 1<<8, stepWord(-3600), stepWord(7200)}, false},
		{"time that turns round without them", keyed, []feature.Token{stepWord(-3600)}, true},
		{"off the frames", keyed, []feature.Token{aUnit | 0x01, stepWord(-1800)}, true},
		{"another picture parameter set", keyed, []feature.Token{avcSlice | 1}, true},
		{"a small picture goes with its message", together, []feature.Token{aUnit | 1<<16 | 0x06}, false},
		{"parameter sets one by one", together, []feature.Token{aUnit | 0x67}, false},
		{"who sends one by one sends one together", keyed, []feature.Token{aUnit | 1<<16 | 0x67}, true},
		{"H.265: B pictures, another kind of key", hevc, []feature.Token{aUnit | 0<<8 | 1, aUnit | 8<<8 | 1, aUnit | 21<<8 | 1}, false},
		{"H.265: another layer", hevc, []feature.Token{aUnit | 1<<8 | 9}, true},
		{"TS: a first key picture", ts, []feature.Token{aCode | 0x65, aSlice | 5<<16 | 7<<8, aCode | 1<<16 | 0x01}, false},
		{"TS: of another codec", ts, []feature.Token{aCode | 0x02}, true},
		{"TS: B pictures of H.265", ts265, []feature.Token{aCode | 0x00, aCode | 0x10}, false},
		{"TS: of H.264", ts265, []feature.Token{aCode | 0x41}, true},
		{"nothing but key pictures: the first other", intra, []feature.Token{aUnit | 0x41, avcSlice}, false},
		{"one whose type does not tell of the other slices", intra, []feature.Token{avcSlice - 5<<8}, true},
		{"TS: pictures that stood too far behind their delimiters", hidden, []feature.Token{aCode | 1<<16 | 0x41, aCode | 0x01, avcSlice}, false},
		{"TS: of another codec than the delimiters", hidden, []feature.Token{aCode | 1<<16 | 0x02}, true},
		{"TS: pictures behind delimiters of H.265", hidden265, []feature.Token{aCode | 0x02, aCode | 0x28, aCode | 0x00}, false},
		{"TS: of H.264 behind delimiters of H.265", hidden265, []feature.Token{aCode | 0x41, avcSlice}, true},
		{"MPEG-2: a unit of H.264", mpeg2, []feature.Token{aCode | 0x65}, true},
	} {
		n := c.y.novelty(hopOfWords(c.hop...))
		for f := range n {
			if c.y.Families[f].Limit == 0 {
				n[f] = 0 // the family does not accuse
			}
		}
		if news := n != [feature.Families]float64{}; news != c.news {
			t.Errorf("%s: %v, news %v", c.what, n, news)
		}
	}
}
