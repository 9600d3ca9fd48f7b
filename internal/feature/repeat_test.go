package feature

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// tsStream makes packets of a transport stream: seven TS packets each, pictures of
// thirty of them, sound between, tables.
func tsStream(rng *rand.Rand, n int, gap int64) []Packet {
	counters := map[uint16]byte{}
	var body []byte
	for i := range 7 * n {
		pid, start := uint16(0x100), i%30 == 0
		switch {
		case i%30 == 17:
			pid, start = 0x101, true
		case i%100 == 5:
			pid, start = 0, true
		case i%100 == 6:
			pid = 0x1fff
		}
		one := make([]byte, tsSize)
		for k := 4; k < len(one); k++ {
			one[k] = byte(rng.Uint32())
		}
		binary.BigEndian.PutUint32(one, 0x47<<24|uint32(pid)<<8|0x10|uint32(counters[pid]&15))
		counters[pid]++
		if start {
			one[1] |= 0x40
			copy(one[4:], "\x00\x00\x01\xe0\x00\x00\x80\x80\x05\x21\x00\x01\x00\x01")
			binary.BigEndian.PutUint16(one[14:], uint16(i))
		}
		if i%30 == 29 {
			one[3] |= 0x20
			one[4], one[5] = 40, 0
		}
		body = append(body, one...)
	}
	ps := make([]Packet, n)
	for i := range ps {
		at := int64(i) * gap
		ps[i] = Packet{
			At: at, Header: Header{Flags: 0x80, PayloadType: 33, Seq: uint16(i), Timestamp: uint32(at * 9 / 1e5), SSRC: 1},
			Wire: 12 + 7*tsSize, HeaderLen: 12, Payload: body[i*7*tsSize : (i+1)*7*tsSize],
		}
	}
	return ps
}

// Of packets that were accepted, where no number comes twice, the live meter says what
// the other says.
func TestLiveMeterEqualsTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		form := rapid.SampledFrom([]Form{Opaque, TS, H264, Hidden}).Draw(t, "form")
		var ps []Packet
		if form == TS {
			ps = tsStream(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2)), 300, 2e6)
			for i := 10; i+1 < len(ps); i += rapid.IntRange(5, 100).Draw(t, "step") {
				ps[i].Header, ps[i+1].Header = ps[i+1].Header, ps[i].Header
				ps[i].Payload, ps[i+1].Payload = ps[i+1].Payload, ps[i].Payload
			}
		} else {
			seen := map[uint16]bool{}
			for _, p := range packets(t) {
				if p.Alien || !seen[p.Seq] {
					ps = append(ps, p)
				}
				seen[p.Seq] = seen[p.Seq] || !p.Alien
			}
		}
		live, other := hopsBy(NewLiveMeter(form), ps), hopsBy(NewMeter(form), ps)
		if !slices.Equal(live, other) {
			t.Fatalf("%s: windows differ", form)
		}
	})
}

// A transport stream's numbers are those of a plain look at every TS packet, however
// the quick way through them goes.
func TestTransportStreamEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		ps := tsStream(rng, rapid.IntRange(1, 200).Draw(t, "packets"), int64(rapid.IntRange(1e5, 8e6).Draw(t, "gap")))
		for range rapid.IntRange(0, 40).Draw(t, "faults") {
			b := ps[rng.IntN(len(ps))].Payload[rng.IntN(7)*tsSize:]
			switch rng.IntN(4) {
			case 0: // another counter
				b[3] = b[3]&0xf0 | byte(rng.Uint32())&15
			case 1: // another PID
				b[2] = byte(rng.Uint32())
			case 2: // scrambled, without payload, or both
				b[3] = b[3]&15 | byte(rng.Uint32())&0xf0
			case 3: // no sync
				b[0] = byte(rng.Uint32())
			}
		}
		if cut := rng.IntN(len(ps)); rng.IntN(2) == 0 {
			ps = slices.Delete(ps, cut, min(cut+3, len(ps)))
		}
		var want Sums
		next, met := map[uint16]byte{}, map[uint16]bool{}
		for i, p := range ps {
			if i == 0 || p.Seq != ps[i-1].Seq+1 {
				clear(next)
			}
			for b := p.Payload; len(b) > 0; b = b[tsSize:] {
				pid, cc, afc := uint16(b[1]&0x1f)<<8|uint16(b[2]), b[3]&15, b[3]>>4&3
				met[pid] = true
				switch {
				case b[0] != 0x47:
					continue
				case pid == tsNull || afc == 2:
					want.TSNulls++
					continue
				}
				want.TSPackets++
				if afc&1 == 0 {
					continue
				}
				if n, ok := next[pid]; ok && n != cc && n != (cc+1)&15 {
					want.Violations++
				}
				next[pid] = (cc + 1) & 15
			}
		}
		var got Window
		for _, w := range hopsBy(NewLiveMeter(TS), ps) {
			got.Add(&w)
		}
		// PIDs that share a place push each other out: then less is found, never more.
		places := map[uint16]bool{}
		for pid := range met {
			places[pid*0x9e37>>11] = true
		}
		if got.TSPackets != want.TSPackets || got.TSNulls != want.TSNulls || got.Violations > want.Violations ||
			len(places) == len(met) && got.Violations != want.Violations {
			t.Fatalf("%d TS packets, %d without content, %d violations; want %d, %d, %d", got.TSPackets, got.TSNulls, got.Violations,
				want.TSPackets, want.TSNulls, want.Violations)
		}
	})
}

