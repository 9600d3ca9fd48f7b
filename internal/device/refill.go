package device

import (
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Nothing in a REFILL tells a new one from one that a broker kept. So one that comes
// again soon gets the answer again that was made for the last, or none: it must not
// keep the device busy, nor have it throw away the private halves that the service
// counts on.
const (
	sameRefill = time.Second            // no fresh prekeys so soon, unless a GRANT came since
	nextRefill = 100 * time.Millisecond // no answer at all
)

// supply is what was sent for a REFILL.
type supply struct {
	made, sent time.Time // made is zero once a GRANT may have used one up
	answer     *gkrp.Refill
}

func (x *session) refill() {
	now, last := x.now(), &x.supply
	if last.answer != nil && now.Sub(last.sent) < nextRefill {
		return
	}
	if last.answer == nil || now.Sub(last.made) >= sameRefill {
		prekeys, err := x.keys.offer(gkrp.MaxPrekeys)
		if err != nil {
			x.warn("no new prekeys could be made", "err", err)
			return
		}
		last.made, last.answer = now, &gkrp.Refill{Stream: x.stream.id, Session: x.id, Prekeys: prekeys}
	}
	last.sent = now
	x.send(last.answer)
}
