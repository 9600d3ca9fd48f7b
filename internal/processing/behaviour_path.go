package processing

import (
	"fmt"
	"math"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// pathEpisode is a disturbed path, before and while it is an alert.
type pathEpisode struct {
	since time.Time
	alert bus.Alert
}

// outageKind names the alert about a stream without packets.
const outageKind = "outage"

func (b *behaviour) outage(now time.Time, w *feature.Window) {
	if w.Packets > 0 {
		if b.path.alert.Kind == outageKind {
			b.path = pathEpisode{}
			b.alerts.close(now, bus.ClassPath, bus.OutcomeCalm)
		}
		b.silent = 0
		return
	}
	if b.silent++; b.silent == outageHops && b.alerts.get(bus.ClassPath) == nil {
		b.path = pathEpisode{since: now, alert: bus.Alert{
			Class: bus.ClassPath, Kind: outageKind, Score: 1, Severity: "warning",
			Evidence: []string{fmt.Sprintf("no packet for %v", time.Duration(b.silent)*feature.Hop)},
		}}
		b.path.alert = b.explained(now, b.path.alert)
		b.raise(now, b.path.alert)
	}
}

// outsiders are the causes of drops that need no key.
var outsiders = []string{"bad-length", "auth-failed", "unknown-epoch", "stale-epoch", "stale-unproven", "too-old"}

const (
	noisyPackets    = 20   // a second that outsiders must send to be told of
	noisyDuplicates = 0.25 // share of repeated packets that no network makes
)

// status takes a transport's counts of one session, once a second.
func (b *behaviour) status(now time.Time, u *bus.StreamStatus) {
	if u.Session != b.session {
		return
	}
	before := b.dropped
	b.dropped = u.Dropped
	if b.dropped == nil {
		b.dropped = map[string]uint64{} // nothing was dropped: that is a count, too
	}
	more := func(cause string) uint64 {
		if n := u.Dropped[cause]; n > before[cause] {
			return n - before[cause]
		}
		return 0
	}
	carried := u.Delivered - min(b.carried, u.Delivered)
	b.carried = u.Delivered
	defer b.tick(now)
	if before == nil {
		return
	}
	if n := more("stale-proven"); n > 0 {
		b.alerts.stale(now, b.session, n)
	}
	var c feature.OutsiderCounters
	c.BadLength, c.Forged, c.UnknownEpoch = more("bad-length"), more("auth-failed")+more("stale-unproven"), more("unknown-epoch")+more("stale-epoch")
	c.Replayed = more("too-old")
	if n := more("duplicate"); float64(n) > noisyDuplicates*float64(carried) {
		c.Replayed += n
	}
	if c.Total() < noisyPackets {
		return
	}
	if b.alerts.get(bus.ClassNoise) == nil && now.Sub(b.noisy) < noiseEvery && !b.noisy.IsZero() {
		return
	}
	if b.alerts.get(bus.ClassNoise) == nil {
		b.noisy = now
	}
	b.raise(now, bus.Alert{Class: bus.ClassNoise, Kind: "outsider", Score: math.Log10(float64(c.Total())) / math.Log10(noisyPackets), Evidence: []string{
		fmt.Sprintf("in one second %d forged packets, %d replayed, %d of unknown or old keys, %d of bad length: dropped, nothing else follows", c.Forged, c.Replayed, c.UnknownEpoch, c.BadLength),
	}})
}
