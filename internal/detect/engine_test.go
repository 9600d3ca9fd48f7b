package detect

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// source makes the packets of an H.264 encoder: 25 frames a second, a group of
// pictures of 50, fragments of 1400 bytes, sizes that wander.
type source struct {
	rng     *rand.Rand
	seq     uint16
	frame   int
	scale   float64 // of frame sizes
	sps     byte    // the parameter set's profile
	mtu     int
	still   bool // every picture is as the one before
	payload uint64
}

func newSource(seed uint64) *source {
	return &source{rng: rand.New(rand.NewPCG(seed, 99)), scale: 1, sps: 0x64, mtu: 1400}
}

func (s *source) fill(b []byte, key uint64) {
	r := rand.New(rand.NewPCG(key, 5))
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
}

// next is one frame; its packets leave 200 µs apart.
func (s *source) next() []feature.Packet {
	at := int64(s.frame) * 40e6
	ts := uint32(s.frame * 3600)
	var ps []feature.Packet
	add := func(payload []byte, wire int, marker bool) {
		ps = append(ps, feature.Packet{
			At:     at + int64(len(ps))*200e3,
			Header: feature.Header{Flags: 0x80, PayloadType: 96, Seq: s.seq, Timestamp: ts, SSRC: 1, Marker: marker},
			Wire:   12 + wire, HeaderLen: 12, Payload: payload,
		})
		s.seq++
	}
	kind, first, size := byte(1), byte(0x9a), 2000+s.rng.NormFloat64()*300
	if s.frame%50 == 0 {
		add([]byte{0x67, s.sps, 0, 0x1e, 0xac, 0xd9, 0x40, 0xa0}, 8, false)
		add([]byte{0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0}, 6, false)
		kind, first, size = 5, 0x88, 14000+s.rng.NormFloat64()*500
	}
	if s.still {
		size = 60 / s.scale
	}
	rest := int(max(size*s.scale, 40))
	for part := 0; rest > 0; part++ {
		b := make([]byte, 42)
		s.payload++
		s.fill(b[2:], s.payload)
		n := min(rest, s.mtu)
		rest -= n
		if part == 0 && rest == 0 { // a single unit
			b[0], b[1] = 0x60|kind, first
			add(b[:min(len(b), n)], n, true)
			break
		}
		b[0], b[1] = 0x7c, kind
		if part == 0 {
			b[1] |= 0x80
			b[2] = first
		}
		if rest == 0 {
			b[1] |= 0x40
		}
		add(b, n, rest == 0)
	}
	s.frame++
	return ps
}

// run makes packets of a source for some seconds.
func (s *source) run(seconds int) []feature.Packet {
	var ps []feature.Packet
	for end := s.frame + seconds*25; s.frame < end; {
		ps = append(ps, s.next()...)
	}
	return ps
}

const learn = 40 // seconds

// alarms runs an engine over packets, the first 40 s as its baseline.
func alarms(ps []feature.Packet, form feature.Form, set Settings) (found []Verdict, at []float64) {
	m, e := feature.NewMeter(form), NewEngine(form, set)
	end := int64(feature.Hop)
	var w feature.Window
	for i := range ps {
		for ps[i].At >= end {
			m.Roll(&w, end)
			if v := e.Observe(&w); v.Alarm {
				found, at = append(found, v), append(at, float64(end)/1e9)
			}
			if e.Learning() && end >= learn*1e9 {
				e.Settle()
			}
			end += feature.Hop
		}
		m.Observe(&ps[i])
	}
	return found, at
}

// renumber gives consecutive numbers, as an attacker before the sender does.
func renumber(ps []feature.Packet) []feature.Packet {
	for i := range ps {
		ps[i].Seq = uint16(i)
	}
	return ps
}

// from is the index of the first packet after the baseline and 10 s.
func from(ps []feature.Packet) int {
	return slices.IndexFunc(ps, func(p feature.Packet) bool { return p.At >= (learn+10)*1e9 })
}

