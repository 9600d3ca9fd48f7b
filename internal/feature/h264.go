package feature

import (
	"encoding/binary"
	"math/bits"
)

// bitReader reads Exp-Golomb codes (H.264 §9.1) from the first bytes of a slice header.
type bitReader struct {
	b    []byte
	word uint64 // bits to come, the next in front
	have int    // of them
}

func (r *bitReader) fill() {
	if r.have == 0 && len(r.b) >= 8 {
		r.word, r.have, r.b = binary.BigEndian.Uint64(r.b), 64, r.b[8:]
		return
	}
	for ; r.have <= 56 && len(r.b) > 0; r.b = r.b[1:] {
		r.word |= uint64(r.b[0]) << (56 - r.have)
		r.have += 8
	}
}

// ue reads an unsigned code of at most 20 leading zeros.
func (r *bitReader) ue() (uint32, bool) {
	const most = 20
	if r.have <= 2*most {
		r.fill()
	}
	zeros := bits.LeadingZeros64(r.word)
	length := 2*zeros + 1
	if zeros > most || length > r.have {
		return 0, false
	}
	v := uint32(r.word>>(64-length)) - 1
	r.word <<= length
	r.have -= length
	return v, true
}

// H.264 NAL unit types (H.264 table 7-1) and RTP packet types (RFC 6184 §5.2).
const (
	nalSlice = 1
	nalIDR   = 5
	nalSEI   = 6
	nalSPS   = 7
	nalPPS   = 8
	nalAUD   = 9
	nalSPSX  = 15
	rtpSTAPA = 24
	rtpFUA   = 28
)

// sliceToken says which kind of slice begins at b (behind the NAL header) and by
// which picture parameter set. An intra slice outside an instantaneous refresh
// counts as a predicted one: a cut in the picture makes one, not the encoder.
func sliceToken(nal uint8, b []byte) (Token, bool) {
	kind, pps, ok := sliceHead(b)
	if !ok {
		return 0, false
	}
	if nal == nalSlice && kind < 10 && kind%5 == 2 {
		kind -= 2
	}
	return token(FamilySlice, uint32(nal)<<16|min(kind, 15)<<8|min(pps, 255)), true
}

// sliceHead reads slice_type and pic_parameter_set_id of a slice header (H.264 §7.3.3).
func sliceHead(b []byte) (kind, pps uint32, ok bool) {
	if len(b) >= 8 { // nearly all are in the first word
		first := binary.BigEndian.Uint64(b)
		zeros := bits.LeadingZeros64(first) // of first_mb_in_slice
		second := first << (2*zeros + 1&63)
		zeros2 := bits.LeadingZeros64(second)
		third := second << (2*zeros2 + 1&63)
		zeros3 := bits.LeadingZeros64(third)
		if zeros+zeros2+zeros3 <= 20 {
			return uint32(second>>(63-2*zeros2&63)) - 1, uint32(third>>(63-2*zeros3&63)) - 1, true
		}
	}
	r := bitReader{b: b}
	if _, ok = r.ue(); !ok {
		return 0, 0, false
	}
	if kind, ok = r.ue(); !ok {
		return 0, 0, false
	}
	pps, ok = r.ue()
	return kind, pps, ok
}

// parameterTokens describes a parameter set by its first bytes, which any capture
// holds, and whole where it is visible to its end.
func (m *Meter) parameterTokens(kind uint8, b []byte, whole bool, at int64) {
	const short = 4
	if len(b) >= short {
		m.tokens.add(token(FamilyParameter, uint32(hashBytes(uint64(kind)|1<<8, b[:short]))), at)
	}
	if whole {
		m.tokens.add(token(FamilyParameter, uint32(hashBytes(uint64(kind)|2<<8, b))), at)
	}
}

// nalTokens records one H.264 NAL unit; b begins at its header. mode tells units
// of aggregates apart from the others: 0 or 1.
func (m *Meter) nalTokens(mode uint32, b []byte, whole bool, at int64) {
	t := b[0] & 0x1f
	if t < nalSEI { // small slices are put together, larger ones not: the picture decides
		mode = 0
	}
	m.tokens.add(token(FamilyUnit, mode<<16|uint32(b[0])), at)
	if t >= nalSEI && t <= nalAUD {
		m.tokens.add(token(FamilyUnit, unitRegular|uint32(t)), at)
	}
	switch t {
	case nalSlice, nalIDR:
		if s, ok := sliceToken(t, b[1:]); ok {
			m.tokens.add(s, at)
		}
	case nalSPS, nalPPS, nalSPSX:
		m.parameterTokens(t, b[1:], whole, at)
	case nalSEI:
		if len(b) > 1 {
			m.tokens.add(token(FamilyUnit, 2<<16|uint32(b[1])), at)
			// The encoder signs with the UUID of unregistered user data (H.264 §D.1.7).
			if b[1] == 5 && len(b) >= 19 {
				m.tokens.add(token(FamilyParameter, uint32(hashBytes(5<<8, b[3:19]))), at)
			}
		}
	}
}

