package gkrp

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// renewPause is the shortest time between two epochs that a restless source gets, and
// renewBudget how many: at first some, then one a minute. It goes on asking meanwhile.
const renewPause = 5 * time.Second

var renewBudget = Budget{Burst: 6, Every: time.Minute}

func (s *Session) reported(now time.Time, m *Report) []Effect {
	if m.Number <= s.reports || s.Candidate() {
		return nil
	}
	s.reports, s.packets, s.Near = m.Number, max(s.packets, m.Packets), max(s.Near, m.To)
	taken := m.For(s.Version)
	fx := []Effect{Switch{Epoch: m.Epoch, Near: s.Near}, Reported{&taken, s.late(now, m)}}
	if m.Term > s.Term {
		fx = append(fx, Outranked{})
	}
	switch {
	case s.rot != nil && m.Epoch == s.rot.epoch:
		s.rot.adopted = true
	case m.Epoch > s.Record.Epoch:
		// The device was granted an epoch of which this instance has no record: the
		// one that granted it was stopped before it could write. Do it again; the
		// device answers with the ACK that it stored.
		s.Pending = gk.ReasonRecovery
		s.rot = &rotation{epoch: m.Epoch, reason: gk.ReasonRecovery, stage: StageReleasing, decided: now, recorded: true, adopted: true}
		return append(fx, s.push(now)...)
	case m.Renew && s.rot == nil && !now.Before(s.renewAt) && s.renewals.Take(now):
		s.renewAt = now.Add(renewPause)
		return append(fx, s.rotate(now, gk.ReasonDiscontinuity, 0)...)
	case s.timing.Packets > 0 && s.packets-s.base >= s.timing.Packets:
		return append(fx, s.rotate(now, gk.ReasonPackets, 0)...)
	}
	return fx
}

// late is how long a report was on its way at least: a broker can keep one as long as
// it keeps all that follow it. The device says how long the key had been in use, and the
// key was in use when its ACK came; it was not any more when that of a later one did.
// Nothing is known of ACKs that an instance before this one took.
func (s *Session) late(now time.Time, m *Report) time.Duration {
	var since time.Duration
	switch {
	case s.confirmed.IsZero() || m.Epoch > s.Record.Epoch || m.Epoch == s.Record.Epoch && m.Since == 0:
		return 0
	case m.Epoch == s.Record.Epoch:
		since = time.Duration(min(m.Since, 1<<40)) * time.Millisecond
	}
	return max(0, now.Sub(s.confirmed)-since)
}

// retired follows up on an epoch that turns out to be over. Where that is the one
// on record, its successor was confirmed to an instance that was stopped before it
// could write: it is found by asking for what comes after.
func (s *Session) retired(now time.Time, e gk.Epoch) []Effect {
	s.unwant(func(want gk.Epoch) bool { return want == e })
	switch {
	case s.Candidate() || s.Record.Ended:
		return nil
	case s.rot == nil && e == s.Record.Epoch:
		s.Pending = gk.ReasonRecovery
		s.rot = &rotation{reason: gk.ReasonRecovery, stage: StageReleasing, decided: now, adopted: true}
		return s.push(now)
	case s.rot != nil && s.rot.stage == StageReleasing && s.rot.adopted && e == s.rot.epoch && e != 0:
		s.rot.epoch = 0
		return s.push(now)
	}
	return nil
}
