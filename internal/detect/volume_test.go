package detect

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

func hopOf(bytes float64) *View {
	v := &View{}
	v.Hop.Bytes = uint64(bytes)
	return v
}

// A walk goes on for block after block; a picture's detail rises in line only for as
// long as it takes to see five blocks.
func TestDriftMustGoOn(t *testing.T) {
	const hops, step = 80 * hopsPerSecond, 0.1 / (8 * hopsPerSecond) // octaves a hop
	most := 0.0                                                      // of the baseline
	alarm := func(until int) int {
		p := &Profile{Hops: matureHops}
		p.Fours[feature.ByteRate].Max = most
		d := &drift{p: p, r: newRamp()}
		for i := range hops {
			if d.Score(hopOf(50000*math.Exp2(step*float64(min(i, until))))).Score >= 1 {
				return i
			}
		}
		return -1
	}
	if at := alarm(hops); at < rampBlocks*rampBlock || at > (rampBlocks+1)*rampBlock+driftSpan {
		t.Errorf("a walk alarms at hop %d", at)
	}
	// The line of five blocks is seen while the rise ends.
	if at := alarm(rampBlocks*rampBlock - 4*hopsPerSecond); at >= 0 {
		t.Errorf("a rise that ends alarms at hop %d", at)
	}
	// A rate control comes back to where the baseline was, and a walk goes beyond.
	most = math.Log2(4*50000) + 1.05 // octaves of bytes a second; 80 s rise by one octave
	if at := alarm(hops); at >= 0 {
		t.Errorf("a rise to what the baseline had alarms at hop %d", at)
	}
	most -= 0.4
	if at := alarm(hops); at < 0 {
		t.Error("a walk beyond the baseline does not alarm")
	}
}

func TestFallOfAHeldVolume(t *testing.T) {
	base := Spread{Median: 14.7, Min: 14.3, Max: 14.9}
	score := func(form feature.Form, mad, rate float64, exact bool) float64 {
		p := &Profile{Hops: matureHops, Form: form}
		p.Content4, p.Content1 = base, Spread{Min: 13.3, Max: 15.3}
		p.Content4.MAD = mad
		p.Fours[feature.MediaRate].Median = 1
		var x feature.Vector
		x[feature.ByteRate], x[feature.MediaRate] = rate, 1
		d := &volume{p: p}
		return d.depth(d.below(&feature.Window{}, &x, true, &p.Fours, &p.Content4), d.fall(exact)) / volumeRanges
	}
	for _, c := range []struct {
		form      feature.Form
		mad, rate float64
		exact     bool // pictures of one size
		alarm     bool
	}{
		{feature.TS, 0.1, 10.7, false, true},   // a picture that had its own volume
		{feature.TS, 0.03, 10.7, false, false}, // what a rate control held says less
		{feature.TS, 0.03, 9.5, false, true},
		{feature.TS, 0.1, 11.6, false, false},  // not below the baseline's quiet seconds by much
		{feature.H264, 0.1, 9.5, false, false}, // least pictures are smaller without TS
		{feature.H264, 0.1, 8.2, false, true},
		{feature.H264, 0.1, 9.5, true, true}, // no camera's pictures have one size
		{feature.H264, 0.1, 10.7, true, false},
	} {
		if s := score(c.form, c.mad, c.rate, c.exact); s >= 1 != c.alarm {
			t.Errorf("%s, deviation %g, %g octaves: score %.2f", c.form, c.mad, c.rate, s)
		}
	}
}