// TestEachDetectorAccuses: detectors cover each other, so that one that fell silent would
// not be missed. Here all others are switched off.
func TestEachDetectorAccuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	paced := func(seconds int) (ps []feature.Packet) { // a transport stream, each packet with its own time
		for i := range seconds * 100 {
			ps = append(ps, feature.Packet{
				At: int64(i) * 10e6, Wire: 1328, HeaderLen: 12,
				Header:  feature.Header{Flags: 0x80, PayloadType: 33, Seq: uint16(i), Timestamp: uint32(i * 900), SSRC: 1},
				Payload: append([]byte{0x47, 1, 0, 0x10 | byte(i&15)}, bytes.Repeat([]byte{byte(i)}, 38)...),
			})
		}
		return ps
	}
	for kind, c := range map[string]struct {
		form feature.Form
		make func() []feature.Packet
	}{
		"alien": {feature.H264, func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 20 {
				ps = slices.Insert(ps, i+1, feature.Packet{At: ps[i].At, Alien: true, Wire: 100})
			}
			return ps
		}},
		"over-cap": {feature.H264, func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 10 {
				ps[i].Wire += 16
			}
			return ps
		}},
		"packet-size": {feature.H264, func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			s.mtu = 1200
			return append(ps, s.run(20)...)
		}},
		"renumbering": {feature.H264, func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i, jump := from(ps), uint16(0); i < len(ps); i++ {
				if i%100 == 0 {
					jump += 20000
				}
				ps[i].Seq += jump
			}
			return ps
		}},
		"clock-step": {feature.H264, func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i++ { // every other picture 7 ms late by its own clock
				if ps[i].Timestamp/3600%2 == 1 {
					ps[i].Timestamp += 630
				}
			}
			return ps
		}},
		"loop": {feature.Hidden, func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			n := slices.IndexFunc(ps, func(p feature.Packet) bool { return p.At >= 20e9 })
			last := ps[len(ps)-1]
			for _, p := range ps[n : n+2000] {
				p.At += last.At - 20e9 + 40e6
				p.Timestamp += last.Timestamp - 20*90000 + 3600
				ps = append(ps, p)
			}
			return renumber(ps)
		}},
		"pacing": {feature.TS, func() []feature.Packet {
			ps := paced(learn + 30)
			for i := from(ps); i < len(ps); i++ {
				ps[i].Timestamp -= ps[i].Timestamp % 3600
			}
			return ps
		}},
		"tick": {feature.H264, func() []feature.Packet {
			s := newSource(1)
			s.mtu = 400
			ps := s.run(learn + 30)
			n, wait := from(ps), int64(0)
			for i := range ps {
				if i == 0 || ps[i].Timestamp != ps[i-1].Timestamp {
					wait = rng.Int64N(1e6)
				}
				if ps[i].At += wait; i >= n {
					ps[i].At = (ps[i].At + 999_999) / 1e6 * 1e6
				}
			}
			return ps
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			alone := map[string]float64{}
			accusing, _ := Detectors(&Profile{})
			for _, d := range accusing {
				if d.Name() != kind {
					alone[d.Name()] = 0
				}
			}
			found, at := alarms(c.make(), c.form, Settings{Weights: alone})
			if len(found) == 0 || found[0].Kind != kind || at[0] < learn+10 || at[0] > learn+20 {
				t.Errorf("alarms %+v at %v, want one of %s within 10 s of %d", found, at, kind, learn+10)
			}
		})
	}
}

func TestAttacksAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		make  func() []feature.Packet
		kinds []string // any of them
		class Class
		late  float64 // s after the start at most
	}{
		"another encoder": {func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			s.sps = 0x4d
			return append(ps, s.run(20)...)
		}, []string{"parameter-set"}, Source, 2.5},
		"another packet size": {func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			s.mtu = 1200
			return append(ps, s.run(20)...)
		}, []string{"packet-size"}, Source, 2},
		"frozen picture": {func() []feature.Packet {
			s := newSource(1)
			s.scale = 3
			ps := s.run(learn + 10)
			s.still, s.scale = true, 1
			return append(ps, s.run(20)...)
		}, []string{"volume"}, Source, 5},
		"loop": {func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			n := slices.IndexFunc(ps, func(p feature.Packet) bool { return p.At >= 20e9 })
			last := ps[len(ps)-1]
			for _, p := range ps[n : n+2000] { // 18 s
				p.At += last.At - 20e9 + 40e6
				p.Timestamp += last.Timestamp - 20*90000 + 3600
				ps = append(ps, p)
			}
			return renumber(ps)
		}, []string{"loop"}, Source, 6},
		"appended bytes": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 10 {
				ps[i].Wire += 16
			}
			return ps
		}, []string{"over-cap", "packet-size"}, Source, 4},
		"injected copies": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 50 {
				p := ps[i]
				p.Payload = ps[i-30].Payload
				ps = slices.Insert(ps, i+1, p)
			}
			return renumber(ps)
		}, []string{"order", "echo"}, Source, 4},
		"a second writer": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 50 {
				p := ps[i]
				p.Payload = slices.Clone(p.Payload)
				p.Payload[3]++
				ps = slices.Insert(ps, i+1, p)
			}
			return ps
		}, []string{"two-contents"}, Source, 4},
		"a single number used twice": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			i := from(ps)
			p := ps[i]
			p.Payload = slices.Clone(p.Payload)
			p.Payload[3]++
			return slices.Insert(ps, i+1, p)
		}, []string{"two-contents"}, Source, 4},
		"recorded packets sent again": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 20 {
				p := ps[i-200]
				p.At = ps[i].At
				ps = slices.Insert(ps, i+1, p)
			}
			return ps
		}, []string{"stale"}, Source, 4},
		"junk": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			for i := from(ps); i < len(ps); i += 20 {
				ps = slices.Insert(ps, i+1, feature.Packet{At: ps[i].At, Alien: true, Wire: 100})
			}
			return ps
		}, []string{"alien", "grammar"}, Source, 3},
		"volume walked up": {func() []feature.Packet {
			s := newSource(1)
			ps := s.run(learn + 10)
			for range 60 {
				s.scale *= 1.015
				ps = append(ps, s.run(1)...)
			}
			return ps
		}, []string{"drift"}, Source, 60},
		"full link": {func() []feature.Packet {
			ps := newSource(1).run(learn + 30)
			free := int64(0)
			for i := from(ps); i < len(ps); i++ {
				free = max(free, ps[i].At) + int64(ps[i].Wire)*20000 // 400 kbit/s, less than is sent
				ps[i].At = free
			}
			return ps
		}, []string{"bottleneck"}, Path, 8},
		"no more parameter sets": {func() []feature.Packet {
			ps := newSource(1).run(learn + 60)
			n := from(ps)
			head := ps[:n:n]
			for _, p := range ps[n:] {
				if p.Payload[0] != 0x67 {
					head = append(head, p)
				}
			}
			return renumber(head)
		}, []string{"absence"}, Source, 43},
	} {
		t.Run(name, func(t *testing.T) {
			found, at := alarms(c.make(), feature.H264, Settings{})
			if len(found) == 0 {
				t.Fatal("no alarm")
			}
			v, when := found[0], at[0]-learn-10
			if !slices.Contains(c.kinds, v.Kind) || v.Class != c.class {
				t.Errorf("first alarm is %s (%s): %s; want one of %q, %s", v.Kind, v.Class, v.Text, c.kinds, c.class)
			}
			if when < 0 || when > c.late {
				t.Errorf("alarm %.2f s after the start, want 0 to %.2f", when, c.late)
			}
			if v.Text == "" {
				t.Error("the alarm has no words")
			}
		})
	}
}

