package feature

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The vector's order and names are part of stored profiles: whoever changes them
// raises the profile's version.
func TestVectorIsFixed(t *testing.T) {
	want := []string{
		"packet-rate", "byte-rate", "peak-rate", "size-mean", "size-deviation", "size-range",
		"iat-mean", "iat-deviation", "iat-p10", "iat-p50", "frame-rate", "frame-size",
		"frame-variation", "frame-packets", "pace-p50", "pace-spread", "media-rate", "loss",
	}
	var got []string
	for _, d := range Descriptions {
		got = append(got, d.Name)
		if d.Unit == "" || d.Formula == "" {
			t.Errorf("%s has no unit or no formula", d.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("features are\n%q, want\n%q", got, want)
	}
}

func TestFamiliesAreFixed(t *testing.T) {
	want := []string{"header", "unit", "slice", "parameter set", "timestamp step", "packet size"}
	for f := range Families {
		if f.String() != want[f] {
			t.Errorf("family %d is %q, want %q", f, f, want[f])
		}
	}
}

// packets draws a stream with loss, reordering, repeats and aliens.
func packets(t *rapid.T) []Packet {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	n := rapid.IntRange(0, 400).Draw(t, "packets")
	var ps []Packet
	at, seq, ts := int64(0), uint16(rng.Uint32()), rng.Uint32()
	for range n {
		at += int64(rng.ExpFloat64() * 8e6)
		payload := make([]byte, 42)
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		payload[0], payload[1] = 0x5c, []byte{0x81, 0x01, 0x41}[rng.IntN(3)]
		p := Packet{
			At: at, Header: Header{Flags: 0x80, PayloadType: 96, Seq: seq, Timestamp: ts, SSRC: 7, Marker: rng.IntN(3) == 0},
			Wire: 100 + rng.IntN(1300), HeaderLen: 12, Payload: payload,
		}
		seq++
		switch rng.IntN(20) {
		case 0:
			seq += uint16(rng.IntN(5))
		case 1:
			seq -= 2
		case 2:
			p.Alien = true
		}
		if rng.IntN(4) == 0 {
			ts += 3600
		}
		ps = append(ps, p)
	}
	return ps
}

// hops measures packets into hops.
func hops(ps []Packet) []Window { return hopsBy(NewMeter(H264), ps) }

func hopsBy(m *Meter, ps []Packet) []Window {
	var ws []Window
	end := int64(Hop)
	for i := range ps {
		for ps[i].At >= end {
			ws = append(ws, Window{})
			m.Roll(&ws[len(ws)-1], end)
			end += Hop
		}
		m.Observe(&ps[i])
	}
	ws = append(ws, Window{})
	m.Roll(&ws[len(ws)-1], end)
	return ws
}

func merge(ws ...Window) Window {
	var sum Window
	for i := range ws {
		sum.Add(&ws[i])
	}
	return sum
}

func TestMergingIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := hops(packets(t))
		all := merge(ws...)
		i := rapid.IntRange(0, len(ws)).Draw(t, "first cut")
		j := rapid.IntRange(i, len(ws)).Draw(t, "second cut")
		a, b, c := merge(ws[:i]...), merge(ws[i:j]...), merge(ws[j:]...)
		left := merge(merge(a, b), c)
		right := merge(a, merge(b, c))
		if left != all || right != all {
			t.Fatalf("merged in another order, another sum:\n%+v\n%+v\n%+v", all, left, right)
		}
	})
}

