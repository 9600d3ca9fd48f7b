package synth

import (
	"bytes"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// unpack is a receiver of RFC 6184 and RFC 7798: the units that payloads hold.
func unpack(t *testing.T, codec string, payloads [][]byte) [][]byte {
	t.Helper()
	var units [][]byte
	var open []byte
	for _, b := range payloads {
		kind, header := b[0]&0x1f, 1
		aggregate, fragment := byte(24), byte(28)
		if codec == "hevc" {
			kind, header, aggregate, fragment = b[0]>>1&0x3f, 2, 48, 49
		}
		switch kind {
		case aggregate:
			for b = b[header:]; len(b) > 0; {
				n := int(b[0])<<8 | int(b[1])
				units, b = append(units, b[2:2+n]), b[2+n:]
			}
		case fragment:
			state := b[header]
			if start := state&0x80 != 0; start != (open == nil) {
				t.Fatal("a fragment begins inside of another unit, or goes on without one")
			}
			if open == nil {
				if codec == "hevc" {
					open = []byte{b[0]&0x81 | state&0x3f<<1, b[1]}
				} else {
					open = []byte{b[0]&0xe0 | state&0x1f}
				}
			}
			open = append(open, b[header+1:]...)
			if state&0x40 != 0 {
				units, open = append(units, open), nil
			}
		default:
			units = append(units, b)
		}
	}
	if open != nil {
		t.Fatal("a unit has no end")
	}
	return units
}

func TestUnitsSurvivePacking(t *testing.T) {
	d := newDice(1, "packing")
	for _, codec := range []string{"h264", "hevc"} {
		for range 60 {
			var au []byte
			var want [][]byte
			for range d.whole(1, 6) {
				u := d.fill(int(d.logBetween(3, 9000)))
				for i := range u { // no start codes inside, no zeros at the end
					u[i] |= 1
				}
				u[0] = pick(d, 0x41, 0x65, 0x67, 0x68, byte(0x06))
				if codec == "hevc" {
					u[0], u[1] = pick(d, 2, 38, 64, 66, byte(78)), 1
				}
				want = append(want, u)
				au = append(append(au, pick(d, []byte{0, 0, 1}, []byte{0, 0, 0, 1})...), u...)
			}
			units := splitNAL(au)
			how := packing{Room: d.whole(200, 1460), Aggregate: d.chance(0.5)}
			packed := forms[codec].payloads(units, how)
			for _, b := range packed {
				if len(b) > how.Room {
					t.Fatalf("%s: %d bytes where %d have room", codec, len(b), how.Room)
				}
			}
			got := unpack(t, codec, packed)
			if len(got) != len(want) {
				t.Fatalf("%s: %d units became %d", codec, len(want), len(got))
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("%s: unit %d of %d bytes changed on the way", codec, i, len(want[i]))
				}
			}
		}
	}
}

func TestPiecesHoldTheFrame(t *testing.T) {
	d := newDice(1, "pieces")
	for codec, descriptor := range map[string]int{"vp8": 1, "vp9": 3, "mpeg4": 0} {
		frame := d.fill(5000)
		var got []byte
		for i, b := range pieces(codec, frame, true, 300, 1000) {
			if len(b) > 1000 {
				t.Errorf("%s: a piece of %d bytes where 1000 have room", codec, len(b))
			}
			if codec == "vp8" && (b[0]&0x10 != 0) != (i == 0) {
				t.Errorf("vp8: piece %d has start bit %t", i, b[0]&0x10 != 0)
			}
			got = append(got, b[descriptor:]...)
		}
		if !bytes.Equal(got, frame) {
			t.Errorf("%s: the pieces do not hold the frame", codec)
		}
	}
}

// FuzzParseTable: what ffmpeg writes is foreign; a table is refused, or cuts no more
// bytes than there are.
func FuzzParseTable(f *testing.F) {
	f.Add([]byte("#tb 0: 1/25\n0, -2, 0, 1, 3, 0xd71e37c3, S=1, 8\n0, -1, 3, 1, 2, 0x5e17343f, F=0x0\n"), []byte("abcde"))
	f.Add([]byte("#tb 0: 1001/30000\r\n0, 0, 0, 1, 9, 0x0\n"), []byte("abc"))
	f.Add([]byte("#tb 0: 1/0\n0,1\n0,a,b,c,d,e\n"), []byte{})
	f.Fuzz(func(t *testing.T, table, es []byte) {
		pics, err := parseTable(table, es)
		if err != nil {
			return
		}
		n := 0
		for _, p := range pics {
			n += len(p.data)
		}
		if n > len(es) {
			t.Fatalf("%d bytes cut out of %d", n, len(es))
		}
	})
}

func TestParseTable(t *testing.T) {
	pics, err := parseTable([]byte("#software: x\n#tb 0: 1/25\n0,  -2,  0,  1,  3, 0xd71e37c3, S=1, 8\n0, -1, 3, 1, 2, 0x5e17343f, F=0x0, S=1, 8\n0, 0, 1, 1, 0, 0x5e17343f, F=0x10\n"), []byte("abcde"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pics) != 3 || !pics[0].key || pics[1].key || pics[2].key || string(pics[1].data) != "de" || pics[1].pts != 0.12 || pics[0].dts != -0.08 {
		t.Errorf("read %+v", pics)
	}
}

// FuzzRewrite: transport streams come from files of users; rewriting them must
// neither panic nor change their length.
func FuzzRewrite(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0x47, 0x41, 0, 0x30, 7, 0x10, 0, 0, 0, 0, 0x7e, 0}, 16)[:188], int64(90_000))
	f.Add(bytes.Repeat([]byte{0x47, 0x41, 0, 0x10, 0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10}, 29)[:376], int64(-1))
	f.Add([]byte{0x47}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, by int64) {
		d := newDice(1, "rewrite")
		for _, out := range [][]byte{restamp(b, by), noiseTS(d, b), continued([]packet{{payload: b}, {payload: b}}, true, 0)[1].payload} {
			if len(out) != len(b) {
				t.Fatalf("%d bytes became %d", len(b), len(out))
			}
		}
		middle(b)
		samePIDs(b, b)
		mediaTime([]packet{{payload: b}})
	})
}

func TestRestampMovesAllClocks(t *testing.T) {
	q := make([]byte, 188)
	copy(q, []byte{0x47, 0x41, 0x00, 0x30, 7, 0x10, 0, 0, 0, 0, 0x7e, 0})
	h := q[12:]
	copy(h, []byte{0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0, 1, 0, 1, 0x11, 0, 1, 0, 1})
	putStamp(h[9:], 1<<33-10)
	putStamp(h[14:], 1<<33-20)
	moved := restamp(q, 25)
	dts, pts, ok := pesTimes(moved)
	if !ok || dts != 5.0/90_000 || pts != 15.0/90_000 {
		t.Errorf("moved by 25 ticks past the wrap: dts %v, pts %v, found %t; want 5 and 15 ticks", dts*90_000, pts*90_000, ok)
	}
	if got := mediaTime([]packet{{payload: moved}}) - mediaTime([]packet{{payload: q}}); got != 25 {
		t.Errorf("the clock reference moved by %d ticks, want 25", got)
	}
	var s feature.Sniffer
	for range 30 {
		s.Add(moved, len(moved))
	}
	if s.Form() != feature.TS {
		t.Errorf("what was rewritten reads as %v", s.Form())
	}
}
