package feature

import "encoding/binary"

const (
	tsSize    = 188
	tsNull    = 0x1fff
	lastTable = 0x1f // PIDs up to here carry tables
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

// tsContinuity holds the last continuity counter of a few PIDs.
type tsContinuity struct {
	pid  [16]uint16 // PID plus one, zero is free
	next [16]uint8
}

// observeTS records an RFC 2250 payload. It returns the bytes of a picture visible in
// the first TS packet, for repetition.
func (m *Meter) observeTS(p *Packet, consecutive bool) (first []byte, where part, pid uint32) {
	// The sender's clock: one time for all packets that left together, or one each.
	if consecutive && m.sameTime {
		m.w.SameTimes++
	}
	n := p.Wire - p.HeaderLen
	if r := n % tsSize; r != 0 {
		m.tokens.add(token(FamilySize, sizeTSRemainder|uint32(r)), p.At)
	} else {
		m.tokens.add(token(FamilySize, sizeTSRemainder), p.At)
	}
	if !consecutive {
		m.continuity = tsContinuity{}
	}
	for i, b := 0, p.Payload; len(b) >= 4; i++ {
		one := b[:min(len(b), tsSize)]
		b = b[len(one):]
		es, in, id := m.tsPacket(one, p.At, !p.cut())
		if i == 0 {
			first, where, pid = es, in, id
		}
	}
	return first, where, pid
}

// tsPacket records one TS packet (ISO/IEC 13818-1 §2.4.3.2), perhaps cut, and
// returns what is visible of its payload when that belongs to a picture.
func (m *Meter) tsPacket(b []byte, at int64, follow bool) (es []byte, where part, pid uint32) {
	shape4 := binary.BigEndian.Uint32(b) &^ 0xf // without the counter
	if shape4 == m.tsShape && at-m.tsShapeAt < occasionGap {
		m.w.TSPackets++
		if follow {
			m.checkContinuity(m.tsPID, b)
		}
		return b[4:], inside, m.tsPID
	}
	if b[0] != 0x47 {
		m.tokens.add(token(FamilyUnit, unitNoSync), at)
		return nil, noPicture, pid
	}
	pid = uint32(b[1]&0x1f)<<8 | uint32(b[2])
	start, afc := b[1]&0x40 != 0, b[3]>>4&3
	// Null packets and packets without payload fill what the picture leaves:
	// whether there are any says something about the picture only.
	if pid == tsNull || afc == 2 {
		m.w.TSNulls++
		return nil, noPicture, pid
	}
	m.w.TSPackets++
	if follow {
		m.checkContinuity(pid, b)
	}
	shape := uint32(0)
	if start {
		shape |= 1
	}
	if b[1]&0x80 != 0 {
		shape |= 2
	}
	shape |= uint32(b[3]>>6) << 2 // scrambling
	if afc == 0 {
		shape |= 16
	}
	m.tokens.add(token(FamilyUnit, unitTS|shape<<16|pid), at)
	off := 4
	if afc == 3 {
		if len(b) < 6 {
			return nil, noPicture, pid
		}
		length := int(b[4])
		off = 5 + length
		if length > 0 {
			m.tokens.add(token(FamilyUnit, unitAdapt|uint32(b[5]&0x1f)<<16|pid), at)
		}
	}
	if off >= len(b) || pid <= lastTable {
		return nil, noPicture, pid
	}
	es = b[off:]
	if !start {
		if afc == 1 { // most packets are like this one: the next needs no second look
			m.tsShape, m.tsShapeAt, m.tsPID = shape4, at, pid
		}
		return es, inside, pid
	}
	if len(es) < 9 || es[0] != 0 || es[1] != 0 || es[2] != 1 || es[6]>>6 != 2 {
		return nil, noPicture, pid
	}
	m.pesTokens(es, pid, at)
	if es[7]>>7 == 0 || es[3]>>4 != 0xe { // no time in it, or no picture
		return nil, noPicture, pid
	}
	return es, stamped, pid
}

func (m *Meter) checkContinuity(pid uint32, b []byte) {
	if b[3]&0x10 == 0 {
		return
	}
	c := &m.continuity
	cc := b[3] & 15
	for i := range c.pid {
		switch c.pid[i] {
		case uint16(pid) + 1:
			if c.next[i] != cc && c.next[i] != (cc+1)&15 {
				m.w.Violations++
			}
			c.next[i] = (cc + 1) & 15
			return
		case 0:
			c.pid[i], c.next[i] = uint16(pid)+1, (cc+1)&15
			return
		}
	}
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
	for i, order := 0, uint32(0); i+3 < len(b) && order < 4; i++ {
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
