package detect

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// player feeds an engine with a source's windows, and lets it adapt to normal ones.
type player struct {
	s      *source
	m      *feature.Meter
	e      *Engine
	end    int64
	alarms []Verdict
}

func play(seed uint64) *player {
	return &player{s: newSource(seed), m: feature.NewMeter(feature.H264), e: NewEngine(feature.H264, Settings{}), end: feature.Hop}
}

func (p *player) run(seconds int) {
	for _, k := range p.s.run(seconds) {
		for k.At >= p.end {
			var w feature.Window
			p.m.Roll(&w, p.end)
			if v := p.e.Observe(&w); v.Alarm {
				p.alarms = append(p.alarms, v)
			}
			if p.e.Normal() {
				p.e.Adapt()
			}
			p.end += feature.Hop
		}
		p.m.Observe(&k)
	}
}

func limitNamed(t *testing.T, name string) int {
	t.Helper()
	i := slices.IndexFunc(limits, func(l limit) bool { return l.name == name })
	if i < 0 {
		t.Fatalf("no limit %q", name)
	}
	return i
}

// TestAdaptingIsSlowAndBounded: a volume that is walked down within what is normal
// moves its limit slowly, to its reach and no further, and is said then.
func TestAdaptingIsSlowAndBounded(t *testing.T) {
	p := play(3)
	p.run(70)
	p.e.Settle()
	r := p.e.regimes[0]
	anchor := *r.mode.Anchor
	i := limitNamed(t, "least bit rate, over 4 s")
	reach := r.adapter.reach[i]
	p.s.scale = 0.4
	p.run(20)
	if m := r.adapter.moved[i]; m <= 0 || m > 0.2*reach {
		t.Errorf("after 20 s the limit has moved by %.3f of %.3f", m, reach)
	}
	if d, _ := r.adapter.distance(); d <= 0 || d >= 1 || r.adapter.drifting() != "" {
		t.Errorf("after 20 s: distance %.2f, drifting %q", d, r.adapter.drifting())
	}
	p.run(50 * 60)
	if m := r.adapter.moved[i]; math.Abs(m-reach) > 1e-9 {
		t.Errorf("after 50 min the limit has moved by %.3f, its reach is %.3f", m, reach)
	}
	if r.adapter.drifting() == "" {
		t.Error("what presses against its bound is not said to drift")
	}
	if got := r.profile.Fours[feature.ByteRate].Min; math.Abs(anchor.Fours[feature.ByteRate].Min-reach-got) > 1e-9 || r.mode.Anchor.Fours != anchor.Fours {
		t.Errorf("least byte rate %.3f, or the anchor moved", got)
	}
	if len(p.alarms) > 0 {
		t.Errorf("alarms: %+v", p.alarms)
	}
	p.e.Anchor() // somebody looked at it
	if d, _ := p.e.regimes[0].adapter.distance(); d != 0 || p.e.Profile().Fours[feature.ByteRate].Min > anchor.Fours[feature.ByteRate].Min-reach+1e-9 {
		t.Errorf("after approval: distance %.2f", d)
	}
}

// TestNothingIsLearnedFromWhatAccuses, nor while the path is disturbed.
func TestNothingIsLearnedFromWhatAccuses(t *testing.T) {
	p := play(3)
	p.run(70)
	p.e.Settle()
	p.s.scale = 0.01 // nearly frozen
	p.run(120)
	if len(p.alarms) == 0 {
		t.Fatal("no alarm")
	}
	i := limitNamed(t, "least bit rate, over 4 s")
	if m := p.e.regimes[0].adapter.moved[i]; m > 0.02 {
		t.Errorf("the limit followed by %.3f octaves", m)
	}
	var w feature.Window
	p.m.Roll(&w, p.end) // a silence
	p.e.Observe(&w)
	if p.e.Normal() {
		t.Error("a silence is normal")
	}
}

// twoModes are the same encoder with a rich film and with a picture that stands.
func twoModes(t *testing.T) []Mode {
	t.Helper()
	var modes []Mode
	for _, still := range []bool{false, true} {
		p := play(3)
		p.s.scale, p.s.still = 3, still
		p.run(70)
		modes = append(modes, Mode{Name: "m", Anchor: p.e.Settle()})
	}
	return modes
}

func TestModesAreChangedWithoutAlarm(t *testing.T) {
	modes := twoModes(t)
	p := play(7)
	p.s.scale = 3
	p.e = ResumeModes(modes, 0, Settings{})
	p.run(60)
	p.s.still = true
	p.run(60)
	if len(p.alarms) != 0 || p.e.now != 1 {
		t.Errorf("to the second mode: %d alarms, mode %d, %+v", len(p.alarms), p.e.now, p.e.Modes())
	}
	p.s.still = false
	p.run(60)
	if len(p.alarms) != 0 || p.e.now != 0 {
		t.Errorf("and back: %d alarms, mode %d, %+v", len(p.alarms), p.e.now, p.e.Modes())
	}
	p.s.sps = 0x4d // neither mode's
	p.run(20)
	if len(p.alarms) != 1 || p.alarms[0].Class != Source {
		t.Errorf("another encoder: %+v", p.alarms)
	}
	one := play(7)
	one.s.scale = 3
	one.e = Resume(modes[0].Anchor, Settings{})
	one.run(60)
	one.s.still = true
	one.run(60)
	if len(one.alarms) == 0 {
		t.Error("without the second mode there is no alarm either: the test shows nothing")
	}
}

