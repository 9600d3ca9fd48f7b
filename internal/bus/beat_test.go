package bus

import (
	"testing"
	"time"
)

func TestNewer(t *testing.T) {
	for _, row := range []struct {
		beat, last time.Duration
		newer      bool
	}{
		{1, 0, true}, {2, 1, true}, {1, 1, false}, {1, 2, false}, {0, 1, false}, {0, 0, true}, {-1, 0, false},
	} {
		if Newer(row.beat, row.last) != row.newer {
			t.Errorf("beat %d after %d: want %v", row.beat, row.last, row.newer)
		}
	}
}
