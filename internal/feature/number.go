package feature

import "encoding/binary"

const (
	seenRoom = 1024 // packets remembered by number, a power of two
	// A number further away than this is no loss and no late packet: the numbering
	// began anew.
	jumpDistance = 1 << 14
)

type seenPacket struct {
	seq  int64 // extended number plus one, 0 is free
	hash uint32
	ms   uint32 // arrival
}

// staleAge is the age in ms from which a second copy is no network's: those come
// within a round trip.
const staleAge = 1000

// order is where a packet stands among the others.
type order uint8

const (
	ahead     order = iota // a new highest number, not right behind the packet before
	following              // right behind the packet before
	late                   // below the highest number, and not seen yet
	repeated               // a number seen before
)

// number follows the sequence numbers. Where the packet before had the highest, and no
// numbers are remembered, the meter is steady: of a packet with the next number nothing
// is to be noted but that.
func (m *Meter) number(p *Packet) order {
	if m.steady {
		m.prevSeq = m.lastSeq
	}
	o := m.ordered(p)
	m.steady = m.seen == nil && m.prevSeq == m.lastSeq
	return o
}

func (m *Meter) ordered(p *Packet) order {
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
