package host

import (
	"runtime/debug"
	"sync"
	"time"
)

// Earliest is a moment that is over, whatever a clock says: no software that knows it
// was built before. The service's certificates are valid from then on.
var Earliest = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// built is when this program's source was committed, by what the compiler put into it;
// [Earliest] where it put nothing.
var built = sync.OnceValue(func() time.Time {
	at := Earliest
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return at
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(at) {
			at = t
		}
	}
	return at
})

// CertTime is the time by which certificates are judged: the clock's, unless it is
// behind the program's own age. An encoder without a battery wakes up in 1970, and
// would else trust nobody.
func CertTime() time.Time {
	now := time.Now()
	if b := built(); now.Before(b) {
		return b
	}
	return now
}
