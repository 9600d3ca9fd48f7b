package feature

import "encoding/binary"

// LastTable is the highest PID that the standards keep for tables (ISO/IEC 13818-1 table
// 2-3, ETSI EN 300 468 table 1).
const LastTable = 0x1f

const (
	tsSize = 188
	tsNull = 0x1fff
)

// sizeTSRemainder marks a [FamilySize] token that holds a TS remainder.
const sizeTSRemainder = 1 << 20

// Values of FamilyUnit that belong to MPEG-TS, above the NAL ones.
const (
	unitTS       = 1 << 24
	unitAdapt    = 2 << 24
	unitPES      = 3 << 24
	unitNoSync   = 4 << 24
	unitDescribe = 5 << 24
	unitStream   = 6 << 24
)

// Values of transport_scrambling_control (ISO/IEC 13818-1 §2.4.3.3; which is even and odd:
// ETSI TS 100 289) as they stand in a word. A scrambler uses two keys by turns,
// for longer than a baseline perhaps: both are one word.
const (
	evenKey = 2 << 2
	oddKey  = 3 << 2
)

// tsPID is what the meter knows of one PID.
type tsPID struct {
	pid   uint16 // plus one, zero is free
	after uint16 // tsState.breaks when next was noted: a later break makes it void
	body  uint32 // TS header, but for counter and adaptation, of the last packet inside a unit
	next  uint8  // continuity counter to come
	flags uint8  // of the last adaptation field, plus one
	video bool   // its last unit was a picture's

	bodyAt, flagsAt place // of the words of both
}

// tsState follows the PIDs of a transport stream. PIDs that meet in one place push each
// other out: then less is checked.
type tsState struct {
	pids   [32]tsPID
	recent uint8 // PID of the newest TS packet
	sizeAt place // of the word of the payload before
	breaks uint16
	size   int   // of the payload before
	over   Token // the word for that
}

func newTSState() *tsState { return &tsState{size: -1} }

// roll begins a window. moved says that words have other places.
func (s *tsState) roll(moved bool) {
	if moved {
		for i := range s.pids {
			s.pids[i].body, s.pids[i].flags = 0, 0
		}
	}
}

// of finds the place of a PID.
func (s *tsState) of(pid uint16) *tsPID {
	s.recent = uint8(pid * 0x9e37 >> 11)
	t := &s.pids[s.recent&31]
	if t.pid != pid+1 {
		*t = tsPID{pid: pid + 1, after: s.breaks - 1}
	}
	return t
}

// observeTS records an RFC 2250 payload.
func (m *Meter) observeTS(p *Packet, consecutive bool) {
	s := m.ts
	// The sender's clock: one time for all packets that left together, or one each.
	if !consecutive {
		s.breaks++
	} else if m.sameTime {
		m.w.SameTimes++
	}
	n := p.Wire - p.HeaderLen
	if n != s.size {
		s.size, s.over = n, token(FamilySize, sizeTSRemainder|uint32(n%tsSize))
	}
	if w := m.tokens.of(&s.sizeAt, s.over); p.At-w.last >= occasionGap {
		m.tokens.occasion(w, p.At)
	}
	whole := !p.cut()
	b := p.Payload
	t := &s.pids[s.recent&31]
	if whole && t.after == s.breaks && t.body != 0 {
		b = m.tsRun(b, t, p.At)
	}
	first := len(b) == len(p.Payload)
	if !first && m.echo.observe(p.Payload[4:tsSize], inside, uint32(t.pid-1), p.Payload[3]&15, p.Wire, p.At, consecutive) {
		m.w.Echoes++
	}
	for ; len(b) >= 4; first = false {
		one := b[:min(len(b), tsSize)]
		b = b[len(one):]
		header := binary.BigEndian.Uint32(one)
		t = s.of(uint16(header >> 8 & 0x1fff))
		es, where := m.tsPacket(one, header, t, p.At, whole)
		if where == inside {
			m.sample(es, p.At)
		}
		if first && m.echo.observe(es, where, uint32(t.pid-1), one[3]&15, p.Wire, p.At, consecutive) {
			m.w.Echoes++
		}
		if whole && where == inside && header&0x10 != 0 {
			b = m.tsRun(b, t, p.At)
		}
	}
}

