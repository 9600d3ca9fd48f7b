package gkrp

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

func TestBudget(t *testing.T) {
	b := Budget{Burst: 2, Every: time.Minute}
	for i, row := range []struct {
		at time.Duration
		ok bool
	}{{0, true}, {0, true}, {0, false}, {59 * time.Second, false}, {time.Minute, true}, {time.Minute, false}, {3 * time.Minute, true}, {3 * time.Minute, true}, {3 * time.Minute, false}, {time.Hour, true}} {
		if has := b.Has(t0.Add(row.at)); has != row.ok {
			t.Errorf("row %d: has %v at %v", i, has, row.at)
		}
		if ok := b.Take(t0.Add(row.at)); ok != row.ok {
			t.Errorf("row %d: %v at %v", i, ok, row.at)
		}
	}
	if (&Budget{}).Take(t0) {
		t.Error("the zero budget allows something")
	}
}

// A rotation takes a token of the stream's budget and one of the site's, and one that
// is refused takes neither: a site whose budget another stream has spent leaves this
// one its own, and the other way round.
func TestRefusedRotationCostsNothing(t *testing.T) {
	for _, row := range []struct {
		name                string
		stream, site        int // tokens before
		rotates             bool
		leftStream, leftAll int
	}{
		{"both have one", 2, 3, true, 1, 2},
		{"the last of both", 1, 1, true, 0, 0},
		{"the site's is spent", 2, 0, false, 2, 0},
		{"the stream's is spent", 0, 3, false, 0, 3},
		{"both are spent", 0, 0, false, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			site := Budget{Burst: row.site}
			s := NewStream("cam-1", "cam-1", &StreamConfig{Urgent: Budget{Burst: row.stream}, Site: &site})
			s.live = begun(t, t0)
			s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: s.live.Record.Epoch})
			if _, stage := s.live.Rotating(); (stage != 0) != row.rotates {
				t.Errorf("rotates: %v", stage != 0)
			}
			left := func(b *Budget) (n int) {
				for b.Take(t0) {
					n++
				}
				return n
			}
			if of, all := left(&s.proof), left(&site); of != row.leftStream || all != row.leftAll {
				t.Errorf("%d and %d tokens are left, want %d and %d", of, all, row.leftStream, row.leftAll)
			}
		})
	}
	s := NewStream("cam-1", "cam-1", &StreamConfig{Urgent: Budget{Burst: 1}})
	s.live = begun(t, t0)
	if s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: s.live.Record.Epoch}); s.live.rot == nil {
		t.Error("a site without a bound bounds")
	}
}
