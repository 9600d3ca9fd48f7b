package detect

import (
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// volume accuses a collapse of the volume while media time runs on: a frozen or
// black picture. Loss and silence are the path's. It looks at 4 s, and at every second
// of the last two and a half, or two where it fell the deeper; and, where key pictures stay
// as they are, at what lies between them ([standing]).
type volume struct {
	p      *Profile
	recent [volumeRecent]collapse // of the last hops over 1 s, the newest before next
	next   int
	still  stillness
	rest   rest
	stand  standing
	came   int // hops for which it is remembered that a scene came to stand
}

func newVolume(p *Profile) *volume {
	return &volume{p: p, still: newStillness(p), stand: standing{p: p}}
}

const (
	// volumeRanges is by how many ranges of the baseline (at least an octave) the
	// volume must be below all of it.
	volumeRanges = 2.5
	volumeRecent = 7 // hops
	// What is volumeDeep times as far below stands still for stillDeepHops, and needs
	// volumeDeepRecent hops only.
	volumeDeep, volumeDeepRecent = 1.5, 5
	// volumeFall is by how many octaves it must be below the least second of the baseline
	// as well: a scene may go on for longer than the quiet moments of the baseline did.
	// Where a rate control held the volume (robust deviation over 4 s below volumeHeld),
	// the baseline hides how little its pictures needed, and volumeFallHeld holds. In a TS
	// the least picture takes 188 bytes; elsewhere it takes some tens, and what is still
	// above them may be a simple scene: volumeFallBare. Under a camera's noise no two pictures
	// have one size: where they have, volumeFallHeld is enough.
	volumeFall, volumeFallHeld, volumeFallBare = 2.0, 3.5, 5.0
	volumeHeld                                 = 0.05
	// volumeMedia is how near the media clock must be to its rate in the baseline,
	// volumeLoss how many packets at most may be missing, and volumeGap how long at
	// most, in ns, nothing may arrive.
	volumeMedia = 0.6
	volumeLoss  = 2
	volumeGap   = 1e9
)

func (*volume) Name() string { return "volume" }

func (d *volume) Score(v *View) Evidence {
	e := Evidence{Kind: "volume", Class: Source, Limit: volumeRanges}
	d.still.add(&v.Hop)
	d.rest.hop(content(&v.Hop))
	d.rest.add(contentRate(&v.S1, &v.V1), d.p.Content1.Min, v.OK1)
	d.recent[d.next] = d.below(&v.S1, &v.V1, v.OK1, &d.p.Seconds, &d.p.Content1)
	d.next = (d.next + 1) % volumeRecent
	four := d.below(&v.S4, &v.V4, v.OK4, &d.p.Fours, &d.p.Content4)

	still, exact := d.still.still(stillHops)
	fall := d.fall(exact)
	least, seconds, rate := d.depth(four, fall), 4.0, contentRate(&v.S4, &v.V4)
	quick := func(hops int, part float64) {
		if x := d.through(hops, fall) * part; x > least {
			least, seconds, rate = x, float64(hops)*0.25+0.75, contentRate(&v.S1, &v.V1)
		}
	}
	quick(volumeRecent, 1)
	if !still { // for as long as these want it
		if still, exact = d.still.still(stillDeepHops); still {
			fall, least = d.fall(exact), 0
		}
	}
	if still {
		quick(volumeDeepRecent, 1/volumeDeep)
	}
	e.Value = least
	// Otherwise a simple scene, or one that comes to rest.
	if still = still && !(least > 0 && d.rest.came(min(rate, contentRate(&v.S1, &v.V1)), d.p.Content1.Min)); still {
		e.Score = e.Value / e.Limit
	}
	if s := d.stand.score(v, d.undisturbed(&v.S4, &v.V4, v.OK4, &d.p.Fours)); !d.slow(s.Score) && s.Score > e.Score {
		return s
	}
	if still && e.Score >= v.Said {
		e.Text = d.fell(v, rate, seconds)
	}
	return e
}

// contentRate is the volume in octaves over a byte a second, without the null packets by
// which a multiplexer keeps a constant rate (ISO 13818-1 section 2.4.3.3), as far as
// TS packets are seen.
func contentRate(w *feature.Window, x *feature.Vector) float64 {
	if w.TSNulls == 0 {
		return x[feature.ByteRate]
	}
	content, fill := max(float64(w.TSPackets), 0.5), float64(w.TSNulls)
	return x[feature.ByteRate] + math.Log2(content/(content+fill))
}

// content is what of a hop's bytes is no null packet.
func content(w *feature.Window) float64 {
	all := float64(w.TSPackets) + float64(w.TSNulls)
	if w.TSNulls == 0 || all == 0 {
		return float64(w.Bytes)
	}
	return float64(w.Bytes) * float64(w.TSPackets) / all
}

// slow reports whether a scene came to stand between its key pictures, now or a while ago.
func (d *volume) slow(score float64) bool {
	d.came = max(0, d.came-1)
	if score >= 0.5 && d.rest.slow(d.p.Content1.Min) {
		d.came = restKept
	}
	return d.came > 0
}

// undisturbed reports that the path has nothing to do with the volume of a window: media
// time goes on, and packets neither miss nor wait.
func (d *volume) undisturbed(w *feature.Window, x *feature.Vector, ok bool, baseline *[feature.Features]Spread) bool {
	media := x[feature.MediaRate] / math.Max(baseline[feature.MediaRate].Median, 1e-3)
	return ok && w.Lost <= volumeLoss && w.Jumps == 0 && float64(w.MaxGap) <= math.Max(volumeGap, 2*d.p.MaxGap) &&
		media >= volumeMedia && media <= 1/volumeMedia
}

// collapse is by how much the volume of a window is below the baseline: by how many of its
// ranges, and by how many octaves below its least second. It is zero where the path may
// have to do with it.
type collapse struct{ ranges, octaves float64 }

// below compares the volume of a window with the baseline's.
func (d *volume) below(w *feature.Window, x *feature.Vector, ok bool, baseline *[feature.Features]Spread, content *Spread) collapse {
	if !d.undisturbed(w, x, ok, baseline) {
		return collapse{}
	}
	rate := contentRate(w, x)
	return collapse{(content.Min - rate) / max(content.Max-content.Min, 1), d.p.Content1.Min - rate}
}

// depth is a collapse in ranges of the baseline, where the least second has to be so many
// octaves above it.
func (d *volume) depth(c collapse, fall float64) float64 {
	return max(0, min(c.ranges, volumeRanges*c.octaves/fall)/d.p.margin())
}

// through is the least depth of the last hops, at most volumeRecent.
func (d *volume) through(hops int, fall float64) float64 {
	least := math.Inf(1)
	for i := 1; i <= hops; i++ {
		least = min(least, d.depth(d.recent[(d.next-i+volumeRecent)%volumeRecent], fall))
	}
	return least
}

// fall is by how many octaves the volume must be below every second of the baseline; exact:
// pictures are the same to the byte.
func (d *volume) fall(exact bool) float64 {
	switch {
	case d.p.Form != feature.TS && !exact:
		return volumeFallBare
	case d.p.Form != feature.TS:
		return volumeFallHeld
	case d.p.Content4.MAD < volumeHeld:
		return volumeFallHeld
	}
	return volumeFall
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

// newest is the volume of the newest block in octaves of bytes a second.
func (r *ramp) newest() float64 {
	const seconds = rampBlock / hopsPerSecond
	return r.blocks()[rampBlocks-1] - lg(seconds)
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

// drift accuses a volume that is walked up: straight, steeper than what the
// baseline's picture ever did from one block to the next, and again so a block later, to
// above all of the baseline. A cut is one step; a picture that grows richer does it unevenly, and is
// not for long in line; a rate control that comes back to its rate is, and stops there.
type drift struct {
	p    *Profile
	r    ramp
	past [driftPast]float64 // scores of single hops, the eldest at next
	next int
}

const (
	driftSlope    = 0.06 // octaves in 8 s
	driftBaseline = 0.8  // times the baseline's greatest step
	driftStraight = 8.0  // slope over deviation
	// driftMost is the steepest that a walk is: 27 % every 8 s. A zoom into something
	// rich doubles the volume in that time, in as straight a line; who wants to go
	// unseen takes small steps.
	driftMost = 0.35
	// driftPast is how many hops ago the line is looked for that goes on now, and
	// driftSpan among how many.
	driftPast = rampBlock + driftSpan/2
	driftSpan = 3 * hopsPerSecond
)

func (*drift) Name() string { return "drift" }

func (d *drift) Score(v *View) Evidence {
	limit := max(driftSlope, driftBaseline*d.p.StepMax) * d.p.margin()
	e := Evidence{Kind: "drift", Class: Source, Limit: limit}
	d.r.add(&v.Hop)
	before := 0.0
	for i := range driftSpan {
		before = max(before, d.past[(d.next+i)%driftPast])
	}
	now := &d.past[d.next]
	d.next = (d.next + 1) % driftPast
	*now = 0
	if !d.r.full || v.Disturbed {
		return e
	}
	slope, deviation := d.r.line()
	e.Value = slope
	if slope <= driftMost && d.r.newest() >= d.p.Fours[feature.ByteRate].Max {
		*now = max(0, min(slope/limit, slope/max(deviation, 1e-3)/driftStraight))
	}
	e.Score = min(*now, before)
	if e.Score >= v.Said {
		e.Text = d.climbed(slope, limit)
	}
	return e
}
