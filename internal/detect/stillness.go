package detect

import (
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// stillness tells a picture that does not change at all from one that is only simple.
// Where nothing changes, a predicted picture says only that: all have the codec's least
// size, to a few bytes, whatever the film was. Where anything moves, and under any camera's
// noise, their sizes differ by more.
type stillness struct {
	form  feature.Form
	video []uint16 // PIDs, of TS
	limit float64  // bytes a picture: more is no floor
	hops  [stillHops]stillHop
	next  int
}

// stillHop is what one hop shows.
type stillHop struct {
	mean, deviation float64 // of picture sizes; 0 where no picture ended
	starts, goes    float64 // TS: occasions of packets that begin a picture, and of those that go on
}

const (
	stillHops = 10 // 2.5 s
	// stillDeepHops are enough for a picture whose volume fell the deeper ([volumeDeep]).
	stillDeepHops = 8
	// Of at least stillSeen hops with pictures, stillShare must be alike: key pictures
	// stand between them.
	stillSeen  = 6
	stillShare = 0.5
	// Alike are sizes that differ by at most stillBytes, or by stillPart of them.
	stillBytes = 2.5
	stillPart  = 0.035
	// The same to the byte are so many of the hops: less than a byte on the mean, because
	// sizes are whole.
	exactBytes = 0.5
	exactShare = 0.8
	// A TS hides the sizes of pictures, but the least picture needs one TS packet: of
	// those that are seen, at least stillStarts begin one, and for a key picture now and
	// then at most stillGoes of them go on.
	stillStarts = 4
	stillGoes   = 1.0 / 3
)

func newStillness(p *Profile) stillness {
	s := stillness{form: p.Form, limit: float64(p.Cap) / 2}
	for _, w := range p.Vocabulary.family(feature.FamilyUnit) {
		if pid, ok := w.Token.VideoStart(); ok {
			s.video = append(s.video, pid)
		}
	}
	return s
}

func (s *stillness) add(w *feature.Window) {
	h := &s.hops[s.next]
	s.next = (s.next + 1) % stillHops
	*h = stillHop{}
	if s.form == feature.TS {
		for _, c := range w.Tokens.All() {
			if pid, start, ok := c.Token.Carries(); ok && slices.Contains(s.video, pid) {
				if start {
					h.starts += float64(c.Count)
				} else {
					h.goes += float64(c.Count)
				}
			}
		}
		return
	}
	if n := float64(w.Frames); n > 0 {
		h.mean = float64(w.FrameBytes) / n
		h.deviation = math.Sqrt(math.Max(0, float64(w.FrameSq)/n-h.mean*h.mean))
	}
}

// still reports whether nothing changed in the picture for so many hops, at most stillHops;
// exact, whether its pictures were the same to the byte.
func (s *stillness) still(hops int) (still, exact bool) {
	at := func(i int) *stillHop { return &s.hops[(s.next-1-i+stillHops)%stillHops] }
	if s.form == feature.TS {
		starts, goes := 0.0, 0.0
		for i := range hops {
			starts += at(i).starts
			goes += at(i).goes
		}
		return starts >= stillStarts && goes <= stillGoes*starts, false
	}
	means := make([]float64, 0, stillHops)
	for i := range hops {
		if m := at(i).mean; m > 0 {
			means = append(means, m)
		}
	}
	if len(means) < stillSeen {
		return false, false
	}
	slices.Sort(means)
	floor := means[(len(means)-1)/2] // key pictures are above
	alike := func(tolerance, share float64) bool {
		n := 0
		for i := range hops {
			if h := at(i); h.mean > 0 && math.Abs(h.mean-floor) <= tolerance && h.deviation <= tolerance {
				n++
			}
		}
		return float64(n) >= share*float64(len(means))
	}
	return floor <= s.limit && alike(math.Max(stillBytes, stillPart*floor), stillShare), alike(exactBytes, exactShare)
}
