package detect

import (
	"fmt"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// A picture that stands still leaves its key pictures as they were and nothing between
// them: predicted pictures say only that nothing changes. A scene that became simple or
// dark makes key pictures small as well. So, where key pictures come often and hold the
// mean volume up, the quieter half of 4 s falls to the least that pictures need.
const (
	standHops = 16
	standHalf = standHops / 2
	// standFall is by how many octaves the quieter half must be below the least of the
	// baseline: no more than its pictures are above the least size, so that of a stream of
	// small pictures this says nothing. Outside of a TS least pictures are smaller, and
	// so must be what falls.
	standFall, standFallBare = 4.0, 5.0
	// standKey is how much of the baseline's usual greatest hop a key picture must have.
	standKey = 0.4
	// standQuiet is by how many octaves at least a hop between key pictures is below the
	// baseline's quieter half.
	standQuiet = 2.5
	// standLast is for how many hops it must have fallen.
	standLast = 4
	// The least picture: a TS packet is counted; elsewhere it has standLeast bytes, with
	// all headers.
	standLeast = 60
)

// Predicted is what the baseline says of pictures without key pictures, in bytes.
type Predicted struct {
	Least float64 // of the quieter half of any 4 s
	Peak  float64 // median of the greatest hop of 4 s
	Floor float64 // what the least pictures take in half of 4 s; 0: it is not known
}

// pictureBytes are the bytes of pictures in a hop, without sound, tables, null packets and
// stuffing as far as TS packets are seen, and what the least pictures would take.
func pictureBytes(w *feature.Sums, form feature.Form) (bytes, least float64) {
	if form != feature.TS {
		return float64(w.Bytes), standLeast * float64(w.Frames)
	}
	share := float64(w.Bytes) / math.Max(float64(w.TSPackets+w.TSNulls), 1)
	return share * float64(w.TSStarts+w.TSGoes), share * float64(w.TSStarts)
}

// quieter is the sum of the quieter half of hops, and greatest the greatest of them.
func quieter(hops *[standHops]float64) (sum, greatest float64) {
	sorted := *hops
	slices.Sort(sorted[:])
	for _, x := range sorted[:standHalf] {
		sum += x
	}
	return sum, sorted[standHops-1]
}

// predictedLearner gathers [Predicted].
type predictedLearner struct {
	hops  [standHops]float64
	n     int
	least float64
	floor float64
	peaks []float64
}

func (l *predictedLearner) add(w *feature.Window, form feature.Form) {
	bytes, floor := pictureBytes(&w.Sums, form)
	l.hops[l.n%standHops] = bytes
	l.floor += floor
	if l.n++; l.n < standHops {
		return
	}
	sum, greatest := quieter(&l.hops)
	if len(l.peaks) == 0 || sum < l.least {
		l.least = sum
	}
	l.peaks = append(l.peaks, greatest)
}

func (l *predictedLearner) finish() Predicted {
	if len(l.peaks) == 0 {
		return Predicted{}
	}
	return Predicted{Least: l.least, Peak: median(l.peaks), Floor: l.floor / float64(l.n) * standHalf}
}

// standing follows the hops of pictures.
type standing struct {
	p     *Profile
	hops  [standHops]float64 // the eldest at n
	falls [standLast]float64 // octaves
	n     int
}

func (s *standing) score(v *View, undisturbed bool) Evidence {
	b := &s.p.Predicted
	limit := standFall
	if s.p.Form != feature.TS {
		limit = standFallBare
	}
	e := Evidence{Kind: "volume", Class: Source, Limit: limit * s.p.margin()}
	s.hops[s.n%standHops], _ = pictureBytes(&v.Hop.Sums, s.p.Form)
	s.n++
	fall := &s.falls[s.n%standLast]
	*fall = 0
	if s.n < standHops || b.Floor <= 0 || !undisturbed {
		return e
	}
	sum, _ := quieter(&s.hops)
	*fall = math.Log2(math.Max(b.Least, 1) / math.Max(sum, b.Floor))
	e.Value = slices.Min(s.falls[:])
	if e.Value <= 0 {
		return e
	}
	key := s.key() / b.Peak
	e.Score = min(e.Value/e.Limit, key/standKey)
	if e.Score >= v.Said {
		const seconds = standHalf * feature.Hop / 1e9
		e.Text = fmt.Sprintf("the picture stands still: between key pictures, which keep %.0f %% of their usual size, the bit rate is %s, by habit never below %s, while the media clock still runs (1/%.0f of it; limit 1/%.0f)",
			100*key, feature.BitRate(sum/seconds), feature.BitRate(b.Least/seconds), math.Exp2(e.Value), math.Exp2(e.Limit))
	}
	return e
}

// key is the greatest hop that stands between quiet ones.
func (s *standing) key() (most float64) {
	b := &s.p.Predicted
	limit := math.Max(2*b.Floor, b.Least*math.Exp2(-standQuiet)) / standHalf
	at := func(i int) float64 { return s.hops[(s.n+i)%standHops] }
	quiet := func(from, to int) (n int) {
		for i := from; i < to; i++ {
			if at(i) <= limit {
				n++
			}
		}
		return n
	}
	for i := 2; i < standHops-2; i++ {
		if x := at(i); x > limit && x > most && quiet(max(0, i-4), i) >= 2 && quiet(i+1, min(i+5, standHops)) >= 2 {
			most = x
		}
	}
	return most
}
