package processing

import (
	"slices"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// announce has the device tell of the n-th change, and change its key with it where
// renew says so.
func (s *stage) announce(n uint64, regime string, renew bool) {
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{Changes: n, AgoMs: 100, Why: gkrp.WhyFailed, Regime: regime}, 0)
	if renew {
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDecided, Reason: gk.ReasonDiscontinuity})
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonDiscontinuity, Epoch: 7, Took: 20 * time.Millisecond})
	}
	s.collect()
}

// TestAnnouncedRestartEndsByItself: the encoder comes back as it was. The key is changed
// once, with the break; evidence rotates nothing and spends nothing; nothing is learned.
func TestAnnouncedRestartEndsByItself(t *testing.T) {
	s := learned(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	saves, modes := s.saves, len(s.b.judge.Modes())
	s.announce(1, "", true)
	a := s.b.alerts.get(bus.ClassSource)
	if a == nil || a.Kind != announcedKind || a.Announced != "failed" || a.Severity != "notice" || a.Done != bus.DoneRenewed || a.Rotated != 7 || !strings.Contains(a.Evidence[0], "began its encoder anew 0.1 s ago (failed)") {
		t.Fatalf("%+v", s.b.alerts.all)
	}
	s.play(8 * time.Second)
	if a := s.b.alerts.get(bus.ClassSource); a == nil || s.b.info(s.now).Encoder.Until.IsZero() {
		t.Fatalf("after 8 s, while detectors still look back: %+v", s.b.alerts.all)
	}
	s.play(12 * time.Second)
	if a := s.b.alerts.all[0]; len(s.b.alerts.all) != 1 || a.Outcome != bus.OutcomeAccepted || a.Ask != "" || a.Kind != announcedKind {
		t.Errorf("%+v", s.b.alerts.all)
	}
	if s.rotates != 0 || spends(&s.b.alerts.all[0]) || s.saves != saves || len(s.b.judge.Modes()) != modes {
		t.Errorf("%d rotations, %d profiles stored", s.rotates, s.saves-saves)
	}
	// The announcement ended with it: a change now is as any other.
	s.e.style = foreign
	s.play(10 * time.Second)
	if a := s.b.alerts.all[len(s.b.alerts.all)-1]; s.rotates != 1 || a.Announced != "" || len(s.b.alerts.all) != 2 {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
}

// TestAnnouncedChangeThatStaysIsAQuestion: what comes back is another encoder. That it
// was announced answers nothing, and teaches nothing.
func TestAnnouncedChangeThatStaysIsAQuestion(t *testing.T) {
	for _, renew := range []bool{true, false} {
		s := learned(t)
		s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
		version := s.b.profile.Version
		s.e.style = foreign
		s.announce(1, "night", renew)
		s.play(20 * time.Second)
		a := s.b.alerts.get(bus.ClassSource)
		if a == nil || a.Kind == announcedKind || a.Ask != "" || a.Severity != "notice" {
			t.Fatalf("renew %v: after 20 s %+v", renew, s.b.alerts.all)
		}
		if want := map[bool]int{true: 0, false: 1}[renew]; s.rotates != want {
			t.Errorf("renew %v: evidence changed %d keys, want %d: one change of the key in all", renew, s.rotates, want)
		}
		s.play(2 * time.Minute)
		a = s.b.alerts.get(bus.ClassSource)
		if a == nil || a.Outcome != bus.OutcomeUnresolved || a.Severity != "warning" || !strings.Contains(a.Ask, "announced a change (failed)") || len(s.b.alerts.all) != 1 {
			t.Fatalf("renew %v: %+v", renew, s.b.alerts.all)
		}
		if s.b.stage != bus.StageMature || s.b.profile.Version != version || len(s.b.judge.Modes()) != 1 {
			t.Errorf("renew %v: %s, version %d after %d, %+v", renew, s.b.stage, s.b.profile.Version, version, s.b.judge.Modes())
		}
		// A further announcement does not close what is asked.
		s.announce(2, "night", renew)
		if a := s.b.alerts.get(bus.ClassSource); a == nil || a.Outcome != bus.OutcomeUnresolved {
			t.Errorf("renew %v: announced again: %+v", renew, a)
		}
		if s.rotates > 1 {
			t.Errorf("renew %v: %d rotations", renew, s.rotates)
		}
	}
}

// TestDeclaredRegimeIsChosen: what an operator approved in a declared regime is known
// under its name, and is chosen when the device declares it again.
func TestDeclaredRegimeIsChosen(t *testing.T) {
	s := newStage(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{Regime: "day"}, 0)
	s.play(60 * time.Second)
	s.e.style = foreign
	s.announce(1, "night", true)
	s.play(40 * time.Second)
	if a := s.b.alerts.get(bus.ClassSource); a == nil || a.Ask == "" {
		t.Fatalf("%+v", s.b.alerts.all)
	}
	if err := s.b.approve(s.now); err != nil {
		t.Fatal(err)
	}
	s.play(time.Minute)
	names := func() (all []string, now string) {
		for _, m := range s.b.judge.Modes() {
			all = append(all, m.Name)
			if m.Now {
				now = m.Name
			}
		}
		return all, now
	}
	if all, now := names(); !slices.Equal(all, []string{"day", "night"}) || now != "night" {
		t.Fatalf("%q, now %q", all, now)
	}
	for i, regime := range []string{"day", "night"} {
		s.e.style = map[string]style{"day": own, "night": foreign}[regime]
		s.announce(uint64(2+i), regime, true)
		if _, now := names(); now != regime || !s.b.info(s.now).Encoder.Known {
			t.Errorf("%s was declared: judged by %q", regime, now)
		}
		s.play(25 * time.Second)
		if a := s.b.alerts.all[len(s.b.alerts.all)-1]; a.Outcome != bus.OutcomeAccepted || a.Regime != regime {
			t.Errorf("%s: %+v", regime, a)
		}
	}
	// A word is not a window: a declared regime that the source is not in is left.
	s.announce(4, "day", true)
	s.play(25 * time.Second)
	if _, now := names(); now != "night" || s.rotates != 0 {
		t.Errorf("judged by %q, %d rotations", now, s.rotates)
	}
	// A new session runs in the regime that it declares from its start.
	s.session = gk.SessionID{2}
	s.e.style = own
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{Regime: "day"}, 0)
	s.play(time.Second)
	if _, now := names(); now != "day" {
		t.Errorf("the next session: judged by %q", now)
	}
}

// TestAnnouncementsOfACompromisedAgent: a flood of them is heeded a few times an hour;
// the others cost nothing, are told once a minute, and excuse nothing.
func TestAnnouncementsOfACompromisedAgent(t *testing.T) {
	s := learned(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	n := uint64(0)
	for range 11 * 60 {
		for range 5 {
			n++
			s.announce(n, "", false)
		}
		s.play(time.Second)
	}
	i := s.b.info(s.now).Encoder
	if i.Taken != 7 || i.Refused != n-7 || i.Left != 0 { // six, and one more after ten minutes
		t.Errorf("%+v of %d", i, n)
	}
	if got := s.count(gk.EventAnnouncementRefused); got < 5 || got > 12 {
		t.Errorf("refusals were told %d times in eleven minutes", got)
	}
	if got := s.count(gk.EventPlannedChange); got != 7 {
		t.Errorf("%d announcements were told", got)
	}
	s.play(30 * time.Second)
	rotates := s.rotates
	s.e.style = foreign
	for range 60 {
		n++
		s.announce(n, "", false)
		s.play(time.Second)
	}
	a := s.b.alerts.get(bus.ClassSource)
	if s.rotates != rotates+1 || a == nil || a.Announced != "" || a.Outcome != bus.OutcomeUnresolved {
		t.Errorf("a change under a flood of announcements: %d rotations, %+v", s.rotates-rotates, a)
	}
}

// TestAnnouncementOnceOnly: said again, or taken back and said again, it is no news; one
// that was kept is too late.
func TestAnnouncementOnceOnly(t *testing.T) {
	s := learned(t)
	hear := func(changes uint64, ago uint32, late time.Duration) {
		s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{Changes: changes, AgoMs: ago, Why: gkrp.WhyChanged}, late)
		s.collect()
	}
	hear(0, 0, 0)
	for _, row := range []struct {
		name    string
		changes uint64
		ago     uint32
		late    time.Duration
		taken   uint64
		refused uint64
	}{
		{"first", 3, 100, 0, 1, 0},
		{"again", 3, 100, 0, 1, 0},
		{"an earlier one", 2, 100, 0, 1, 0},
		{"and again", 3, 100, 0, 1, 0},
		{"kept by a broker", 4, 100, announcedFor, 1, 1},
		{"again, in time", 4, 100, 0, 1, 1},
		{"old at the device", 5, 40_000, 0, 1, 2},
		{"a next one", 6, 100, 20 * time.Second, 2, 2},
	} {
		hear(row.changes, row.ago, row.late)
		if i := s.b.info(s.now).Encoder; i.Taken != row.taken || i.Refused != row.refused {
			t.Errorf("%s: %+v", row.name, i)
		}
	}
	if d := s.b.announced.until.Sub(s.now); d > 10*time.Second {
		t.Errorf("what was on its way for 20 s is in force for %v more", d)
	}
	s.session = gk.SessionID{2}
	s.play(time.Second)
	hear(6, 50_000, 0)
	if i := s.b.info(s.now).Encoder; i.Taken != 0 || i.Refused != 0 {
		t.Errorf("a new session of an agent that changed its encoder long ago: %+v", i)
	}
}

func TestAnnouncementsIgnored(t *testing.T) {
	s := newStage(t)
	s.b.cfg.Announced = Announcements(0)
	s.b.announced.budget = s.b.cfg.Announced
	s.play(60 * time.Second)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	s.announce(1, "night", false)
	if i := s.b.info(s.now).Encoder; len(s.b.alerts.all) != 0 || i.Taken != 0 || i.Refused != 1 || i.Regime != "night" {
		t.Errorf("%+v, %+v", s.b.alerts.all, i)
	}
	s.e.style = foreign
	s.play(10 * time.Second)
	if s.rotates != 1 {
		t.Errorf("%d rotations", s.rotates)
	}
}

// TestAnnouncementBesideAnOperators: the operator's word is the greater one.
func TestAnnouncementBesideAnOperators(t *testing.T) {
	s := learned(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	if err := s.b.plan(s.now, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.e.style = foreign
	s.announce(1, "night", true)
	s.play(2 * time.Minute)
	modes := s.b.judge.Modes()
	if a := s.b.alerts.all[0]; len(s.b.alerts.all) != 1 || a.Done != bus.DonePlanned || a.Outcome != bus.OutcomeAccepted || len(modes) != 2 || modes[1].Name != "night" {
		t.Errorf("%+v, %+v", s.b.alerts.all, modes)
	}
}

// TestAnnouncementAfterItsAlarm: the detectors were quicker than the report. The device
// owns up to that alert; it does not to one that is asked about already.
func TestAnnouncementAfterItsAlarm(t *testing.T) {
	s := learned(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	s.e.style = foreign
	s.play(5 * time.Second)
	a := s.b.alerts.get(bus.ClassSource)
	if a == nil || s.rotates != 1 {
		t.Fatalf("%d rotations, %+v", s.rotates, a)
	}
	s.announce(1, "", true)
	if a.Announced != "failed" || a.Done != bus.DoneRotated || !spends(a) {
		t.Errorf("%+v", a)
	}
	s.e.style = own
	s.play(25 * time.Second)
	if got := s.b.alerts.all[0]; got.Outcome != bus.OutcomeAccepted || s.rotates != 1 {
		t.Errorf("%+v", got)
	}
}

// TestPlannedChangeOutlivesARestart, as what was left of it: a clock that was set back
// lengthens nothing, and what the device may announce is not granted anew.
func TestPlannedChangeOutlivesARestart(t *testing.T) {
	s := learned(t)
	s.b.heardEncoder(s.now, s.session, &gkrp.Encoder{}, 0)
	for n := range uint64(4) {
		s.announce(n+1, "", true)
	}
	s.play(20 * time.Second)
	if err := s.b.plan(s.now, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	s.e.style = foreign
	var kept alertsRecord
	keep := func() {
		kept = alertsRecord{Number: s.b.alerts.number, Alerts: cloneAlerts(s.b.alerts.all), Pending: s.b.pending(s.now)}
	}
	writes := 0
	for range 2 * 60 * 4 {
		s.now = s.now.Add(feature.Hop)
		w := s.e.hop()
		s.b.window(s.now, s.session, 1, feature.H264, &w)
		if s.b.alerts.dirty {
			writes++
			keep()
		}
		s.collect()
	}
	if writes < 4 || writes > 12 {
		t.Errorf("written %d times in two minutes", writes)
	}
	restart := func(away time.Duration) *behaviour {
		packed, err := pack(kept)
		if err != nil {
			t.Fatal(err)
		}
		var r alertsRecord
		if err := unpack(packed, &r); err != nil {
			t.Fatal(err)
		}
		b := newBehaviour(s.b.cfg, "cam-1")
		b.loaded(s.now.Add(away), s.b.profile, "", r)
		return b
	}
	if b := restart(-time.Hour); b.planned.Sub(s.now.Add(-time.Hour)) > 3*time.Minute+pendingEvery {
		t.Errorf("a clock that was set back leaves %v of 3 m", b.planned.Sub(s.now.Add(-time.Hour)))
	}
	if b := restart(time.Hour); !b.planned.IsZero() || b.alerts.get(bus.ClassSource) != nil {
		t.Errorf("an hour away: planned until %v", b.planned)
	}
	b := restart(time.Second)
	if d := b.planned.Sub(s.now); d < 2*time.Minute || d > 3*time.Minute+pendingEvery {
		t.Fatalf("after 2 of 5 minutes %v are left", d)
	}
	if n := b.announced.budget.Left(s.now.Add(time.Second)); n != 2 {
		t.Errorf("%d announcements are left of 6 after 4", n)
	}
	if a := b.alerts.get(bus.ClassSource); a == nil || a.Done != bus.DonePlanned {
		t.Fatalf("%+v", b.alerts.all)
	}
	s.b, s.now = b, s.now.Add(time.Second)
	s.play(5 * time.Minute)
	if s.rotates != 0 || s.b.stage != bus.StageMature || len(s.b.profile.Modes) != 2 {
		t.Errorf("%d rotations, %s, %d modes", s.rotates, s.b.stage, len(s.b.profile.Modes))
	}
}
