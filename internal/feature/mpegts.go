package feature

import (
	"encoding/binary"
	"math"
)

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
	video bool   // its last unit was a picture's

	bodyAt, flagsAt place // of the words of body, and of the last adaptation field inside a unit
}

// tsState follows the PIDs of a transport stream. PIDs that meet in one place push each
// other out: then less is checked.
type tsState struct {
	pids   [32]tsPID
	starts [4]tsStart
	recent uint8 // place of the newest TS packet's PID
	sizeAt place // of the word of the payload before
	breaks uint16
	size   int   // of the payload before
	over   Token // the word for that
	reach  reach
}

// tsStart remembers with which words a unit began.
type tsStart struct {
	layer, pes uint64 // all that the words are made of, zero where nothing is remembered
	places     [5]place
	n          uint8 // of places
}

func newTSState() *tsState { return &tsState{size: -1} }

// roll begins a window. moved says that words have other places.
func (s *tsState) roll(moved bool) {
	if moved {
		for i := range s.pids {
			s.pids[i].body = 0
		}
		s.starts = [len(s.starts)]tsStart{}
	}
}

// of finds the place of the PID of a TS header.
func (s *tsState) of(header uint32) *tsPID {
	pid := uint16(header >> 8 & 0x1fff)
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
	b, whole := p.Payload, !p.cut()
	if !whole && len(b) >= 4 && s.reach.leaps(binary.BigEndian.Uint32(b), b, n, consecutive) {
		m.w.Violations++
	}
	var first []byte // what is visible in the first TS packet
	var where part
	t := &s.pids[s.recent&31] // most likely the next one's as well
	for i := 0; i <= len(b)-4; {
		header := binary.BigEndian.Uint32(b[i:])
		if !t.goesOn(header, s.breaks) {
			t = s.of(header)
		}
		if whole && i <= len(b)-tsSize && t.goesOn(header, s.breaks) {
			if i == 0 {
				first, where = b[4:tsSize], inside
			}
			i += m.tsRun(b[i:], t, p.At)
			continue
		}
		es, part := m.tsPacket(b[i:min(i+tsSize, len(b))], header, t, p.At, whole)
		if i == 0 {
			first, where = es, part
		}
		i += tsSize
	}
	if len(b) >= 4 && m.echo.observe(first, where, uint32(b[1]&0x1f)<<8|uint32(b[2]), b[3]&15, p.Wire, p.At, consecutive) {
		m.w.Echoes++
	}
}

// goesOn reports whether a TS packet is all payload and goes on what t was sent last,
// without a break.
func (t *tsPID) goesOn(header uint32, breaks uint16) bool {
	return header^(t.body|0x10) == uint32(t.next) && t.after == breaks && t.body != 0
}

// tsRun records the TS packets in front of b that go on what t was sent last, the first of
// which does, and returns how many bytes they are: most packets are like the one before. It
// says what tsPacket would.
func (m *Meter) tsRun(b []byte, t *tsPID, at int64) (length int) {
	body, from, mask := t.body|0x10, uint32(t.next), m.loop.mask
	length, next := plain(b, body, from, mask)
	stuffed := uint64(0)
	for length <= len(b)-tsSize && binary.BigEndian.Uint32(b[length:])^body == next&15 {
		es := b[length+4 : length+tsSize]
		if picks(markOf(es), mask) {
			m.known(es, at)
		}
		if stuffs(es) {
			stuffed++
		}
		more, after := plain(b[length+tsSize:], body, next+1, mask)
		length, next = length+tsSize+more, after
	}
	n := uint64(next - from)
	t.next = uint8(next & 15)
	w := &m.w
	w.TSPackets += n
	if t.video {
		w.TSGoes += n - stuffed
	}
	m.loop.met += uint32(n)
	if w := &m.tokens.words[t.bodyAt]; at-w.last >= occasionGap {
		m.tokens.occasion(w, at)
	}
	return length
}

// plain passes over the TS packets in front of b that go on and are neither picked nor may
// only fill. next counts on and on. It calls nothing and stands in no other function, so that
// all it works on stays in registers.
//
//go:noinline
func plain(b []byte, body, next uint32, mask uint64) (length int, after uint32) {
	i := 0
	for ; i <= len(b)-tsSize; i += tsSize {
		one := b[i : i+28]
		mark := markOf(one[4:])
		if binary.BigEndian.Uint32(one)^body != next&15 || picks(mark, mask) || mark == math.MaxUint64 {
			break
		}
		next++
	}
	return i, next
}

