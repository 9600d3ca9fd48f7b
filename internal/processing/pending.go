package processing

import "time"

// pending is what of a stream's behaviour runs out by itself. It is stored with the
// alerts, as what is left of it: whoever sets the clock back while the service is
// stopped lengthens nothing. The time of day may only shorten it, for the time that the
// service was away.
type pending struct {
	Planned      time.Duration `cbor:"1,keyasint,omitempty"` // of the change that an operator announced
	PlannedUntil time.Time     `cbor:"2,keyasint,omitzero"`
	Announced    time.Duration `cbor:"3,keyasint,omitempty"` // of the one that the device did
	Until        time.Time     `cbor:"4,keyasint,omitzero"`
	Spent        int           `cbor:"5,keyasint,omitempty"` // of what the device may announce
	Broke        int           `cbor:"6,keyasint,omitempty"` // of the breaks that excuse
}

// pendingEvery is how often what is left is written down while it runs.
const pendingEvery = 30 * time.Second

// pending gives what is left now.
func (b *behaviour) pending(now time.Time) pending {
	p := pending{Spent: b.cfg.Announced.Burst - b.announced.budget.Left(now)}
	p.Broke = renewalBurst - b.renewals.budget.Left(now)
	p.Planned, p.PlannedUntil = left(now, b.planned)
	p.Announced, p.Until = left(now, b.announced.until)
	return p
}

func left(now, until time.Time) (time.Duration, time.Time) {
	if !now.Before(until) {
		return 0, time.Time{}
	}
	return until.Sub(now), until
}

// takeUp goes on with what was left when it was stored.
func (b *behaviour) takeUp(now time.Time, p pending) {
	if d := min(p.Planned, p.PlannedUntil.Sub(now)); d > 0 {
		b.planned = now.Add(d)
	}
	if d := min(p.Announced, p.Until.Sub(now), announcedFor); d > 0 {
		b.announced.until, b.announced.settle = now.Add(d), excusedHops
	}
	for range min(p.Spent, b.cfg.Announced.Burst) {
		b.announced.budget.Take(now)
	}
	for range min(p.Broke, renewalBurst) {
		b.renewals.budget.Take(now)
	}
	b.pendingKept = now
}

// keepPending has what is left stored now and then while it runs.
func (b *behaviour) keepPending(now time.Time) {
	if now.Before(b.planned) && now.Sub(b.pendingKept) >= pendingEvery {
		b.pendingKept, b.alerts.dirty = now, true
	}
}
