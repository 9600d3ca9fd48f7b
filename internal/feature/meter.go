package feature

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Meter measures one stream. It belongs to one goroutine, and neither reads a clock
// nor allocates after [NewMeter].
type Meter struct {
	form Form
	w    Sums // of the window in work

	header    uint32 // of the last packet whose header was noted
	headerAt  int64
	started   bool
	last      int64 // arrival of the packet before
	lastSeq   int64 // highest sequence number, extended
	prevSeq   int64 // number of the packet before, extended
	lastTS    uint32
	mediaTime int64 // extended RTP timestamp of the last packet in order
	mediaHigh int64 // its maximum
	clocked   bool  // the RTP timestamp has moved: there is one
	origin    int64 // delay of the first packet, µs
	marker    bool  // the packet before ended its frame
	sameTime  bool  // this packet has the timestamp of the one before

	frameBytes, framePackets uint64
	inFrame                  bool
	hashedFrame              bool // a payload of this frame was looked up
	repeatedFrame            bool // and one was known

	length  uint32 // of the last packet
	lengths uint32 // packets of it that are not in the window yet

	slotStart int64
	slotBytes uint64

	tokens   tokenTable
	fragment fragmentState

	// What not every stream has need of.
	seen *[seenRoom]seenPacket // numbers that were there; nil where none comes twice
	ts   *tsState              // of [TS]
	echo *echoFinder           // of [TS]
	loop *loopMemory           // where payload is visible
	runs *runFinder            // where it is hidden
}

const (
	noHeader = 0    // no RTP header: version 2 is in it
	seenRoom = 1024 // packets remembered by number, a power of two
	peakSlot = 50e6 // ns
	// A number further away than this is no loss and no late packet: the numbering
	// began anew.
	jumpDistance = 1 << 14
	// A timestamp that moves further than this, 30 s, in ticks, is another clock.
	clockRestart = 30 * 90000
)

type seenPacket struct {
	seq  int64 // extended number plus one, 0 is free
	hash uint32
	ms   uint32 // arrival
}

// staleAge is the age in ms from which a second copy is no network's: those come
// within a round trip.
const staleAge = 1000

// NewMeter makes the meter of a stream as it was recorded, whose payload has the given
// form.
func NewMeter(form Form) *Meter {
	m := NewLiveMeter(form)
	m.seen = new([seenRoom]seenPacket)
	return m
}

// NewLiveMeter makes the meter of a stream of which only packets come that were
// authenticated and accepted: no number comes twice, so that it remembers none. Of such
// packets its windows equal those of [NewMeter].
func NewLiveMeter(form Form) *Meter {
	m := &Meter{form: form, tokens: newTokenTable()}
	switch form {
	case Hidden:
		m.runs = new(runFinder)
	case TS:
		m.ts, m.echo = newTSState(), newEchoFinder()
		fallthrough
	default:
		m.loop = newLoopMemory()
	}
	m.clear()
	return m
}

func (m *Meter) clear() {
	m.w = Sums{Delay: noDelay, Delay2: noDelay}
}

// tickTurn makes a time into a phase: a period of 1 ms is a full turn of 64 bits.
const tickTurn = (1<<64 - 1) / tickPeriod

// tickTable holds cos and sin of 256 phases, times 1024.
var tickTable = func() (t [256][2]int16) {
	for i := range t {
		s, c := math.Sincos(2 * math.Pi * (float64(i) + 0.5) / 256)
		t[i] = [2]int16{int16(math.Round(c * 1024)), int16(math.Round(s * 1024))}
	}
	return t
}()

// Observe measures one packet. Its stages: aliens out; numbering (loss, order, a
// number twice); arrival; size; frame; payload.
func (m *Meter) Observe(p *Packet) {
	header := uint32(p.Flags)<<8 | uint32(p.PayloadType)
	if p.Alien {
		m.w.Aliens++
		m.tokens.add(token(FamilyHeader, 1<<16|header), p.At)
		return
	}
	if header != m.header || p.At-m.headerAt >= occasionGap {
		m.header, m.headerAt = header, p.At
		m.tokens.add(token(FamilyHeader, header), p.At)
	}
	order := following
	if m.seen == nil && m.started && m.prevSeq == m.lastSeq && p.Seq == uint16(m.lastSeq+1) {
		m.lastSeq++
		m.prevSeq++
	} else if order = m.number(p); order == repeated {
		return
	}
	consecutive := order == following
	m.arrival(p)
	m.size(p)
	if order != late {
		m.frame(p, consecutive)
	}
	if p.cut() {
		m.w.CutPackets++
	}
	if len(p.Payload) > 0 && m.form != Hidden {
		m.payload(p, consecutive)
	}
	m.marker = p.Marker
	m.last = p.At
	m.started = true
}

// order is where a packet stands among the others.
type order uint8

const (
	ahead     order = iota // a new highest number, not right behind the packet before
	following              // right behind the packet before
	late                   // below the highest number, and not seen yet
	repeated               // a number seen before
)

