package processing

import (
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestOlderRecordDoesNotDecide: whoever read the record before a change may bring it
// after the change.
func TestOlderRecordDoesNotDecide(t *testing.T) {
	cfg := DefaultBehaviour()
	b := newBehaviour(&cfg, "cam-1")
	now := time.Unix(1000, 0)
	record := func(version uint64, sensitivity float64) *tuningRecord {
		p := tune.DefaultParams()
		p.Sensitivity = sensitivity
		return &tuningRecord{Version: version, Guard: tune.NewGuard(now, p, "test")}
	}
	b.adopt(now, record(2, 0.4))
	b.adopt(now, record(1, 0.6))
	if got := b.settings().Sensitivity; got != 0.4 {
		t.Errorf("judged at %g, the newer record says 0.4", got)
	}
	b.adopt(now, record(3, 0.6))
	if got := b.settings().Sensitivity; got != 0.6 {
		t.Errorf("judged at %g, the newest record says 0.6", got)
	}
}
