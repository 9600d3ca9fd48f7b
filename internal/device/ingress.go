package device

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// ingress measures what comes in from the source, before anything of the agent's
// or the network's touches it, and sums it up for each report. Observing a packet
// allocates nothing; the lock is taken once a batch.
//
// Times are those of the batches: packets that were read together arrived
// together.
type ingress struct {
	strange func() uint64 // input that was left out, since the start

	mu     sync.Mutex
	meter  *feature.Meter
	packet feature.Packet
	window feature.Window
	start  time.Time // packets' times count from here
	from   time.Time // where the summary in the making begins
	last   time.Time // of the newest packet, or where the first summary began
	breaks uint64
	before uint64 // strange at the last summary
}

// markFamilies are the words that marks are made of, those that say most first.
var markFamilies = []feature.Family{feature.FamilyParameter, feature.FamilyUnit, feature.FamilySlice}

// headerSize is of an RTP header as this agent writes them, in bytes.
const headerSize = 12

// newIngress makes the meter of a source. strange counts its input that was no
// media.
func newIngress(p gkrp.Payload, now time.Time, strange func() uint64) *ingress {
	form := feature.Named(p.Encoding)
	if p.Kind == gkrp.PayloadMP2T || p.Type == media.PayloadTypeTS {
		form = feature.TS
	}
	return &ingress{strange: strange, meter: feature.NewMeter(form), start: now, from: now, last: now}
}

// took measures a batch.
func (g *ingress) took(now time.Time, b *Batch) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.Break != "" {
		g.breaks++
	}
	p := &g.packet
	for i := range b.Units {
		u := &b.Units[i]
		p.At = max(p.At, now.Sub(g.start).Nanoseconds())
		p.Flags, p.PayloadType, p.Marker, p.Timestamp = 2<<6, u.Type, u.Marker, u.Timestamp
		p.Seq += u.Skip + 1
		p.HeaderLen, p.Wire, p.Payload = headerSize, headerSize+len(u.Payload), u.Payload
		g.meter.Observe(p)
	}
	p.Payload = nil
	if len(b.Units) > 0 {
		g.last = now
	}
}

// begin drops what was measured before a session.
func (g *ingress) begin(now time.Time) {
	if g != nil {
		g.take(now)
	}
}

// take gives the summary since it was taken last; nil where nothing is measured.
func (g *ingress) take(now time.Time) *gkrp.Ingress {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w := &g.window
	g.meter.Roll(w, now.Sub(g.start).Nanoseconds())
	idle := now.Sub(g.last)
	strange := g.strange()
	out := &gkrp.Ingress{
		SpanMs: millis(now.Sub(g.from)), Packets: w.Packets, Bytes: w.Bytes - headerSize*w.Packets,
		GapMs: millis(max(time.Duration(w.MaxGap), idle)), IdleMs: millis(idle), Frames: w.Frames,
		Missing: w.Lost, Breaks: g.breaks, Strange: strange - g.before,
	}
	for _, family := range markFamilies {
		for _, t := range w.Tokens.All() {
			if t.Token.Family() == family && len(out.Marks) < gkrp.MaxMarks*gkrp.MarkBytes {
				out.Marks = binary.BigEndian.AppendUint32(out.Marks, uint32(t.Token))
			}
		}
	}
	g.from, g.breaks, g.before = now, 0, strange
	return out
}

// millis is a duration for a field of 32 bits.
func millis(d time.Duration) uint32 { return uint32(min(max(d.Milliseconds(), 0), 1<<32-1)) }
