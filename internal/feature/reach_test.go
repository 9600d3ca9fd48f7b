package feature

import "testing"

// TestCounterOfCutPayloads: of a payload only its first TS packet shows, and still the next
// one's counter tells that a payload between them is missing.
func TestCounterOfCutPayloads(t *testing.T) {
	const pid, sound = 0x100, 0x101
	// stream sends payloads of n TS packets, every sixth of them sound; edit sees each
	// payload's first packet and says whether it is sent.
	stream := func(n int, edit func(i int, first []byte) bool) uint64 {
		m := NewMeter(TS)
		var counters [2]uint8
		seq := uint16(0)
		for i, k := 0, 0; i < 200; i++ {
			var first []byte
			for range n {
				k++
				p, of := uint16(pid), 0
				if k%6 == 0 {
					p, of = sound, 1
				}
				b := make([]byte, 42)
				copy(b, []byte{0x47, byte(p >> 8), byte(p), 0x10 | counters[of]&15, 0, byte(i), byte(k), 1})
				counters[of]++
				if first == nil {
					first = b
				}
			}
			if !edit(i, first) {
				continue
			}
			m.Observe(&Packet{
				At:        int64(i) * 1e6,
				Header:    Header{Flags: 2 << 6, PayloadType: 33, Seq: seq, Timestamp: uint32(i) * 90},
				HeaderLen: 12, Wire: 12 + n*tsSize, Payload: first,
			})
			seq++
		}
		var w Window
		m.Roll(&w, Hop)
		return w.Violations
	}
	all := func(int, []byte) bool { return true }
	for _, n := range []int{1, 3, 7, 14} {
		if v := stream(n, all); v != 0 {
			t.Errorf("payloads of %d TS packets: %d violations", n, v)
		}
	}
	if v := stream(7, func(i int, _ []byte) bool { return i%19 != 10 }); v < 5 || v > 10 {
		t.Errorf("10 payloads taken out and the rest numbered anew: %d violations", v)
	}
	announced := func(i int, b []byte) bool {
		if i >= 100 {
			b[3] = b[3]&0xf0 | (b[3]+9)&15
		}
		if i == 100 {
			b[3], b[4], b[5] = b[3]|0x20, 1, 0x80 // discontinuity_indicator
		}
		return true
	}
	if v := stream(7, announced); v != 0 {
		t.Errorf("a counter that says that it begins anew: %d violations", v)
	}
}