// TestFreezeBehindPadding: where a multiplexer keeps the rate with null packets, what is
// left without them is the volume.
func TestFreezeBehindPadding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const perHop = 600
	hop := func(content int) *feature.Window {
		w := &feature.Window{}
		w.Hops, w.Packets, w.Bytes = 1, perHop/7, perHop*188
		w.Gaps, w.MediaTicks = w.Packets, 90000/hopsPerSecond
		w.TSPackets, w.TSNulls = uint64(content), uint64(perHop-content)
		w.Tokens.Put(feature.TokenCount{Token: 1<<28 | 6<<24 | 0x60<<13 | 0x100, Count: 6})
		w.Tokens.Put(feature.TokenCount{Token: 1<<28 | 1<<24 | 1<<16 | 0x100, Count: 6})
		return w
	}
	e := NewEngine(feature.TS, Settings{})
	for range 90 * hopsPerSecond {
		e.Observe(hop(480 + rng.IntN(40)))
	}
	e.Settle()
	alarms := func(content int) (n, first int) {
		for i := range 10 * hopsPerSecond {
			if v := e.Observe(hop(content)); v.Alarm && v.Kind == "volume" {
				if n++; first == 0 {
					first = i + 1
				}
			}
		}
		return n, first
	}
	if n, _ := alarms(300); n != 0 {
		t.Errorf("a simpler picture: %d alarms", n)
	}
	if n, first := alarms(30); n != 1 || first != volumeRecent+second-1 {
		t.Errorf("a picture that stands behind padding: %d alarms, the first after %d hops", n, first)
	}
	alarms(500)
	if n, first := alarms(12); n != 1 || first != volumeDeepRecent+second-1 {
		t.Errorf("one that fell deeper: %d alarms, the first after %d hops", n, first)
	}
}

// A baseline of small pictures does not know how a full packet is cut, and a cut TS of
// small pictures does not show how they begin.
func TestQuietBaselineDoesNotKnow(t *testing.T) {
	learn := func(form feature.Form, cut bool, words ...feature.TokenCount) Vocabulary {
		l := newVocabularyLearner(form)
		for range 40 {
			w := &feature.Window{}
			if cut {
				w.CutPackets = 1
			}
			for _, c := range words {
				w.Tokens.Put(c)
			}
			l.add(w, 0)
		}
		return l.finish()
	}
	size := feature.TokenCount{Token: 5<<28 | 1412, Count: 1}
	if y := learn(feature.H264, false); y.Families[feature.FamilySize].Limit != 0 {
		t.Error("sizes accuse that were never seen")
	}
	if y := learn(feature.H264, false, size); y.Families[feature.FamilySize].Limit == 0 {
		t.Error("a known size does not accuse others")
	}
	start := feature.TokenCount{Token: 1<<28 | 1<<24 | 1<<16 | 0x100, Count: 10}
	video := feature.TokenCount{Token: 1<<28 | 6<<24 | 0x60<<13 | 0x100, Count: 1}
	code := feature.TokenCount{Token: 2<<28 | 1<<24 | 0x41, Count: 1}
	if y := learn(feature.TS, true, start, video, code); y.Families[feature.FamilySlice].Limit != 0 {
		t.Error("beginnings that hardly ever showed accuse")
	}
	if y := learn(feature.TS, true, start); y.Families[feature.FamilySlice].Limit != 0 {
		t.Error("beginnings accuse of which not even the PES headers showed")
	}
	if y := learn(feature.TS, false, start, video, code); y.Families[feature.FamilySlice].Limit == 0 {
		t.Error("whole packets hide nothing")
	}
	video.Count = 9
	if y := learn(feature.TS, true, start, video, code); y.Families[feature.FamilySlice].Limit != 0 {
		t.Error("PES headers that showed without what is behind them accuse it")
	}
	code.Count = 9
	if y := learn(feature.TS, true, start, video, code); y.Families[feature.FamilySlice].Limit == 0 {
		t.Error("beginnings that showed do not accuse")
	}
}

