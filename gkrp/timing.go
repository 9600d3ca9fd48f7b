package gkrp

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Timing is when a session does what. Zero durations switch a rule off.
type Timing struct {
	Every      time.Duration // scheduled rotation
	Packets    uint64        // rotation by packets sent under one key
	Retry      time.Duration // first repetition of what was not answered; doubles up to RetryMax
	RetryMax   time.Duration
	CloseAfter time.Duration // a candidate that does not confirm is dropped
	Linger     time.Duration // after BYE, for late packets
	Policy     Policy        // what WELCOME tells the device
	Addresses  map[gk.TransportID]string
}

type backoff struct {
	at   time.Time
	wait time.Duration
}

func (b *backoff) due(now time.Time) bool { return !b.at.After(now) }

func (b *backoff) next(now time.Time, t Timing) {
	b.wait = min(max(2*b.wait, t.Retry), t.RetryMax)
	b.at = now.Add(b.wait)
}

// Deadline says when the next [Tick] is wanted; zero means never.
func (s *Session) Deadline() time.Time {
	var d time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	if s.over {
		return d
	}
	if s.rot != nil {
		sooner(s.rot.retry.at)
	} else {
		sooner(s.rotateAt)
		sooner(s.refilling.at)
	}
	for _, j := range s.rejoin {
		sooner(j.retry.at)
	}
	sooner(s.endAt)
	return d
}

func (s *Session) tick(now time.Time) []Effect {
	var fx []Effect
	if !s.endAt.IsZero() && !s.endAt.After(now) {
		if s.Record.Ended {
			return s.end("")
		}
		return s.end(CodeUnavailable)
	}
	for _, id := range s.Transports {
		if j := s.rejoin[id]; j != nil && j.retry.due(now) {
			// A sealed key may be for a transport that restarted once more: ask anew.
			clear(j.env)
			fx = append(fx, s.pushJoin(now, id, j)...)
		}
	}
	if s.rot != nil {
		if s.rot.retry.due(now) {
			fx = append(fx, s.push(now)...)
		}
		return fx
	}
	if !s.refilling.at.IsZero() && s.refilling.due(now) {
		fx = append(fx, s.refill(now))
	}
	if !s.rotateAt.IsZero() && !s.rotateAt.After(now) {
		s.rotateAt = time.Time{}
		fx = append(fx, s.rotate(now, gk.ReasonSchedule, 0)...)
	}
	return fx
}

func (s *Session) schedule(now time.Time) {
	if s.timing.Every > 0 {
		// Since may be of another machine's clock: it can bring the rotation forward
		// but never put it off.
		s.rotateAt = s.Since.Add(s.timing.Every)
		if s.rotateAt.Before(now) {
			s.rotateAt = now
		} else if latest := now.Add(s.timing.Every); s.rotateAt.After(latest) {
			s.rotateAt = latest
		}
	}
}
