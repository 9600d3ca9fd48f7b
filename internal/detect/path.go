package detect

import (
	"fmt"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

func paceSpread(w *feature.Window) float64 {
	v, ok := w.Vector()
	if !ok {
		return 99
	}
	return v[feature.PaceSpread]
}

// envelopeHops is the length over which the low edge of the delay is taken.
const envelopeHops = 6 * hopsPerSecond

// envelope follows the low edge of the delay.
type envelope struct {
	hops []float64
	next int
	n    int
}

func newEnvelope(n int) envelope { return envelope{hops: make([]float64, n)} }

func (e *envelope) add(ms float64) {
	e.hops[e.next] = ms
	e.next = (e.next + 1) % len(e.hops)
	e.n = min(e.n+1, len(e.hops))
}

// low is the second smallest of the newest n hops that lie skip hops back.
func (e *envelope) low(skip, n int) (float64, bool) {
	if e.n < skip+n {
		return 0, false
	}
	a, b := 1e18, 1e18
	for i := skip; i < skip+n; i++ {
		v := e.hops[(e.next-1-i+2*len(e.hops))%len(e.hops)]
		if v < a {
			a, b = v, a
		} else if v < b {
			b = v
		}
	}
	return b, true
}

func envelopeSwing(delays []float64) float64 {
	e := newEnvelope(30 * hopsPerSecond)
	swing := 0.0
	for _, d := range delays {
		e.add(d)
		now, ok := e.low(0, envelopeHops)
		before, ok2 := e.low(envelopeHops, 4*envelopeHops-envelopeHops)
		if ok && ok2 {
			swing = max(swing, now-before, before-now)
		}
	}
	return swing
}

// bottleneck notices a link that is permanently full: packets leave it at its rate
// without a pause, so that the time per byte hardly varies and accounts for all of the
// time, and they queue. Jitter, grants and loss widen the spread; a burst leaves pauses.
type bottleneck struct {
	p *Profile
	e envelope
	// least is the delay of an empty queue, from the baseline on. The clocks of sender
	// and receiver are not one: it follows the low edge as fast as two clocks can part.
	least  float64
	edge   envelope
	traced bool
}

// clocksApart is by how many milliseconds two clocks of 100 ppm each may part in a hop.
const clocksApart = 200e-6 * 1000 / hopsPerSecond

// follow takes the low edge of the delay, over a time in which a queue is empty once.
func (b *bottleneck) follow() {
	if !b.traced {
		b.least, b.traced = b.p.DelayMin, true
	}
	if low, ok := b.edge.low(0, tenSec); ok {
		b.least += max(-clocksApart, min(clocksApart, low-b.least))
	}
}

const (
	bottleneckDelay  = 30.0 // ms of queue
	bottleneckShare  = 0.75 // of the baseline's smallest spread
	bottleneckSpread = 1.5  // octaves at most
	bottleneckBusy   = 0.75 // of the time at least
	// bottleneckQueue is the longest queue, in ms, that a link may have; a source that
	// cannot keep up with its clock falls further behind.
	bottleneckQueue = 5000.0
	// delayUnusable is a range of the delay within the baseline, in ms, that says that
	// the timestamp does not count 90 kHz.
	delayUnusable = 1000.0
)

func (*bottleneck) Name() string { return "bottleneck" }

// busy is the share of the time that sending at the median time per byte takes.
func busy(w *feature.Window) float64 {
	v, ok := w.Vector()
	if !ok {
		return 0
	}
	return math.Exp2(v[feature.PaceMedian]-1) * float64(w.Bytes) / (w.Seconds() * 1e9)
}

func (b *bottleneck) Score(v *View) Evidence {
	e := Evidence{Kind: "bottleneck", Class: Path}
	if ms, ok := v.Hop.DelayMS(); ok {
		b.e.add(ms)
		b.edge.add(ms)
		b.follow()
	}
	now, ok := b.e.low(0, fourSec/2)
	if !ok || b.p.PaceMin == 0 || b.p.DelayMax-b.p.DelayMin > delayUnusable {
		return e
	}
	spread, full := paceSpread(&v.S4), busy(&v.S4)
	e.Limit = min(bottleneckSpread, bottleneckShare*b.p.PaceMin) / b.p.margin()
	e.Value = spread
	narrow := e.Limit / max(spread, 0.01)
	if now-b.least > bottleneckQueue {
		return e
	}
	queued := (now - b.least) / max(bottleneckDelay, 1.5*(b.p.DelayMax-b.p.DelayMin))
	e.Score = min(narrow, queued, full/bottleneckBusy, 10)
	e.Score = max(0, e.Score)
	if e.Score >= v.Said {
		e.Text = fmt.Sprintf("the link is full: busy %.0f %% of the time at %s, packets wait %.0f ms longer than without a queue, and come evenly (the time a byte differs by a factor of %.1f, by habit %.1f and more)",
			100*min(full, 1), feature.ByteRate.Say(v.V4[feature.ByteRate]), now-b.least, math.Exp2(spread), math.Exp2(b.p.PaceMin))
	}
	return e
}

// tick notices a relay's clock in the arrival times.
type tick struct{ p *Profile }

const (
	tickFloor  = 0.75
	tickMargin = 0.35
	tickLeast  = 120  // packets in 4 s
	tickOwn    = 0.55 // a path that ticks by itself says nothing
	// A relay that wakes every millisecond sends packets one and two milliseconds
	// apart. A radio's grants are on a millisecond as well, but come at once, with five,
	// eight or ten milliseconds between them: that is a network.
	tickApart = 0.05 // share of gaps of about 0.8 to 3 ms
)

func (tick) Name() string { return "tick" }

func (d tick) Score(v *View) Evidence {
	e := Evidence{Kind: "tick", Class: Path, Limit: min(0.95, max(tickFloor, d.p.TickMax+tickMargin))}
	if v.Disturbed || v.S4.TickCount < tickLeast || d.p.TickMax > tickOwn || apart(&v.S4) < tickApart {
		return e
	}
	e.Value = v.S4.Tick()
	e.Score = e.Value / e.Limit
	if e.Score >= v.Said {
		e.Text = fmt.Sprintf("packets leave on the beat of a timer of 1 ms, as a relay's do (regularity %.2f of 1 over 4 s, by habit at most %.2f, limit %.2f)",
			e.Value, d.p.TickMax, e.Limit)
	}
	return e
}

// apart is the share of packets that came about 0.8 to 3 ms after the one before.
func apart(w *feature.Window) float64 {
	const first, last = 19, 22 // two buckets an octave: 768 µs to 3.1 ms
	n := 0.0
	for _, c := range w.IATs[first : last+1] {
		n += float64(c)
	}
	return n / math.Max(float64(w.Gaps), 1)
}

// step notices that the low edge of the delay moved and stayed. A reroute does the
// same as a relay: it says that the path changed.
type step struct {
	p *Profile
	e envelope
}

const stepFloor = 4.0 // ms

func (*step) Name() string { return "delay-step" }

func (d *step) Score(v *View) Evidence {
	e := Evidence{Kind: "delay-step", Class: Path, Limit: max(stepFloor, 3*d.p.DelaySwing)}
	if ms, ok := v.Hop.DelayMS(); ok {
		d.e.add(ms)
	}
	now, ok := d.e.low(0, envelopeHops)
	before, ok2 := d.e.low(envelopeHops, 3*envelopeHops)
	if !ok || !ok2 || v.Disturbed {
		return e
	}
	e.Value = now - before
	e.Score = slices.Max([]float64{e.Value, -e.Value}) / e.Limit
	if e.Score >= v.Said {
		e.Text = fmt.Sprintf("the way became longer by %.1f ms and stays so (by habit it changes by at most %.1f ms; limit %.1f ms)", e.Value, d.p.DelaySwing, e.Limit)
		if e.Value < 0 {
			e.Text = fmt.Sprintf("the way became shorter by %.1f ms and stays so (by habit it changes by at most %.1f ms; limit %.1f ms)", -e.Value, d.p.DelaySwing, e.Limit)
		}
	}
	return e
}
