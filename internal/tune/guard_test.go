package tune

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"pgregory.net/rapid"
)

func proposal(by string, p Params, hours float64) Setting {
	return Setting{By: by, Params: p, Basis: Basis{Hours: hours}}
}

func TestGuardRails(t *testing.T) {
	g := NewGuard(epoch, DefaultParams(), "start")
	if err := g.Propose(epoch, 99, proposal("operator", at(2), 1)); !errors.Is(err, ErrRevision) {
		t.Errorf("a change that saw another revision: %v", err)
	}
	if err := g.Propose(epoch, 1, proposal("tuning", at(2), 0.1)); !errors.Is(err, ErrEvidence) {
		t.Errorf("six minutes of traffic: %v", err)
	}
	if err := g.Propose(epoch, 1, proposal("tuning", at(3), 1)); err != nil {
		t.Fatal(err)
	}
	if g.Live().Params != DefaultParams() {
		t.Error("a proposal decides before its shadow is over")
	}
	if c := CutoffOf(g.InShadow().Params.Sensitivity); math.Abs(c-MaxStep) > 1e-9 {
		t.Errorf("from 1, the cut-off goes to %.2f at once", c)
	}
	g.Promote(epoch.Add(time.Hour), time.Hour, "as expected")
	if g.InShadow() != nil || CutoffOf(g.Live().Params.Sensitivity) < 1.5 {
		t.Errorf("after its shadow: %+v", g.Live())
	}
	if err := g.Revert(epoch, g.Revision-1, 0, "operator", ""); !errors.Is(err, ErrRevision) {
		t.Errorf("a revert that saw another revision: %v", err)
	}
	if err := g.Revert(epoch, g.Revision, 0, "operator", "no reason"); err != nil || g.Live().Params != DefaultParams() {
		t.Errorf("reverted to %+v, %v", g.Live(), err)
	}
	if err := g.Revert(epoch, g.Revision, 777, "operator", ""); err == nil {
		t.Error("reverted to a setting that never was")
	}
	copied := g.Clone()
	if err := copied.Propose(epoch, copied.Revision, proposal("operator", at(0.8), 1)); err != nil || len(g.History) == len(copied.History) {
		t.Errorf("a copy shares its history with the original: %v", err)
	}
}

// TestTakenBackOnlyToWhatAlarmsLess: too many alarms of a duller setting are no reason
// for the jumpier one before it.
func TestTakenBackOnlyToWhatAlarmsLess(t *testing.T) {
	heavy, patient := DefaultParams(), DefaultParams()
	heavy.Weights[2], patient.Persistence = 1.4, 2
	for _, c := range []struct {
		name string
		to   Params
		want bool
	}{{"lower cut-off", at(0.7), true}, {"higher cut-off", at(1.5), false}, {"greater weight", heavy, true}, {"more persistent", patient, false}} {
		g := NewGuard(epoch, DefaultParams(), "")
		if err := g.Propose(epoch, 1, proposal("operator", c.to, 1)); err != nil {
			t.Fatal(err)
		}
		g.Promote(epoch, time.Hour, "")
		if got := g.TakeBack(epoch, "alarms"); got != c.want || (g.Live().Params == DefaultParams()) != c.want {
			t.Errorf("%s: taken back %v, live %+v", c.name, got, g.Live().Params)
		}
	}
}

// TestExpectedIsOfTheStep: a proposal further away than a step goes promises what the
// step does.
func TestExpectedIsOfTheStep(t *testing.T) {
	d := newStream(5, 1.2, 0.4).quiet(2).data()
	p := Proposal{Params: at(3)}
	p.Then = d.Judge(p.Params)
	promised := p.Then.False
	p.Bound(d, DefaultParams())
	if p.Params != at(MaxStep) || p.Then != d.Judge(p.Params) || p.Then.False <= promised {
		t.Errorf("%+v promises %.1f false alarms; at 3 limits it was %.1f", p.Params, p.Then.False, promised)
	}
}

