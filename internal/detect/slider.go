package detect

import "github.com/gaitkeeper/gaitkeeper/internal/feature"

// slider sums the numbers of the last n hops with two merges a hop on average, however
// many n is: two stacks, one growing at the back, one of sums shrinking at the front
// (Tangwongsan, Hirzel, Schneider 2015), both in one ring. It leans on merging being
// associative.
type slider struct {
	// hops has those of the back stack up to next. From there on each holds the sum of
	// itself and all behind it, once the ring was full.
	hops []feature.Sums
	next int
	full bool
	back feature.Sums // sum of the back stack
}

func newSlider(n int) *slider { return &slider{hops: make([]feature.Sums, n)} }

// push adds a hop and writes the sum of the last n into out. full reports whether
// there were n.
func (s *slider) push(w *feature.Sums, out *feature.Sums) (full bool) {
	n := len(s.hops)
	if s.next == n {
		for i := n - 2; i >= 0; i-- {
			s.hops[i].Add(&s.hops[i+1])
		}
		s.next, s.full, s.back = 0, true, feature.Sums{}
	}
	s.hops[s.next] = *w // in the place of the eldest
	s.next++
	s.back.Add(w)
	if s.full && s.next < n {
		*out = s.hops[s.next]
		out.Add(&s.back)
	} else {
		*out = s.back
	}
	return s.full || s.next == n
}

// tally sums numbers over the last hops.
type tally struct {
	ring []float64
	next int
	sum  float64
}

func newTally(n int) tally { return tally{ring: make([]float64, n)} }

func (t *tally) add(v float64) float64 {
	t.sum += v - t.ring[t.next]
	t.ring[t.next] = v
	t.next = (t.next + 1) % len(t.ring)
	return t.sum
}
