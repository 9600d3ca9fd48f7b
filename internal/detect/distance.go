package detect

import (
	"fmt"
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// The distributions that are compared.
const (
	sizeDistance = iota
	iatDistance
	paceDistance
	distances
)

// Histogram is a distribution as shares.
type Histogram []float64

func histogram(w *feature.Sums, which int) []uint32 {
	switch which {
	case sizeDistance:
		return w.Sizes[:]
	case iatDistance:
		return w.IATs[:]
	}
	return w.PerByte[:]
}

func shares(h []uint32) Histogram {
	total := 0.0
	for _, c := range h {
		total += float64(c)
	}
	out := make(Histogram, len(h))
	if total == 0 {
		return out
	}
	for i, c := range h {
		out[i] = float64(c) / total
	}
	return out
}

// hellinger is the Hellinger distance of a counted distribution from a reference: 0
// where they are the same, 1 where they share nothing.
func hellinger(h []uint32, ref Histogram) float64 {
	total := 0.0
	for _, c := range h {
		total += float64(c)
	}
	if total == 0 {
		return 0
	}
	overlap := 0.0
	for i, c := range h {
		if c > 0 {
			overlap += math.Sqrt(float64(c) / total * ref[i])
		}
	}
	return math.Sqrt(max(0, 1-overlap))
}

func (p *Profile) learnDistances(sum *feature.Sums, windows []feature.Sums) {
	for d := range p.Reference {
		p.Reference[d] = shares(histogram(sum, d))
		for i := range windows {
			p.DistanceMax[d] = max(p.DistanceMax[d], hellinger(histogram(&windows[i], d), p.Reference[d]))
		}
	}
}

// distance accuses a distribution that is further from the baseline's than any 4 s of
// it were. Packet sizes are the source's; times are the path's as well.
type distance struct {
	p     *Profile
	which int
	kind  string
	class Class
}

const distanceFloor = 0.35

// distanceWords say what a distribution is of, and which statistics show that it changed.
var distanceWords = [distances]struct {
	what string
	by   []feature.Feature
}{
	sizeDistance: {"packets have other sizes", []feature.Feature{feature.SizeMean, feature.SizeDeviation, feature.SizeRange}},
	iatDistance:  {"packets come in another rhythm", []feature.Feature{feature.IATMean, feature.IATDeviation, feature.IATLow, feature.IATMedian}},
	paceDistance: {"bytes come at another pace", []feature.Feature{feature.PaceMedian, feature.PaceSpread}},
}

func (d distance) Name() string { return d.kind }

func (d distance) Score(v *View) Evidence {
	limit := min(0.98, max(distanceFloor, 1.5*d.p.DistanceMax[d.which]))
	e := Evidence{Kind: d.kind, Class: d.class, Limit: limit}
	if !v.OK4 || v.Disturbed && d.which != sizeDistance {
		return e
	}
	e.Value = hellinger(histogram(&v.S4.Sums, d.which), d.p.Reference[d.which])
	e.Score = e.Value / limit
	if e.Score >= v.Said {
		say := &distanceWords[d.which]
		f := furthest(&v.V4, &d.p.Fours, say.by...)
		e.Text = fmt.Sprintf("%s: over 4 s %s (distance of the distributions %.2f of 1, by habit at most %.2f, limit %.2f)",
			say.what, against(f, v.V4[f], &d.p.Fours[f]), e.Value, d.p.DistanceMax[d.which], limit)
	}
	return e
}
