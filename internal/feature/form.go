package feature

// Form says how a payload is read.
type Form uint8

// The forms of payload.
const (
	Opaque Form = iota // anything else, or ciphertext: only the first octet is looked at
	TS                 // MPEG-TS, RFC 2250
	H264               // RFC 6184
	H265               // RFC 7798
	Hidden             // ciphertext: payload bytes say nothing and are not looked at
)

func (f Form) String() string {
	return [...]string{"opaque", "ts", "h264", "h265", "hidden"}[f]
}

// Sniffer finds the form of a stream's payload from its first packets.
type Sniffer struct {
	seen, ts, h264, h265 int
	fu264, fu265         int
	octets               [4]uint64 // first octets seen, a bit each
}

// Add looks at one payload (as far as it was captured) of length bytes in all.
func (s *Sniffer) Add(payload []byte, length int) {
	if len(payload) < 4 {
		return
	}
	s.seen++
	b := payload[0]
	s.octets[b>>6] |= 1 << (b & 63)
	if b == 0x47 && length%tsSize == 0 {
		s.ts++
	}
	switch t := b & 0x1f; {
	case b&0x80 != 0:
	case t == 28: // FU-A: the reserved bit is 0 and the inner type is a VCL one, RFC 6184 §5.8
		if payload[1]&0x20 == 0 && payload[1]&0xc0 != 0xc0 {
			if in := payload[1] & 0x1f; in >= 1 && in <= 12 {
				s.h264++
				s.fu264++
			}
		}
	case t >= 1 && t <= 12 || t == 24:
		s.h264++
	}
	if b&0x81 == 0 && payload[1]&0xf8 == 0 && payload[1]&7 != 0 { // layer 0, temporal id ≥ 1, RFC 7798 §1.1.4
		switch t := b >> 1 & 0x3f; {
		case t == 49:
			s.h265++
			s.fu265++
		case t <= 9 || t >= 16 && t <= 21 || t >= 32 && t <= 40 || t == 48:
			s.h265++
		}
	}
}

// Form is the best reading of what was seen. Without 20 visible payloads it is Hidden.
func (s *Sniffer) Form() Form {
	if s.seen < 20 {
		return Hidden
	}
	most := s.seen - s.seen/20 // 95 %
	distinct := 0
	for _, w := range s.octets {
		for ; w != 0; w &= w - 1 {
			distinct++
		}
	}
	switch {
	case s.ts >= most:
		return TS
	case s.h265 >= most && s.h265 >= s.h264:
		return H265
	case s.h264 >= most:
		return H264
	case distinct > s.seen/3 && distinct > 24:
		return Hidden
	}
	return Opaque
}
