package processing

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// still is a host whose clock stands.
type still struct{ host.Real }

func (still) Now() time.Time { return time.Unix(1_800_000_000, 0) }

// Whoever floods topics of streams that a device does not have takes nothing from the
// rate of its own, also where those were never heard before.
func TestStrangeTopicsTakeNothingFromADevicesOwn(t *testing.T) {
	d := newDoor(&Service{cfg: Config{Host: still{}}})
	dev := &enrolled{DeviceRecord: bus.DeviceRecord{Device: "cam-1", Streams: []gk.StreamID{"cam-1", "cam-2"}}, rates: map[gk.StreamID]*rate.Limiter{}}
	let := 0
	for i := range 10 * topicBurst {
		if d.allow(dev, gk.StreamID(fmt.Sprintf("strange-%d", i))) {
			let++
		}
	}
	if let != topicBurst {
		t.Errorf("%d messages of strange topics were let in, want %d", let, topicBurst)
	}
	for _, own := range dev.Streams {
		for i := range topicBurst {
			if !d.allow(dev, own) {
				t.Fatalf("message %d of %s was not let in", i, own)
			}
		}
		if d.allow(dev, own) {
			t.Errorf("%s has no bound", own)
		}
	}
	if len(dev.rates) > len(dev.Streams)+1 {
		t.Errorf("%d rates are kept for %d streams", len(dev.rates), len(dev.Streams))
	}
}
