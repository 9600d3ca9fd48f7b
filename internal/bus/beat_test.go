package bus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/host"
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

// A clock that is behind the software's age is not taken to judge certificates by.
func TestMQTTCertificatesAreJudgedByTheProgramsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins in the year 2000
		if at := (MQTTConfig{}).tls("broker.example").Time(); at.Before(host.Earliest) {
			t.Errorf("judged by %v", at)
		}
	})
}
