package detect

import (
	"math/rand/v2"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// A TS of 24 pictures a second, a key picture each: of them it shows every TS packet.
type shownPictures struct {
	predicted, key, stuffing int // TS packets a hop; of the key picture's hop
}

func (s shownPictures) hop(rng *rand.Rand, i int) *View {
	v := &View{}
	w := &v.Hop.Sums
	w.Hops, w.TSStarts = 1, 6
	if s.predicted > 0 {
		w.TSGoes = uint64(s.predicted + rng.IntN(1+s.predicted/8))
	}
	if i%hopsPerSecond == 0 {
		w.TSGoes = uint64(s.key)
	}
	w.TSPackets = w.TSStarts + w.TSGoes + uint64(s.stuffing)
	w.Bytes, w.Packets = 188*w.TSPackets, w.TSPackets/7+1
	return v
}

// TestStandingPicture: what lies between key pictures falls to nothing, and they stay:
// that is a picture that stands. Where they become small as well, it is a scene that is
// simple; where something is left between them, one in which little moves; and where
// pictures were never much above the least size, it says nothing.
func TestStandingPicture(t *testing.T) {
	rich := shownPictures{predicted: 160, key: 200}
	for _, c := range []struct {
		what   string
		before shownPictures
		after  shownPictures
		lost   bool
		alarm  bool
	}{
		{"a picture that stands", rich, shownPictures{key: 180}, false, true},
		{"a picture that stands in a held rate", rich, shownPictures{key: 180, stuffing: 160}, false, true},
		{"a still card after a film", rich, shownPictures{key: 50}, false, false},
		{"little moves", rich, shownPictures{predicted: 16, key: 180}, false, false},
		{"small pictures", shownPictures{predicted: 40, key: 200}, shownPictures{key: 180}, false, false},
		{"packets are lost", rich, shownPictures{key: 180}, true, false},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		p := &Profile{Hops: matureHops, Form: feature.TS}
		var l predictedLearner
		for i := range matureHops {
			l.add(&c.before.hop(rng, i).Hop, p.Form)
		}
		p.Predicted = l.finish()
		s := standing{p: p}
		score := 0.0
		for i := range 10 * hopsPerSecond {
			if e := s.score(c.before.hop(rng, i), true); e.Score >= 1 {
				t.Errorf("%s: an alarm before it: %s", c.what, e.Text)
			}
		}
		for i := range 6 * hopsPerSecond {
			score = max(score, s.score(c.after.hop(rng, i), !c.lost).Score)
		}
		if score >= 1 != c.alarm {
			t.Errorf("%s: score %.2f", c.what, score)
		}
	}
}
