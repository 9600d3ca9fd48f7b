package attack

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// Tamper is what somebody does between the encoder and the device. Such an
// attacker needs no key: the device seals whatever reaches it.
type Tamper string

// The ways to tamper.
const (
	// Swap: another encoder's stream comes in place of the source's.
	Swap Tamper = "swap"
	// LoopInput: some seconds that were recorded come again and again.
	LoopInput Tamper = "loop"
	// Exfil: packets of a stream of the attacker's own travel between the others.
	Exfil Tamper = "exfil"
	// Drift: padding that makes the stream an eighth larger every eight seconds.
	Drift Tamper = "drift"
	// FloodInput: with everything that comes, three times as much from before.
	FloodInput Tamper = "flood"
)

const (
	// tapeLength is how much of the source is recorded, and loopLength how much of
	// it a loop shows at least, in RTP ticks.
	tapeLength = 30 * ticksPerSecond
	loopLength = 5 * ticksPerSecond

	ticksPerSecond = 90_000
	exfilEvery     = 20   // packets of the source between two of the attacker's
	exfilPID       = 0xbc // a PID that tables do not list
	driftOctaves   = 0.17 / (8 * ticksPerSecond)
	floodTimes     = 3
)

// Upstream is a source that somebody stands before. Until [Upstream.Begin] it is
// the source itself. Only MPEG-TS can be tampered with.
type Upstream struct {
	device.Source
	how   Tamper
	other []byte

	mu     sync.Mutex
	active bool
	stats  Stats

	// The reader's own.
	in      device.Batch
	alien   device.Source // what is shown in place of the source
	showing bool          // alien
	tape    []taped
	splice  splicer
	clock   int64  // program clock less RTP timestamp, of the source, in ticks
	ahead   uint32 // added to RTP timestamps
	last    uint32 // RTP timestamp of the last unit
	each    uint32 // from the one before to it
	at      time.Time
	touched bool // counters and clocks are no longer the source's
	begin   uint32
	debt    float64
	count   int
	dice    *rand.ChaCha8
	held    *taped  // the last unit read: its packets' times end where the next begins
	pending []taped // packets that do not fill a unit yet
	packets []taped
	bytes   []byte
}

// taped is one transport stream packet, or a unit of them, with its timestamp.
type taped struct {
	ts   []byte
	time uint32
}

// NewUpstream puts somebody before a source. other is the transport stream that
// [Swap] shows.
func NewUpstream(s device.Source, how Tamper, other []byte) (*Upstream, error) {
	switch how {
	case LoopInput, Exfil, Drift, FloodInput:
	case Swap:
		if !media.ValidTS(other) {
			return nil, fmt.Errorf("swap: what is to be shown is not MPEG-TS")
		}
	default:
		return nil, fmt.Errorf("%q is no way to tamper with a source", how)
	}
	return &Upstream{Source: s, how: how, other: other, dice: rand.NewChaCha8([32]byte{7})}, nil
}

// Begin starts the attack, and End ends it.
func (u *Upstream) Begin() { u.set(true) }

// End: see [Upstream.Begin].
func (u *Upstream) End() { u.set(false) }

func (u *Upstream) set(active bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active = active
}

// Stats tells when the first altered unit went to the device, and how many did.
func (u *Upstream) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

// Probe implements [device.Source].
func (u *Upstream) Probe(ctx context.Context) (gkrp.Payload, error) {
	p, err := u.Source.Probe(ctx)
	if err == nil && p.Kind != gkrp.PayloadMP2T {
		err = fmt.Errorf("attack %s needs MPEG-TS: the source is %s", u.how, p.Encoding)
	}
	return p, err
}

// Read implements [device.Source].
func (u *Upstream) Read(ctx context.Context, b *device.Batch) error {
	u.mu.Lock()
	active := u.active
	u.mu.Unlock()
	if !active && !u.touched {
		if err := u.Source.Read(ctx, b); err != nil {
			return err
		}
		u.watch(b)
		return nil
	}
	seam, err := u.choose(active)
	if err != nil {
		return err
	}
	from := u.Source
	if u.showing {
		from = u.alien
	}
	u.bytes = u.bytes[:0]
	for b.Units, b.Break = b.Units[:0], ""; len(b.Units) == 0; {
		if err := from.Read(ctx, &u.in); err != nil {
			return err
		}
		if u.showing && u.in.Break != "" { // the loop begins again
			seam = true
		} else if !u.showing {
			b.Break = u.in.Break
		}
		if seam {
			u.join(b)
			seam = false
		}
		u.take(active)
		u.fill(b)
	}
	return nil
}

// watch follows the source while nothing is done to it.
func (u *Upstream) watch(b *device.Batch) {
	for _, x := range b.Units {
		for i := 0; i+media.TSPacketSize <= len(x.Payload); i += media.TSPacketSize {
			p := x.Payload[i : i+media.TSPacketSize]
			u.splice.note(p)
			if pcr, ok := media.ParsePCR(p); ok {
				u.clock = int64(pcr/300) - int64(x.Timestamp)
			}
		}
		u.tape = append(u.tape, taped{bytes.Clone(x.Payload), x.Timestamp})
		for len(u.tape) > 0 && x.Timestamp-u.tape[0].time > tapeLength {
			u.tape = u.tape[1:]
		}
		u.last, u.each = x.Timestamp, min(x.Timestamp-u.last, ticksPerSecond)
	}
	u.at = time.Now()
}