// TestEveryFieldIsMerged: a field that [Sums.Add] forgot would merge associatively as well.
func TestEveryFieldIsMerged(t *testing.T) {
	extreme := map[string]bool{
		"Start": true, "End": true, "SizeMin": true, "SizeMax": true, "PeakBytes": true, "Top": true, "MaxGap": true, "Delay": true, "Delay2": true,
	}
	var a, b Sums
	fill := func(s *Sums, by int) {
		for i := range reflect.TypeFor[Sums]().NumField() {
			switch f := reflect.ValueOf(s).Elem().Field(i); f.Kind() {
			case reflect.Uint32, reflect.Uint64:
				f.SetUint(uint64(by + i))
			case reflect.Int64:
				f.SetInt(int64(by + i))
			case reflect.Array:
				for k := range f.Len() {
					if e := f.Index(k); e.CanUint() {
						e.SetUint(uint64(by + i + k))
					}
				}
			}
		}
	}
	fill(&a, 100)
	fill(&b, 1000)
	got := a
	got.Add(&b)
	for i := range reflect.TypeFor[Sums]().NumField() {
		name := reflect.TypeFor[Sums]().Field(i).Name
		if extreme[name] {
			continue // TestWindowEqualsNaive
		}
		x, y, sum := reflect.ValueOf(a).Field(i), reflect.ValueOf(b).Field(i), reflect.ValueOf(got).Field(i)
		number := func(v reflect.Value) int64 {
			if v.CanUint() {
				return int64(v.Uint())
			}
			return v.Int()
		}
		if x.Kind() != reflect.Array {
			if number(sum) != number(x)+number(y) {
				t.Errorf("%s: %d and %d are %d", name, number(x), number(y), number(sum))
			}
			continue
		}
		for k := range x.Len() {
			if number(sum.Index(k)) != number(x.Index(k))+number(y.Index(k)) {
				t.Errorf("%s[%d] is not merged", name, k)
			}
		}
	}
}

// TestHeaderLength: CSRCs and an extension belong to the header (RFC 3550 §5.1, §5.3.1).
func TestHeaderLength(t *testing.T) {
	whole := func(flags byte, words ...byte) []byte {
		return append(append([]byte{flags, 96}, make([]byte, 10)...), words...)
	}
	for name, c := range map[string]struct {
		data []byte
		want int
	}{
		"plain":                 {whole(0x80, 1, 2, 3, 4), 12},
		"two CSRCs":             {whole(0x82, make([]byte, 12)...), 20},
		"extension":             {whole(0x90, append([]byte{0xbe, 0xde, 0, 1}, make([]byte, 8)...)...), 20},
		"CSRC and extension":    {whole(0x91, append([]byte{0, 0, 0, 0, 0xbe, 0xde, 0, 1}, make([]byte, 8)...)...), 24},
		"extension that is cut": {whole(0x90, 0xbe, 0xde, 0, 9, 1, 2), 18},
	} {
		if _, size, err := ParseHeader(c.data); err != nil || size != c.want {
			t.Errorf("%s: %d bytes (%v), want %d", name, size, err, c.want)
		}
	}
}

func TestTokenSetsMergeWhateverTheyHold(t *testing.T) {
	draw := func(t *rapid.T, name string) TokenSet {
		var s TokenSet
		counts := map[Token]uint32{}
		for range rapid.IntRange(0, 160).Draw(t, name) {
			f := Family(rapid.Uint8Range(0, uint8(Families)-1).Draw(t, "family"))
			counts[token(f, rapid.Uint32Range(0, 40).Draw(t, "token"))]++
		}
		var table TokenSet
		for tok, n := range counts {
			one := TokenSet{n: 1}
			one.items[0] = TokenCount{tok, n}
			table.Add(&one)
		}
		s.Add(&table)
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := draw(t, "a"), draw(t, "b"), draw(t, "c")
		left, right := a, b
		left.Add(&b)
		left.Add(&c)
		right.Add(&c)
		whole := a
		whole.Add(&right)
		if !slices.Equal(left.All(), whole.All()) || left.Overflow != whole.Overflow || left.Full != whole.Full {
			t.Fatalf("%v + %d is not %v + %d", left.All(), left.Overflow, whole.All(), whole.Overflow)
		}
	})
}

// A window's numbers are those of a plain computation over the packets.
func TestWindowEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := packets(t)
		w := merge(hops(ps)...)
		var n, bytes, sq, aliens uint64
		var sizes []uint32
		seen := map[uint16]Packet{}
		var gaps []int64
		last, started := int64(0), false
		for _, p := range ps {
			if p.Alien {
				aliens++
				continue
			}
			if _, twice := seen[p.Seq]; twice { // another content: it is counted apart
				continue
			}
			seen[p.Seq] = p
			n++
			bytes += uint64(p.Wire)
			sq += uint64(p.Wire) * uint64(p.Wire)
			sizes = append(sizes, uint32(p.Wire))
			if started {
				gaps = append(gaps, p.At-last)
			}
			last, started = p.At, true
		}
		if w.Packets != n || w.Bytes != bytes || w.SizeSq != sq || w.Aliens != aliens {
			t.Fatalf("packets, bytes, squares, aliens = %d %d %d %d, want %d %d %d %d", w.Packets, w.Bytes, w.SizeSq, w.Aliens, n, bytes, sq, aliens)
		}
		if n > 0 && (w.SizeMin != slices.Min(sizes) || w.SizeMax != slices.Max(sizes)) {
			t.Fatalf("sizes %d..%d, want %d..%d", w.SizeMin, w.SizeMax, slices.Min(sizes), slices.Max(sizes))
		}
		var sum int64
		for _, g := range gaps {
			sum += g
		}
		if w.IATSum != uint64(sum) || w.Gaps != uint64(len(gaps)) {
			t.Fatalf("gaps %d sum %d, want %d sum %d", w.Gaps, w.IATSum, len(gaps), sum)
		}
		if top := w.Top[0]; n > 0 && top.Size != slices.Max(sizes) {
			t.Fatalf("greatest size %d, want %d", top.Size, slices.Max(sizes))
		}
	})
}