// number follows the sequence numbers.
func (m *Meter) number(p *Packet) order {
	if !m.started {
		m.lastSeq = int64(p.Seq) + 1<<16
		m.prevSeq = m.lastSeq
		m.lastTS = p.Timestamp
		m.origin = p.At / 1000
		m.note(m.lastSeq, p)
		return ahead
	}
	d := int64(int16(p.Seq - uint16(m.lastSeq)))
	seq := m.lastSeq + d
	before := m.prevSeq
	switch {
	case d > jumpDistance || d < -jumpDistance:
		m.w.Jumps++
	case d >= 1:
		m.w.Lost += uint64(d - 1)
	case d <= -seenRoom: // too late to tell whether it was there
		m.w.Stale++
		m.prevSeq = seq
		return late
	default:
		if m.seen != nil && m.twice(seq, p) {
			return repeated
		}
		m.w.Reordered++
		if m.w.Lost > 0 { // it was counted lost; if in an earlier window, that one stands
			m.w.Lost--
		}
		m.note(seq, p)
		m.prevSeq = seq
		return late
	}
	m.note(seq, p)
	m.lastSeq, m.prevSeq = seq, seq
	if seq == before+1 {
		return following
	}
	return ahead
}

// note remembers the number of a packet.
func (m *Meter) note(seq int64, p *Packet) {
	if m.seen != nil {
		m.seen[seq&(seenRoom-1)] = seenPacket{seq + 1, m.content(p), uint32(p.At / 1e6)}
	}
}

// twice reports whether a number was there before, and counts as what it came again.
func (m *Meter) twice(seq int64, p *Packet) bool {
	slot := &m.seen[seq&(seenRoom-1)]
	if slot.seq != seq+1 {
		return false
	}
	switch {
	case slot.hash != m.content(p):
		m.w.TwoContents++
	case uint32(p.At/1e6)-slot.ms >= staleAge:
		m.w.Stale++
	default:
		m.w.Duplicates++
	}
	return true
}

// content is a hash that tells two packets of one number apart: by time, length, and
// the first and last visible bytes.
func (m *Meter) content(p *Packet) uint32 {
	h := mix(uint64(p.Timestamp)|uint64(p.PayloadType)<<32, uint64(p.Wire))
	if b := p.Payload[:min(len(p.Payload), visibleMost)]; len(b) >= 8 {
		h = mix(h, binary.LittleEndian.Uint64(b))
		h = mix(h, binary.LittleEndian.Uint64(b[len(b)-8:]))
	} else {
		for _, c := range b {
			h = mix(h, uint64(c))
		}
	}
	return uint32(h)
}

func (m *Meter) arrival(p *Packet) {
	w := &m.w
	if !m.started {
		return
	}
	gap := uint64(max(p.At-m.last, 0))
	us := gap / 1000
	w.Gaps++
	w.IATSum += gap
	w.IATSq += us * us
	w.MaxGap = max(w.MaxGap, gap)
	w.IATs[logBucket(us, 1, 0, IATBuckets)]++
	w.PerByte[logBucket(perByte(gap, p.Wire), 2, 12, GapBuckets)]++
	if gap < 20e6 {
		t := tickTable[uint64(p.At)*tickTurn>>56]
		w.TickCos += int64(t[0])
		w.TickSin += int64(t[1])
		w.TickCount++
	}
}

// perByte is gap*16/wire. Division of 32 bits is several times as fast.
func perByte(gap uint64, wire int) uint64 {
	if v := gap << 4; v < 1<<32 {
		return uint64(uint32(v) / uint32(max(wire, 1)))
	}
	return gap << 4 / uint64(max(wire, 1))
}

// logBucket is the bucket of v in a log-spaced histogram with 1<<fraction buckets an
// octave, the first offset of them cut off.
func logBucket(v uint64, fraction, offset, buckets int) int {
	if v == 0 {
		return 0
	}
	n := bits.Len64(v)
	var f int
	if n > fraction {
		f = int(v>>(n-1-fraction)) & (1<<fraction - 1)
	} else {
		f = int(v<<(fraction+1-n)) & (1<<fraction - 1)
	}
	return min(max((n-1)<<fraction+f-offset, 0), buckets-1)
}

// size follows the lengths of packets. Most have that of the one before: they are
// counted, and enter the window together.
func (m *Meter) size(p *Packet) {
	size := uint32(p.Wire)
	if size != m.length {
		m.endLength()
		m.length = size
	}
	m.lengths++
	if p.At-m.slotStart >= peakSlot {
		m.slotStart = p.At
		m.slotBytes = 0
	}
	m.slotBytes += uint64(size)
	m.w.PeakBytes = max(m.w.PeakBytes, m.slotBytes)
}

