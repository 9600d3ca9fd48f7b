package transport

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// TestEveryProofHasWords: what can accuse is told in words.
func TestEveryProofHasWords(t *testing.T) {
	kinds := []string{causeBeforeFirst.String(), causePastEnd.String()}
	for v := range media.Verdict(media.NumVerdicts) {
		if v.Proof() {
			kinds = append(kinds, v.String())
		}
	}
	for _, e := range []evidence{evidenceUnlisted, evidenceOtherTag, evidenceTooMany, evidenceTooLong, evidenceDifferent, evidenceAhead} {
		kinds = append(kinds, string(e))
	}
	for _, kind := range kinds {
		if p := (bus.Proof{What: kind}); p.Words() == "" {
			t.Errorf("%s has no words", kind)
		}
	}
}
