package attack

import "github.com/gaitkeeper/gaitkeeper/internal/media"

// splicer writes transport streams one behind the other as if they were one:
// continuity counters go on, and clock references and time stamps are shifted
// (ISO/IEC 13818-1 §2.4.3). Nothing in the headers shows the seam.
type splicer struct {
	shift uint64 // 90 kHz, modulo 2^33
	last  map[uint16]uint8
}

const stampMask = 1<<33 - 1

// rewrite changes one packet in place.
func (s *splicer) rewrite(p []byte) {
	s.count(p)
	if s.shift == 0 {
		return
	}
	if pcr, ok := media.ParsePCR(p); ok {
		base := (uint64(pcr)/300 + s.shift) & stampMask
		p[6], p[7], p[8], p[9] = byte(base>>25), byte(base>>17), byte(base>>9), byte(base>>1)
		p[10] = p[10]&0x7f | byte(base&1)<<7
	}
	if pes := pesHeader(p); pes != nil {
		if pes[7]&0x80 != 0 {
			s.stamp(pes[9:14])
		}
		if pes[7]&0xc0 == 0xc0 {
			s.stamp(pes[14:19])
		}
	}
}

// count gives the packet the counter that follows its PID's last. Packets without
// payload repeat it.
func (s *splicer) count(p []byte) {
	pid := media.PID(p)
	if pid == media.PIDNull {
		return
	}
	if s.last == nil {
		s.last = map[uint16]uint8{}
	}
	last, known := s.last[pid]
	switch {
	case !known:
		last = p[3] & 15
	case p[3]&0x10 != 0:
		last = (last + 1) & 15
	}
	p[3] = p[3]&0xf0 | last
	s.last[pid] = last
}

// note learns a packet that went out unchanged.
func (s *splicer) note(p []byte) {
	if s.last == nil {
		s.last = map[uint16]uint8{}
	}
	s.last[media.PID(p)] = p[3] & 15
}

// pesHeader is the header of an elementary stream's packet that begins here, with
// room for the stamps that it announces; nil for any other packet.
func pesHeader(p []byte) []byte {
	if p[1]&0x40 == 0 || p[3]&0x10 == 0 {
		return nil
	}
	at := 4
	if p[3]&0x20 != 0 {
		at += 1 + int(p[4])
	}
	if at+19 > len(p) {
		return nil
	}
	b := p[at:]
	if b[0] != 0 || b[1] != 0 || b[2] != 1 || b[6]>>6 != 2 || b[3]>>5 != 6 && b[3]>>4 != 0xe {
		return nil
	}
	return b
}

// stamp shifts a PTS or DTS: 33 bits between marker bits (table 2-21).
func (s *splicer) stamp(b []byte) {
	v := uint64(b[0]>>1&7)<<30 | uint64(b[1])<<22 | uint64(b[2]>>1)<<15 | uint64(b[3])<<7 | uint64(b[4]>>1)
	v = (v + s.shift) & stampMask
	b[0] = b[0]&0xf1 | byte(v>>30)<<1
	b[1] = byte(v >> 22)
	b[2] = byte(v>>15)<<1 | 1
	b[3] = byte(v >> 7)
	b[4] = byte(v)<<1 | 1
}