// fragmentState follows fragmentation units over consecutive packets.
type fragmentState struct {
	known bool // the packet before was seen
	open  bool // a unit was begun and not ended
	kind  uint8
}

// observeH264 records an RFC 6184 payload.
func (m *Meter) observeH264(p *Packet, consecutive bool) {
	b := p.Payload
	if !consecutive {
		m.fragment.known = false
	}
	switch t := b[0] & 0x1f; t {
	case rtpFUA:
		if len(b) < 2 {
			return
		}
		start, end, kind := b[1]&0x80 != 0, b[1]&0x40 != 0, b[1]&0x1f
		if b[1]&0x20 != 0 || start && end {
			m.w.Violations++
		}
		m.observeFragment(p, start, end, kind)
		header := b[0]&0xe0 | kind
		if !start {
			m.tokens.add(token(FamilyUnit, uint32(header)), p.At)
			return
		}
		m.tokens.add(token(FamilyUnit, uint32(header)), p.At)
		if kind == nalSlice || kind == nalIDR {
			if s, ok := sliceToken(kind, b[2:]); ok {
				m.tokens.add(s, p.At)
			}
		}
	case rtpSTAPA:
		m.whole()
		for rest := b[1:]; len(rest) >= 3; {
			n := int(rest[0])<<8 | int(rest[1])
			if n == 0 {
				break
			}
			end := min(2+n, len(rest))
			m.nalTokens(1, rest[2:end], end == 2+n, p.At)
			rest = rest[end:]
		}
	default:
		m.whole()
		m.nalTokens(0, b, !p.cut(), p.At)
	}
}

// whole notes a packet that is no fragment.
func (m *Meter) whole() {
	if m.fragment.known && m.fragment.open {
		m.w.Violations++
	}
	m.fragment = fragmentState{known: true}
}

// observeFragment checks the order of fragments (RFC 6184 §5.8, RFC 7798 §4.4.3)
// and notes the size of those that are meant to fill a packet.
func (m *Meter) observeFragment(p *Packet, start, end bool, kind uint8) {
	f := &m.fragment
	if f.known && (start == f.open || !start && kind != f.kind) {
		m.w.Violations++
	}
	*f = fragmentState{known: true, open: !end, kind: kind}
	if !end {
		m.tokens.add(token(FamilySize, uint32(min(p.Wire, 0xffff))), p.At)
	}
}

// H.265 RTP packet and parameter set types (RFC 7798 §4.4, H.265 table 7-1).
const (
	rtpAP65 = 48
	rtpFU65 = 49
	hevcVPS = 32
	hevcPPS = 34
)

// observeH265 records an RFC 7798 payload.
func (m *Meter) observeH265(p *Packet, consecutive bool) {
	b := p.Payload
	if !consecutive {
		m.fragment.known = false
	}
	if len(b) < 3 {
		return
	}
	switch t := b[0] >> 1 & 0x3f; t {
	case rtpFU65:
		kind := b[2] & 0x3f
		m.observeFragment(p, b[2]&0x80 != 0, b[2]&0x40 != 0, kind)
		m.tokens.add(token(FamilyUnit, uint32(kind)<<8|uint32(b[1])), p.At)
	case rtpAP65:
		m.whole()
		for rest := b[2:]; len(rest) >= 5; {
			n := int(rest[0])<<8 | int(rest[1])
			if n < 2 {
				break
			}
			end := min(2+n, len(rest))
			m.hevcTokens(1, rest[2:end], end == 2+n, p.At)
			rest = rest[end:]
		}
	default:
		m.whole()
		m.hevcTokens(0, b, !p.cut(), p.At)
	}
}

func (m *Meter) hevcTokens(mode uint32, b []byte, whole bool, at int64) {
	if len(b) < 2 {
		return
	}
	t := b[0] >> 1 & 0x3f
	if t >= hevcVPS {
		m.tokens.add(token(FamilyUnit, unitRegular|uint32(t)), at)
	}
	if mode == 0 || t < hevcVPS {
		m.tokens.add(token(FamilyUnit, uint32(t)<<8|uint32(b[1])), at)
	} else {
		m.tokens.add(token(FamilyUnit, 1<<20|uint32(t)<<8|uint32(b[1])), at)
	}
	if t >= hevcVPS && t <= hevcPPS {
		m.parameterTokens(t, b[2:], whole, at)
	}
}
