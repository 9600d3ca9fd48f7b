package tune

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// TestDirection is the rule in its words: many false alarms, and sensitivity falls
// (cut-offs rise); misses, and sensitivity rises.
func TestDirection(t *testing.T) {
	for _, sensitivity := range []float64{0.2, 0.5, 0.8} {
		if got := Step(sensitivity, true); got >= sensitivity || CutoffOf(got) <= CutoffOf(sensitivity) {
			t.Errorf("after a false alarm sensitivity %g is %g, cut-off %.2f is %.2f: it must fall, and the cut-off rise", sensitivity, got, CutoffOf(sensitivity), CutoffOf(got))
		}
		if got := Step(sensitivity, false); got <= sensitivity || CutoffOf(got) >= CutoffOf(sensitivity) {
			t.Errorf("after a miss sensitivity %g is %g, cut-off %.2f is %.2f: it must rise, and the cut-off fall", sensitivity, got, CutoffOf(sensitivity), CutoffOf(got))
		}
	}
	calm := newStream(1, 0.15, 0.3).quiet(3)
	prior := CutoffOf(0.5)
	alone := Control(calm.data(), day, DefaultParams(), prior)

	jumpy := newStream(1, 0.15, 0.3).quiet(1)
	for range 8 {
		jumpy.burst(1, 1.4, 20, False, 0.95)
	}
	jumpy.quiet(2)
	if got := Control(jumpy.data(), day, DefaultParams(), prior); got <= alone || got <= 1.4 {
		t.Errorf("with eight false alarms at 1.4 the cut-off is %.2f, without them %.2f", got, alone)
	}

	dull := newStream(1, 0.15, 0.3).quiet(1)
	for range 3 {
		dull.burst(1, 0.7, 40, Real, 1)
	}
	dull.quiet(2)
	if got := Control(dull.data(), day, DefaultParams(), prior); got >= alone || got > 0.7 {
		t.Errorf("with three misses at 0.7 the cut-off is %.2f, without them %.2f", got, alone)
	}
}

func TestSmallestCutoffThatKeepsTheBudget(t *testing.T) {
	s := newStream(2, 0.3, 0.25).quiet(8)
	g := Goal{Budget: 1, MissCost: 20}
	d := s.data()
	// A prior below everything: what comes is the least that the budget allows.
	c := Control(d, g, DefaultParams(), Floor)
	if over := g.Over(d.Judge(at(c))); over > 0 {
		t.Errorf("at %.2f the bound is %.2f times the budget", c, math.Exp(over))
	}
	if over := g.Over(d.Judge(at(c / headRoom / 1.1))); over <= 0 {
		t.Errorf("%.2f would have kept the budget as well, less the head room: it is not the smallest", c/headRoom/1.1)
	}
}

// TestFalseThatNoCutoffAvoids: an episode far above the ceiling was called false. No cut-off
// is rid of it, so it must not cost the attack that was called real at 1.3 limits; one that
// a cut-off can avoid still raises it.
func TestFalseThatNoCutoffAvoids(t *testing.T) {
	for _, falsePeak := range []float64{0, 2, 5.8} {
		s := newStream(4, 0.15, 0.3).quiet(0.1).burst(2, 1.3, 40, Real, 0.97)
		if falsePeak > 0 {
			s.burst(0, falsePeak, 40, False, 0.69)
		}
		s.quiet(0.1)
		got := Control(s.data(), Goal{Budget: 1, MissCost: 20}, DefaultParams(), 1)
		if avoidable := falsePeak == 2; avoidable != (got > 1.3) || got == Ceiling {
			t.Errorf("with a false episode at %g limits the cut-off is %.2f", falsePeak, got)
		}
	}
}

func TestNewStreamStartsFromThePrior(t *testing.T) {
	empty := &Data{Replayer: NewReplayer(layout, Plain)}
	for _, prior := range []float64{0.5, 1, 1.7} {
		if got := Control(empty, day, DefaultParams(), prior); math.Abs(got-prior) > 1e-9 {
			t.Errorf("a stream of which nothing is known is cut off at %g, the fleet's at %g", got, prior)
		}
	}
}

