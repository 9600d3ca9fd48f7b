package processing

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

// TestAnnouncedRegimeIsRememberedBeside the one before: after a planned change there
// and back, the source may be either.
func TestAnnouncedRegimeIsRememberedBeside(t *testing.T) {
	s := learned(t)
	if err := s.b.plan(s.now, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	s.e.style = foreign
	s.play(2 * time.Minute)
	if len(s.b.judge.Modes()) != 2 || s.b.profile.Before == nil || len(s.b.profile.Before.Modes) != 1 {
		t.Fatalf("%+v", s.b.judge.Modes())
	}
	for range 3 {
		for _, style := range []style{own, foreign} {
			s.e.style = style
			s.play(time.Minute)
		}
	}
	if s.rotates != 0 || len(s.b.alerts.all) != 1 {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
	third := foreign
	third.sps, third.fragment = 0x2a, 900
	s.e.style = third
	s.play(20 * time.Second)
	if s.rotates != 1 {
		t.Errorf("a third encoder: %d rotations", s.rotates)
	}
}

// TestSourceThatComesBackIsNotRelearned: what was announced did not last.
func TestSourceThatComesBackIsNotRelearned(t *testing.T) {
	s := learned(t)
	if err := s.b.plan(s.now, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	s.e.style = foreign
	s.play(25 * time.Second)
	if s.b.stage != bus.StageLearning {
		t.Fatalf("after the planned time: %s", s.b.stage)
	}
	s.e.style = own
	s.play(40 * time.Second)
	if s.b.stage != bus.StageMature || len(s.b.judge.Modes()) != 1 || s.b.profile.Early != nil {
		t.Errorf("%s, %+v", s.b.stage, s.b.judge.Modes())
	}
	s.play(time.Minute)
	if s.rotates != 0 {
		t.Errorf("%d rotations", s.rotates)
	}
}

func TestApprovingWhatIsAccusedAddsIt(t *testing.T) {
	s := learned(t)
	s.e.style = foreign
	s.play(time.Minute)
	if a := s.b.alerts.get(bus.ClassSource); a == nil || a.Ask == "" {
		t.Fatalf("%+v", s.b.alerts.all)
	}
	if err := s.b.approve(s.now); err != nil {
		t.Fatal(err)
	}
	s.play(2 * time.Minute)
	if s.b.stage != bus.StageMature || len(s.b.judge.Modes()) != 2 || s.rotates != 1 || s.b.alerts.all[0].Outcome != bus.OutcomeAccepted {
		t.Errorf("%s, %+v, %d rotations", s.b.stage, s.b.judge.Modes(), s.rotates)
	}
}

// TestApprovingAYoungProfile: the question that an alert asks can be answered while the
// profile is provisional too, and the stream matures afterwards.
func TestApprovingAYoungProfile(t *testing.T) {
	s := newStage(t)
	s.play(20 * time.Second)
	s.e.style = foreign
	s.play(2 * time.Minute)
	if s.b.stage != bus.StageProvisional || s.rotates != 1 || s.b.alerts.all[0].Ask == "" {
		t.Fatalf("%s, %d rotations, alerts %+v", s.b.stage, s.rotates, s.b.alerts.all)
	}
	if err := s.b.approve(s.now); err != nil {
		t.Fatal(err)
	}
	s.play(90 * time.Second)
	if a := s.b.alerts.all[0]; s.b.stage != bus.StageMature || s.rotates != 1 || a.Outcome != bus.OutcomeAccepted {
		t.Errorf("%s, %d rotations, %+v", s.b.stage, s.rotates, s.b.alerts.all)
	}
}

// TestLongNormalBehaviourIsARegime of its own, and not while anything is the matter.
func TestLongNormalBehaviourIsARegime(t *testing.T) {
	s := learned(t)
	richer := own
	richer.predicted = 14 // no detector minds a picture that is richer
	s.e.style = richer
	s.play(8 * time.Minute)
	if len(s.b.judge.Modes()) != 1 {
		t.Fatalf("after 8 min: %+v", s.b.judge.Modes())
	}
	s.play(7 * time.Minute)
	modes := s.b.judge.Modes()
	if len(modes) != 2 || !modes[1].Found || !modes[1].Now || len(s.b.alerts.all) != 0 {
		t.Fatalf("after 15 min: %+v, %+v", modes, s.b.alerts.all)
	}
	richer.predicted = 40
	s.e.style = richer
	s.play(30 * time.Minute)
	if n := len(s.b.judge.Modes()); n > 2 {
		t.Errorf("from a regime that was found another one was found: %d", n)
	}
}

// TestLimitsAreStoredAndAskedAbout: they move with normal windows alone, are stored
// now and then, and ask where they may go no further.
func TestLimitsAreStoredAndAskedAbout(t *testing.T) {
	s := learned(t)
	poorer := own
	poorer.predicted = 3 // less than the baseline ever had, and far from an alarm
	s.e.style = poorer
	s.play(3 * time.Minute)
	moved := func() (d float64) {
		for _, m := range s.b.judge.Modes() {
			d = max(d, m.Distance)
		}
		return d
	}
	before := moved()
	if before == 0 {
		t.Fatal("nothing moved")
	}
	hold := func(name string, set func(), reset func()) {
		set()
		s.play(3 * time.Second) // what is under way
		at := moved()
		s.play(30 * time.Second)
		if d := moved(); d > at {
			t.Errorf("%s: limits moved from %.4f to %.4f", name, at, d)
		}
		reset()
	}
	hold("planned change", func() { s.b.planned = s.now.Add(time.Hour) }, func() { s.b.planned = time.Time{} })
	hold("probation", func() { s.b.probation = 1 << 20 }, func() { s.b.probation = 0 })
	hold("loss", func() { s.e.lose = 0.3 }, func() { s.e.lose = 0 })
	hold("outage", func() { s.e.cut = true }, func() { s.e.cut = false })
	s.play(time.Minute)
	saves := s.saves
	s.play(2 * time.Hour)
	if s.saves < saves+1 || s.saves > saves+4 || s.rotates != 0 {
		t.Errorf("%d saves in two hours, %d rotations", s.saves-saves, s.rotates)
	}
	a := s.b.alerts.get(bus.ClassProfile)
	if a == nil || a.Kind != driftKind || a.Severity != "warning" || !strings.Contains(a.Ask, "approve") {
		t.Fatalf("%+v", s.b.alerts.all)
	}
	if err := s.b.approve(s.now); err != nil {
		t.Fatal(err)
	}
	if moved() != 0 || s.b.alerts.get(bus.ClassProfile) != nil || s.b.profile.Approved.IsZero() {
		t.Errorf("after approval: distance %.2f, %+v", moved(), s.b.alerts.all)
	}
}

func TestRollbackIsWhole(t *testing.T) {
	s := learned(t)
	if err := s.b.rollback(s.now); bus.CodeOf(err) != bus.CodeConflict {
		t.Errorf("nothing to go back to: %v", err)
	}
	first := s.b.profile.Modes[0].Anchor
	s.e.style = foreign
	if err := s.b.relearn(s.now); err != nil {
		t.Fatal(err)
	}
	s.play(time.Minute)
	version := s.b.profile.Version
	if i := s.b.info(s.now); i.Before != 2 || i.Stage != bus.StageMature {
		t.Fatalf("%+v", i)
	}
	if err := s.b.rollback(s.now); err != nil {
		t.Fatal(err)
	}
	s.collect()
	if s.b.profile.Modes[0].Anchor != first || s.b.profile.Version <= version || s.b.probation == 0 || !strings.Contains(s.b.profile.Why, "version 2") {
		t.Errorf("version %d after %d, %s", s.b.profile.Version, version, s.b.profile.Why)
	}
	s.e.style = own
	s.play(time.Minute)
	if len(s.b.alerts.all) != 0 || s.b.info(s.now).Before == 0 {
		t.Errorf("%+v", s.b.alerts.all)
	}
}

// TestProvisionalProfileOutlivesARestart: it judges at once, in probation, and learns on.
func TestProvisionalProfileOutlivesARestart(t *testing.T) {
	s := newStage(t)
	s.play(25 * time.Second)
	if s.b.stage != bus.StageProvisional || s.saves != 1 {
		t.Fatalf("%s, %d saves", s.b.stage, s.saves)
	}
	packed, err := packProfile(s.b.profile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := unpackProfile(packed)
	if err != nil {
		t.Fatal(err)
	}
	b := newBehaviour(s.b.cfg, "cam-1")
	b.loaded(s.now, p, "", alertsRecord{})
	s.b = b
	s.play(5 * time.Second)
	if b.stage != bus.StageProvisional || b.probation == 0 || b.judge == nil || !b.margin.wide {
		t.Errorf("%s, probation %d", b.stage, b.probation)
	}
	s.play(time.Minute)
	if b.stage != bus.StageMature || len(b.alerts.all) != 0 {
		t.Errorf("%s, %+v", b.stage, b.alerts.all)
	}
}

func TestBadRecordsAreRefused(t *testing.T) {
	s := learned(t)
	for name, spoil := range map[string]func(p *profileRecord){
		"empty":       func(p *profileRecord) { p.Modes = nil },
		"no such now": func(p *profileRecord) { p.Now = 1 },
		"negative":    func(p *profileRecord) { p.Now = -1 },
		"hollow":      func(p *profileRecord) { p.Modes = []detect.Mode{{}} },
		"too many":    func(p *profileRecord) { p.Modes = append(p.Modes, make([]detect.Mode, detect.MaxModes)...) },
		"half before": func(p *profileRecord) { p.Before = &profileRecord{} },
		"bad before":  func(p *profileRecord) { p.Before = &profileRecord{Modes: []detect.Mode{{}}} },
		"bad early":   func(p *profileRecord) { p.Early = &detect.Profile{} },
		"old version": func(p *profileRecord) {
			old := *p.Modes[0].Anchor
			old.Version--
			p.Modes = []detect.Mode{{Anchor: &old}}
		},
	} {
		p := s.b.profile
		spoil(&p)
		packed, err := packProfile(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unpackProfile(packed); !errors.Is(err, detect.ErrProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOlderProfileDoesNotComeBack: whoever can write the store puts the record of
// before an operator's word back, as it was.
func TestOlderProfileDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, f := filmed(t)
		time.Sleep(40 * time.Second)
		ctx := context.Background()
		e, err := w.records.Get(ctx, "profile.cam-1")
		if err != nil {
			t.Fatal(err)
		}
		old := bytes.Clone(e.Value)
		f.style(foreign)
		w.profile(bus.ProfileRelearn)
		time.Sleep(45 * time.Second)
		newest := w.profile("").Version
		w.crash()
		if _, err := w.records.Put(ctx, "profile.cam-1", old); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageLearning || !strings.Contains(i.Why, "put back") {
			t.Errorf("%+v", i)
		}
		if n := w.count(gk.EventProfileRefused); n != 1 {
			t.Errorf("told %d times", n)
		}
		time.Sleep(45 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature || i.Version <= newest {
			t.Errorf("learned anew: %+v, newest was %d", i, newest)
		}
		w.crash()
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature || w.count(gk.EventProfileRefused) != 1 {
			t.Errorf("after one more restart: %+v", i)
		}
		f.end()
	})
}

// TestExpectedFalseEpisodes are told of a mature profile, from its own quiet time.
func TestExpectedFalseEpisodes(t *testing.T) {
	s := newStage(t)
	s.play(10 * time.Second)
	if s.b.explain(s.now).False != nil {
		t.Error("a profile that is learned predicts")
	}
	s = learned(t)
	s.play(20 * time.Minute)
	e := s.b.explain(s.now)
	if e.False == nil || e.False.Hours < 0.3 || !(e.False.Low <= e.False.PerDay && e.False.PerDay <= e.False.High) {
		t.Fatalf("%+v", e.False)
	}
	s.e.style = foreign
	s.play(time.Minute)
	if peaks, at := s.b.profile.Tail.Peaks, s.b.explain(s.now).False.Hours; peaks != 0 || at > e.False.Hours+0.001 {
		t.Errorf("an attack counts as quiet time: %g peaks, %g h after %g", peaks, at, e.False.Hours)
	}
}
