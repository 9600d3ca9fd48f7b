package feature

import (
	"bytes"
	"testing"
)

// Of TS packets that go on with a picture, those that only fill a rate do not count;
// those of sound never do. Cut packets show the first of each.
func TestStuffingIsNoPicture(t *testing.T) {
	ts := func(pid uint16, start bool, body []byte) []byte {
		b := append([]byte{0x47, byte(pid >> 8), byte(pid), 0x10}, bytes.Repeat([]byte{0x5a, 0xa5}, 92)...)
		if start {
			b[1] |= 0x40
		}
		copy(b[4:], body)
		return b
	}
	picture := ts(0x100, true, []byte{0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1, 0, 0, 1, 9})
	sound := ts(0x101, true, []byte{0, 0, 1, 0xc0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1})
	goes, ones, zeros := ts(0x100, false, nil), ts(0x100, false, bytes.Repeat([]byte{0xff}, 184)), ts(0x100, false, make([]byte, 184))
	heard := ts(0x101, false, nil)
	payloads := [][]byte{
		bytes.Join([][]byte{picture, goes, goes, ones, zeros, goes, sound}, nil),
		bytes.Join([][]byte{heard, heard, goes, ones, ones, ones, ones}, nil),
		bytes.Join([][]byte{goes, zeros, goes, heard, picture, goes, ones}, nil),
		bytes.Join([][]byte{ones, goes, goes, goes, goes, goes, goes}, nil),
	}
	for _, c := range []struct {
		shown        int
		starts, goes uint64
	}{{7 * tsSize, 2, 3 + 1 + 3 + 6}, {42, 1, 1}} {
		m := NewMeter(TS)
		var w Window
		for i, b := range payloads {
			m.Observe(&Packet{At: int64(i) * 1e6, Header: Header{Flags: 0x80, PayloadType: 33, Seq: uint16(i), Timestamp: uint32(i) * 90},
				Wire: 12 + len(b), HeaderLen: 12, Payload: b[:c.shown]})
		}
		m.Roll(&w, Hop)
		if w.TSStarts != c.starts || w.TSGoes != c.goes {
			t.Errorf("of %d bytes shown: %d beginnings, %d that go on; want %d, %d", c.shown, w.TSStarts, w.TSGoes, c.starts, c.goes)
		}
	}
}