func TestBeliefs(t *testing.T) {
	label := func(real bool, peak float64) Label {
		return Label{Origin: FromOperator, Real: real, Kind: "loop", Peak: peak}
	}
	one := func(l Label) float64 { return Beliefs([]Label{l})[0] }
	if w := one(label(false, 1.1)); w < 0.9 {
		t.Errorf("a false alarm just over the limit is believed %.2f", w)
	}
	if w := one(label(false, 20)); w > 0.1 {
		t.Errorf("one false against overwhelming evidence is believed %.2f", w)
	}
	if w := one(label(true, 1.1)); w < 0.9 {
		t.Errorf("a real one is believed %.2f", w)
	}
	many := []Label{label(false, 20), label(false, 20), label(false, 20), label(false, 20)}
	if w := Beliefs(many)[0]; w < 0.9 {
		t.Errorf("four that agree are believed %.2f", w)
	}
	many = append(many, label(true, 20), label(true, 20), label(true, 20))
	if w := Beliefs(many)[0]; w > 0.1 {
		t.Errorf("four against three are believed %.2f", w)
	}
	proven := label(false, 20)
	proven.Proven = true
	if w := one(proven); w != 0 || !proven.Contested() {
		t.Errorf("false of what is proven is believed %.2f", w)
	}
	if w := Beliefs([]Label{proven, label(false, 1.2)})[1]; w < 0.9 {
		t.Errorf("beside it, another answer is believed %.2f", w)
	}
	if w := one(Label{Origin: FromOutcome, Real: true, Proven: true, Peak: 1}); w != 1 {
		t.Errorf("an outcome is believed %.2f", w)
	}
}

// TestFalseOnProvenTheftsBlindsNobody: thirty false answers to proven thefts move
// the cut-off of nothing, and thirty to what is not proven at most to the ceiling.
func TestFalseOnProvenTheftsBlindsNobody(t *testing.T) {
	for _, proven := range []bool{true, false} {
		s := newStream(5, 0.2, 0.3).quiet(1)
		var labels []Label
		for range 30 {
			labels = append(labels, Label{Origin: FromOperator, Kind: "grammar", Peak: 22, Proven: proven})
		}
		for _, w := range Beliefs(labels) {
			v := False
			if proven { // an outcome says so
				v, w = Real, 1
			}
			s.burst(0, 22, 20, v, w)
		}
		p := Propose(s.data(), Task{Goal: day, Current: DefaultParams(), Prior: 1, Seed: 1})
		c := CutoffOf(p.Params.Sensitivity)
		if c > Ceiling*1.0001 {
			t.Errorf("proven %v: the cut-off is %.2f, above the ceiling", proven, c)
		}
		if proven && p.Then.Detected() < 1 {
			t.Errorf("%.0f %% of proven thefts would be seen at %.2f", 100*p.Then.Detected(), c)
		}
		if got := len(NewReplayer(layout, Plain).Alarms(s.trace, p.Params)); got < 30 {
			t.Errorf("proven %v: of thirty episodes at 22 times the limit, %d still alarm", proven, got)
		}
	}
}

func TestJudge(t *testing.T) {
	s := newStream(3, 0.1, 0.01).quiet(0.1)
	s.burst(0, 2, 20, Real, 1).burst(1, 2, 20, False, 0.9).burst(2, 2, 20, Ignored, 0).burst(3, 2, 20, Real, 0.5)
	from := s.trace.Len()
	s.burst(0, 1.5, 8, Ignored, 0)
	s.spans = s.spans[:4] // nobody spoke of the last
	got := s.data().Judge(at(1))
	if got.Real != 1.5 || got.Missed != 0 || math.Abs(got.False-0.9-quietBelief(1.5)) > 0.01 {
		t.Errorf("at 1: %+v", got)
	}
	if got.Late != 0 {
		t.Errorf("late by %g of what was found at once", got.Late)
	}
	hops := s.trace.Len() - 2*(20+Aftermath) - 20
	if want := float64(hops) / 4 / 3600; math.Abs(got.Hours-want) > 1e-9 {
		t.Errorf("%g hours are quiet, want %g", got.Hours, want)
	}
	if got := s.data().Judge(at(2.5)); got.Missed != 1.5 || got.False != 0 {
		t.Errorf("at 2.5: %+v", got)
	}
	if al := NewReplayer(layout, Plain).Alarms(s.trace, at(1)); al[len(al)-1].Hop != from || al[0].Kind != "grammar" {
		t.Errorf("alarms: %+v", al)
	}
	p := at(1)
	p.Persistence = 5
	if got := s.data().Judge(p); got.Late <= 0 || got.Missed != 0 {
		t.Errorf("with persistence, late by %g", got.Late)
	}
}

