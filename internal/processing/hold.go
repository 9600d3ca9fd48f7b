package processing

import (
	"context"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A stream is held, in one of two cases, from what its viewers shall see until an
// operator has looked: while a second session insists on its device's name, and,
// where the operator wants that, while its source stays changed. Both need a
// device's identity or its media key: nobody else can have a stream held. What is
// shown meanwhile is the transports' setting.

const (
	// insisting is how long a second session must ask without a break before its
	// stream is held. A device that was restarted is let in earlier.
	insisting = 3 * time.Second
	// insistGap is the longest break: a refused session asks again after 0.4 s.
	insistGap = 5 * time.Second
	// freedAfter is how long after the last of it the stream is shown again.
	freedAfter = 10 * time.Second
)

// holding is what is known of a stream's hold.
type holding struct {
	since  time.Time // a second session asks without a break
	last   time.Time // it asked last
	insist bool      // it did so for long
	told   map[gk.TransportID]bool
	asking map[gk.TransportID]bool // a call is under way
}

// refused notes that a second session was sent away, because the first one sends.
func (h *holding) refused(now time.Time) {
	if now.Sub(h.last) > insistGap {
		h.since = now
	}
	h.last = now
	h.insist = h.insist || now.Sub(h.since) >= insisting
}

// why says why the stream is held; empty: it is not.
func (st *stream) why(now time.Time) string {
	h, b := &st.holding, st.behaviour
	if h.insist && now.Sub(h.last) >= freedAfter {
		h.insist = false
	}
	if h.insist && b.response(bus.ClassIdentity) == bus.RespondHold {
		return "a second session of the device insists"
	}
	if a := b.alerts.get(bus.ClassSource); b.cfg.HoldUnresolved && a != nil && a.Outcome == bus.OutcomeUnresolved {
		return "the source stays changed: alert " + a.ID
	}
	return ""
}

// hold tells the transports of the live session whether the stream is held. What
// fails is told again a second later.
func (st *stream) hold(now time.Time) {
	l := st.machine.Live()
	if l == nil {
		return
	}
	h := &st.holding
	if h.told == nil {
		h.told, h.asking = map[gk.TransportID]bool{}, map[gk.TransportID]bool{}
	}
	why := st.why(now)
	for _, id := range l.Transports {
		if was, known := h.told[id]; known && was == (why != "") || h.asking[id] {
			continue
		}
		h.asking[id] = true
		req := bus.HoldRequest{Stream: st.id, Held: why != "", Why: why, Term: st.svc.protocol.Term, Beat: st.svc.age(), Started: st.svc.beat(id).Started}
		st.call(func(ctx context.Context) {
			_, err := bus.TransportHold.Do(ctx, st.svc.conn, string(id), req)
			st.post(func() {
				delete(h.asking, id)
				if err == nil {
					h.told[id] = req.Held
				}
			})
		})
	}
}