// tsRun records the TS packets in front of b that are all payload and go on what t was
// sent last, without a break, and returns what is left: most packets are like the one
// before. It says what tsPacket would.
func (m *Meter) tsRun(b []byte, t *tsPID, at int64) []byte {
	body, next, mask := t.body|0x10, uint32(t.next), m.loop.mask
	n, stuffed := 0, 0
	for len(b) >= tsSize {
		one := (*[tsSize]byte)(b)
		if binary.BigEndian.Uint32(one[:])^body != next {
			break
		}
		mark := markOf(one[4:])
		if picks(mark, mask) {
			m.known(one[4:], at)
		}
		if mark+1 <= 1 && stuffs(one[4:]) { // its bits are alike
			stuffed++
		}
		next = (next + 1) & 15
		b = b[tsSize:]
		n++
	}
	if n == 0 {
		return b
	}
	t.next = uint8(next)
	m.w.TSPackets += uint64(n)
	if t.video {
		m.w.TSGoes += uint64(n - stuffed)
	}
	m.loop.met += uint32(n)
	if w := &m.tokens.words[t.bodyAt]; at-w.last >= occasionGap {
		m.tokens.occasion(w, at)
	}
	return b
}

// tsPacket records one TS packet (ISO/IEC 13818-1 §2.4.3.2), perhaps cut, and
// returns what is visible of its payload when that belongs to a picture.
func (m *Meter) tsPacket(b []byte, header uint32, t *tsPID, at int64, follow bool) (es []byte, where part) {
	if header>>24 != 0x47 {
		m.tokens.add(token(FamilyUnit, unitNoSync), at)
		return nil, noPicture
	}
	pid := header >> 8 & 0x1fff
	start, afc := b[1]&0x40 != 0, b[3]>>4&3
	// Null packets and packets without payload fill what the picture leaves:
	// whether there are any says something about the picture only.
	if pid == tsNull || afc == 2 {
		m.w.TSNulls++
		return nil, noPicture
	}
	m.w.TSPackets++
	if follow {
		m.checkContinuity(t, header)
	}
	if body := header &^ 0x3f; body != t.body || afc == 0 {
		tok := token(FamilyUnit, unitTS|tsShape(header)<<16|pid)
		if start || afc == 0 || pid <= LastTable {
			m.tokens.add(tok, at)
		} else {
			t.body, t.bodyAt = body, m.tokens.find(tok)
		}
	}
	if !start && afc != 0 && pid > LastTable {
		if w := &m.tokens.words[t.bodyAt]; at-w.last >= occasionGap {
			m.tokens.occasion(w, at)
		}
	}
	off := 4
	if afc == 3 {
		if len(b) < 6 {
			return nil, noPicture
		}
		length := int(b[4])
		off = 5 + length
		if length > 0 {
			m.tsAdaptation(b[5]&0x1f, pid, t, at)
		}
	}
	if off >= len(b) || pid <= LastTable {
		return nil, noPicture
	}
	es = b[off:]
	if !start {
		if t.video && !stuffs(es) {
			m.w.TSGoes++
		}
		return es, inside
	}
	if len(es) < 9 || es[0] != 0 || es[1] != 0 || es[2] != 1 || es[6]>>6 != 2 {
		return nil, noPicture
	}
	m.pesTokens(es, pid, at)
	if t.video = es[3]>>4 == 0xe; t.video {
		m.w.TSStarts++
	}
	if es[7]>>7 == 0 || es[3]>>4 != 0xe { // no time in it, or no picture
		return nil, noPicture
	}
	return es, stamped
}

// stuffs reports whether the bytes of a picture only fill a rate: filler data
// (ITU-T H.264 section 7.3.2.7) is ones, the stuffing before a start code (ISO/IEC 13818-2
// section 5.2.3) zeros, and no coded picture has so many of either.
func stuffs(es []byte) bool {
	if len(es) < stampedLeast || binary.LittleEndian.Uint64(es)+1 > 1 {
		return false
	}
	for _, c := range es[:min(len(es), visibleMost)] {
		if c != es[0] {
			return false
		}
	}
	return true
}

