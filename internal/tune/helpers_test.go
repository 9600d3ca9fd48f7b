package tune

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// layout is like the engine's, with one detector of each group and one of the path.
var layout = &Layout{
	Kinds: []string{"grammar", "order", "loop", "volume", "tick"},
	Path:  []bool{false, false, false, false, true},
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// stream makes traces of a stream whose quiet peaks are spread about centre (log
// normal), ten an hour for each detector, and puts episodes in.
type stream struct {
	rng    *rand.Rand
	centre float64 // of quiet peaks
	spread float64 // deviation of their logarithm
	trace  *Trace
	spans  []Span
}

func newStream(seed uint64, centre, spread float64) *stream {
	return &stream{rng: rand.New(rand.NewPCG(seed, 3)), centre: centre, spread: spread, trace: &Trace{Layout: layout, From: epoch}}
}

// quiet adds quiet traffic.
func (s *stream) quiet(hours float64) *stream {
	left := make([]int, len(layout.Kinds))
	height := make([]float64, len(layout.Kinds))
	levels := make([]episode.Level, len(layout.Kinds))
	for range int(hours * 3600 * episode.HopsPerSecond) {
		for d := range levels {
			if left[d] == 0 && s.rng.Float64() < 10.0/3600/episode.HopsPerSecond {
				left[d], height[d] = 8+s.rng.IntN(30), s.centre*math.Exp(s.spread*s.rng.NormFloat64())
			}
			levels[d] = 0
			if left[d] > 0 {
				left[d]--
				levels[d] = episode.LevelOf(height[d])
			}
		}
		s.trace.Add(levels, 0)
	}
	return s
}

// burst adds an episode of a detector, and a quiet half minute behind it.
func (s *stream) burst(detector int, score float64, hops int, v Verdict, weight float64) *stream {
	levels := make([]episode.Level, len(layout.Kinds))
	from := s.trace.Len()
	for range hops {
		levels[detector] = episode.LevelOf(score)
		s.trace.Add(levels, 0)
	}
	levels[detector] = 0
	for range 30 * episode.HopsPerSecond {
		s.trace.Add(levels, 0)
	}
	s.spans = append(s.spans, Span{From: from, To: from + hops, Verdict: v, Weight: weight})
	return s
}

func (s *stream) data() *Data {
	return &Data{Replayer: NewReplayer(layout, Plain), Cases: []Case{{Trace: s.trace, Spans: s.spans}}}
}

// day is a budget of one false rotation a day.
var day = Goal{Budget: 1.0 / 24, MissCost: 20}

func at(cutoff float64) Params {
	p := DefaultParams()
	p.Sensitivity = episode.SensitivityAt(cutoff)
	return p
}
