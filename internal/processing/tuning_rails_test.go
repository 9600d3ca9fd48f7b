package processing

import (
	"slices"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// disturb plays so many episodes of a foreign source.
func (s *stage) disturb(n int, calm time.Duration) {
	for range n {
		s.e.style = foreign
		s.play(6 * time.Second)
		s.e.style = own
		s.play(calm)
	}
}

// TestBudgetOutlivesAlerts: alerts that are kept no more earn no rotation back.
func TestBudgetOutlivesAlerts(t *testing.T) {
	s := learned(t)
	s.disturb(maxAlerts+2*s.b.budget().Burst(), 20*time.Second)
	if len(s.b.alerts.all) != maxAlerts || s.b.alerts.number < maxAlerts+tune.MostBurst {
		t.Fatalf("%d alerts of %d are kept: none gave way", len(s.b.alerts.all), s.b.alerts.number)
	}
	if s.rotates != s.b.budget().Burst() {
		t.Errorf("%d rotations within the time for %d", s.rotates, s.b.budget().Burst())
	}
}

// TestBudgetBearsASetClock: a clock that is set back by a year, with a restart or
// without, neither gives rotations that are spent nor takes them for longer than they
// last; and one that is set on again begins where it was.
func TestBudgetBearsASetClock(t *testing.T) {
	s := learned(t)
	burst := s.b.budget().Burst()
	whole := time.Duration(burst) * s.b.cfg.Tuning.FalseEvery
	s.disturb(burst, 40*time.Second)
	if left := s.b.rotationsLeft(s.now); s.rotates != burst || left != 0 {
		t.Fatalf("%d rotations, %d are left", s.rotates, left)
	}
	restart := func() {
		before := s.b
		s.b = newBehaviour(before.cfg, "cam-1")
		s.b.alerts.recount(before.alerts.counted)
		s.b.loaded(s.now, before.profile, "", alertsRecord{Number: before.alerts.number, Alerts: slices.Clone(before.alerts.all)})
	}
	for range 2 { // the second time behind what was counted anew
		s.now = s.now.Add(-365 * 24 * time.Hour)
		restart()
		if !s.b.take().saveAlerts {
			t.Error("what counts anew is not written down")
		}
		for range burst {
			if left := s.b.rotationsLeft(s.now); left != 0 {
				t.Fatalf("the clock was set back, and %d are left", left)
			}
			s.now = s.now.Add(whole/time.Duration(burst) - time.Minute)
			restart() // which begins nothing anew
		}
		if left := s.b.rotationsLeft(s.now); left != 0 {
			t.Errorf("%d are left before their time", left)
		}
		s.now = s.now.Add(time.Duration(burst) * time.Minute)
		if left := s.b.rotationsLeft(s.now); left != burst {
			t.Errorf("%d are left when all have had their time", left)
		}
	}
}

// TestProofSpendsNoSourceBudget: what is proven while evidence rises uses nothing up.
func TestProofSpendsNoSourceBudget(t *testing.T) {
	s := learned(t)
	for i := range s.b.budget().Burst() {
		s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, Index: 5, What: "two-writers"}, 1)
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonProof, Epoch: gk.Epoch(2 + i)})
		s.disturb(1, 40*time.Second)
	}
	if left := s.b.rotationsLeft(s.now); left != s.b.budget().Burst() {
		t.Errorf("%d rotations for the source, %d are left", s.rotates, left)
	}
}

// TestFoundRegimeTeachesNothing: a foreign word every six seconds accuses nobody; a
// regime that is found meanwhile must not make them the source's own.
func TestFoundRegimeTeachesNothing(t *testing.T) {
	s := learned(t)
	s.e.style = own
	s.e.style.predicted = 14
	taught := map[feature.Token]bool{}
	for i := range hops(16 * time.Minute) {
		s.now = s.now.Add(feature.Hop)
		w := s.e.hop()
		if i%24 == 0 {
			word := feature.Token(feature.FamilyUnit)<<28 | feature.Token(0x0bad000+i/24%16)
			w.Tokens.Put(feature.TokenCount{Token: word, Count: 1})
			taught[word] = true
		}
		s.b.window(s.now, s.session, 1, feature.H264, &w)
		s.collect()
	}
	if modes := s.b.judge.Modes(); len(modes) != 2 || !modes[1].Found {
		t.Fatalf("no regime was found: %+v", modes)
	}
	for word := range taught {
		if s.b.judge.Profile().Vocabulary.Has(word) {
			t.Errorf("%v is a word of the source now", word)
		}
	}
}

// TestNoBaselineOfTwoWriters: what is proven to have two writers is nobody's baseline.
func TestNoBaselineOfTwoWriters(t *testing.T) {
	s := newStage(t)
	for range 12 {
		s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, What: "two-writers"}, 1)
		s.play(5 * time.Second)
	}
	if s.b.learned != 0 || s.b.stage != bus.StageLearning {
		t.Errorf("%d windows were learned from, %s", s.b.learned, s.b.stage)
	}
	s.play(70 * time.Second)
	if s.b.stage != bus.StageMature {
		t.Errorf("a minute later the profile is %s", s.b.stage)
	}
}