// choose decides whose stream is read next. seam is true where it is another's
// than before.
func (u *Upstream) choose(active bool) (seam bool, err error) {
	if !u.touched {
		u.touched, u.begin = true, u.last
	}
	show := active && (u.how == Swap || u.how == LoopInput)
	if show == u.showing {
		return false, nil
	}
	u.showing = show
	if !show {
		err := u.alien.Close()
		u.alien = nil
		return true, err
	}
	reel := u.other
	if u.how == LoopInput {
		if reel = u.reel(); reel == nil {
			return false, fmt.Errorf("attack loop: the source has shown less than %d s", loopLength/ticksPerSecond)
		}
	}
	u.alien = device.NewClipSource(bytes.NewReader(reel), true)
	return true, nil
}

// reel is what was recorded last, from a key frame on where there is one.
func (u *Upstream) reel() []byte {
	start := -1
	for i, x := range u.tape {
		if u.last-x.time < loopLength {
			break
		}
		for k := 0; k+media.TSPacketSize <= len(x.ts); k += media.TSPacketSize {
			p := x.ts[k : k+media.TSPacketSize]
			if _, clock := media.ParsePCR(p); clock && media.VideoStart(p) && (start < 0 || media.RandomAccess(p)) {
				start = i
			}
		}
	}
	if start < 0 {
		return nil
	}
	var all []byte
	for _, x := range u.tape[start:] {
		all = append(all, x.ts...)
	}
	return all
}

// join makes what was just read go on where the last unit ended.
func (u *Upstream) join(b *device.Batch) {
	first := u.in.Units[0]
	next := u.last + max(uint32(time.Since(u.at)*9/100_000), u.each)
	u.release(next, false) // under the clock that it was read by
	u.fill(b)
	u.ahead = next - first.Timestamp
	clock := u.clock
	if u.showing {
	search:
		for _, x := range u.in.Units {
			for i := 0; i+media.TSPacketSize <= len(x.Payload); i += media.TSPacketSize {
				if pcr, ok := media.ParsePCR(x.Payload[i : i+media.TSPacketSize]); ok {
					clock = int64(pcr/300) - int64(x.Timestamp)
					break search
				}
			}
		}
	}
	u.splice.shift = uint64(u.clock-clock+int64(int32(u.ahead))) & stampMask
}

// take makes packets of what was read, and adds the attacker's. A unit waits for the
// next one, which tells how much time its packets have.
func (u *Upstream) take(active bool) {
	for _, x := range u.in.Units {
		t := x.Timestamp + u.ahead
		u.release(t, active)
		u.held = &taped{bytes.Clone(x.Payload), t}
		u.last, u.each, u.at = t, min(t-u.last, ticksPerSecond), time.Now()
	}
	if active && len(u.packets) > 0 {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.stats.Sent == 0 {
			u.stats.Began = time.Now()
		}
		u.stats.Sent += uint64(len(u.in.Units))
	}
}

// release gives the packets of the unit held their times, up to the next unit's.
func (u *Upstream) release(next uint32, active bool) {
	if u.held == nil {
		return
	}
	from := len(u.packets)
	for b := u.held.ts; len(b) >= media.TSPacketSize; b = b[media.TSPacketSize:] {
		p := b[:media.TSPacketSize]
		u.splice.rewrite(p)
		u.packets = append(u.packets, taped{p, u.held.time})
		if active {
			u.add(u.held.time)
		}
	}
	n := uint32(len(u.packets) - from)
	long := min(next-u.held.time, ticksPerSecond)
	for i := range n {
		u.packets[from+int(i)].time += uint32(uint64(long) * uint64(i) / uint64(n))
	}
	u.held = nil
}

// add puts the attacker's packets behind one of the source's.
func (u *Upstream) add(t uint32) {
	u.count++
	switch u.how {
	case Exfil:
		if u.count%exfilEvery == 0 {
			p := make([]byte, media.TSPacketSize)
			_, _ = u.dice.Read(p) // never fails
			p[0], p[1], p[2], p[3] = 0x47, exfilPID>>8, exfilPID, 0x10
			u.splice.rewrite(p)
			u.packets = append(u.packets, taped{p, t})
		}
	case Drift:
		for u.debt += math.Exp2(driftOctaves*float64(t-u.begin)) - 1; u.debt >= 1; u.debt-- {
			p := bytes.Repeat([]byte{0xff}, media.TSPacketSize)
			p[0], p[1], p[2], p[3] = 0x47, media.PIDNull>>8, media.PIDNull&0xff, 0x10
			u.packets = append(u.packets, taped{p, t})
		}
	case FloodInput:
		for range floodTimes {
			x := u.tape[u.count%len(u.tape)]
			u.packets = append(u.packets, taped{x.ts[:media.TSPacketSize], t})
		}
	}
}

// fill cuts packets into units of seven; what is left waits.
func (u *Upstream) fill(b *device.Batch) {
	all := append(u.pending, u.packets...)
	for len(all) >= media.TSPerRTP {
		at := len(u.bytes)
		for _, p := range all[:media.TSPerRTP] {
			u.bytes = append(u.bytes, p.ts...)
		}
		b.Units = append(b.Units, device.Unit{Payload: u.bytes[at:len(u.bytes):len(u.bytes)], Timestamp: all[0].time, Type: media.PayloadTypeTS})
		all = all[media.TSPerRTP:]
	}
	u.pending = append([]taped(nil), all...)
	u.packets = u.packets[:0]
}

// Close implements [device.Source].
func (u *Upstream) Close() error {
	if u.alien != nil {
		_ = u.alien.Close() // it reads from memory
	}
	return u.Source.Close()
}