// stream makes packets of a plain stream: frames of three packets, 25 a second.
func stream(from, to int, change func(i int, p *Packet)) []Packet {
	var ps []Packet
	for i := from; i < to; i++ {
		frame := i / 3
		p := Packet{
			At:     int64(frame)*40e6 + int64(i%3)*300e3,
			Header: Header{Flags: 0x80, PayloadType: 96, Seq: uint16(i), Timestamp: uint32(frame * 3600), SSRC: 1, Marker: i%3 == 2},
			Wire:   1200, HeaderLen: 12, Payload: fragment(i),
		}
		if i%3 == 2 {
			p.Wire = 300 + frame%7
		}
		if change != nil {
			change(i, &p)
		}
		ps = append(ps, p)
	}
	return ps
}

// fragment is the payload of packet i of a stream of FU-A units.
func fragment(i int) []byte {
	b := make([]byte, 42)
	for k := 2; k < len(b); k += 8 {
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], mix(uint64(i)*31, uint64(k)))
		copy(b[k:], v[:])
	}
	b[0] = 0x5c
	b[1] = []byte{0x81, 0x01, 0x41}[i%3]
	if i%3 == 0 {
		b[2], b[3] = 0x9a, 0x24 // first_mb 0, slice type 5, pps 0
	}
	return b
}

func measure(ps []Packet) Window { return merge(hops(ps)...) }

func TestPlainStreamIsInOrder(t *testing.T) {
	w := measure(stream(0, 750, nil))
	if w.Violations+w.Lost+w.Reordered+w.Duplicates+w.TwoContents+w.Jumps+w.Echoes+w.Repeats > 0 {
		t.Errorf("a plain stream shows faults: %+v", w)
	}
	if w.Frames != 248 || w.Packets != 750 {
		t.Errorf("frames %d packets %d, want 248 (the first and the last are open) and 750", w.Frames, w.Packets)
	}
	v, ok := w.Vector()
	if !ok || math.Abs(v[MediaRate]-1) > 0.05 || math.Abs(v[FramePackets]-math.Log2(3)) > 0.01 {
		t.Errorf("media rate %.2f, packets a frame 2^%.2f", v[MediaRate], v[FramePackets])
	}
}

