package processing

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
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
	s.disturb(maxAlerts+2*sourceBurst, 20*time.Second)
	if len(s.b.alerts.all) != maxAlerts || s.b.alerts.number < maxAlerts+sourceBurst {
		t.Fatalf("%d alerts of %d are kept: none gave way", len(s.b.alerts.all), s.b.alerts.number)
	}
	if s.rotates != sourceBurst {
		t.Errorf("%d rotations within the time for %d", s.rotates, sourceBurst)
	}
}

// TestProofSpendsNoSourceBudget: what is proven while evidence rises uses nothing up.
func TestProofSpendsNoSourceBudget(t *testing.T) {
	s := learned(t)
	for i := range sourceBurst {
		s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, Index: 5, What: "two-writers"}, 1)
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonProof, Epoch: gk.Epoch(2 + i)})
		s.disturb(1, 40*time.Second)
	}
	if left := s.b.rotationsLeft(s.now); left != sourceBurst {
		t.Errorf("%d rotations for the source, %d are left", s.rotates, left)
	}
}
