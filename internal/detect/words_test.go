package detect

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// speak gathers, by detector, what is said of a stream whatever its score, in the hop in
// which it is said most: the stream is learned for as long as ever.
func speak(ps []feature.Packet, form feature.Form, into map[string]Evidence) {
	m, view, learner := feature.NewMeter(form), newViewer(), NewLearner(form)
	var r *regime
	end := int64(feature.Hop)
	var w feature.Window
	for i := range ps {
		for ps[i].At >= end {
			m.Roll(&w, end)
			v := view.push(&w)
			if r == nil {
				learner.Add(v)
				if end >= learn*1e9 {
					r = newRegime(Mode{Anchor: learner.Finish(1)})
				}
			} else {
				r.gate(v)
				v.Said = 0
				for _, d := range r.detectors {
					if e := d.Score(v); e.Text != "" && (into[d.Name()].Text == "" || e.Score > into[d.Name()].Score) {
						into[d.Name()] = e
					}
				}
			}
			end += feature.Hop
		}
		m.Observe(&ps[i])
	}
}

// TestEveryDetectorHasWords has each detector speak, and looks for what an operator would
// have to look up.
func TestEveryDetectorHasWords(t *testing.T) {
	texts := map[string]Evidence{}
	s := newSource(1)
	s.scale = 3
	ps := s.run(learn + 10)
	s.still, s.scale = true, 1
	ps = append(ps, s.run(12)...)
	s.still, s.scale, s.mtu, s.sps = false, 1, 1200, 0x4d
	ps = append(ps, s.run(70)...)
	rng := rand.New(rand.NewPCG(2, 2))
	for i := from(ps) + 1500; i < len(ps); i++ {
		switch p := &ps[i]; rng.IntN(40) {
		case 0:
			p.PayloadType = 97
		case 1:
			p.Wire += 400
		case 2:
			p.Timestamp += 77
		case 3:
			p.Payload = slices.Clone(p.Payload)
			p.Payload[0] = 6
		}
	}
	speak(ps, feature.H264, texts)

	again := newSource(1).run(learn + 30)
	for i := from(again); i < len(again); i++ {
		switch p := again[i-200]; i % 30 {
		case 0:
			p.At = again[i].At
			again = slices.Insert(again, i+1, p)
		case 10:
			p.At, p.Seq = again[i].At, again[i].Seq
			again = slices.Insert(again, i+1, p)
		case 20:
			again[i].Alien = true
		}
	}
	speak(again, feature.H264, texts)

	var ts []feature.Packet
	for i := range (learn + 30) * 100 {
		b := append([]byte{0x47, 1, 0, 0x10 | byte(i&15)}, make([]byte, 184)...)
		for k := range b[4:] {
			b[4+k] = byte(rng.Uint32())
		}
		p := feature.Packet{
			At: int64(i) * 10e6, Wire: 200, HeaderLen: 12, Payload: b,
			Header: feature.Header{Flags: 0x80, PayloadType: 33, Seq: uint16(i), Timestamp: uint32(i * 900), SSRC: 1},
		}
		if i > (learn+10)*100 {
			p.Timestamp -= p.Timestamp % 3600
			p.At += int64(i%3) * 1e6
		}
		ts = append(ts, p)
	}
	speak(ts, feature.TS, texts)

	s = newSource(1)
	s.mtu = 400
	ps = s.run(learn + 20)
	wait := int64(0)
	for i := range ps { // pictures on no clock, then packets on one of 1 ms
		if i == 0 || ps[i].Timestamp != ps[i-1].Timestamp {
			wait = rng.Int64N(1e6)
		}
		if ps[i].At += wait; ps[i].At > (learn+10)*1e9 {
			ps[i].At = (ps[i].At + 999_999) / 1e6 * 1e6
		}
	}
	speak(ps, feature.H264, texts)

	number := regexp.MustCompile(`[0-9]`)
	unclear := regexp.MustCompile(`%!|e[+]|NaN|Inf|octave|Hellinger|Rayleigh|baseline|[a-z]-(p10|p50|mean|rate|deviation)|\bhops?\b|[0-9a-f]{7}\b`)
	accusing, advisory := Detectors(&Profile{})
	for _, d := range append(accusing, advisory...) {
		e, ok := texts[d.Name()]
		switch {
		case !ok:
			t.Errorf("%s says nothing", d.Name())
		case !number.MatchString(e.Text) || unclear.MatchString(e.Text):
			t.Errorf("%s: unclear: %q", d.Name(), e.Text)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(texts)) {
		t.Logf("%s: %s", kind, texts[kind].Text)
	}
	for kind, want := range map[string][]string{
		"grammar": {"never sent, ", "a NAL unit of type 6 (H.264 SEI messages)"},
		"volume":  {"stands still", "kb/s", "25/s"},
	} {
		for _, w := range want {
			if !strings.Contains(texts[kind].Text, w) {
				t.Errorf("%s: %q, want %q in it", kind, texts[kind].Text, w)
			}
		}
	}
	if code := texts["grammar"].Code; !strings.Contains(code, "unit 0000006") {
		t.Errorf("the exact codes are %q", code)
	}
}

// TestPlainZScoreHasAFloor: a source at a constant rate deviates by next to nothing, and a
// packet of another size is no thousand million deviations.
func TestPlainZScoreHasAFloor(t *testing.T) {
	p := &Profile{}
	for f := range p.Seconds {
		p.Seconds[f] = Spread{Mean: 10, Median: 10}
	}
	p.Seconds[feature.SizeMean] = Spread{Mean: 1328, Median: 1328, Deviation: 1e-12}
	v := &View{OK1: true}
	for f := range v.V1 {
		v.V1[f] = 10
	}
	for _, c := range []struct{ size, least, most float64 }{{1328, 0, 0}, {1327, 0, 0.1}, {1268, 2.9, 3.1}, {400, 6, 60}} {
		v.V1[feature.SizeMean] = c.size
		if e := (zscore{p, 6}).Score(v); e.Value < c.least || e.Value > c.most {
			t.Errorf("mean size %g of 1328: %s deviations, want %g to %g", c.size, fmt.Sprint(e.Value), c.least, c.most)
		}
	}
}
