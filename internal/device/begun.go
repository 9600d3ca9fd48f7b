package device

import (
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// begun is what a device says of the encoder that it runs itself. The packet path's
// lock guards it.
type begun struct {
	said gkrp.Encoder
	at   time.Time // of the first packet after the last change
}

// note takes a batch up that begins after a break.
func (g *begun) note(now time.Time, b *Batch) {
	if g == nil || b.Begun == "" {
		return
	}
	g.said.Changes++
	g.said.Why, g.said.Regime, g.at = b.Begun, b.Regime, now
}

// report gives what is told with a report; nil where there is nothing to tell.
func (g *begun) report(now time.Time) *gkrp.Encoder {
	if g == nil {
		return nil
	}
	said := g.said
	if said.Changes > 0 {
		said.AgoMs = millis(now.Sub(g.at))
	}
	return &said
}
