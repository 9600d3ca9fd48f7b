package feature

import "testing"

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{0x80, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3})
	f.Add([]byte{0x9f, 0xe0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4})
	f.Add([]byte{0x90, 0xe0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, size, err := ParseHeader(b)
		if err == nil && (size < 12 || size > len(b)) {
			t.Errorf("header of %d bytes in a packet of %d", size, len(b))
		}
	})
}

// Whatever a payload holds, measuring it ends, allocates nothing beyond its tables
// and leaves a window that can be merged.
func FuzzMeter(f *testing.F) {
	f.Add(uint8(TS), []byte("\x47\x41\x00\x1a\x00\x00\x01\xe0\x00\x00\x80\x80\x05\x21\x00\x09\x10\xa1\x00\x00\x00\x01\x09\xf0\x00\x00\x00\x01\x67\x64\x00\x1e\xac\xb4"), uint16(1316))
	f.Add(uint8(TS), []byte("\x47\x01\x00\x36\x8a\x00\xff\xff"), uint16(1316))
	f.Add(uint8(H264), []byte("\x18\x00\x06\x67\x64\x00\x1e\xac\xd9\x00\x04\x68\xeb\xe3\xcb"), uint16(15))
	f.Add(uint8(H264), []byte("\x7c\x85\x88\x84\x00"), uint16(1400))
	f.Add(uint8(H265), []byte("\x60\x01\x00\x04\x40\x01\x0c\x01\x00\x05\x42\x01\x01\x01\x60"), uint16(15))
	f.Add(uint8(H265), []byte("\x62\x01\x81\xaf\x00"), uint16(1400))
	f.Add(uint8(Opaque), []byte("\x90\x80\x12\x34\x56\x78\x9a"), uint16(900))
	f.Fuzz(func(t *testing.T, form uint8, b []byte, length uint16) {
		m := NewMeter(Form(form % 5))
		for i := range 4 {
			p := Packet{
				At: int64(i) * 1e6, Header: Header{Flags: 0x80, PayloadType: 96, Seq: uint16(i), Timestamp: uint32(i / 2 * 3600)},
				Wire: 12 + max(int(length), len(b)), HeaderLen: 12, Payload: b,
			}
			m.Observe(&p)
		}
		var w, sum Window
		m.Roll(&w, Hop)
		sum.Add(&w)
		sum.Add(&w)
		if sum.Packets != 2*w.Packets {
			t.Errorf("%d packets twice are %d", w.Packets, sum.Packets)
		}
		w.Vector()
	})
}

func FuzzSniffer(f *testing.F) {
	f.Add([]byte{0x47, 0x40, 0, 0x10}, 188)
	f.Add([]byte{0x7c, 0x85, 0x88, 0x84}, 1400)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		var s Sniffer
		for range 40 {
			s.Add(b, n)
		}
		_ = s.Form().String()
	})
}