// Pictures that say only that nothing changed are alike to a few bytes; key pictures stand
// between them.
func TestStillness(t *testing.T) {
	still := func(hop func(i int) (frames, bytes, squares uint64)) (still, exact bool) {
		s := newStillness(&Profile{Form: feature.H264, Cap: 1400})
		for i := range stillHops {
			w := &feature.Window{}
			w.Frames, w.FrameBytes, w.FrameSq = hop(i)
			s.add(w)
		}
		return s.still(stillHops)
	}
	alike := func(size uint64) (uint64, uint64, uint64) { return 6, 6 * size, 6 * size * size }
	for name, c := range map[string]struct {
		hop   func(i int) (frames, bytes, squares uint64)
		want  bool
		exact bool
	}{
		"all alike":   {func(int) (uint64, uint64, uint64) { return alike(37) }, true, true},
		"nearly":      {func(i int) (uint64, uint64, uint64) { return alike(37 + uint64(i%2)*2) }, true, false},
		"one differs": {func(i int) (uint64, uint64, uint64) { return alike(37 + uint64(i/9)*90) }, true, true},
		"key pictures between": {func(i int) (uint64, uint64, uint64) {
			if i%4 == 0 {
				return 6, 5*37 + 9000, 5*37*37 + 9000*9000
			}
			return alike(37)
		}, true, false},
		"sizes that wander": {func(i int) (uint64, uint64, uint64) { return alike(60 + uint64(i%5)*12) }, false, false},
		"sizes that differ": {func(int) (uint64, uint64, uint64) { return 6, 6 * 60, 3*50*50 + 3*70*70 }, false, false},
		"full packets":      {func(int) (uint64, uint64, uint64) { return alike(1400) }, false, true},
		"silence":           {func(int) (uint64, uint64, uint64) { return 0, 0, 0 }, false, false},
	} {
		if got, exact := still(c.hop); got != c.want || exact != c.exact {
			t.Errorf("%s: still %v, to the byte %v", name, got, exact)
		}
	}
}

// A TS at its floor has a packet a picture.
func TestStillnessOfTS(t *testing.T) {
	const video, starts, goes = 1<<28 | 6<<24 | 0x60<<13 | 0x100, 1<<28 | 1<<24 | 1<<16 | 0x100, 1<<28 | 1<<24 | 0x100
	p := &Profile{Form: feature.TS, Vocabulary: Vocabulary{Words: []Word{{Token: video}}}}
	still := func(tokens ...feature.Token) bool {
		s := newStillness(p)
		for range stillHops {
			w := &feature.Window{}
			for _, tok := range tokens {
				w.Tokens.Put(feature.TokenCount{Token: tok, Count: 1})
			}
			s.add(w)
		}
		still, _ := s.still(stillHops)
		return still
	}
	if !still(starts) || still(starts, goes) || still() || still(starts+1) {
		t.Error("a packet a picture, two a picture, none, another stream's:", still(starts), still(starts, goes), still(), still(starts+1))
	}
}