// TestSplitKeepsEpisodesWhole: parts add up to the whole, and no span is cut.
func TestSplitKeepsEpisodesWhole(t *testing.T) {
	s := newStream(4, 0.2, 0.3)
	for range 9 {
		s.quiet(0.05).burst(0, 3, 200, Real, 1)
	}
	d := s.data()
	d.Cases = append(d.Cases, Simulated(s.trace.Cut(0, 100), "x", 1))
	whole := d.Judge(at(1))
	for n := 1; n <= 7; n++ {
		var sum Stats
		for _, p := range d.Split(n) {
			for _, c := range p.Cases {
				for _, sp := range c.Spans {
					if sp.To > c.Trace.Len() {
						t.Fatalf("%d parts: a span ends %d hops behind its part", n, sp.To-c.Trace.Len())
					}
				}
			}
			sum.Add(p.Judge(at(1)))
		}
		if sum.Real != whole.Real || sum.Missed != whole.Missed || math.Abs(sum.Hours-whole.Hours) > 1e-9 {
			t.Errorf("%d parts: %+v, whole %+v", n, sum, whole)
		}
	}
}

// leak says what of one part is in another: an episode, a stretch of time, or what was
// made from one recording; or that a part does not follow the one before. Empty: nothing.
func leak(d *Data, parts []Data) string {
	type stretch struct {
		from, to time.Time
		part     int
	}
	var all []stretch
	made := map[int64]int{}
	for k := range parts {
		for _, c := range parts[k].Cases {
			for _, sp := range c.Spans {
				if sp.From < 0 || sp.To > c.Trace.Len() {
					return fmt.Sprintf("span %d to %d of a case of %d hops", sp.From, sp.To, c.Trace.Len())
				}
			}
			if !c.Made {
				all = append(all, stretch{c.Trace.From, c.Trace.At(c.Trace.Len()), k})
			} else if have, ok := made[c.Trace.From.UnixNano()]; ok && have != k {
				return fmt.Sprintf("what was made from one recording is in parts %d and %d", have, k)
			} else {
				made[c.Trace.From.UnixNano()] = k
			}
		}
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.part != b.part && a.from.Before(b.to) && b.from.Before(a.to) {
				return fmt.Sprintf("the same time is in parts %d and %d", a.part, b.part)
			}
			if (a.part < b.part) != a.from.Before(b.from) && a.part != b.part {
				return fmt.Sprintf("part %d does not follow part %d in time", max(a.part, b.part), min(a.part, b.part))
			}
		}
	}
	for _, c := range d.Cases {
		if c.Made {
			continue
		}
		for _, sp := range c.Spans {
			from, to := c.Trace.At(sp.From), c.Trace.At(sp.To)
			if sp.Verdict == Real {
				to = c.Trace.At(min(sp.To+Aftermath, c.Trace.Len()))
			}
			in := map[int]bool{}
			for _, s := range all {
				if s.from.Before(to) && from.Before(s.to) {
					in[s.part] = true
				}
			}
			if len(in) != 1 {
				return fmt.Sprintf("the episode from %v to %v is in %d parts", from, to, len(in))
			}
		}
	}
	return ""
}

