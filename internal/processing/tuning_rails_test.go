package processing

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
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