// What the picture decides is no news.
func TestPictureWordsAreNoNews(t *testing.T) {
	vocabulary := func(form feature.Form, partial bool, words ...feature.Token) *Vocabulary {
		l := newVocabularyLearner(form)
		for range 40 {
			w := &feature.Window{}
			if partial {
				w.CutPackets = 1
			}
			for _, tok := range words {
				w.Tokens.Put(feature.TokenCount{Token: tok, Count: 3})
			}
			l.add(w, 0)
		}
		y := l.finish()
		return &y
	}
	const unit, slice = feature.Token(1 << 28), feature.Token(2 << 28)
	const packet, begins, code, adapts = unit | 1<<24, unit | 1<<24 | 1<<16, slice | 1<<24, unit | 2<<24
	vp9 := vocabulary(feature.Opaque, false, unit|0x80, unit|0x88, unit|0xc4, unit|0xc8)
	quiet := vocabulary(feature.Opaque, false, unit)
	vp8 := vocabulary(feature.Opaque, false, unit|0x10)    // pictures of one packet
	joined := vocabulary(feature.Opaque, false, unit|0xec) // no key picture
	avc := vocabulary(feature.H264, false, unit|0x41, unit|0x65)
	hevc := vocabulary(feature.H265, false, unit|1<<8|1)
	mpeg4 := vocabulary(feature.TS, true, begins|0x100, code|1<<16|0xb6)
	mpeg2 := vocabulary(feature.TS, false, packet|0x100, code|0xb3, slice|2<<24|2)
	intra := vocabulary(feature.TS, false, packet|0x100, code|0xb3)
	h264 := vocabulary(feature.TS, true, begins|0x100, code|1<<16|0x09, code|1<<16|0x41)
	for _, c := range []struct {
		what  string
		y     *Vocabulary
		t     feature.Token
		known bool
	}{
		{"VP9: a key picture in one packet", vp9, unit | 0x8c, true},
		{"VP9: a bit that was never set", vp9, unit | 0x8d, false},
		{"VP9: a bit that was always set", vp9, unit | 0x08, false},
		{"VP8: a picture of two packets", vp8, unit, true},
		{"VP8: extended", vp8, unit | 0x90, false},
		{"VP8: of another partition", vp8, unit | 0x11, false},
		{"VP9: a first key picture", joined, unit | 0xae, true},
		{"VP9: another mode", joined, unit | 0xfc, false},
		{"whole pictures, then a part of one", quiet, unit | 0xa7, true},
		{"H.264: filler", avc, unit | 0x0c, true},
		{"H.264: another unit", avc, unit | 0x0b, false},
		{"H.265: filler", hevc, unit | 38<<8 | 1, true},
		{"MPEG-4: a key picture's headers", mpeg4, code | 0xb0, true},
		{"MPEG-4: its object", mpeg4, slice | 2<<24, true},
		{"MPEG-4: a parameter set of H.264", mpeg4, code | 0x67, false},
		{"the table of programmes", mpeg4, begins, true},
		{"a known PID that goes on", mpeg4, packet | 0x100, true},
		{"its clock", mpeg4, adapts | 0x10<<16 | 0x100, true},
		{"private data", mpeg4, adapts | 2<<16 | 0x100, false},
		{"another PID", mpeg4, begins | 0x101, false},
		{"another PID's clock", mpeg4, adapts | 0x10<<16 | 0x101, false},
		{"MPEG-2: a small picture's second row", mpeg2, code | 2, true},
		{"MPEG-2: an intra picture", mpeg2, slice | 2<<24 | 1, true},
		{"MPEG-2: a picture between two", mpeg2, slice | 2<<24 | 3, true},
		{"MPEG-2: a predicted one, after nothing but key pictures", intra, slice | 2<<24 | 2, true},
		{"MPEG-1: a picture of means only", mpeg2, slice | 2<<24 | 4, false},
		{"MPEG-2: a delimiter of H.264", mpeg2, code | 0x09, false},
		{"MPEG-2 whole: a table", mpeg2, begins, false},
		{"H.264 cut: a key picture", h264, code | 1<<16 | 0x65, true},
		{"H.264 cut: filler", h264, code | 0x0c, true},
		{"H.264: a sequence of MPEG-2", h264, code | 0xb3, false},
	} {
		if got := c.y.Has(c.t); got != c.known {
			t.Errorf("%s (%v): known %v", c.what, c.t, got)
		}
	}
}

// What a cut packet shows behind a known parameter set is the source's own.
func TestParameterSetsBehindOthers(t *testing.T) {
	const own, behind, other = 3<<28 | 1, 3<<28 | 2, 3<<28 | 3
	l := newVocabularyLearner(feature.TS)
	for range 40 {
		w := &feature.Window{}
		w.CutPackets = 1
		w.Tokens.Put(feature.TokenCount{Token: own, Count: 1})
		l.add(w, 0)
	}
	y := l.finish()
	for _, c := range []struct {
		words []feature.Token
		news  float64
	}{{[]feature.Token{own, behind}, 0}, {[]feature.Token{other}, 1}} {
		w := &feature.Window{}
		for _, tok := range c.words {
			w.Tokens.Put(feature.TokenCount{Token: tok, Count: 1})
		}
		if n := y.novelty(w); n[feature.FamilyParameter] != c.news {
			t.Errorf("%v: %g times unknown, want %g", c.words, n[feature.FamilyParameter], c.news)
		}
	}
}
