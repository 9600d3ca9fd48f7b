package detect

import (
	"fmt"
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// volume accuses a collapse of the volume while media time runs on: a frozen or
// black picture. Loss and silence are the path's.
type volume struct{ p *Profile }

const (
	// volumeRanges is by how many ranges of the baseline (at least an octave) the
	// volume must be below all of it.
	volumeRanges = 2
	// volumeMedia is how near the media clock must be to its rate in the baseline,
	// volumeLoss how many packets at most may be missing in 4 s, and volumeGap how long
	// at most, in ns, nothing may arrive.
	volumeMedia = 0.6
	volumeLoss  = 2
	volumeGap   = 1e9
)

func (volume) Name() string { return "volume" }

func (d volume) Score(v *View) Evidence {
	e := Evidence{Kind: "volume", Class: Source, Limit: volumeRanges}
	s := d.p.Fours[feature.ByteRate]
	media := v.V4[feature.MediaRate] / math.Max(d.p.Fours[feature.MediaRate].Median, 1e-3)
	if !v.OK4 || v.S4.Lost > volumeLoss || v.S4.Jumps > 0 || float64(v.S4.MaxGap) > math.Max(volumeGap, 2*d.p.MaxGap) ||
		media < volumeMedia || media > 1/volumeMedia {
		return e
	}
	width := max(s.Max-s.Min, 1) * d.p.margin()
	e.Value = max(0, (s.Min-v.V4[feature.ByteRate])/width)
	e.Score = e.Value / e.Limit
	if e.Score >= said {
		e.Text = fmt.Sprintf("volume over 4 s is %.0f kbit/s, a %.0fth of the least of the baseline, while its clock goes on",
			8*math.Exp2(v.V4[feature.ByteRate])/1000, math.Exp2(s.Min-v.V4[feature.ByteRate]))
	}
	return e
}

// ramp keeps the volume of five blocks of 8 s.
type ramp struct {
	hops []float64
	next int
	full bool
}

const (
	rampBlocks = 5
	rampBlock  = 8 * hopsPerSecond
)

func newRamp() ramp { return ramp{hops: make([]float64, rampBlocks*rampBlock)} }

func (r *ramp) add(w *feature.Window) {
	r.hops[r.next] = float64(w.Bytes)
	r.next = (r.next + 1) % len(r.hops)
	r.full = r.full || r.next == 0
}

// blocks are the volumes in octaves, the eldest first.
func (r *ramp) blocks() (b [rampBlocks]float64) {
	for i := range r.hops {
		b[i/rampBlock] += r.hops[(r.next+i)%len(r.hops)]
	}
	for i := range b {
		b[i] = lg(b[i])
	}
	return b
}

func (r *ramp) steps() (s [rampBlocks - 1]float64) {
	b := r.blocks()
	for i := range s {
		s[i] = b[i+1] - b[i]
	}
	return s
}

// line fits a line: slope in octaves a block, and the deviation of the blocks from it.
func (r *ramp) line() (slope, deviation float64) {
	b := r.blocks()
	mean := 0.0
	for _, v := range b {
		mean += v / rampBlocks
	}
	const middle = (rampBlocks - 1) / 2.0
	var xx float64
	for i, v := range b {
		x := float64(i) - middle
		slope += x * v
		xx += x * x
	}
	slope /= xx
	for i, v := range b {
		d := v - mean - slope*(float64(i)-middle)
		deviation += d * d
	}
	return slope, math.Sqrt(deviation / (rampBlocks - 2))
}

func lg(x float64) float64 { return math.Log2(math.Max(x, 1)) }

// drift accuses a volume that is walked up: straight, and steeper than what the
// baseline's picture ever did from one block to the next. A cut is one step; a picture
// that grows richer does it unevenly.
type drift struct {
	p *Profile
	r ramp
}

const (
	driftSlope    = 0.06 // octaves in 8 s
	driftBaseline = 0.8  // times the baseline's greatest step
	driftStraight = 8.0  // slope over deviation
)

func (*drift) Name() string { return "drift" }

func (d *drift) Score(v *View) Evidence {
	limit := max(driftSlope, driftBaseline*d.p.StepMax) * d.p.margin()
	e := Evidence{Kind: "drift", Class: Source, Limit: limit}
	d.r.add(&v.Hop)
	if !d.r.full || v.Disturbed {
		return e
	}
	slope, deviation := d.r.line()
	e.Value = slope
	e.Score = max(0, min(slope/limit, slope/max(deviation, 1e-3)/driftStraight))
	if e.Score >= said {
		e.Text = fmt.Sprintf("volume rises by %.0f %% every 8 s in a straight line (limit %.0f %%; greatest change in the baseline %.0f %%)",
			100*(math.Exp2(slope)-1), 100*(math.Exp2(limit)-1), 100*(math.Exp2(d.p.StepMax)-1))
	}
	return e
}