// Scrambling is in the words of TS packets and no PID is taken for it; the two keys that
// a scrambler takes by turns are one word.
func TestScramblingIsAWord(t *testing.T) {
	for pid := uint32(LastTable + 1); pid < tsNull; pid += 0x23 {
		for control, shape := range []uint32{0, 1 << 2, 2 << 2, 2 << 2} {
			b := make([]byte, tsSize)
			binary.BigEndian.PutUint32(b, 0x47<<24|pid<<8|uint32(control)<<6|0x10)
			m := NewLiveMeter(TS)
			m.Observe(&Packet{At: 1, Header: Header{Flags: 0x80, PayloadType: 33}, Wire: 12 + tsSize, HeaderLen: 12, Payload: b})
			var w Window
			m.Roll(&w, Hop)
			if want := token(FamilyUnit, unitTS|shape<<16|pid); !w.Tokens.Has(want) {
				t.Fatalf("PID %#x, scrambling control %d: no %v in %v", pid, control, want, w.Tokens.All())
			}
		}
	}
}

// The sample of payloads knows what was sent between three seconds and some minutes
// before, and nothing else, but for one in some hundred.
func TestLoopMemoryEqualsNaive(t *testing.T) {
	for _, rate := range []int{20, 200, 5000} {
		rng := rand.New(rand.NewPCG(uint64(rate), 4))
		l := newLoopMemory()
		last := map[uint64]uint32{} // by content, when it was sent
		var old [][]byte
		var picked, right, missed, wrong int
		const seconds = 40
		for i := range rate * seconds {
			ms := uint32(i * 1000 / rate)
			b := make([]byte, visibleLeast)
			if len(old) > 0 && rng.IntN(3) == 0 {
				b = old[rng.IntN(len(old))]
			} else {
				for k := range b {
					b[k] = byte(rng.Uint32())
				}
			}
			old = append(old, b)
			l.met++
			if picks(markOf(b), l.mask) {
				picked++
				h := hashVisible(0, b)
				at, sent := last[h]
				want := sent && ms-at >= echoAge
				switch got := l.seen(h, ms); {
				case ms < 2*echoAge: // the rate is not known yet
				case got && want:
					right++
				case want:
					missed++
				case got:
					wrong++
				}
				last[h] = ms
			}
			if i%max(rate/4, 1) == 0 {
				l.roll()
			}
		}
		if perSecond := picked / seconds; perSecond < min(rate, 8) || perSecond > 60 {
			t.Errorf("at %d a second, %d a second are remembered", rate, perSecond)
		}
		// As the condition becomes stricter, what was sent before is not forgotten.
		if missed*20 > right || wrong*100 > picked {
			t.Errorf("at %d a second: of %d looked up %d known, %d missed, %d taken for known", rate, picked, right, missed, wrong)
		}
	}
}

// The table of recent payloads is exact within its size: of what came again it knows
// whether the counter did.
func TestRecentTableEqualsNaive(t *testing.T) {
	for _, rate := range []int{50, 180, 2000} {
		rng := rand.New(rand.NewPCG(uint64(rate), 5))
		table := newRecentTable()
		type sight struct{ at, counter uint32 }
		last := map[uint64]sight{}
		var right, missed, wrong int
		for i := range rate * 40 {
			ms := uint32(i * 1000 / rate)
			h := mix(uint64(rng.IntN(rate*8)), 77)
			counter := uint32(rng.IntN(3)) * 7
			before, sent := last[h]
			want := sent && ms/recentUnit-before.at/recentUnit < echoAge/recentUnit && before.counter == counter
			known, same := table.seen(h, counter, ms)
			switch got := known && same; {
			case got == want && got:
				right++
			case want:
				missed++
			case got:
				wrong++
			}
			last[h] = sight{ms, counter}
			if i%max(rate/4, 1) == 0 {
				table.sweep(ms)
			}
		}
		if wrong > 0 || missed*8 > right {
			t.Errorf("at %d a second: %d known, %d missed, %d taken for known", rate, right, missed, wrong)
		}
	}
}