// tsPacket records one TS packet (ISO/IEC 13818-1 §2.4.3.2), perhaps cut, and
// returns what is visible of its payload when that belongs to a picture.
func (m *Meter) tsPacket(b []byte, header uint32, t *tsPID, at int64, follow bool) (es []byte, where part) {
	if header>>24 != 0x47 {
		m.tokens.add(token(FamilyUnit, unitNoSync), at)
		return nil, noPicture
	}
	pid, start, afc := header>>8&0x1fff, header&0x400000 != 0, header>>4&3
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
	switch body := header &^ 0x3f; {
	case pid > LastTable && start:
		return m.tsBegins(b, header, t, at)
	case pid <= LastTable || afc == 0:
		m.tokens.add(token(FamilyUnit, unitTS|tsShape(header)), at)
	default:
		if body != t.body {
			t.body, t.bodyAt = body, m.tokens.find(token(FamilyUnit, unitTS|tsShape(header)))
		}
		if w := &m.tokens.words[t.bodyAt]; at-w.last >= occasionGap {
			m.tokens.occasion(w, at)
		}
	}
	off := 4
	if afc == 3 {
		if len(b) < 6 {
			return nil, noPicture
		}
		off = 5 + int(b[4])
		if off > 5 {
			if w := m.tokens.of(&t.flagsAt, flagsToken(b[5], pid)); at-w.last >= occasionGap {
				m.tokens.occasion(w, at)
			}
		}
	}
	if off >= len(b) || pid <= LastTable {
		return nil, noPicture
	}
	es = b[off:]
	if t.video && !stuffs(es) {
		m.w.TSGoes++
	}
	m.sample(es, at)
	return es, inside
}

// tsBegins records a TS packet that begins a unit: its header, its adaptation field, the
// PES header (ISO/IEC 13818-1 §2.4.3.6) and the first start codes of a picture. Most units
// of a PID begin like the one before.
func (m *Meter) tsBegins(b []byte, header uint32, t *tsPID, at int64) (es []byte, where part) {
	const noFlags = 0xff
	off, flags := 4, byte(noFlags)
	if header&0x20 != 0 {
		off = len(b)
		if len(b) >= 6 {
			off = 5 + int(b[4])
		}
		if off > 5 {
			flags = b[5] & 0x1f
		}
	}
	pid := header >> 8 & 0x1fff
	if off+9 > len(b) || !startsPES(b[off:]) {
		m.tokens.add(token(FamilyUnit, unitTS|tsShape(header)), at)
		if flags != noFlags {
			m.tokens.add(flagsToken(flags, pid), at)
		}
		return nil, noPicture
	}
	es = b[off:]
	head := binary.BigEndian.Uint64(es)
	stream, zero := uint32(head>>32&0xff), uint32(0)
	if head&0xffff0000 == 0 { // no length
		zero = 1
	}
	known := &m.ts.starts[pid%uint32(len(m.ts.starts))]
	layer, pes := uint64(header&^0xf)<<24|uint64(zero<<16)|uint64(flags)<<8|uint64(es[8]), head&^0xffff0000
	if known.layer != layer || known.pes != pes {
		var said [len(known.places)]Token
		words := append(said[:0], token(FamilyUnit, unitTS|tsShape(header)))
		if flags != noFlags {
			words = append(words, flagsToken(flags, pid))
		}
		words = append(words,
			token(FamilyUnit, unitStream|(stream&0x7f)<<13|pid),
			token(FamilyUnit, unitPES|zero<<16|stream<<8|uint32(head)>>6&0xff),
			token(FamilyUnit, unitDescribe|stream<<14|uint32(head)&0x3f<<8|uint32(es[8])))
		known.layer, known.pes = layer, pes
		m.learn(known, words)
	}
	for _, p := range known.places[:known.n] {
		if w := &m.tokens.words[p]; at-w.last >= occasionGap {
			m.tokens.occasion(w, at)
		}
	}
	if t.video = stream>>4 == 0xe; !t.video {
		return nil, noPicture
	}
	m.w.TSStarts++
	m.startCodes(es[min(9+int(es[8]), len(es)):], at)
	if head&0x80 == 0 { // no time in it
		return nil, noPicture
	}
	return es, stamped
}

// startsPES reports whether a PES header with flags begins b, of at least 9 bytes.
func startsPES(b []byte) bool {
	head := binary.BigEndian.Uint64(b)
	return head>>40 == 1 && head>>14&3 == 2
}

// learn remembers with which words a unit begins. Words without a place are looked for each
// time.
func (m *Meter) learn(s *tsStart, words []Token) {
	s.n = uint8(len(words))
	for i, tok := range words {
		s.places[i] = m.tokens.find(tok)
		if s.places[i] == 0 {
			s.layer = 0
		}
	}
}

// flagsToken is the word for the flags of an adaptation field.
func flagsToken(flags byte, pid uint32) Token {
	return token(FamilyUnit, unitAdapt|uint32(flags&0x1f)<<16|pid)
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

// tsShape is what a TS header says, but for its counter, in 21 bits: the PID, and above it
// 1 where a unit starts, 2 for an error in transport, transport_scrambling_control in two
// bits, 16 without payload.
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
	return shape<<16 | header>>8&0x1fff
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
