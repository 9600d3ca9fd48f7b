package detect

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

func learned(t testing.TB, seconds int) *Profile {
	t.Helper()
	m, e := feature.NewMeter(feature.H264), NewEngine(feature.H264, Settings{})
	end := int64(feature.Hop)
	ps := newSource(1).run(seconds)
	for i := range ps {
		for ps[i].At >= end {
			var w feature.Window
			m.Roll(&w, end)
			e.Observe(&w)
			end += feature.Hop
		}
		m.Observe(&ps[i])
	}
	return e.Settle()
}

func TestProfileIsKept(t *testing.T) {
	p := learned(t, 70)
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var q Profile
	if err := json.Unmarshal(b, &q); err != nil {
		t.Fatal(err)
	}
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	e := Resume(&q, Settings{})
	if e.Learning() {
		t.Error("an engine with a profile learns anew")
	}
	again, err := json.Marshal(e.Profile())
	if err != nil || string(again) != string(b) {
		t.Error("the profile changed on its way")
	}
	t.Logf("a profile takes %d bytes of JSON, %d of it words", len(b), len(p.Vocabulary.Words))
}

func TestShortBaselinesAreTrustedLess(t *testing.T) {
	if m := learned(t, 12).margin(); math.Abs(m-math.Sqrt(5)) > 0.05 {
		t.Errorf("12 s give a margin of %.2f, want %.2f", m, math.Sqrt(5))
	}
	if m := learned(t, 70).margin(); m != 1 {
		t.Errorf("70 s give a margin of %.2f, want 1", m)
	}
}

func TestBadProfilesAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Profile){
		"version":      func(p *Profile) { p.Version++ },
		"old version":  func(p *Profile) { p.Version-- },
		"words":        func(p *Profile) { slices.Reverse(p.Vocabulary.Words) },
		"distribution": func(p *Profile) { p.Reference[0] = nil },
		"forest loop":  func(p *Profile) { p.Forest.Nodes[0].Right = 0 },
		"forest root":  func(p *Profile) { p.Forest.Roots[0] = math.MaxUint16 },
		"forest field": func(p *Profile) { p.Forest.Nodes[0].Feature = 100 },
	} {
		p := learned(t, 70)
		spoil(p)
		if err := p.Check(); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: error %v, want %v", name, err, ErrProfile)
		}
	}
}

func TestVocabularyLimits(t *testing.T) {
	word := func(f feature.Family, v uint32) feature.Token { return feature.Token(f)<<28 | feature.Token(v) }
	hop := func(tokens ...feature.Token) map[feature.Token]uint32 {
		m := map[feature.Token]uint32{}
		for _, t := range tokens {
			m[t] = 1
		}
		return m
	}
	l := newVocabularyLearner(feature.H264)
	for i := range 200 {
		words := hop(word(feature.FamilyUnit, 1), word(feature.FamilyStep, 3600), word(feature.FamilySize, uint32(i)))
		if i%20 == 0 {
			words[word(feature.FamilyParameter, 5)] = 1
		}
		l.perHop = append(l.perHop, words)
		for t := range words {
			if l.words[t] == nil {
				l.words[t] = &Word{Token: t, First: uint32(i)}
			}
			l.words[t].Count++
		}
	}
	y := l.finish()
	if lim := y.Families[feature.FamilyUnit].Limit; lim != noveltyFloor {
		t.Errorf("limit of a family of one word: %g, want %d", lim, noveltyFloor)
	}
	if lim := y.Families[feature.FamilyParameter].Limit; lim != parameterFloor {
		t.Errorf("limit of steady parameter sets: %g, want %d", lim, parameterFloor)
	}
	if lim := y.Families[feature.FamilySize].Limit; lim != 0 {
		t.Errorf("a family with a new word every hop has limit %g: it should not accuse", lim)
	}
	if y.Quantum != 3600 {
		t.Errorf("quantum %d, want 3600", y.Quantum)
	}
	for step, known := range map[uint32]bool{7200: true, 7201: true, 36000: true, 5400: false, 1800: false} {
		if y.Has(word(feature.FamilyStep, step)) != known {
			t.Errorf("step %d: known is %v, want %v", step, !known, known)
		}
	}
}

func TestIntervals(t *testing.T) {
	if lo, hi := PoissonInterval(0); lo != 0 || math.Abs(hi-2.9957) > 1e-3 {
		t.Errorf("none seen: %.4f to %.4f, want 0 to 2.9957", lo, hi)
	}
	if lo, hi := PoissonInterval(3); math.Abs(lo-0.6187) > 1e-3 || math.Abs(hi-8.7673) > 1e-3 {
		t.Errorf("3 seen: %.4f to %.4f, want 0.6187 to 8.7673", lo, hi)
	}
	if lo, hi := BinomialInterval(36, 38); math.Abs(lo-0.8225) > 1e-3 || math.Abs(hi-0.9936) > 1e-3 {
		t.Errorf("36 of 38: %.4f to %.4f, want 0.8225 to 0.9936", lo, hi)
	}
	if lo, hi := BinomialInterval(0, 0); lo != 0 || hi != 1 {
		t.Errorf("none of none: %g to %g, want 0 to 1", lo, hi)
	}
}

func TestEvaluate(t *testing.T) {
	labels := []Label{{
		Capture: "a", Baseline: 90, Duration: 390,
		Events: []Event{
			{Start: 100, End: 120, Kind: "swap", Malicious: true},
			{Start: 200, End: 210, Kind: "slow_drift", Malicious: true},
			{Start: 300, End: 301, Kind: "loss"},
			{Start: 330, End: 340, Kind: "step", Planned: true},
		},
	}}
	readings := map[string][]Reading{"a": {
		{T: 50, Score: 9},                        // baseline
		{T: 102.5, Score: 1.2},                   // the swap
		{T: 125, Score: 2},                       // its aftermath
		{T: 245, Score: 1},                       // the drift, and late enough to be false as well
		{T: 305, Score: 1.5}, {T: 312, Score: 2}, // one false alarm, merged
		{T: 335, Score: 3},                                                                                      // planned
		{T: 380, Score: 0.9},                                                                                    // below
		{T: 110, Score: 0.99, Held: true}, {T: 313, Score: 0.99, Held: true}, {T: 314, Score: 0.99, Held: true}, // told already
	}}
	r := Evaluate(labels, readings, 1)
	if r.Detected != 2 || r.Events != 2 || r.False != 2 {
		t.Errorf("detected %d of %d, %d false; want 2 of 2 and 2", r.Detected, r.Events, r.False)
	}
	if want := (300 - 30.0 - 20 - 21 - 0.5) / 3600; math.Abs(r.Hours-want) > 1e-9 {
		t.Errorf("%.5f benign hours, want %.5f", r.Hours, want)
	}
	if len(r.Benign) != 2 || r.Benign[0].Alarmed != 1 {
		t.Errorf("harmless events: %+v", r.Benign)
	}
}
