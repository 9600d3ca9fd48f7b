package synth

import "bytes"

// splitNAL cuts an access unit in Annex B form (H.264 and H.265, annex B) into its
// units without start codes.
func splitNAL(au []byte) [][]byte {
	var units [][]byte
	start := -1
	for i := 0; i < len(au); {
		n := bytes.Index(au[i:], []byte{0, 0, 1})
		if n < 0 {
			break
		}
		n += i
		if start >= 0 {
			units = appendUnit(units, au[start:n])
		}
		start = n + 3
		i = start
	}
	if start >= 0 {
		units = appendUnit(units, au[start:])
	}
	return units
}

// appendUnit leaves out the zeros between a unit and the next start code.
func appendUnit(units [][]byte, u []byte) [][]byte {
	if u = bytes.TrimRight(u, "\x00"); len(u) > 1 {
		return append(units, u)
	}
	return units
}

// packing is how a sender puts units into packets.
type packing struct {
	Room      int  // bytes of payload in a packet
	Aggregate bool // small units share a packet, as ffmpeg does it
	Config    bool // parameter sets travel in front of every key picture, each for itself
}

// nalForm is what differs between RFC 6184 and RFC 7798.
type nalForm struct {
	header    int
	aggregate func(units [][]byte) []byte
	fragment  func(unit []byte) (prefix []byte, kind byte)
}

var forms = map[string]nalForm{
	"h264": {
		header: 1,
		aggregate: func(units [][]byte) []byte {
			var nri byte
			for _, u := range units {
				nri = max(nri, u[0]&0x60)
			}
			return []byte{nri | 24} // STAP-A, RFC 6184 §5.7.1
		},
		fragment: func(u []byte) ([]byte, byte) { return []byte{u[0]&0xe0 | 28}, u[0] & 0x1f }, // FU-A, §5.8
	},
	"hevc": {
		header:    2,
		aggregate: func([][]byte) []byte { return []byte{48 << 1, 1} },                                        // AP, RFC 7798 §4.4.2
		fragment:  func(u []byte) ([]byte, byte) { return []byte{u[0]&0x81 | 49<<1, u[1]}, u[0] >> 1 & 0x3f }, // FU, §4.4.3
	},
}

// payloads packs one access unit.
func (f nalForm) payloads(units [][]byte, how packing) [][]byte {
	var out, held [][]byte
	size := 0
	flush := func() {
		switch len(held) {
		case 0:
		case 1:
			out = append(out, held[0])
		default:
			b := f.aggregate(held)
			for _, u := range held {
				b = append(b, byte(len(u)>>8), byte(len(u)))
				b = append(b, u...)
			}
			out = append(out, b)
		}
		held, size = nil, f.header
	}
	flush()
	for _, u := range units {
		switch {
		case len(u) > how.Room:
			flush()
			out = f.fragments(out, u, how.Room)
		case !how.Aggregate:
			out = append(out, u)
		default:
			if size+2+len(u) > how.Room {
				flush()
			}
			held, size = append(held, u), size+2+len(u)
		}
	}
	flush()
	return out
}

func (f nalForm) fragments(out [][]byte, u []byte, room int) [][]byte {
	prefix, kind := f.fragment(u)
	body := u[f.header:]
	for first := true; len(body) > 0; first = false {
		n := min(len(body), room-len(prefix)-1)
		state := kind
		if first {
			state |= 0x80
		}
		if n == len(body) {
			state |= 0x40
		}
		b := append(bytes.Clone(prefix), state)
		out = append(out, append(b, body[:n]...))
		body = body[n:]
	}
	return out
}

// pieces packs a frame of a codec whose payload has a descriptor in front of plain
// pieces: VP8 (RFC 7741 §4.2), VP9 (RFC 9628 §4.2) and MPEG-4 part 2 (RFC 6416 §5,
// without any).
func pieces(codec string, frame []byte, key bool, picture uint16, room int) [][]byte {
	var out [][]byte
	for first := true; len(frame) > 0; first = false {
		var b []byte
		switch codec {
		case "vp8":
			b = []byte{0}
			if first {
				b[0] = 0x10 // start of a partition
			}
		case "vp9":
			b = []byte{0x80, 0x80 | byte(picture>>8)&0x7f, byte(picture)} // 15-bit picture number
			if !key {
				b[0] |= 0x40
			}
			if first {
				b[0] |= 0x08
			}
		}
		n := min(len(frame), room-len(b))
		if n == len(frame) && codec == "vp9" {
			b[0] |= 0x04
		}
		out = append(out, append(b, frame[:n]...))
		frame = frame[n:]
	}
	return out
}