// A copied packet, alone among fresh ones in the middle of a picture, is an echo; part of
// a picture that comes again is counted on, and so is what somebody counts on: two are one.
func TestEchoHasTheSameCounter(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	fresh := func() []byte {
		b := make([]byte, visibleMost)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, c := range []struct {
		step, want int // of the counter from the original to what comes again
	}{{0, 20}, {1, 10}, {9, 10}} {
		e := newEchoFinder()
		at, counter, echoes := int64(0), 0, 0
		send := func(b []byte, counter int) {
			if at += 10e6; e.observe(b, inside, 0x100, byte(counter&15), 1328, at, true) {
				echoes++
			}
		}
		for range 20 {
			b, first := fresh(), counter
			send(b, first)
			for range 40 {
				counter += 7
				send(fresh(), counter)
			}
			send(b, first+c.step)
			send(fresh(), counter+7)
			counter += 14
		}
		if echoes != c.want {
			t.Errorf("what comes again with a counter %d further: %d echoes of 20, want %d", c.step, echoes, c.want)
		}
	}
}

// A recording that is played again is known by its payloads, wherever in a packet its
// TS packets come to lie.
func TestLoopIsSeenWhateverItsAlignment(t *testing.T) {
	for _, shift := range []int{0, 3} {
		ps := tsStream(rand.New(rand.NewPCG(6, 6)), 200*30, 5e6)
		var tape []byte
		for _, p := range ps[1000:3000] {
			tape = append(tape, p.Payload...)
		}
		tape = tape[shift*tsSize:]
		for i := 4000; i < 5900; i++ {
			ps[i].Payload = tape[(i-4000)*7*tsSize:][:7*tsSize]
		}
		ws := hopsBy(NewLiveMeter(TS), ps)
		if w := merge(ws[:79]...); w.Repeats > w.Hashed/50 {
			t.Errorf("shift %d: %d of %d payloads of a plain stream were there before", shift, w.Repeats, w.Hashed)
		}
		if w := merge(ws[84:100]...); w.Hashed < 20 || w.Repeats*10 < w.Hashed*8 {
			t.Errorf("shift %d: %d of %d payloads of a loop were there before", shift, w.Repeats, w.Hashed)
		}
	}
}

// Runs of sizes are those of a plain search.
func TestRunFinderEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Uint32Range(1, 9), 0, 200).Draw(t, "sizes")
		var l runFinder
		seen := map[[runLength]uint32]int{}
		for i, v := range sizes {
			eligible, known := l.add(v, int64(i)*100e6)
			var run [runLength]uint32
			wantEligible, wantKnown := false, false
			if i+1 >= runLength {
				copy(run[:], sizes[i+1-runLength:])
				distinct := map[uint32]bool{}
				for _, v := range run {
					distinct[v] = true
				}
				wantEligible = len(distinct) >= runDistinct
			}
			if wantEligible {
				at, ok := seen[run]
				wantKnown = ok && (i-at)*100 >= runLeastAge
				seen[run] = i
			}
			if eligible != wantEligible || known != wantKnown {
				t.Fatalf("size %d of %v: eligible %v known %v, want %v %v", i, sizes, eligible, known, wantEligible, wantKnown)
			}
		}
	})
}

// A transport stream of many PIDs pushes no other family's words out of a window.
func TestManyWordsOfOneFamilyLeaveTheOthers(t *testing.T) {
	table := newTokenTable()
	for i := range uint32(100) {
		table.add(token(FamilyUnit, unitTS|i), 0)
	}
	others := []Token{
		token(FamilyHeader, 0x8021), token(FamilySlice, 5), token(FamilyParameter, 0xabcdef),
		token(FamilyStep, 3600), token(FamilySize, sizeTSRemainder),
	}
	for _, tok := range others {
		table.add(tok, 0)
	}
	var s TokenSet
	table.roll(&s)
	for _, tok := range others {
		if !s.Has(tok) {
			t.Errorf("%s found no room", tok)
		}
	}
	if want := [Families]bool{FamilyUnit: true}; s.Full != want || s.Overflow != 100-uint32(tokenRoom[FamilyUnit]) {
		t.Errorf("%d occasions overflow, families %v; want %v", s.Overflow, s.Full, want)
	}
}

// TestClosingAllocatesNothing: what a stream that became faster needs is made when the
// meter is tidied, not where its packets pass.
func TestClosingAllocatesNothing(t *testing.T) {
	m := NewLiveMeter(TS)
	ps := tsStream(rand.New(rand.NewPCG(1, 1)), 2000, 1e5)
	var w Window
	end, i := int64(Hop), 0
	if n := testing.AllocsPerRun(2, func() {
		for range len(ps) / 4 {
			m.Observe(&ps[i])
			i++
		}
		m.Close(&w, end)
		end += Hop
	}); n > 0 {
		t.Errorf("%.1f allocations in a window", n)
	}
	if m.Tidy(end); len(m.echo.recent.buckets) <= recentLeast {
		t.Errorf("after %d payloads there are %d buckets still", i, len(m.echo.recent.buckets))
	}
}
