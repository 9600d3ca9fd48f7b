package processing

import (
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// The shadow and the watch may come to their ends in the same hop: neither verdict is
// lost, because each is given once only.
func TestTwoVerdictsInOneHop(t *testing.T) {
	cfg := DefaultBehaviour()
	b := newBehaviour(&cfg, "cam-1")
	now := time.Unix(1_800_000_000, 0)
	b.tuned.watch = tune.Tally{Revision: 2, Until: now.Add(time.Hour), Alarms: 1000}
	b.tuned.order = settle{do: settlePromote, revision: 3} // what the shadow came to
	b.watched(now, false)
	if _, _, order := b.takeTuning(); order.do != settlePromote || order.revision != 3 {
		t.Errorf("the shadow's verdict became %+v", order)
	}
	b.watched(now, false)
	if _, _, order := b.takeTuning(); order.do != settleRevert || order.revision != 2 {
		t.Errorf("the watch's verdict became %+v", order)
	}
	b.watched(now, true)
	if _, _, order := b.takeTuning(); order.do != settleNothing {
		t.Errorf("told twice: %+v", order)
	}
}
