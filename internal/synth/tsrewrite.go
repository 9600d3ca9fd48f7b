package synth

import (
	"bytes"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// tsEach calls f with every TS packet of a payload.
func tsEach(b []byte, f func(q []byte)) {
	for ; len(b) >= media.TSPacketSize; b = b[media.TSPacketSize:] {
		f(b[:media.TSPacketSize])
	}
}

// mediaTime is the first clock reference or decoding time in a stream, in 90 kHz.
func mediaTime(ps []packet) int64 {
	found := int64(-1)
	for i := range ps {
		tsEach(ps[i].payload, func(q []byte) {
			if found >= 0 {
				return
			}
			if pcr, ok := media.ParsePCR(q); ok {
				found = int64(pcr / 300)
			}
		})
		if found >= 0 {
			return found
		}
	}
	return 0
}

// restamp moves all clocks of a payload by so many ticks of 90 kHz, in a copy.
func restamp(b []byte, by int64) []byte {
	b = bytes.Clone(b)
	tsEach(b, func(q []byte) {
		if _, ok := media.ParsePCR(q); ok {
			base := uint64(q[6])<<25 | uint64(q[7])<<17 | uint64(q[8])<<9 | uint64(q[9])<<1 | uint64(q[10])>>7
			base = uint64(int64(base)+by) & (1<<33 - 1)
			q[6], q[7], q[8], q[9] = byte(base>>25), byte(base>>17), byte(base>>9), byte(base>>1)
			q[10] = q[10]&0x7f | byte(base)<<7
		}
		h := pesHeader(q)
		if len(h) >= 14 && h[7]&0x80 != 0 {
			putStamp(h[9:], uint64(int64(stamp(h[9:]))+by)&(1<<33-1))
			if h[7]&0x40 != 0 && len(h) >= 19 {
				putStamp(h[14:], uint64(int64(stamp(h[14:]))+by)&(1<<33-1))
			}
		}
	})
	return b
}

// continued lets the continuity counters of every PID go on from packet i on, over
// whatever was put in or left out (ISO/IEC 13818-1 §2.4.3.3).
func continued(ps []packet, ts bool, i int) []packet {
	if !ts {
		return ps
	}
	last := map[uint16]byte{}
	for k := range ps {
		if k >= i {
			ps[k].payload = bytes.Clone(ps[k].payload)
		}
		tsEach(ps[k].payload, func(q []byte) {
			pid := media.PID(q)
			if q[0] != 0x47 || pid == media.PIDNull {
				return
			}
			n, seen := last[pid]
			if q[3]&0x10 != 0 {
				n++
			}
			if k >= i && seen {
				q[3] = q[3]&0xf0 | n&15
			}
			last[pid] = q[3] & 15
		})
	}
	return ps
}

// middle tells whether all of a payload is in the middle of a stream's packets.
func middle(b []byte) bool {
	ok := len(b) > 0
	tsEach(b, func(q []byte) {
		ok = ok && q[1]&0x40 == 0 && q[3]&0x30 == 0x10 && media.PID(q) > 31 && media.PID(q) != media.PIDNull
	})
	return ok
}

func samePIDs(a, b []byte) bool {
	for i := 0; i+media.TSPacketSize <= len(a); i += media.TSPacketSize {
		if media.PID(a[i:]) != media.PID(b[i:]) {
			return false
		}
	}
	return true
}

// noiseTS replaces what the packets of a payload carry, and keeps their headers.
func noiseTS(d dice, b []byte) []byte {
	b = bytes.Clone(b)
	tsEach(b, func(q []byte) {
		if q[1]&0x40 != 0 || media.PID(q) <= 31 {
			return
		}
		off := 4
		if q[3]&0x20 != 0 {
			off += 1 + int(q[4])
		}
		if off < len(q) {
			copy(q[off:], d.fill(len(q)-off))
		}
	})
	return b
}

// nullTS is a payload of n null packets that carry something.
func nullTS(d dice, n int) []byte {
	var b []byte
	for range max(n, 1) {
		b = append(append(b, 0x47, 0x1f, 0xff, 0x10), d.fill(184)...)
	}
	return b
}
