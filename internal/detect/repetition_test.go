package detect

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// TestLoop: a recording goes on repeating, also where little of it can be told; a picture
// that stands shows its key pictures again and nothing else, and one that returns is
// soon gone.
func TestLoop(t *testing.T) {
	const rows = 1<<24 | 0xb3 // the sequence header of a codec that codes rows apart
	for _, c := range []struct {
		what   string
		hop    func(i int) (payloads, known int)
		rows   bool
		silent int // hop with a long silence before it
		habit  float64
		alarm  bool
	}{
		{what: "all of a rich stream", hop: func(int) (int, int) { return 10, 9 }, alarm: true},
		{what: "a recording of a thin stream", hop: thin, alarm: true},
		{what: "one that does so by habit", hop: thin, habit: 8},
		{what: "a thin stream with something new every 4 s", hop: func(i int) (int, int) {
			payloads, known := thin(i)
			return payloads + once(i%16 == 0), known
		}},
		{what: "key pictures of one that stands", hop: func(i int) (int, int) { return 12 * once(i%14 == 0), 12 * once(i%14 == 0) }},
		{what: "a silence in it", hop: thin, silent: 16},
		{what: "more than half, as the memory is short", hop: func(int) (int, int) { return 20, 12 }, alarm: true},
		{what: "for 6 s only", hop: func(i int) (int, int) { return 20, 12 * once(i < 6*hopsPerSecond) }},
		{what: "of a codec that codes rows apart", hop: func(int) (int, int) { return 20, 12 }, rows: true},
	} {
		p := &Profile{Hops: matureHops, RepeatHops: c.habit}
		if c.rows {
			p.Vocabulary.Words = []Word{{Token: feature.Token(uint32(feature.FamilySlice)<<28 | rows)}}
		}
		l, views, score := newLoop(p), newViewer(), 0.0
		for i := -4 * hopsPerSecond; i < 9*hopsPerSecond-1; i++ {
			var w feature.Window
			w.Hops = 1
			payloads, known := 20, 0
			if i >= 0 {
				payloads, known = c.hop(i)
			}
			w.Hashed, w.HashedFrames, w.Repeats, w.RepeatFrames = uint64(payloads), uint64(payloads), uint64(known), uint64(known)
			if c.silent > 0 && i == c.silent {
				w.MaxGap = 3e9
			}
			score = max(score, l.Score(views.push(&w)).Score)
		}
		if score >= 1 != c.alarm {
			t.Errorf("%s: score %.2f", c.what, score)
		}
	}
}

// thin is a payload in two of three hops, all of them known.
func thin(i int) (payloads, known int) { return min(i%3, 1), min(i%3, 1) }

func once(b bool) int {
	if b {
		return 1
	}
	return 0
}
