package transport

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A session's keys serve while its lease runs. Leases count from a beat of this
// service's own clock that went out before the lease was asked for, so nothing
// that happens to a lease on its way makes it longer. How long, and for whom, is
// the key management service's signed word, over a mark of the beat that only this
// service can make: whoever carries leases can neither make one nor have one made
// for a time to come. When it has run out, packets are still opened, for the state
// that the next lease goes on from, but nothing is delivered.

// maxLease bounds what a lease may be said to last.
const maxLease = time.Hour

var (
	errLeaseForeign = errors.New("the lease counts from another start of this transport: ask for it again")
	errLeaseVoid    = errors.New("the lease counts from before the stream was disarmed here: ask for it again")
	errLeaseOdd     = errors.New("the lease counts from a time to come, or lasts too long")
	errLeaseMark    = errors.New("the lease's mark is not one of this transport's")
	errLeaseWord    = errors.New("the key management service's word is for another transport, beat or session")
)

// mark proves that a beat is one that this service announced.
func (s *Service) mark(beat time.Duration) []byte {
	h := hmac.New(sha256.New, s.secret[:])
	h.Write(binary.BigEndian.AppendUint64([]byte("gaitkeeper beat"), uint64(beat)))
	return h.Sum(nil)
}

// granted is a lease whose word was verified.
type granted struct {
	*gkrp.Lease
	from time.Time
}

// grantedBy verifies a lease. It takes no lock: signatures take their time.
func (s *Service) grantedBy(now time.Time, l bus.Lease) (granted, error) {
	if !l.Started.Equal(s.here.Started) {
		return granted{}, errLeaseForeign
	}
	if !hmac.Equal(l.Mark, s.mark(l.Beat)) {
		return granted{}, errLeaseMark
	}
	g, err := gkrp.OpenLease(s.kms, l.Word)
	if err != nil {
		return granted{}, fmt.Errorf("the lease is not the key management service's: %w", err)
	}
	from := s.here.Started.Add(l.Beat)
	switch {
	case g.Transport != s.cfg.ID || !bytes.Equal(g.Mark, l.Mark):
		return granted{}, errLeaseWord
	case from.After(now) || g.For() > maxLease:
		return granted{}, errLeaseOdd
	}
	return granted{g, from}, nil
}

// announcement is what the service says of itself now.
func (s *Service) announcement() bus.TransportAnnouncement {
	a := s.here
	s.mu.Lock()
	a.Term = s.term
	s.mu.Unlock()
	a.Beat = s.cfg.Host.Now().Sub(a.Started)
	a.Mark = s.mark(a.Beat)
	return a
}

// leaseEnd gives the time until which a lease lets a session's keys serve. The
// caller holds mu.
func (g granted) leaseEnd(ses *session) (time.Time, error) {
	st := ses.stream
	switch {
	case !g.Covers(st.id, ses.id):
		return time.Time{}, errLeaseWord
	case !st.disarmed.IsZero() && !g.from.After(st.disarmed):
		return time.Time{}, errLeaseVoid
	}
	return g.from.Add(g.For()), nil
}

// extend lets a session's keys serve until end, if they may not longer already.
// The caller holds mu.
func (s *Service) extend(now time.Time, ses *session, end time.Time) {
	if end.After(ses.lease) {
		ses.lease = end
	}
	if ses.lapsed && now.Before(ses.lease) {
		ses.lapsed = false
		e := ses.event(gk.EventLeaseRenewed, ses.epoch, now)
		s.notice(func() { s.tell(e) })
	}
}

// lapse stops a session whose lease has run out. The caller holds mu.
func (s *Service) lapse(ses *session, now time.Time) {
	if ses.lapsed || now.Before(ses.lease) {
		return
	}
	ses.lapsed = true
	if !ses.lease.IsZero() {
		e := ses.event(gk.EventLeaseLapsed, ses.epoch, now)
		s.notice(func() { s.tell(e) })
	}
}

// renew takes leases for sessions. What is not here needs none.
func (s *Service) renew(_ context.Context, req bus.LeaseRequest) (none bus.Empty, err error) {
	if len(req.Sessions) > bus.MaxStanding {
		return none, bus.Refuse(bus.CodeBadRequest, "%d sessions in one request, at most %d", len(req.Sessions), bus.MaxStanding)
	}
	now := s.cfg.Host.Now()
	g, err := s.grantedBy(now, req.Lease)
	if err != nil {
		return none, bus.Refuse(bus.CodeConflict, "%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range req.Sessions {
		st := s.streams[ref.Stream]
		if st == nil || req.Term < st.term {
			continue
		}
		ses := st.session(ref.Session)
		if ses == nil || ses.lease.IsZero() { // a session without a key gets its first lease with it
			continue
		}
		end, refused := g.leaseEnd(ses)
		if refused != nil {
			err = bus.Refuse(bus.CodeConflict, "stream %s: %v", ref.Stream, refused)
			continue
		}
		st.under(req.Term)
		s.term = max(s.term, req.Term)
		s.extend(now, ses, end)
	}
	return none, err
}

// meant refuses a command that names another start of this service: what it knew of
// the commands that it obeyed is gone.
func (s *Service) meant(started time.Time) error {
	if started.IsZero() || started.Equal(s.here.Started) {
		return nil
	}
	return bus.Refuse(bus.CodeConflict, "the command is for another start of this transport: wait for its announcement")
}

// disarm wipes the keys of streams, cuts off who watches them, and takes no key
// again on a lease from before. What waits in buffers is not delivered any more.
func (s *Service) disarm(_ context.Context, req bus.DisarmRequest) (none bus.Empty, err error) {
	if err := s.meant(req.Started); err != nil {
		return none, err
	}
	now := s.cfg.Host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range req.Streams {
		st, refused := s.obey(id, req.Term)
		if refused != nil {
			err = refused
			continue
		}
		if !bus.Newer(req.Beat, st.disarmBeat) {
			continue // it was obeyed
		}
		st.disarmed, st.disarmBeat = now, req.Beat
		for _, ses := range st.sessions() {
			ses.lapsed = true
			s.forget(ses)
		}
		st.viewers.cut()
		e := gk.Event{Kind: gk.EventStreamDisarmed, Stream: id, At: now}
		s.notice(func() { s.tell(e) })
	}
	// A beat from after this, so that the stream can be armed again at once.
	s.notice(func() { s.say(bus.TransportHere.Tell(s.conn, s.announcement())) })
	return none, err
}