func TestWhatPacketsShow(t *testing.T) {
	for name, c := range map[string]struct {
		edit func([]Packet) []Packet
		get  func(*Window) uint64
		want uint64
	}{
		"loss": {func(p []Packet) []Packet { return slices.Delete(p, 100, 103) }, func(w *Window) uint64 { return w.Lost }, 3},
		"reordering": {func(p []Packet) []Packet {
			p[100].Header, p[101].Header = p[101].Header, p[100].Header
			p[100].Payload, p[101].Payload = p[101].Payload, p[100].Payload
			return p
		}, func(w *Window) uint64 { return w.Reordered }, 1},
		"reordering is no loss": {func(p []Packet) []Packet {
			p[100].Header, p[101].Header = p[101].Header, p[100].Header
			return p
		}, func(w *Window) uint64 { return w.Lost }, 0},
		"duplicate": {func(p []Packet) []Packet { return slices.Insert(p, 101, p[100]) }, func(w *Window) uint64 { return w.Duplicates }, 1},
		"two contents": {func(p []Packet) []Packet {
			q := p[100]
			q.Payload = fragment(9000)
			return slices.Insert(p, 101, q)
		}, func(w *Window) uint64 { return w.TwoContents }, 1},
		"long outage": {func(p []Packet) []Packet { return slices.Delete(p, 10, 700) }, func(w *Window) uint64 { return w.Lost }, 690},
		"jump": {func(p []Packet) []Packet {
			for i := 300; i < len(p); i++ {
				p[i].Seq += 30000
			}
			return p
		}, func(w *Window) uint64 { return w.Jumps }, 1},
		"very late": {func(p []Packet) []Packet {
			q := p[2]
			q.At = p[len(p)-1].At
			for i := 10; i < len(p); i++ {
				p[i].Seq += 2000
			}
			return append(p, q)
		}, func(w *Window) uint64 { return w.Stale }, 1},
		"a copy after two seconds": {func(p []Packet) []Packet {
			q := p[100]
			q.At = p[250].At
			return slices.Insert(p, 251, q)
		}, func(w *Window) uint64 { return w.Stale }, 1},
		"lost fragment": {func(p []Packet) []Packet { return slices.Delete(p, 100, 101) }, func(w *Window) uint64 { return w.Violations }, 0},
		"fragment without a start": {func(p []Packet) []Packet {
			p[99].Payload[1] = 0x01
			return p
		}, func(w *Window) uint64 { return w.Violations }, 1},
		"marker inside a frame": {func(p []Packet) []Packet {
			p[100].Marker = true
			return p
		}, func(w *Window) uint64 { return w.Violations }, 1},
		"alien": {func(p []Packet) []Packet {
			p[100].Alien = true
			return p
		}, func(w *Window) uint64 { return w.Aliens }, 1},
	} {
		w := measure(c.edit(stream(0, 750, nil)))
		if got := c.get(&w); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A copied packet in the middle of a picture is an echo, a picture that comes again is
// none, and a picture's time sent twice always is.
func TestEchoes(t *testing.T) {
	ts := func(change func(ps []Packet)) uint64 {
		ps := stream(0, 300, func(i int, p *Packet) {
			p.Wire = 12 + 7*tsSize
			head := []byte{0x47, 0x01, 0x00, 0x10 | byte(i)&15}
			body := fragment(i)[4:]
			if i%12 == 0 {
				head[1] |= 0x40
				body = append([]byte{0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, byte(i >> 8), byte(i), 0x10, 0xa1}, body[:24]...)
			}
			p.Payload = append(head, body...)
		})
		change(ps)
		m := NewMeter(TS)
		for i := range ps {
			m.Observe(&ps[i])
		}
		var w Window
		m.Roll(&w, Hop)
		return w.Echoes
	}
	for name, c := range map[string]struct {
		change func([]Packet)
		want   uint64
	}{
		"none":            {func([]Packet) {}, 0},
		"a copied packet": {func(ps []Packet) { copy(ps[100].Payload, ps[91].Payload) }, 1},
		"a part again":    {func(ps []Packet) { copy(ps[100].Payload[4:], ps[91].Payload[4:]) }, 0}, // counted on
		"a picture again": {func(ps []Packet) {
			for i := 97; i < 108; i++ {
				copy(ps[i].Payload, ps[i-12].Payload)
			}
		}, 0},
		"a time again": {func(ps []Packet) { ps[120].Payload = ps[108].Payload }, 1},
		"a copied packet, a table behind it": {func(ps []Packet) {
			ps[100].Payload, ps[101].Payload[2] = ps[91].Payload, 0x10
			ps[101].Payload[1] = 0x40
		}, 1},
		"the same with its own counter": {func(ps []Packet) {
			copy(ps[100].Payload[4:], ps[91].Payload[4:])
			ps[101].Payload[1], ps[101].Payload[2] = 0x40, 0x10
		}, 0},
		"a picture again with its counters": {func(ps []Packet) {
			for i := 109; i < 120; i++ {
				ps[i].Payload = ps[i-48].Payload
			}
			ps[114].Payload = append([]byte{0x47, 0x40, 0x10, 0x10}, ps[114].Payload[4:]...)
		}, 0},
	} {
		if got := ts(c.change); got != c.want {
			t.Errorf("%s: %d echoes, want %d", name, got, c.want)
		}
	}
}

func TestClockThatBeginsAnewIsNoDelay(t *testing.T) {
	w := measure(stream(0, 750, func(i int, p *Packet) {
		if i >= 300 {
			p.Timestamp += 1 << 30
			p.Seq += 20000
		}
	}))
	if w.Jumps != 1 || w.Delay < -1000 {
		t.Errorf("%d jumps, least delay %d µs; want 1 and about 0", w.Jumps, w.Delay)
	}
}

func TestCiphertextIsNotRead(t *testing.T) {
	m := NewMeter(Hidden)
	ps := stream(0, 300, nil)
	for i := range ps {
		m.Observe(&ps[i])
	}
	var w Window
	m.Roll(&w, Hop)
	if w.Hashed > 0 || w.Violations > 0 {
		t.Errorf("a hidden payload was read: %d hashed, %d violations", w.Hashed, w.Violations)
	}
	for _, c := range w.Tokens.All() {
		if f := c.Token.Family(); f != FamilyHeader && f != FamilyStep {
			t.Errorf("token %s of a hidden payload", c.Token)
		}
	}
}

func TestPartialIsSaid(t *testing.T) {
	ps := stream(0, 30, func(_ int, p *Packet) { p.Wire = p.HeaderLen + len(p.Payload) })
	if w := measure(ps); w.Partial() {
		t.Error("whole packets are called cut")
	}
	if w := measure(stream(0, 30, nil)); !w.Partial() {
		t.Error("cut packets are called whole")
	}
}

func TestSniffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(first func(i int) []byte) Form {
		var s Sniffer
		for i := range 200 {
			b := make([]byte, 42)
			for k := range b {
				b[k] = byte(rng.Uint32())
			}
			copy(b, first(i))
			s.Add(b, 1316)
		}
		return s.Form()
	}
	for want, first := range map[Form]func(int) []byte{
		TS:     func(int) []byte { return []byte{0x47, 0x01, 0x00} },
		H264:   func(i int) []byte { return fragment(i)[:2] },
		H265:   func(i int) []byte { return []byte{98, 1, []byte{0x81, 0x01, 0x41}[i%3]} },
		Opaque: func(i int) []byte { return []byte{[]byte{0x90, 0x80}[i%2], 0xe0} },
		Hidden: func(int) []byte { return nil },
	} {
		if got := random(first); got != want {
			t.Errorf("sniffed %s, want %s", got, want)
		}
	}
	if f := new(Sniffer).Form(); f != Hidden {
		t.Errorf("nothing seen is %s, want hidden", f)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	for _, form := range []Form{Hidden, H264, TS} {
		m := NewMeter(form)
		ps := stream(0, 3000, nil)
		var w Window
		i := 0
		if n := testing.AllocsPerRun(1000, func() {
			m.Observe(&ps[i])
			if i++; i%50 == 0 {
				m.Roll(&w, int64(i))
			}
		}); n > 0 {
			t.Errorf("%s: %.2f allocations a packet", form, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, c := range []struct {
		name string
		form Form
	}{{"rtp", Hidden}, {"h264", H264}, {"ts", TS}} {
		b.Run(c.name, func(b *testing.B) {
			m := NewMeter(c.form)
			ps := stream(0, 3000, func(i int, p *Packet) {
				if c.form == TS {
					p.Wire = 12 + 7*tsSize
					whole := make([]byte, 7*tsSize)
					for k := range 7 {
						copy(whole[k*tsSize:], []byte{0x47, 1, 0, 0x10 | byte(i*7+k)&15})
						copy(whole[k*tsSize+4:], fragment(i*7+k))
					}
					p.Payload = whole
				}
			})
			var w Window
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := &ps[i%len(ps)]
				p.At = int64(i) * 1e6
				p.Seq = uint16(i)
				if n := len(p.Payload); n > 24 { // no payload comes twice
					binary.LittleEndian.PutUint64(p.Payload[16:], mix(uint64(i), 1))
				}
				m.Observe(p)
				if i%250 == 249 {
					m.Roll(&w, p.At)
				}
			}
		})
	}
}

// BenchmarkDecryption is the yardstick: measuring a packet is to take a small part of
// the time that opening it takes.
func BenchmarkDecryption(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	nonce := make([]byte, 12)
	sealed := gcm.Seal(nil, nonce, make([]byte, 7*tsSize), nonce)
	out := make([]byte, 0, len(sealed))
	for b.Loop() {
		if _, err := gcm.Open(out, nonce, sealed, nonce); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	ws := hops(stream(0, 750, nil))
	var sum Window
	for i := 0; b.Loop(); i++ {
		sum.Add(&ws[i%len(ws)])
	}
}
