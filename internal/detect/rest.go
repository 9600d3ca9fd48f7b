package detect

import (
	"math"
	"slices"
)

// rest tells a scene that comes to rest from a picture that is frozen. Whoever freezes a
// picture does it at once: the volume goes from the film's to the codec's least within the
// second that it is measured over, or, where a rate control still refines the picture, most of the way.
// A scene in which the last thing stops moving, or a light that fades, takes its time on the way;
// and once it has come to rest, it may be set off and stop again.
type rest struct {
	normal int     // hops in a row with a volume as the baseline's
	below  int     // hops since it left that; 0: it has not
	least  float64 // octaves: least volume over 1 s in the hops in which a freeze is over
	shown  float64 // octaves: to what it came
	kept   int     // hops for which that is remembered

	hops [restHops]float64 // content in bytes, the eldest at n
	n    int
}

const (
	// restBelow is by how many octaves under the baseline's least second the volume has left it.
	restBelow = 1.0
	// restNormal hops in a row must be as the baseline's to count: a key picture in a scene
	// at rest makes fewer.
	restNormal = second + 2
	// From restFrom to restTo hops after it left, a freeze is over; what is then by
	// restAbove octaves above what it comes to is still on its way.
	restFrom, restTo = 5, 8
	restAbove        = 1.5
	// For restKept hops a scene that came to rest may do so again, down to restAgain octaves
	// below where it was.
	restKept  = 600 * hopsPerSecond
	restAgain = 0.5
	// restHops are remembered. The picture stands since the last time that of a second's
	// hops all but one had over restLoud times what those of a picture that stands have: a
	// key picture makes one.
	restHops = 20 * hopsPerSecond
	restLoud = 2.0
)

// add takes the volume over 1 s, in octaves, and the least second of the baseline.
func (r *rest) add(rate, least float64, ok bool) {
	r.kept = max(0, r.kept-1)
	if !ok {
		return
	}
	if rate >= least-restBelow {
		if r.normal++; r.normal >= restNormal {
			r.below = 0
		}
		if r.below == 0 {
			return
		}
	} else {
		if r.below == 0 {
			r.least = math.Inf(1)
		}
		r.normal = 0
	}
	if r.below++; r.below >= restFrom && r.below <= restTo {
		r.least = min(r.least, rate)
	}
}

// hop takes the content of a hop, in bytes.
func (r *rest) hop(bytes float64) {
	r.hops[r.n%restHops] = bytes
	r.n++
}

// before is the volume over 1 s, in octaves, when the picture began to stand that stands
// for 2.5 s at least; +Inf where that is not known any more.
func (r *rest) before() float64 {
	at := func(i int) float64 { return r.hops[(r.n+i)%restHops] }
	var last [stillHops]float64
	for i := range last {
		last[i] = at(restHops - stillHops + i)
	}
	slices.Sort(last[:])
	limit := restLoud * math.Max(last[(stillHops-1)/2], 1)
	for i := restHops - 1; i >= second && r.n >= restHops; i-- {
		loud, sum := 0, 0.0
		for j := i - second + 1; j <= i; j++ {
			if sum += at(j); at(j) > limit {
				loud++
			}
		}
		if at(i) > limit && loud >= second-1 {
			return math.Log2(sum)
		}
	}
	return math.Inf(1)
}

// slow reports whether the picture that stands now was under the baseline's least second,
// in octaves, when it began to: whoever freezes a picture does not wait for a scene in which
// there is little to see.
func (r *rest) slow(least float64) bool { return r.before() < least-restBelow }

// came reports whether the volume came slowly to what it is now, while the picture stands,
// or to as little a while ago.
func (r *rest) came(rate, least float64) bool {
	if r.below > restTo && r.least >= rate+restAbove || r.slow(least) {
		if r.kept == 0 {
			r.shown = rate
		}
		r.shown, r.kept = min(r.shown, rate), restKept
		return true
	}
	return r.kept > 0 && rate >= r.shown-restAgain
}