// What a network does, and what a picture does, accuses nobody.
func TestPathAndPictureAreNoAttack(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for name, edit := range map[string]func([]feature.Packet) []feature.Packet{
		"nothing": func(ps []feature.Packet) []feature.Packet { return ps },
		"loss of 5 %": func(ps []feature.Packet) []feature.Packet {
			n := from(ps)
			tail := slices.DeleteFunc(slices.Clone(ps[n:]), func(feature.Packet) bool { return rng.IntN(20) == 0 })
			return append(ps[:n:n], tail...)
		},
		"duplicates": func(ps []feature.Packet) []feature.Packet {
			for i := from(ps); i < len(ps); i += 40 {
				ps = slices.Insert(ps, i+1, ps[i])
			}
			return ps
		},
		"reordering": func(ps []feature.Packet) []feature.Packet {
			for i := from(ps); i+1 < len(ps); i += 17 {
				a, b := ps[i].At, ps[i+1].At
				ps[i], ps[i+1] = ps[i+1], ps[i]
				ps[i].At, ps[i+1].At = a, b
			}
			return ps
		},
		"jitter": func(ps []feature.Packet) []feature.Packet {
			last := int64(0)
			for i := from(ps); i < len(ps); i++ {
				ps[i].At = max(last+1000, ps[i].At+int64(rng.ExpFloat64()*20e6))
				last = ps[i].At
			}
			return ps
		},
		"outage, then the queue at once": func(ps []feature.Packet) []feature.Packet {
			n := from(ps)
			end, last := ps[n].At+2e9, int64(0)
			for i := n; i < len(ps); i++ {
				if ps[i].At < end {
					ps[i].At = max(last+20e3, end)
				}
				ps[i].At = max(ps[i].At, last)
				last = ps[i].At
			}
			return ps
		},
		"outage with loss": func(ps []feature.Packet) []feature.Packet {
			n := from(ps)
			end := ps[n].At + 9e9
			tail := slices.DeleteFunc(slices.Clone(ps[n:]), func(p feature.Packet) bool { return p.At < end })
			return append(ps[:n:n], tail...)
		},
		"longer way": func(ps []feature.Packet) []feature.Packet {
			for i := from(ps); i < len(ps); i++ {
				ps[i].At += 15e6
			}
			return ps
		},
		"hiccup of the encoder": func(ps []feature.Packet) []feature.Packet {
			n := from(ps)
			end := ps[n].At + 400e6
			for i := n; ps[i].At < end; i++ {
				ps[i].At = end
			}
			return ps
		},
		"clock of the source 100 ppm off": func(ps []feature.Packet) []feature.Packet {
			for i := range ps {
				ps[i].At += ps[i].At / 10000
			}
			return ps
		},
	} {
		t.Run(name, func(t *testing.T) {
			found, at := alarms(edit(newSource(3).run(learn+60)), feature.H264, Settings{})
			for i, v := range found {
				t.Errorf("%.2f s: %s (%s, %.2f): %s", at[i], v.Kind, v.Class, v.Score, v.Text)
			}
		})
	}
	t.Run("a scene that is only simple", func(t *testing.T) {
		s := newSource(3)
		ps := s.run(learn + 10)
		s.scale = 0.02 // 40 bytes, not always the same
		found, at := alarms(append(ps, s.run(30)...), feature.H264, Settings{})
		for i, v := range found {
			t.Errorf("%.2f s: %s (%s, %.2f): %s", at[i], v.Kind, v.Class, v.Score, v.Text)
		}
	})
	t.Run("seconds that were there before", func(t *testing.T) {
		s := newSource(3)
		ps := s.run(learn + 10)
		again := slices.IndexFunc(ps, func(p feature.Packet) bool { return p.At >= 20e9 })
		last := ps[len(ps)-1]
		for _, p := range ps[again:] {
			if p.At >= 22.5e9 {
				break
			}
			p.At += last.At - 20e9 + 40e6
			p.Timestamp += last.Timestamp - 20*90000 + 3600
			ps = append(ps, p)
		}
		s.frame = int(ps[len(ps)-1].At/40e6) + 1
		found, at := alarms(renumber(append(ps, s.run(10)...)), feature.H264, Settings{})
		for i, v := range found {
			t.Errorf("%.2f s: %s (%s, %.2f): %s", at[i], v.Kind, v.Class, v.Score, v.Text)
		}
	})
	t.Run("a richer picture", func(t *testing.T) {
		s := newSource(3)
		ps := s.run(learn + 10)
		s.scale = 3
		ps = append(ps, s.run(20)...)
		s.scale = 0.4
		found, at := alarms(append(ps, s.run(20)...), feature.H264, Settings{})
		for i, v := range found {
			t.Errorf("%.2f s: %s (%s, %.2f): %s", at[i], v.Kind, v.Class, v.Score, v.Text)
		}
	})
}

