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
	// repeatLong is enough where it goes on: of the last 4 s, of the 4 s before them and
	// of those in the middle. The memory may have lost a part of what was sent minutes
	// ago, and a picture that returns does not do so for so long.
	repeatLong = 0.5
)

// unbroken tells a recording in a stream that is too thin for shares: for 5 s everything
// was there before. Of a picture that stands only the key pictures are told, and come
// again all at once; a recording does so all the time.
type unbroken struct {
	known [unbrokenHops]bool // hops with payloads, all known
	n     int
	fresh int // hop after the last with a fresh one
}

const (
	unbrokenHops = 5 * hopsPerSecond
	// unbrokenFloor is how many of the hops must show something.
	unbrokenFloor = 8
)

// add is in how many of the hops of 5 s payloads came again; 0 where one did not.
func (u *unbroken) add(w *feature.Sums) (hops int) {
	u.known[u.n%unbrokenHops] = w.Hashed > 0 && w.Repeats == w.Hashed
	u.n++
	if w.Repeats < w.Hashed || w.MaxGap > loopSilence {
		u.fresh = u.n
	}
	if u.n-u.fresh < unbrokenHops {
		return 0
	}
	for _, k := range u.known {
		if k {
			hops++
		}
	}
	return hops
}

// loop accuses a recording that is played again: payloads, or runs of frame sizes,
// that were there before.
type loop struct {
	p          *Profile
	restarting bool // the codec
	past       [second][2]float64
	next       int
	shares     [fourSec]float64 // of payloads
	again      unbroken
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
	before := l.past[l.next%second]
	l.past[l.next%second] = [2]float64{sizes, payloads}
	eldest, middle := &l.shares[l.next%fourSec], l.shares[(l.next+fourSec/2)%fourSec]
	long := min(payloads, middle, *eldest)
	*eldest = payloads
	l.next++
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
		payloads, long = 0, 0
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
	seconds := 5
	longLimit := max(repeatLong, payloadLimit-(repeatFloor-repeatLong))
	if s := long / longLimit; s > e.Score && !l.restarting {
		e.Score, e.Value, e.Limit, seconds = s, long, longLimit, 8
		what = "what was seen of the pictures was sent before, byte for byte"
	}
	hops := l.again.add(&v.Hop.Sums)
	if limit := max(unbrokenFloor, 2*l.p.RepeatHops); float64(hops) > limit*e.Score {
		e.Score, e.Value, e.Limit = float64(hops)/limit, float64(hops), limit
		if e.Score >= v.Said {
			e.Text = fmt.Sprintf("the same pictures again: for 5 s all that was seen of them was sent before, byte for byte, in %d of 20 quarter seconds (by habit in at most %.0f, limit %.0f)", hops, l.p.RepeatHops, limit)
		}
		return e
	}
	if e.Score >= v.Said {
		most := l.p.RepeatMax
		if e.Value == sizes {
			most = l.p.LoopMax
		}
		e.Text = fmt.Sprintf("the same pictures again: in the last %d s %.0f %% of %s (by habit at most %.0f %%, limit %.0f %%)", seconds, 100*e.Value, what, 100*most, 100*e.Limit)
	}
	return e
}