// endLength takes the packets of one length into the window.
func (m *Meter) endLength() {
	w, size, n := &m.w, m.length, uint64(m.lengths)
	if n == 0 {
		return
	}
	m.lengths = 0
	if w.Packets == 0 {
		w.SizeMin = size
	}
	w.Packets += n
	w.Bytes += n * uint64(size)
	w.SizeSq += n * uint64(size) * uint64(size)
	w.SizeMin = min(w.SizeMin, size)
	w.SizeMax = max(w.SizeMax, size)
	w.Sizes[min(size/64, SizeBuckets-1)] += uint32(n)
	addTop(&w.Top, SizeCount{size, uint32(n)})
}

// frame follows the RTP timestamp: frames, their step, rhythm and delay.
func (m *Meter) frame(p *Packet, consecutive bool) {
	w := &m.w
	step := int64(int32(p.Timestamp - m.lastTS))
	m.lastTS = p.Timestamp
	m.sameTime = step == 0
	// A clock that begins anew says nothing about the delay: time goes on as it came.
	if moved := step; moved > clockRestart || moved < -clockRestart {
		m.mediaTime += (p.At - m.last) * 9 / 1e5
	} else {
		m.mediaTime += moved
	}
	if p.Marker {
		w.Markers++
	}
	m.clocked = m.clocked || step != 0
	if m.clocked { // 90 kHz ticks to µs: times 100/9
		addDelay(&w.Delay, &w.Delay2, p.At/1000-m.mediaTime*100/9-m.origin)
	}
	if step != 0 {
		m.hashedFrame, m.repeatedFrame = false, false
		if m.inFrame {
			m.endFrame(p.At)
		}
		if m.mediaTime > m.mediaHigh {
			w.MediaTicks += uint64(min(m.mediaTime-m.mediaHigh, 1<<26))
			m.mediaHigh = m.mediaTime
		}
		if consecutive {
			m.tokens.add(token(FamilyStep, uint32(min(max(step, -1<<26), 1<<26))), p.At)
		}
		m.inFrame = true
	}
	if consecutive && m.form != TS {
		// A marker ends a frame (RFC 6184 §5.1): the next packet has another time, and
		// no other packet has.
		if m.marker == (step == 0) {
			w.Violations++
		}
	}
	m.frameBytes += uint64(p.Wire)
	m.framePackets++
}

func (m *Meter) endFrame(at int64) {
	w := &m.w
	w.Frames++
	w.FrameBytes += m.frameBytes
	w.FrameSq += m.frameBytes * m.frameBytes
	w.FramePackets += m.framePackets
	if m.runs != nil {
		eligible, seen := m.runs.add(uint32(m.frameBytes), uint32(at/1e6))
		if eligible {
			w.LoopFrames++
		}
		if seen {
			w.LoopHits++
		}
	}
	m.frameBytes, m.framePackets = 0, 0
}

func (m *Meter) payload(p *Packet, consecutive bool) {
	b := p.Payload
	switch m.form {
	case TS:
		m.observeTS(p, consecutive)
	case H264:
		m.observeH264(p, consecutive)
		if t := b[0] & 0x1f; (t == rtpFUA || t == nalSlice || t == nalIDR) && len(b) > 2 {
			m.sample(b[2:], p.At)
		}
	case H265:
		m.observeH265(p, consecutive)
		if t := b[0] >> 1 & 0x3f; (t == rtpFU65 || t < hevcVPS) && len(b) > 3 {
			m.sample(b[3:], p.At)
		}
	default:
		m.tokens.add(token(FamilyUnit, uint32(b[0])), p.At)
		if len(b) > 4 {
			m.sample(b[4:], p.At)
		}
	}
}

// sample looks for picture bytes b, behind all transport headers, that were there
// before, if they are among those that are remembered.
func (m *Meter) sample(b []byte, at int64) {
	if len(b) < visibleLeast {
		return
	}
	m.loop.met++
	if m.loop.picks(b) {
		m.known(b, at)
	}
}

func (m *Meter) known(b []byte, at int64) {
	m.w.Hashed++
	if !m.hashedFrame {
		m.hashedFrame = true
		m.w.HashedFrames++
	}
	b = b[:min(len(b), visibleMost)]
	if m.loop.seen(hashVisible(0, b[:visibleLeast]), uint32(at/1e6)) && rich(b) {
		m.w.Repeats++
		if !m.repeatedFrame {
			m.repeatedFrame = true
			m.w.RepeatFrames++
		}
	}
}

// Roll ends the window at end, moves it into out and begins the next one there.
func (m *Meter) Roll(out *Window, end int64) {
	m.endLength()
	m.header = noHeader // the next is an occasion of the next window
	if m.loop != nil {
		m.loop.roll()
	}
	if m.ts != nil {
		m.ts.roll()
		m.echo.recent.sweep(uint32(end / 1e6))
	}
	m.w.Start, m.w.End, m.w.Hops = end-Hop, end, 1
	out.Sums = m.w
	m.tokens.roll(&out.Tokens)
	m.clear()
}
