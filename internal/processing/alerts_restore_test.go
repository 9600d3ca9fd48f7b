package processing

import (
	"slices"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestProofWhileLoading: evidence does not wait for the store, and what was stored is
// neither lost nor mixed up with it.
func TestProofWhileLoading(t *testing.T) {
	cfg := DefaultBehaviour()
	b := newBehaviour(&cfg, "cam-1")
	now := time.Unix(1000, 0)
	if !b.proof(now, bus.Proof{Session: gk.SessionID{1}, Epoch: 3, What: "two-writers"}, 3) {
		t.Error("proof rotates no key while profile and alerts are being read")
	}
	if out := b.take(); out.saveAlerts || len(out.events) != 0 {
		t.Errorf("before the stored alerts are here: saved %v, told %v", out.saveAlerts, out.events)
	}
	b.loaded(now, profileRecord{}, "", alertsRecord{Number: 7, Alerts: []bus.Alert{{ID: "cam-1.1", Stream: "cam-1", Class: bus.ClassPath, Opened: now.Add(-time.Hour), Closed: now}}})
	a := b.alerts.get(bus.ClassProof)
	if a == nil || a.Class != bus.ClassProof || a.ID != "cam-1.8" || len(b.alerts.all) != 2 || b.alerts.all[0].Class != bus.ClassPath {
		t.Fatalf("open %+v of %+v", a, b.alerts.all)
	}
	out := b.take()
	told := slices.ContainsFunc(out.events, func(e gk.Event) bool { return e.Kind == gk.EventAlertOpened && e.Detail["id"] == "cam-1.8" })
	if !out.saveAlerts || !told {
		t.Errorf("afterwards: saved %v, told %v", out.saveAlerts, out.events)
	}
}

// TestRestartChangesTheKeyNoSecondTime: a source that stays changed has had its key,
// also where the service was restarted since.
func TestRestartChangesTheKeyNoSecondTime(t *testing.T) {
	s := learned(t)
	s.e.style = foreign
	s.play(40 * time.Second)
	if s.rotates != 1 {
		t.Fatalf("%d rotations", s.rotates)
	}
	before := s.b
	s.b = newBehaviour(before.cfg, "cam-1")
	s.b.loaded(s.now, before.profile, "", alertsRecord{Number: before.alerts.number, Alerts: slices.Clone(before.alerts.all)})
	s.play(2 * time.Minute)
	if a := s.b.alerts.all[0]; s.rotates != 1 || len(s.b.alerts.all) != 1 || a.Outcome != bus.OutcomeUnresolved || !a.Closed.IsZero() {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
	if slices.ContainsFunc(s.b.tuned.around, func(a around) bool { return a.trace != nil }) || len(s.b.takeContexts()) != 0 {
		t.Error("the scores after the restart replace those from when the alert opened")
	}
	s.e.style = own
	s.play(time.Minute)
	if a := s.b.alerts.all[0]; a.Outcome != bus.OutcomeCalm || s.b.alerts.get(bus.ClassSource) != nil {
		t.Errorf("the source is itself again: %+v", a)
	}
}

// TestStaleOfAClosedAlert: what comes late to a closed alert leaves nothing behind.
func TestStaleOfAClosedAlert(t *testing.T) {
	k, now := newAlertBook("cam-1"), time.Unix(1000, 0)
	a := k.raise(now, bus.Alert{Class: bus.ClassSource, Response: bus.RespondRotate})
	a.Rotated, a.RotatedAt = 2, now
	k.finish(now, a, bus.OutcomeCalm)
	k.stale(now.Add(5*time.Second), gk.SessionID{}, 1)
	if k.all[0].Outcome != bus.OutcomeStaleProven || len(k.heard) != 0 {
		t.Errorf("%+v, %d alerts are waited for", k.all[0], len(k.heard))
	}
}

// TestStaleDecidesInItsTime: just after a switch the source's own packets may still be on
// their way, and long after it what comes under the old key belongs to no alert.
func TestStaleDecidesInItsTime(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		n     uint64
		real  bool
	}{
		{staleLate / 2, staleMany - 1, false},
		{staleLate / 2, staleMany, true},
		{staleLate, 1, true},
		{staleFor, 1, true},
		{staleFor + time.Second, 1000, false},
	} {
		k, now := newAlertBook("cam-1"), time.Unix(1000, 0)
		a := k.raise(now, bus.Alert{Class: bus.ClassSource, Response: bus.RespondRotate})
		a.Rotated, a.RotatedAt = 2, now
		k.stale(now.Add(c.after), gk.SessionID{}, c.n)
		if got := k.all[0].Outcome == bus.OutcomeStaleProven; got != c.real {
			t.Errorf("%d packets %v after the switch: proven %v", c.n, c.after, got)
		}
	}
}

// TestTunedSettingsDecideAfterARestart: an alert that outlived the restart does not keep
// the stream at the settings that it is born with, and numbers go on behind those of
// answers that were read first.
func TestTunedSettingsDecideAfterARestart(t *testing.T) {
	cfg := DefaultBehaviour()
	now := time.Unix(1000, 0)
	p := tune.DefaultParams()
	p.Sensitivity = 0.4
	record := &tuningRecord{Version: 1, Guard: tune.NewGuard(now, p, "test"), Labels: []label{{Label: tune.Label{ID: "cam-1.9"}}}}
	open := []bus.Alert{{ID: "cam-1.3", Stream: "cam-1", Class: bus.ClassSource, Opened: now, Done: bus.DoneRotated}}
	for _, first := range []bool{true, false} {
		b := newBehaviour(&cfg, "cam-1")
		if first {
			b.adopt(now, record)
		}
		b.loaded(now, profileRecord{Early: &detect.Profile{}}, "", alertsRecord{Number: 3, Alerts: slices.Clone(open)})
		if !first {
			b.adopt(now, record)
		}
		if b.alerts.get(bus.ClassSource) == nil {
			t.Fatal("the alert is closed")
		}
		if got := b.settings().Sensitivity; got != 0.4 || b.alerts.next() != "cam-1.10" {
			t.Errorf("settings read first %v: judged at %g, last number %d", first, got, b.alerts.number)
		}
	}
}