// TestWeightsStayInRange: weights and sensitivity together lead no cut-off out of the
// range that the sensitivity alone has.
func TestWeightsStayInRange(t *testing.T) {
	for _, c := range []float64{Floor, 0.5, 1, 2, Ceiling} {
		for _, w := range []float64{leastWeight, 1, mostWeight} {
			p := at(c)
			p.Weights[0] = w
			if got := c / p.Weight("grammar"); got < Floor*0.999 || got > Ceiling*1.001 {
				t.Errorf("cut-off %g with weight %g is %g limits", c, w, got)
			}
		}
	}
}

func TestValidParams(t *testing.T) {
	if p := DefaultParams(); !p.Valid() {
		t.Error("the defaults are refused")
	}
	for name, spoil := range map[string]func(p *Params){
		"sensitivity NaN": func(p *Params) { p.Sensitivity = math.NaN() },
		"sensitivity 0":   func(p *Params) { p.Sensitivity = 0 },
		"sensitivity 2":   func(p *Params) { p.Sensitivity = 2 },
		"weight NaN":      func(p *Params) { p.Weights[1] = math.NaN() },
		"weight 0":        func(p *Params) { p.Weights[1] = 0 },
		"persistence 100": func(p *Params) { p.Persistence = 100 },
	} {
		if p := DefaultParams(); func() bool { spoil(&p); return p.Valid() }() {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestGuardNeverLeavesItsRange: whatever is proposed, in whatever order, exactly one
// setting decides, no change is greater than a step, and none leaves the range.
func TestGuardNeverLeavesItsRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := NewGuard(epoch, at(rapid.Float64Range(Floor, Ceiling).Draw(t, "start")), "")
		now := epoch
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Minute)
			before, revision := g.Live(), g.Revision
			next := g.Clone()
			var err error
			reverted := false
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0, 1:
				p := Params{Sensitivity: rapid.Float64Range(0.001, 1).Draw(t, "s"), Persistence: rapid.IntRange(-3, 20).Draw(t, "p")}
				for i := range p.Weights {
					p.Weights[i] = rapid.Float64Range(0, 9).Draw(t, "w")
				}
				err = next.Propose(now, revision, proposal("operator", p, 1))
			case 2:
				next.Promote(now, time.Hour, "")
			case 3:
				next.Reject(now, "")
			case 4:
				reverted = true
				err = next.Revert(now, revision, uint64(rapid.IntRange(0, int(revision)).Draw(t, "to")), "operator", "")
			}
			if err == nil {
				g = next
			}
			live := 0
			for i := range g.History {
				if g.History[i].Phase == Live {
					live++
				}
			}
			p, c := g.Live().Params, CutoffOf(g.Live().Params.Sensitivity)
			if live != 1 || len(g.History) > maxHistory || g.Revision < revision {
				t.Fatalf("%d settings decide, %d are kept, revision %d after %d", live, len(g.History), g.Revision, revision)
			}
			if c < Floor*0.999 || c > Ceiling*1.001 || p.Persistence < 1 || p.Persistence > mostPersistence {
				t.Fatalf("out of range: cut-off %g, persistence %d", c, p.Persistence)
			}
			for _, w := range p.Weights {
				if w < leastWeight || w > mostWeight {
					t.Fatalf("weight %g", w)
				}
			}
			if step := c / CutoffOf(before.Params.Sensitivity); !reverted && (step > MaxStep*1.001 || step < 1/MaxStep/1.001) {
				t.Fatalf("a step of %g", step)
			}
		}
	})
}

// TestBadStartComesBackBySteps: a stream set far outside of the range returns.
func TestBadStartComesBackBySteps(t *testing.T) {
	g := NewGuard(epoch, Params{Sensitivity: 0.01, Persistence: 1, Weights: DefaultParams().Weights}, "")
	for range 10 {
		if err := g.Propose(epoch, g.Revision, proposal("operator", at(1), 1)); err != nil {
			t.Fatal(err)
		}
		g.Promote(epoch, 0, "")
	}
	if c := CutoffOf(g.Live().Params.Sensitivity); math.Abs(c-1) > 0.03 {
		t.Errorf("after ten steps the cut-off is %.2f", c)
	}
	if s := episode.SensitivityAt(1); s != 0.5 {
		t.Errorf("a cut-off of 1 is sensitivity %g", s)
	}
}
