package tune

import "testing"

// TestForNew: a stream of which nothing is known begins where the noisy ones of the fleet
// keep the budget, also where most are quiet and the noisy ones have learned of their own;
// one step at a time.
func TestForNew(t *testing.T) {
	quiet, loud := newStream(1, 0.1, 0.2).quiet(3), newStream(2, 0.1, 0.2).quiet(3)
	for range 12 {
		loud.burst(0, 0.8, 8, False, 1)
	}
	quiet.burst(1, 5, 40, Real, 1)
	all := &Data{Replayer: NewReplayer(layout, Plain)}
	for range 4 {
		all.Cases = append(all.Cases, Case{Trace: quiet.trace, Spans: quiet.spans, Shift: 1})
	}
	all.Cases = append(all.Cases, Case{Trace: loud.trace, Spans: loud.spans, Shift: 4}) // it is at 1 where the others are at 0.25
	goal, prior := Goal{Budget: 0.5, MissCost: 20}, at(0.25)
	if c := Control(all, goal, DefaultParams(), 0.25); c > 0.5 {
		t.Fatalf("around the streams' own cut-offs it is %.2f already: nothing is shown", c)
	}
	from := prior
	for step := range 4 {
		p := Proposal{Params: DefaultParams()}
		p.ForNew(all, goal, from)
		if c, was := CutoffOf(p.Params.Sensitivity), CutoffOf(from.Sensitivity); c > was*MaxStep*1.001 {
			t.Fatalf("step %d: from %.2f to %.2f", step, was, c)
		}
		if step == 0 && p.Now.False < 10 {
			t.Errorf("what new streams would do now: %+v", p.Now)
		}
		from = p.Params
	}
	if c := CutoffOf(from.Sensitivity); c <= 0.8 {
		t.Errorf("new streams begin at %.2f, where one of five alarms four times an hour", c)
	}
	if all.Cases[4].Shift != 4 {
		t.Error("the data was changed")
	}
}
