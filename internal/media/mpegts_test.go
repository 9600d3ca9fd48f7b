package media

import (
	"bytes"
	"testing"
	"time"
)

// tsPacket is a packet with an adaptation field that carries a clock reference.
func tsPacket(pid uint16, pcr PCR, flags byte) []byte {
	p := make([]byte, TSPacketSize)
	p[0], p[1], p[2], p[3] = tsSync, byte(pid>>8), byte(pid), 0x30
	p[4], p[5] = 7, 0x10|flags
	base, ext := pcr/300, pcr%300
	p[6], p[7], p[8], p[9] = byte(base>>25), byte(base>>17), byte(base>>9), byte(base>>1)
	p[10], p[11] = byte(base<<7)|0x7e|byte(ext>>8), byte(ext)
	return p
}

func plainTS(pid uint16, start bool, fill byte) []byte {
	p := bytes.Repeat([]byte{fill}, TSPacketSize)
	p[0], p[1], p[2], p[3] = tsSync, byte(pid>>8), byte(pid), 0x10
	if start {
		p[1] |= 0x40
	}
	return p
}

func TestParsePCR(t *testing.T) {
	for _, want := range []PCR{0, 1, 299, 300, 27_000_000, pcrCycle - 1} {
		if got, ok := ParsePCR(tsPacket(256, want, 0)); !ok || got != want {
			t.Errorf("PCR %d read as %d, %v", want, got, ok)
		}
	}
	if _, ok := ParsePCR(plainTS(256, true, 0xff)); ok {
		t.Error("PCR in a packet without adaptation field")
	}
	short := tsPacket(256, 1, 0)
	short[4] = 6
	if _, ok := ParsePCR(short); ok {
		t.Error("PCR in an adaptation field too short for it")
	}
	long := tsPacket(256, 1, 0)
	long[4] = 184
	if _, ok := ParsePCR(long); ok {
		t.Error("PCR in an adaptation field longer than its packet")
	}
}

func TestPCRClock(t *testing.T) {
	const ms = PCR(27_000)
	start := pcrCycle - 50*ms
	var c PCRClock
	for i, step := range []struct {
		packet  []byte
		ok      bool
		elapsed time.Duration
		jump    bool
	}{
		{plainTS(256, false, 0), false, 0, false},
		{tsPacket(256, start, 0), true, 0, false},
		{tsPacket(256, start+40*ms, 0), true, 40 * time.Millisecond, false},
		{tsPacket(256, 30*ms, 0), true, 80 * time.Millisecond, false}, // wrapped
		{tsPacket(257, 9999*ms, 0), false, 0, false},                  // another programme
		{tsPacket(256, 60*ms, 0), true, 110 * time.Millisecond, false},
		{tsPacket(256, 900*ms, 0x80), true, 110 * time.Millisecond, true}, // announced
		{tsPacket(256, 950*ms, 0), true, 160 * time.Millisecond, false},
		{tsPacket(256, 10*ms, 0), true, 160 * time.Millisecond, true},     // fell back
		{tsPacket(256, 20_010*ms, 0), true, 160 * time.Millisecond, true}, // leapt
		{tsPacket(256, 20_020*ms, 0), true, 170 * time.Millisecond, false},
	} {
		tick, ok := c.Next(step.packet)
		if ok != step.ok || ok && tick != (PCRTick{step.elapsed, step.jump}) {
			t.Errorf("step %d: %+v %v, want %v %v", i, tick, ok, step.elapsed, step.jump)
		}
	}
}

func TestFindPAT(t *testing.T) {
	run := bytes.Join([][]byte{
		plainTS(256, true, 1), plainTS(PIDPAT, false, 2), plainTS(PIDPAT, true, 3), plainTS(PIDPAT, true, 4),
	}, nil)
	if got := FindPAT(run); got != 2*TSPacketSize {
		t.Errorf("found at %d", got)
	}
	if got := FindPAT(run[:2*TSPacketSize]); got != -1 {
		t.Errorf("found at %d where none begins", got)
	}
}

func TestValidTS(t *testing.T) {
	good := bytes.Join([][]byte{plainTS(1, true, 0), plainTS(2, true, 0)}, nil)
	bad := bytes.Clone(good)
	bad[TSPacketSize] = 0x48
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{"two packets": {good, true}, "empty": {nil, false}, "cut": {good[:300], false}, "lost sync": {bad, false}} {
		if ValidTS(c.b) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}

func TestTSAligner(t *testing.T) {
	var stream []byte
	for i := range 40 {
		stream = append(stream, plainTS(uint16(i+1), true, byte(i))...)
	}
	broken := append(bytes.Clone(stream[:10*TSPacketSize]), "garbage"...)
	broken = append(broken, stream[10*TSPacketSize:]...)
	for _, c := range []struct {
		name    string
		in      []byte
		skipped uint64
	}{
		{"aligned", stream, 0},
		{"garbage before", append([]byte("G....garbage"), stream...), 12},
		{"garbage inside", broken, 7},
		{"cut at the end", stream[:len(stream)-88], 100},
		{"too short to be sure", stream[:2*TSPacketSize], 0},
	} {
		for _, chunk := range []int{1, 100, 188, 1316, len(c.in)} {
			var a TSAligner
			var got []byte
			emit := func(ts []byte) {
				if !ValidTS(ts) || len(ts) > TSPerRTP*TSPacketSize {
					t.Fatalf("%s: emitted %d bytes", c.name, len(ts))
				}
				got = append(got, ts...)
			}
			for in := c.in; len(in) > 0; {
				n := min(chunk, len(in))
				a.Push(in[:n], emit)
				in = in[n:]
			}
			a.Flush(emit)
			whole := len(stream)
			if len(c.in) < whole {
				whole = len(c.in) / TSPacketSize * TSPacketSize
			}
			if !bytes.Equal(got, stream[:whole]) || a.Skipped() != c.skipped {
				t.Errorf("%s in chunks of %d: %d bytes out, %d skipped, want %d and %d",
					c.name, chunk, len(got), a.Skipped(), whole, c.skipped)
			}
		}
	}
}

func TestProgramMapPIDAndVideoStart(t *testing.T) {
	pat := make([]byte, TSPacketSize)
	copy(pat, []byte{0x47, 0x40, 0, 0x10, 0, 0, 0xb0, 17, 0, 1, 0xc1, 0, 0, 0, 0, 0xe0, 0x10, 0, 1, 0xf0, 0})
	if pid, ok := ProgramMapPID(pat); !ok || pid != 0x1000 {
		t.Errorf("map table on PID %#x, %v: the network table's entry comes first and is none", pid, ok)
	}
	for name, change := range map[string]func(b []byte){
		"another PID":             func(b []byte) { b[2] = 1 },
		"no beginning":            func(b []byte) { b[1] = 0 },
		"no payload":              func(b []byte) { b[3] = 0x20 },
		"pointer beyond the end":  func(b []byte) { b[4] = 250 },
		"adaptation fills it all": func(b []byte) { b[3], b[4] = 0x30, 183 },
	} {
		b := bytes.Clone(pat)
		change(b)
		if pid, ok := ProgramMapPID(b); ok {
			t.Errorf("%s: PID %#x", name, pid)
		}
	}
	pes := make([]byte, TSPacketSize)
	copy(pes, []byte{0x47, 0x41, 0, 0x30, 1, 0x40, 0, 0, 1, 0xe3})
	if !VideoStart(pes) || !RandomAccess(pes) {
		t.Error("the beginning of a key frame was not seen")
	}
	pes[9] = 0xc0
	if VideoStart(pes) {
		t.Error("audio taken for video")
	}
}
