package synth

import (
	"bytes"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// camera is a sender of H.264: 10 frames a second of four packets.
func camera(d dice, seconds int) []packet {
	var ps []packet
	for f := range 10 * seconds {
		for i := range 4 {
			b := d.fill(300)
			b[0], b[1] = 0x5c, 0x01
			if i == 0 {
				b[1] |= 0x80
			}
			ps = append(ps, packet{
				at: int64(f)*100e6 + int64(i)*100_000, ts: uint32(f * 9000), pt: 96, marker: i == 3, first: i == 0, key: i == 0 && f%20 == 0, payload: b,
			})
		}
	}
	return ps
}

func testAssault(kind string, seed uint64) *assault {
	d := newDice(seed, kind)
	other := func() []packet { return camera(newDice(seed, "other"), 40) }
	return &assault{d: d, in: camera(newDice(seed, "camera"), 120), from: 100 * time.Second, to: 118 * time.Second, codec: "h264", mean: 100e3,
		other: other, sibling: other, still: other}
}

// TestAttacksStayInTheirTime: before an attack nothing changes, and within it
// something does.
func TestAttacksStayInTheirTime(t *testing.T) {
	if len(AttackKinds) != len(attacks) {
		t.Fatalf("%d kinds are listed, %d are known", len(AttackKinds), len(attacks))
	}
	for _, kind := range AttackKinds {
		for seed := range uint64(3) {
			a := testAssault(kind, seed)
			clean := camera(newDice(seed, "camera"), 120)
			out, detail := attacks[kind].apply(a)
			if detail == "" {
				t.Errorf("%s tells nothing of itself", kind)
			}
			i := at(clean, 100*time.Second)
			for k := range i {
				if out[k].at != clean[k].at || out[k].ts != clean[k].ts || !bytes.Equal(out[k].payload, clean[k].payload) {
					t.Fatalf("%s, seed %d: packet %d changed %v before the attack", kind, seed, k, 100*time.Second-time.Duration(clean[k].at))
				}
			}
			same := len(out) == len(clean)
			for k := i; same && k < len(clean); k++ {
				same = out[k].at == clean[k].at && bytes.Equal(out[k].payload, clean[k].payload)
			}
			if same {
				t.Errorf("%s, seed %d: did nothing", kind, seed)
			}
			for k := 1; k < len(out); k++ {
				if out[k].at < out[k-1].at {
					t.Fatalf("%s, seed %d: packet %d leaves before the one in front of it", kind, seed, k)
				}
			}
		}
	}
}

// TestTakeOverGoesOn: whoever takes a stream over continues its timestamps, and the
// counters and clocks of a transport stream.
func TestTakeOverGoesOn(t *testing.T) {
	a := testAssault("encoder_swap", 1)
	out, _ := a.encoderSwap()
	for k := 1; k < len(out); k++ {
		if step := int32(out[k].ts - out[k-1].ts); step < -18000 || step > 18000 {
			t.Errorf("packet %d at %v: the timestamp steps by %d", k, time.Duration(out[k].at), step)
		}
	}
	pack := func(pid byte, n, from int) []packet {
		var ps []packet
		for i := range n {
			q := bytes.Repeat([]byte{0xff}, 188)
			copy(q, []byte{0x47, 1, pid, 0x10 | byte(from+i)&15})
			ps = append(ps, packet{at: int64(i) * 10e6, key: i%10 == 0, payload: q})
		}
		return ps
	}
	b := &assault{d: newDice(1, "x"), in: pack(0, 500, 3), from: 2 * time.Second, to: 4 * time.Second, ts: true, other: func() []packet { return pack(0, 300, 9) }}
	out, _ = b.encoderSwap()
	for k := 1; k < len(out); k++ {
		if got, want := out[k].payload[3]&15, (out[k-1].payload[3]+1)&15; got != want {
			t.Fatalf("packet %d: continuity counter %d, want %d", k, got, want)
		}
	}
	if media.PID(out[250].payload) != 256 {
		t.Errorf("PID %d", media.PID(out[250].payload))
	}
}

func TestSharesOfAttacks(t *testing.T) {
	a := testAssault("inject_5%", 3)
	out, _ := injecting(0.05)(a)
	if extra := len(out) - len(a.in); extra < 18 || extra > 60 {
		t.Errorf("5 %% of 720 packets injected were %d", extra)
	}
	number(out, 100)
	numbers := map[uint16]int{}
	for _, p := range out {
		numbers[p.seq]++
	}
	if len(numbers) != len(out) && len(numbers) != len(a.in) {
		t.Errorf("%d packets have %d numbers: neither all new nor all used again", len(out), len(numbers))
	}
	a = testAssault("substitute_20%", 3)
	clean := camera(newDice(3, "camera"), 120)
	out, _ = substituting(0.2)(a)
	changed := 0
	for k := range out {
		if len(out[k].payload) != len(clean[k].payload) {
			t.Fatal("a substitute has another size")
		}
		if !bytes.Equal(out[k].payload, clean[k].payload) {
			changed++
		}
	}
	if changed < 110 || changed > 180 {
		t.Errorf("20 %% of 720 packets substituted were %d", changed)
	}
}