// TestSplitDoesNotLeak: nothing of what is held out is in what is tuned on, and what looks
// for it finds it in divisions that leak.
func TestSplitDoesNotLeak(t *testing.T) {
	d := &Data{Replayer: NewReplayer(layout, Plain)}
	for day := range 3 {
		s := newStream(uint64(day), 0.2, 0.3)
		s.trace.From = epoch.Add(time.Duration(day) * 24 * time.Hour)
		for i := range 7 {
			s.quiet(0.02+0.01*float64(i)).burst(i%4, 2, 100+90*i, []Verdict{Real, False, Ignored}[i%3], 1)
		}
		d.Cases = append(d.Cases, Case{Trace: s.trace, Spans: s.spans})
		for _, a := range []string{"loop", "drift", "foreign"} {
			made := newStream(9, 0.2, 0.2).quiet(0.05).trace
			made.From = epoch.Add(time.Duration(day) * time.Hour)
			d.Cases = append(d.Cases, Simulated(made, a, 1))
		}
	}
	for n := 2; n <= 9; n++ {
		if l := leak(d, d.Split(n)); l != "" {
			t.Errorf("%d parts: %s", n, l)
		}
	}
	// Divisions as one might write them.
	naive := func(to func(i int, c Case) int) []Data {
		parts := make([]Data, 4)
		for i, c := range d.Cases {
			k := to(i, c)
			parts[k].Cases = append(parts[k].Cases, c)
		}
		return parts
	}
	hops := make([]Data, 4)
	for _, c := range d.Cases {
		for k := range hops {
			n := c.Trace.Len()
			hops[k].Cases = append(hops[k].Cases, Case{Trace: c.Trace.Cut(k*n/4, (k+1)*n/4)})
		}
	}
	both := d.Split(4)
	both[0].Cases = append(both[0].Cases, both[3].Cases...)
	for what, parts := range map[string][]Data{
		"cases in turn":    naive(func(i int, _ Case) int { return i % 4 }),
		"quarters of each": hops,
		"a part twice":     both,
		"what was made":    naive(func(i int, c Case) int { return map[bool]int{true: i % 4}[c.Made] }),
		"the newest in front": naive(func(_ int, c Case) int {
			return map[bool]int{false: int(3 - c.Trace.From.Sub(epoch)/(24*time.Hour))}[c.Made]
		}),
	} {
		if leak(d, parts) == "" {
			t.Errorf("%s: the leak was not found", what)
		}
	}
}

func TestRotationsLeft(t *testing.T) {
	r := Rotations{Every: time.Hour}
	var spent []time.Time
	total := 0
	for at := range 400 { // evidence every three minutes for twenty hours
		now := epoch.Add(time.Duration(at) * 3 * time.Minute)
		if r.Left(now, spent) > 0 {
			spent = append(spent, now)
			total++
		}
		recent := 0
		for _, s := range spent {
			if now.Sub(s) < time.Duration(r.Burst())*time.Hour {
				recent++
			}
		}
		if recent > r.Burst() {
			t.Fatalf("%d rotations in %v", recent, time.Duration(r.Burst())*time.Hour)
		}
	}
	if total < 18 || total > 21 {
		t.Errorf("%d rotations in twenty hours with one granted an hour", total)
	}
}

func TestBounds(t *testing.T) {
	s := Stats{False: 0, Hours: 1}
	if b := s.Bound(); math.Abs(b-3.0) > 0.01 { // the rule of three
		t.Errorf("none in an hour bounds the rate at %.3f", b)
	}
	s.False = 4
	if lo, hi := s.Interval(); math.Abs(lo-1.09) > 0.01 || math.Abs(hi-10.24) > 0.01 { // Garwood's table
		t.Errorf("four in an hour: %.2f to %.2f", lo, hi)
	}
	if n := Allowed(1, 24); n < 3 || n > 6 {
		t.Errorf("of one a day, %d may come in a day", n)
	}
	if n := Allowed(0, 24); n != 1 {
		t.Errorf("of none, %d may come", n)
	}
}

func TestReplayUsesWeightsOfCircumstances(t *testing.T) {
	tr := &Trace{Layout: layout, From: epoch}
	levels := make([]episode.Level, len(layout.Kinds))
	levels[0] = episode.LevelOf(1.5)
	tr.Add(levels, Wide)
	w := func(kind string, f Flags) float64 {
		if f&Wide != 0 && kind == "grammar" {
			return 0.5
		}
		return 1
	}
	if got := NewReplayer(layout, w).Alarms(tr, at(1)); len(got) != 0 {
		t.Error("wide margins were not applied")
	}
	if got := NewReplayer(layout, Plain).Alarms(tr, at(1)); len(got) != 1 || math.Abs(got[0].Peak-1.5) > 0.08 {
		t.Errorf("without margins: %+v", got)
	}
}
