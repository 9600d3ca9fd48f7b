package detect

import (
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Least numbers for a share to mean something.
const (
	loopLeast    = 12
	repeatLeast  = 16
	repeatFrames = 12
)

func loopShare(w *feature.Window) float64 {
	if w.LoopFrames < loopLeast {
		return 0
	}
	return float64(w.LoopHits) / float64(w.LoopFrames)
}

func repeatShare(w *feature.Window) float64 {
	if w.Hashed < repeatLeast {
		return 0
	}
	// Both of packets and of frames: of a still picture only the refreshes come again.
	return min(float64(w.Repeats)/float64(w.Hashed), float64(w.RepeatFrames)/float64(max(w.HashedFrames, repeatFrames)))
}

// Floors of the shares that accuse. Content that comes a second time through an
// encoder reaches 0.14 of frame sizes. Of payloads, a picture whose parts return may
// repeat more than half, in a codec without memory; a recording repeats them all, but
// for those that are too plain to tell.
const (
	loopFloor   = 0.4
	repeatFloor = 0.7
	// loopSilence is from where on, in ns, a silence leaves too little of 4 s to tell.
	loopSilence = 2e9
	// Where rows of a picture are coded apart from each other, more comes again.
	repeatRestarting = 0.85
)

// loop accuses a recording that is played again: payloads, or runs of frame sizes,
// that were there before.
type loop struct {
	p          *Profile
	restarting bool // the codec
	past       [second][2]float64
	next       int
}

func newLoop(p *Profile) *loop { return &loop{p: p, restarting: p.restarting()} }

func (*loop) Name() string { return "loop" }

func (l *loop) Score(v *View) Evidence {
	e := Evidence{Kind: "loop", Class: Source}
	sizes, payloads := loopShare(&v.S4), repeatShare(&v.S4)
	if v.S4.MaxGap > loopSilence {
		payloads = 0
	}
	// The four seconds that ended a second ago must have repeated as well: a picture that
	// moves in a circle passes where it was, a recording goes on.
	before := l.past[l.next]
	l.past[l.next] = [2]float64{sizes, payloads}
	l.next = (l.next + 1) % second
	sizes, payloads = min(sizes, before[0]), min(payloads, before[1])
	sizeLimit := max(loopFloor, min(0.95, 2*l.p.LoopMax))
	payloadLimit := max(repeatFloor, min(0.95, 2*l.p.RepeatMax))
	if l.restarting {
		payloadLimit = max(payloadLimit, repeatRestarting)
	}
	if l.p.LoopMax > 0.6 { // the source repeats its sizes by itself
		sizes = 0
	}
	if l.p.RepeatMax > 0.6 {
		payloads = 0
	}
	// Where payloads can be seen, sizes that come again without them are chance, or a
	// picture in which little moves.
	if v.S4.Hashed >= repeatLeast && payloads < payloadLimit/2 {
		sizes = 0
	}
	e.Score, e.Value, e.Limit = sizes/sizeLimit, sizes, sizeLimit
	what := "the sizes of pictures came before in the same order"
	if s := payloads / payloadLimit; s > e.Score {
		e.Score, e.Value, e.Limit = s, payloads, payloadLimit
		what = "what was seen of the pictures was sent before, byte for byte"
	}
	if e.Score >= v.Said {
		most := l.p.RepeatMax
		if e.Value == sizes {
			most = l.p.LoopMax
		}
		e.Text = fmt.Sprintf("the same pictures again: in the last 5 s %.0f %% of %s (by habit at most %.0f %%, limit %.0f %%)", 100*e.Value, what, 100*most, 100*e.Limit)
	}
	return e
}
