package detect

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

func TestClocksMayWander(t *testing.T) {
	const reordering = aUnit | 3<<24 | 0xe0<<8 | 3
	ms := vocabularyOf(feature.H264, stepWord(2970), stepWord(3060)) // 33 and 34 ms
	rounded := vocabularyOf(feature.H264, stepWord(3753), stepWord(3754))
	ts := vocabularyOf(feature.TS, reordering, stepWord(4500), stepWord(9000), stepWord(18000))
	plain := vocabularyOf(feature.TS, stepWord(4500), stepWord(9000), stepWord(18000))
	for _, c := range []struct {
		what  string
		y     *Vocabulary
		step  int
		known bool
	}{
		{"milliseconds: three frames at once", ms, 9090, true},
		{"a millisecond more", ms, 3150, true},
		{"half a frame", ms, 1500, false},
		{"another rate", ms, 3600, false},
		{"back", ms, -2970, false},
		{"1001: ten frames", rounded, 37538, true},
		{"1001: between frames", rounded, 5630, false},
		{"TS that reorders: a picture back", ts, -4500, true},
		{"between pictures", ts, -2000, false},
		{"TS that does not", plain, -4500, false},
	} {
		if got := c.y.Has(stepWord(c.step)); got != c.known {
			t.Errorf("%s: step %d known %v", c.what, c.step, got)
		}
	}
}

// Times that say when a packet is to leave hang on the volume; those of frames do not.
func TestTimesOfVolumeDoNotAccuse(t *testing.T) {
	var many []feature.Token
	for i := range 14 {
		many = append(many, stepWord(9000+i*375*(1+i%3)))
	}
	for _, c := range []struct {
		what    string
		form    feature.Form
		words   []feature.Token
		accuses bool
	}{
		{"a clock's reference, by packets of every distance", feature.TS, many, false},
		{"frames", feature.TS, []feature.Token{stepWord(3600), stepWord(7200)}, true},
		{"frames of which several share a packet", feature.TS, []feature.Token{stepWord(14400), stepWord(18000), stepWord(21600)}, false},
		{"native frames, of which every other is left out", feature.H264, []feature.Token{stepWord(7200), stepWord(10800)}, true},
	} {
		if lim := vocabularyOf(c.form, c.words...).Families[feature.FamilyStep].Limit; (lim > 0) != c.accuses {
			t.Errorf("%s: limit %g", c.what, lim)
		}
	}
}