// tsShape is what a TS header says beside the PID: 1 where a unit starts, 2 for an error
// in transport, transport_scrambling_control in two bits, 16 without payload.
func tsShape(header uint32) uint32 {
	shape := header >> 4 & 0xc
	if shape == oddKey {
		shape = evenKey
	}
	shape |= header >> 22 & 1
	shape |= header >> 23 & 1 << 1
	if header&0x30 == 0 {
		shape |= 16
	}
	return shape
}

// tsAdaptation records the flags of an adaptation field.
func (m *Meter) tsAdaptation(flags uint8, pid uint32, t *tsPID, at int64) {
	if flags+1 != t.flags {
		t.flags, t.flagsAt = flags+1, m.tokens.find(token(FamilyUnit, unitAdapt|uint32(flags)<<16|pid))
	}
	if w := &m.tokens.words[t.flagsAt]; at-w.last >= occasionGap {
		m.tokens.occasion(w, at)
	}
}

// checkContinuity compares the counter of a TS packet of t with the one before it. A
// packet without payload does not count.
func (m *Meter) checkContinuity(t *tsPID, header uint32) {
	if header&0x10 == 0 {
		return
	}
	cc := uint8(header & 15)
	if t.after == m.ts.breaks && t.next != cc && t.next != (cc+1)&15 {
		m.w.Violations++
	}
	t.next, t.after = (cc+1)&15, m.ts.breaks
}

// pesTokens records the shape of a PES header (ISO/IEC 13818-1 §2.4.3.6) and the
// first start codes of the picture behind it.
func (m *Meter) pesTokens(b []byte, pid uint32, at int64) {
	stream := uint32(b[3])
	zero := uint32(0)
	if b[4] == 0 && b[5] == 0 {
		zero = 1
	}
	m.tokens.add(token(FamilyUnit, unitStream|(stream&0x7f)<<13|pid), at)
	m.tokens.add(token(FamilyUnit, unitPES|zero<<16|stream<<8|uint32(b[6]&0x3f)<<2|uint32(b[7]>>6)), at)
	m.tokens.add(token(FamilyUnit, unitDescribe|stream<<14|uint32(b[7]&0x3f)<<8|uint32(b[8])), at)
	if stream>>4 != 0xe { // video
		return
	}
	es := b[min(9+int(b[8]), len(b)):]
	m.startCodes(es, at)
}

// startCodes records which units a picture begins with, up to the first slice.
func (m *Meter) startCodes(b []byte, at int64) {
	const look = 64
	b = b[:min(len(b), look)]
	for i, order := 0, 0; i+3 < len(b) && order < 4; i++ {
		if b[i+2] > 1 { // no start code reaches here
			i += 2
			continue
		}
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != 1 {
			continue
		}
		long := uint32(0)
		if i > 0 && b[i-1] == 0 {
			long = 1
		}
		unit := b[i+3]
		m.tokens.add(token(FamilySlice, 1<<24|long<<16|uint32(unit)), at)
		rest := b[i+4:]
		order++
		switch kind := unit & 0x1f; {
		case unit == 0xb3: // MPEG-2 sequence header: size, aspect, frame rate, bit rate
			if len(rest) >= 4 {
				m.tokens.add(token(FamilyParameter, uint32(hashBytes(0xb3, rest[:4]))), at)
			}
			return
		case unit == 0x00: // MPEG-2 picture: its coding type follows
			// An H.265 unit of type 0 has a 1 behind it (its temporal id plus one).
			if len(rest) >= 2 && rest[0] != 1 {
				m.tokens.add(token(FamilySlice, 2<<24|uint32(rest[1]>>3&7)), at)
			}
			return
		case unit == 0x40 || unit == 0x42: // H.265 VPS, SPS
			m.parameterTokens(unit, rest, false, at)
		case unit == 0x67 || unit == 0x27 || unit == 0x47:
			m.parameterTokens(kind, rest, false, at)
		case unit&0x80 == 0 && (unit == 0x41 || unit == 0x61 || unit == 0x21 || unit == 0x65 || unit == 0x25 || unit == 0x45):
			if s, ok := sliceToken(kind, rest); ok {
				m.tokens.add(s, at)
			}
			return
		}
	}
}