// An attack that goes on is one alarm, and another one after calm is another.
func TestOneEpisodeIsOneAlarm(t *testing.T) {
	ps := newSource(1).run(learn + 90)
	n := from(ps)
	for i := n; i < len(ps); i++ {
		if s := ps[i].At/1e9 - learn - 10; s < 15 || s > 40 && s < 50 {
			ps[i].Wire += 10
		}
	}
	found, _ := alarms(ps, feature.H264, Settings{})
	if len(found) != 2 {
		t.Errorf("%d alarms, want 2", len(found))
	}
}

func TestWeightAndSensitivity(t *testing.T) {
	swap := func() []feature.Packet {
		s := newSource(1)
		ps := s.run(learn + 10)
		s.sps = 0x4d
		return append(ps, s.run(5)...)
	}
	if found, _ := alarms(swap(), feature.H264, Settings{Weights: map[string]float64{"parameter-set": 0}}); len(found) > 0 {
		t.Errorf("a detector that is off raised %s", found[0].Kind)
	}
	few := func(sensitivity float64) int {
		ps := newSource(1).run(learn + 30)
		for i, k := from(ps)+5, 0; k < 2; k++ { // two words in 10 s: below the limit of three
			ps[i].PayloadType = 97
			i += 60
		}
		found, _ := alarms(ps, feature.H264, Settings{Sensitivity: sensitivity})
		return len(found)
	}
	if few(0.5) != 0 || few(1) == 0 {
		t.Errorf("alarms at sensitivity 0.5 and 1: %d and %d, want none and some", few(0.5), few(1))
	}
}

func TestEngineIsDeterministic(t *testing.T) {
	s := newSource(8)
	ps := s.run(learn + 10)
	s.sps = 0x4d
	ps = append(ps, s.run(10)...)
	a, at := alarms(ps, feature.H264, Settings{})
	b, bt := alarms(ps, feature.H264, Settings{})
	if len(a) == 0 || !slices.Equal(at, bt) || a[0].Score != b[0].Score || a[0].Text != b[0].Text {
		t.Errorf("two runs differ: %v %v", at, bt)
	}
}

func TestSliderEqualsPlainSum(t *testing.T) {
	m := feature.NewMeter(feature.H264)
	ps := newSource(2).run(40)
	s := newSlider(tenSec)
	var hops []feature.Sums
	end := int64(feature.Hop)
	for i := range ps {
		for ps[i].At >= end {
			var w feature.Window
			var got, want feature.Sums
			m.Roll(&w, end)
			hops = append(hops, w.Sums)
			full := s.push(&w.Sums, &got)
			for k := max(0, len(hops)-tenSec); k < len(hops); k++ {
				want.Add(&hops[k])
			}
			if got != want {
				t.Fatalf("hop %d: the sliding sum differs from the plain one", len(hops))
			}
			if full != (len(hops) >= tenSec) {
				t.Fatalf("hop %d: full is %v", len(hops), full)
			}
			end += feature.Hop
		}
		m.Observe(&ps[i])
	}
}

func BenchmarkEngine(b *testing.B) {
	ps := newSource(2).run(100)
	m := feature.NewMeter(feature.H264)
	var hops []feature.Window
	end := int64(feature.Hop)
	for i := range ps {
		for ps[i].At >= end {
			var w feature.Window
			m.Roll(&w, end)
			hops = append(hops, w)
			end += feature.Hop
		}
		m.Observe(&ps[i])
	}
	e := NewEngine(feature.H264, Settings{})
	for i := range learn * hopsPerSecond {
		e.Observe(&hops[i])
	}
	e.Settle()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.Observe(&hops[learn*hopsPerSecond+i%(len(hops)-learn*hopsPerSecond)])
	}
}
