package transport

import (
	"context"
	"strconv"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// proofEvery is the least time between two reports of proof under one key: whoever
// has a key can make evidence as fast as packets.
const proofEvery = time.Second

// publish sends what the packet path has to tell, apart from it.
func (s *Service) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case tell := <-s.notices:
			tell()
		}
	}
}

// notice leaves something to be published. The caller holds mu.
func (s *Service) notice(tell func()) {
	select {
	case s.notices <- tell:
	default:
		s.unsent++
	}
}

// say takes the outcome of an announcement. One that fails is repeated soon, and
// the bus's own reconnection reports the cause; here it is only for the curious.
func (s *Service) say(err error) {
	if err != nil {
		s.log.Debug("announcement not sent", "error", err)
	}
}

// tell publishes an event of this service.
func (s *Service) tell(e gk.Event) {
	e.Service = "transport/" + string(s.cfg.ID)
	if e.At.IsZero() {
		e.At = s.cfg.Host.Now()
	}
	s.say(bus.Events.Tell(s.conn, e))
}

func (ses *session) event(kind gk.EventKind, epoch gk.Epoch, at time.Time) gk.Event {
	return gk.Event{Kind: kind, Stream: ses.stream.id, Session: ses.id, Epoch: epoch, At: at}
}

// tellFirst announces an epoch's first authenticated packet.
func (s *Service) tellFirst(ses *session, epoch gk.Epoch, index gk.Index, now time.Time) {
	e := ses.event(gk.EventEpochFirstPacket, epoch, now)
	e.Index = index
	news := bus.FirstPacket{Transport: s.cfg.ID, Stream: ses.stream.id, Session: ses.id, Epoch: epoch, Index: index, At: now}
	s.notice(func() {
		s.say(bus.TransportFirst.Tell(s.conn, news))
		s.tell(e)
	})
}

// accuse reports proof that somebody else holds an epoch's key.
func (s *Service) accuse(ses *session, slot *slot, index gk.Index, what string, now time.Time) {
	if !slot.accused.IsZero() && now.Sub(slot.accused) < proofEvery {
		return
	}
	slot.accused = now
	e := ses.event(gk.EventProof, slot.epoch, now)
	e.Index = index
	e.Detail = map[string]string{"evidence": what}
	news := bus.Proof{Transport: s.cfg.ID, Stream: ses.stream.id, Session: ses.id, Epoch: slot.epoch, Index: index, What: what}
	s.notice(func() {
		s.say(bus.TransportProof.Tell(s.conn, news))
		s.tell(e)
	})
}

// tellGone announces that an epoch is no longer armed here.
func (s *Service) tellGone(ses *session, epoch gk.Epoch, now time.Time) {
	e := ses.event(gk.EventEpochRetired, epoch, now)
	news := bus.EpochGone{Transport: s.cfg.ID, Stream: ses.stream.id, Session: ses.id, Epoch: epoch}
	s.notice(func() {
		s.say(bus.TransportGone.Tell(s.conn, news))
		s.tell(e)
	})
}

// tellStrangers tells what came since it was told last and belongs to no session.
func (s *Service) tellStrangers(before counts) counts {
	s.mu.Lock()
	now := s.outsiders
	s.mu.Unlock()
	more := now
	for c := range more {
		more[c] -= before[c]
	}
	if m := more.names(); m != nil {
		s.say(bus.TransportOutsiders.Tell(s.conn, bus.Outsiders{Transport: s.cfg.ID, Dropped: m}))
	}
	return now
}

// outsidersEvery is the least time between two alerts about outsiders: whoever
// has no key can make them as fast as packets.
const outsidersEvery = time.Minute

// outsiders is what was told of them last.
type outsiders struct {
	at     time.Time
	counts counts
}

// tellOutsiders reports forged, replayed, misdirected and unknown traffic, if
// there was any since it was reported last. The first is reported at once, and
// what follows once in a while as long as it lasts.
func (s *Service) tellOutsiders(last outsiders, at time.Time) outsiders {
	if !last.at.IsZero() && at.Sub(last.at) < outsidersEvery {
		return last
	}
	before := last.counts
	s.mu.Lock()
	now := s.outsiders
	for _, ses := range s.routes {
		for c, n := range ses.counts {
			if cause(c).outsider() {
				now[c] += n
			}
		}
	}
	s.mu.Unlock()
	detail := map[string]string{}
	for c, n := range now {
		// A session that ended takes its counts along.
		if n > before[c] {
			detail[cause(c).String()] = strconv.FormatUint(n-before[c], 10)
		}
	}
	if len(detail) == 0 {
		return outsiders{last.at, now}
	}
	s.tell(gk.Event{Kind: gk.EventOutsider, Detail: detail})
	return outsiders{at, now}
}
