package processing

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestBreaksExcuseWithinABudget: a source that breaks off all the time, because its device
// or whoever stands before it wants to be judged less strictly, is so a few times an hour.
// The others are told once a minute, and a restart of the service gives nothing back.
func TestBreaksExcuseWithinABudget(t *testing.T) {
	s := learned(t)
	breaks := func() {
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDecided, Reason: gk.ReasonDiscontinuity})
		s.collect()
	}
	excused := 0
	for range 11 * 60 / 5 {
		breaks()
		if s.b.excused > 0 {
			excused++
		}
		s.play(5 * time.Second)
	}
	// Six in the first half minute, each good for eleven seconds, and one after ten minutes.
	if excused < 7 || excused > 12 {
		t.Errorf("of %d breaks %d found the judge excused", 11*60/5, excused)
	}
	if n := s.count(gk.EventRenewalRefused); n < 9 || n > 12 {
		t.Errorf("refusals were told %d times in eleven minutes", n)
	}
	p := s.b.pending(s.now)
	if p.Broke != renewalBurst {
		t.Errorf("%d of %d breaks are stored as spent", p.Broke, renewalBurst)
	}
	next := newBehaviour(s.b.cfg, "cam-1")
	next.takeUp(s.now, p)
	next.broke(s.now)
	if next.excused > 0 {
		t.Error("the restart of the service gave breaks back")
	}
	s.e.style = foreign
	for range 12 {
		breaks()
		s.play(5 * time.Second)
	}
	if a := s.b.alerts.get(bus.ClassSource); a == nil || s.rotates == 0 {
		t.Errorf("another source under a flood of breaks: %d rotations, %+v", s.rotates, a)
	}
}
