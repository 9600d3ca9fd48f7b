package detect

import "github.com/gaitkeeper/gaitkeeper/internal/feature"

// slider sums the last n hops with two merges a hop on average, however many n is:
// two stacks of sums, one growing at the back, one shrinking at the front
// (Tangwongsan, Hirzel, Schneider 2015). It leans on merging being associative.
type slider struct {
	n     int
	front []feature.Window // front[len-1] sums all of the front stack
	back  []feature.Window // hops
	sum   feature.Window   // of the back stack
}

func newSlider(n int) *slider {
	return &slider{n: n, front: make([]feature.Window, 0, n), back: make([]feature.Window, 0, n)}
}

// push adds a hop and writes the sum of the last n into out. full reports whether
// there were n.
func (s *slider) push(w *feature.Window, out *feature.Window) (full bool) {
	if len(s.front)+len(s.back) == s.n {
		if len(s.front) == 0 {
			for i := len(s.back) - 1; i >= 0; i-- {
				sum := s.back[i]
				if n := len(s.front); n > 0 {
					sum.Add(&s.front[n-1])
				}
				s.front = append(s.front, sum)
			}
			s.back, s.sum = s.back[:0], feature.Window{}
		}
		s.front = s.front[:len(s.front)-1]
	}
	s.back = append(s.back, *w)
	s.sum.Add(w)
	if n := len(s.front); n > 0 {
		*out = s.front[n-1]
		out.Add(&s.sum)
	} else {
		*out = s.sum
	}
	return len(s.front)+len(s.back) == s.n
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