// TestProofStopsLearning: while somebody else demonstrably has the key, nothing
// adapts, nothing is recorded, and no setting is blamed for what he does.
func TestProofStopsLearning(t *testing.T) {
	s := learned(t)
	s.e.style.predicted = 3 // limits move by it
	s.play(3 * time.Minute)
	r := inShadow(s.now, 0.9, 0)
	r.Guard.Promote(s.now, 24*time.Hour, "")
	s.b.adopt(s.now, r)
	proven := func(d time.Duration) {
		for range int(d / (5 * time.Second)) {
			s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, What: "two-writers"}, 1)
			s.play(5 * time.Second)
		}
	}
	proven(5 * time.Second)
	before := s.b.judge.Modes()[0]
	s.b.tuned.recordedAt = time.Time{}
	s.b.takeTuning()
	proven(50 * time.Second)
	if m := s.b.judge.Modes()[0]; m.Distance != before.Distance || len(s.b.tuned.recording) != 0 {
		t.Errorf("%s moved from %.5f to %.5f, %d windows are recorded while proof is open", m.Moved, before.Distance, m.Distance, len(s.b.tuned.recording))
	}
	for range 3 {
		s.e.style = foreign
		proven(10 * time.Second)
		s.e.style = own
		proven(40 * time.Second)
	}
	if _, _, o := s.b.takeTuning(); o.do != settleNothing || s.b.tuned.watch.Alarms != 0 {
		t.Errorf("a thief's alarms are counted: %d, %+v", s.b.tuned.watch.Alarms, o)
	}
}

// TestScoresAreDatedRightly: behind windows that were lost or not judged, kept scores
// begin anew, so that labels lie on their episodes.
func TestScoresAreDatedRightly(t *testing.T) {
	s := learned(t)
	s.b.breakScores()
	s.b.takeTuning()
	for range 3 {
		s.play(10 * time.Second)
		s.now = s.now.Add(time.Minute) // windows are lost
	}
	s.play(10 * time.Second)
	last := s.b.tuned.trace
	if d := s.now.Sub(last.At(last.Len())).Abs(); d > feature.Hop {
		t.Errorf("the newest kept score is dated %v off", d)
	}
	chunks, _, _ := s.b.takeTuning()
	begins := map[time.Time]bool{}
	for _, c := range append(chunks, last) {
		begins[c.From] = true
		if got := c.At(c.Len()).Sub(c.From); got != 10*time.Second {
			t.Errorf("a stretch of %v is kept", got)
		}
	}
	if len(chunks) != 3 || len(begins) != 4 {
		t.Errorf("%d stretches, which begin at %v", len(chunks)+1, begins)
	}
}

// TestOtherDetectors: material whose scores are of other detectors than those that
// were kept is left out, as it is after an upgrade.
func TestOtherDetectors(t *testing.T) {
	layout := func(kinds ...string) *tune.Layout { return &tune.Layout{Kinds: kinds, Path: make([]bool, len(kinds))} }
	of := func(l *tune.Layout) *material {
		r := tune.NewReplayer(l, tune.Plain)
		tr := &tune.Trace{Layout: l}
		tr.Add(make([]episode.Level, len(l.Kinds)), 0)
		return &material{data: tune.Data{Replayer: r, Cases: []tune.Case{{Trace: tr}}}, heldOut: tune.Data{Replayer: r}}
	}
	all := &material{}
	for i, m := range []*material{of(layout("order")), of(layout("order", "loop")), of(layout("order"))} {
		if took := all.merge(m, 1); took != (i != 1) {
			t.Errorf("material %d was taken: %v", i, took)
		}
	}
	if all.data.Judge(tune.DefaultParams()); len(all.data.Cases) != 2 {
		t.Errorf("%d cases of three streams", len(all.data.Cases))
	}
}

// TestProofAfterAnAnswer: it stands beside the answer, is written down without one,
// and is news once.
func TestProofAfterAnAnswer(t *testing.T) {
	answer := label{Label: tune.Label{ID: "cam-1.1", Origin: tune.FromOperator}}
	r := tuningRecord{Labels: []label{answer}}
	for i, id := range []string{"cam-1.1", "cam-1.2", "cam-1.1", "cam-1.2"} {
		l := label{Label: tune.Label{ID: id, Origin: tune.FromOutcome, Real: true, Proven: true}}
		if news := r.prove(l); news != (i < 2) {
			t.Errorf("proof %d of %s is news: %v", i, id, news)
		}
	}
	if c := r.counts(); len(r.Labels) != 2 || c.Contested != 1 || c.Proven != 1 || c.False != 0 {
		t.Errorf("%+v of %+v", c, r.Labels)
	}
}

// TestLittleEvidenceExcusesNothing: that an hour of traffic cannot rule out eighty
// alarms a day is no reason to bear them.
func TestLittleEvidenceExcusesNothing(t *testing.T) {
	goal := newStage(t).b.cfg.Tuning.goal()
	allowed := goal.Allowed
	thin := tune.Expected{FalsePerDay: 0.1, High: 80}
	if n := allowed(thin, 24); n > 5 {
		t.Errorf("%d alarms are borne in a day on which one is granted", n)
	}
	if n := allowed(tune.Expected{FalsePerDay: 20, High: 30}, 24); n < 20 {
		t.Errorf("%d alarms are borne where 20 were expected", n)
	}
	if n := allowed(tune.Expected{High: 0.01}, 24); n != 1 {
		t.Errorf("%d alarms are borne where none was expected", n)
	}
}