// TestModesAreNoRefuge: whoever leaps from one mode into the other finds that he has
// to stay there.
func TestModesAreNoRefuge(t *testing.T) {
	p := play(7)
	p.s.scale = 3
	p.e = ResumeModes(twoModes(t), 1, Settings{})
	p.s.still = true
	p.run(40)
	changes, last, since := 0, p.e.now, 0
	for i := range 240 { // seconds
		p.s.still = i/12%2 == 1
		p.run(1)
		if since++; p.e.now != last {
			if changes > 0 && since < 30 {
				t.Errorf("a mode stayed for %d s", since)
			}
			last, since = p.e.now, 0
			changes++
		}
	}
	if changes == 0 || changes > 8 {
		t.Errorf("%d changes in four minutes", changes)
	}
}

func TestModesShareWords(t *testing.T) {
	modes := twoModes(t)
	p := play(7)
	p.s.scale = 3
	p.s.sps = 0x4d
	p.run(70)
	modes = append(modes, Mode{Anchor: p.e.Settle()})
	before := len(modes[0].Anchor.Vocabulary.Words)
	e := ResumeModes(modes, 0, Settings{})
	for _, r := range e.regimes {
		for _, m := range modes {
			for _, w := range m.Anchor.Vocabulary.Words {
				if !r.profile.Vocabulary.Has(w.Token) {
					t.Fatalf("%v is foreign to a mode", w.Token)
				}
			}
		}
		if err := r.profile.Check(); err != nil {
			t.Error(err)
		}
	}
	if len(modes[0].Anchor.Vocabulary.Words) != before {
		t.Error("the anchor's words changed")
	}
	for range 2 * MaxModes {
		e.AddMode(Mode{Anchor: modes[1].Anchor})
	}
	if len(e.Modes()) != MaxModes || e.regimes[0].mode.Anchor != modes[0].Anchor || !e.Modes()[MaxModes-1].Now {
		t.Errorf("%+v", e.Modes())
	}
}

func TestModesAreKept(t *testing.T) {
	p := play(3)
	p.e = ResumeModes(twoModes(t), 0, Settings{})
	p.s.scale = 0.5
	p.run(300)
	modes, now := p.e.Keep()
	b, err := json.Marshal(modes)
	if err != nil {
		t.Fatal(err)
	}
	var back []Mode
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	e := ResumeModes(back, now, Settings{})
	if e.regimes[now].profile.Fours != p.e.regimes[now].profile.Fours || e.Modes()[now].Distance != p.e.Modes()[now].Distance || e.Modes()[now].Distance == 0 {
		t.Errorf("kept %+v, had %+v", e.Modes(), p.e.Modes())
	}
	back[0].Moved[0] = math.Inf(1) // whoever wrote this has no part in how far limits go
	e = ResumeModes(back, 0, Settings{})
	if r := e.regimes[0]; r.adapter.moved[0] > r.adapter.reach[0] {
		t.Error("a stored limit is further away than its reach")
	}
}

func TestConfined(t *testing.T) {
	p, from := *learned(t, 70), learned(t, 70)
	p.LoopMax, p.MaxGap, p.Counts[echoes].Worst = 0.9, 60e9, 1000
	p.Vocabulary.Families[feature.FamilyUnit].Limit = 0
	p.Fours[feature.ByteRate].Min -= 4
	least := p.Fours[feature.ByteRate].Min
	foreign := Word{Token: feature.Token(feature.FamilyUnit)<<28 | 0xbad}
	p.Vocabulary.Words = append(slices.Clone(p.Vocabulary.Words), foreign)
	slices.SortFunc(p.Vocabulary.Words, func(a, b Word) int { return int(a.Token) - int(b.Token) })
	p.Cap, p.Vocabulary.Quantum, p.Vocabulary.Partial, p.Vocabulary.Families[feature.FamilyUnit].Known = from.Cap+1, 1, true, 1000
	Confine(&p, from)
	if y := p.Vocabulary; y.said(foreign.Token) || len(y.Words) != len(from.Vocabulary.Words) || p.Cap != from.Cap || y.Quantum != from.Vocabulary.Quantum ||
		y.Partial || y.Families[feature.FamilyUnit].Known != from.Vocabulary.Families[feature.FamilyUnit].Known {
		t.Errorf("words: %d of %d known, cap %d after %d, quantum %d after %d, %+v", len(y.Words), len(from.Vocabulary.Words), p.Cap, from.Cap, y.Quantum, from.Vocabulary.Quantum, y.Families[feature.FamilyUnit])
	}
	if p.LoopMax > 0.1 || p.MaxGap > 2*from.MaxGap+20e6 || p.Counts[echoes].Worst > 1 || p.Vocabulary.Families[feature.FamilyUnit].Limit == 0 {
		t.Errorf("still open: loop %.2f, gap %.0f, echoes %g", p.LoopMax, p.MaxGap, p.Counts[echoes].Worst)
	}
	if p.Fours[feature.ByteRate].Min != least {
		t.Error("a regime may lie elsewhere")
	}
}

// TestChoose: the newest regime of a name is judged by, and left where another fits.
func TestChoose(t *testing.T) {
	p := play(1)
	p.run(learn)
	own := p.e.Settle()
	e := ResumeModes([]Mode{{Name: "day", Anchor: own}, {Name: "night", Anchor: own}, {Name: "night", Anchor: own}, {Anchor: own}}, 0, Settings{Sensitivity: 0.5})
	now := func() int {
		_, now := e.Keep()
		return now
	}
	if !e.Choose("night") || now() != 2 {
		t.Errorf("judged by %d", now())
	}
	if e.Choose("dusk") || now() != 2 {
		t.Errorf("an unknown regime: judged by %d", now())
	}
	if e.dwell < modeDwell {
		t.Error("a declared regime is held to, whatever fits")
	}
	if !e.Choose("day") || now() != 0 {
		t.Errorf("judged by %d", now())
	}
}
