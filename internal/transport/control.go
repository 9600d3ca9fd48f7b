package transport

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// serve takes the service's commands from the bus.
func (s *Service) serve() (subs []bus.Subscription, err error) {
	me := string(s.cfg.ID)
	add := func(sub bus.Subscription, e error) {
		if err = errors.Join(err, e); e == nil {
			subs = append(subs, sub)
		}
	}
	add(bus.TransportAssign.Serve(s.conn, me, s.assign))
	add(bus.TransportArm.Serve(s.conn, me, s.arm))
	add(bus.TransportSwitch.Serve(s.conn, me, s.begin))
	add(bus.TransportRelease.Serve(s.conn, me, s.release))
	add(bus.TransportReport.Serve(s.conn, me, s.reported))
	add(bus.TransportLease.Serve(s.conn, me, s.renew))
	add(bus.TransportDisarm.Serve(s.conn, me, s.disarm))
	add(bus.TransportHold.Serve(s.conn, me, s.holdStream))
	return subs, err
}

// obey finds the stream of a command, makes it if it is new, and refuses whoever
// was replaced in command. The caller holds mu.
func (s *Service) obey(id gk.StreamID, term uint64) (*stream, error) {
	if _, err := gk.ParseStreamID(string(id)); err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	st := s.streams[id]
	if st == nil {
		st = &stream{id: id, viewers: newViewers(s.cfg.ViewerBuffer, s.cfg.MaxViewers)}
		s.streams[id] = st
	}
	if term < st.term {
		return nil, bus.Refuse(bus.CodeConflict, "stream %s is commanded under term %d: term %d is over", id, st.term, term)
	}
	st.under(term)
	s.term = max(s.term, term)
	return st, nil
}

// obeySession is obey for a command about a session that must be here.
func (s *Service) obeySession(id gk.StreamID, session gk.SessionID, term uint64) (*session, error) {
	st, err := s.obey(id, term)
	if err != nil {
		return nil, err
	}
	ses := st.session(session)
	if ses == nil {
		return nil, bus.Refuse(bus.CodeNotFound, "stream %s has no session %s here: assign it first", id, session)
	}
	return ses, nil
}

// maxWaiting bounds the sessions of one stream that wait for their first packet.
const maxWaiting = 4

// assign makes room for a session. It takes over from the one before when its
// first packet comes.
func (s *Service) assign(ctx context.Context, req bus.AssignRequest) (bus.Empty, error) {
	if req.Session.IsZero() {
		return bus.Empty{}, bus.Refuse(bus.CodeBadRequest, "stream %s: session id is missing", req.Stream)
	}
	if err := s.openOutputs(ctx, req.Stream, req.Term, req.Payload); err != nil {
		return bus.Empty{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.obey(req.Stream, req.Term)
	if err != nil {
		return bus.Empty{}, err
	}
	switch have := st.session(req.Session); {
	case have != nil && have.ssrc != req.SSRC:
		return bus.Empty{}, bus.Refuse(bus.CodeConflict, "session %s of stream %s has ssrc %08x, not %08x: a session keeps its SSRC", req.Session, req.Stream, have.ssrc, req.SSRC)
	case have != nil:
		return bus.Empty{}, nil
	case slices.Contains(st.over, req.Session):
		// An order that was on its way when the session ended would have it stay for ever.
		return bus.Empty{}, bus.Refuse(bus.CodeConflict, "session %s of stream %s is over: start a new one", req.Session, req.Stream)
	}
	if other := s.routes[req.SSRC]; other != nil {
		return bus.Empty{}, bus.Refuse(bus.CodeConflict, "ssrc %08x belongs to stream %s: choose another", req.SSRC, other.stream.id)
	}
	if len(st.waiting) >= maxWaiting {
		s.forget(st.waiting[0])
	}
	ses := &session{
		stream: st, id: req.Session, ssrc: req.SSRC, payload: req.Payload, last: s.cfg.Host.Now(),
		keys: slots{times: keyTimes{
			grace: s.cfg.Latency + s.cfg.RoundTrip, watch: s.cfg.WatchFor, proofLife: s.cfg.ProofLife, life: s.cfg.KeyLife,
		}},
		order: reorder{latency: s.cfg.Latency}, gauge: s.newGauge(req.Payload),
	}
	st.waiting = append(st.waiting, ses)
	s.routes[req.SSRC] = ses
	st.viewers.assign(req.Payload)
	st.tellOutputs(req.Payload)
	return bus.Empty{}, nil
}

// arm takes a key in. The costly part, checking the envelope and opening it, is
// done without the lock that packets wait for.
func (s *Service) arm(_ context.Context, req bus.ArmRequest) (bus.Empty, error) {
	ssrc, err := s.armable(req)
	if err != nil {
		return bus.Empty{}, err
	}
	open, err := s.openEnvelope(req, ssrc)
	if err != nil {
		return bus.Empty{}, err
	}
	switch {
	case req.Near == 0:
	case req.Joining:
		open.Resume(req.Near)
	default:
		open.Hint(req.Near)
	}
	now := s.cfg.Host.Now()
	lease, badLease := s.grantedBy(now, req.Lease)
	s.mu.Lock()
	defer s.mu.Unlock()
	ses, err := s.obeySession(req.Stream, req.Session, req.Term)
	if err != nil {
		open.Wipe()
		return bus.Empty{}, err
	}
	var end time.Time
	if err = badLease; err == nil {
		end, err = lease.leaseEnd(ses)
	}
	if err != nil {
		open.Wipe()
		return bus.Empty{}, bus.Refuse(bus.CodeConflict, "stream %s, epoch %d: %v", req.Stream, req.Epoch, err)
	}
	s.extend(now, ses, end)
	known := ses.keys.find(req.Epoch) != nil
	switch err := ses.keys.arm(now, req.Epoch, req.Reason, open); {
	case errors.Is(err, errEpochStale):
		open.Wipe()
		return bus.Empty{}, bus.Refuse(bus.CodeConflict, "stream %s, epoch %d: %v", req.Stream, req.Epoch, err)
	case err != nil:
		open.Wipe()
		return bus.Empty{}, bus.Refuse(bus.CodeUnavailable, "stream %s, epoch %d: %v", req.Stream, req.Epoch, err)
	case known:
		return bus.Empty{}, nil
	}
	if ses.began == 0 || req.Epoch < ses.began {
		ses.began = req.Epoch
	}
	if req.Joining {
		ses.ledger.joined = true
	} else {
		ses.keys.find(req.Epoch).armed = now
	}
	e := ses.event(gk.EventEpochArmed, req.Epoch, now)
	e.Reason = req.Reason
	s.notice(func() { s.tell(e) })
	return bus.Empty{}, nil
}

// armable tells the SSRC that a key is wanted for, if the session is here.
func (s *Service) armable(req bus.ArmRequest) (ssrc uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses, err := s.obeySession(req.Stream, req.Session, req.Term)
	if err != nil {
		return 0, err
	}
	return ses.ssrc, nil
}

// openEnvelope checks that the key management service made the envelope, for this
// service and this place, and opens it.
func (s *Service) openEnvelope(req bus.ArmRequest, ssrc uint32) (*media.Opener, error) {
	env, err := gkrp.OpenKeyEnvelope(s.kms, req.Envelope)
	if err != nil {
		return nil, bus.Refuse(bus.CodeUnauthorized, "stream %s, epoch %d: key envelope refused: %v", req.Stream, req.Epoch, err)
	}
	id := s.receiver.ID()
	switch {
	case env.Stream != req.Stream || env.Session != req.Session || env.Epoch != req.Epoch || env.SSRC != ssrc:
		return nil, bus.Refuse(bus.CodeBadRequest, "key envelope is for stream %s, session %s, epoch %d, ssrc %08x, not for %s, %s, %d, %08x",
			env.Stream, env.Session, env.Epoch, env.SSRC, req.Stream, req.Session, req.Epoch, ssrc)
	case env.Receiver != "transport/"+string(s.cfg.ID):
		return nil, bus.Refuse(bus.CodeBadRequest, "key envelope is for %s, this is transport/%s", env.Receiver, s.cfg.ID)
	case env.Suite != gkrp.SuiteMLKEM768X25519 || !bytes.Equal(env.KeyID, id[:]):
		return nil, bus.Refuse(bus.CodeConflict, "key envelope is sealed to receiver key %x, suite %d, this is %x, suite %d: ask for it again",
			env.KeyID, env.Suite, id, gkrp.SuiteMLKEM768X25519)
	}
	key, err := s.receiver.OpenMediaKey(env.Info(), env.Sealed)
	if err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "stream %s, epoch %d: %v", req.Stream, req.Epoch, err)
	}
	defer key.Wipe()
	return media.NewOpener(key, ssrc, req.Epoch)
}

// takeOver makes a session its stream's current one: when its first packet
// authenticated, or the device confirmed its first key. Until then the one before
// stays, whoever asks for what and however late the asking comes. The caller
// holds mu.
//
// The first packet shows that a device has the key, and not that the service knows:
// the ACK may never come, and the session before may be the live one still. So that
// one keeps its keys until the ACK is known of. What it had to wait for otherwise is
// the key management service, which need not be there.
func (s *Service) takeOver(ses *session) {
	st := ses.stream
	if st.current == ses {
		return
	}
	before, returns := st.current, st.former == ses
	if returns {
		st.former = nil
	}
	st.current = ses
	st.waiting = slices.DeleteFunc(st.waiting, func(o *session) bool { return o == ses })
	switch {
	case before == nil:
	case ses.confirmed && !returns, st.former != nil:
		s.forget(before)
	case returns:
		s.drain(before)
		before.yielded = true
		st.waiting = append(st.waiting, before)
		st.viewers.assign(ses.payload)
		st.tellOutputs(ses.payload)
	default:
		s.drain(before)
		st.former = before
	}
	s.settle(ses)
}

// settle forgets what a session that its device confirmed took the stream from. The
// caller holds mu.
func (s *Service) settle(ses *session) {
	if st := ses.stream; ses.confirmed && st.current == ses && st.former != nil {
		s.forget(st.former)
	}
}

// remember makes a session from before the one that the stream goes back to, where the
// current one is unconfirmed and came first because the transport was restarted. The
// caller holds mu.
func (s *Service) remember(cur, ses *session) {
	st := ses.stream
	if st.former != nil || cur.confirmed || ses.yielded {
		return
	}
	st.waiting = slices.DeleteFunc(st.waiting, func(o *session) bool { return o == ses })
	st.former = ses
}

// giveBackAfter is how long an unconfirmed session may be silent before the one that
// it took the stream from has it again: as long as the service waits before it lets
// another in.
const giveBackAfter = 1500 * time.Millisecond

// mayTake reports whether a packet of ses may take the stream from cur.
func (s *Service) mayTake(cur, ses *session, now time.Time) bool {
	if ses == ses.stream.former {
		return !cur.confirmed && now.Sub(cur.last) >= giveBackAfter
	}
	return ses.after(cur) && !ses.yielded
}

// begin tells where an epoch begins, and where the device is.
func (s *Service) begin(_ context.Context, req bus.SwitchRequest) (bus.Empty, error) {
	now := s.cfg.Host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	ses, err := s.obeySession(req.Stream, req.Session, req.Term)
	if err != nil {
		return bus.Empty{}, err
	}
	ses.confirmed = true
	s.settle(ses)
	slot := ses.keys.find(req.Epoch)
	if slot == nil {
		if req.Epoch <= ses.keys.gone {
			return bus.Empty{}, nil
		}
		return bus.Empty{}, bus.Refuse(bus.CodeNotFound, "stream %s: epoch %d is not armed here", req.Stream, req.Epoch)
	}
	if req.First != 0 && req.First <= gk.MaxIndex {
		if st := ses.stream; st.former != ses || st.current == nil || s.mayTake(st.current, ses, now) {
			s.takeOver(ses)
		}
		ses.keys.tell(now, req.Epoch, req.First)
		// Only where no earlier epoch has packets under way does the session begin here.
		if len(ses.keys.retiring) == 0 {
			ses.order.begin(req.First)
		}
		s.bounded(ses, slot, now)
		ses.order.pop(func(u unit) { s.deliverHeld(ses, u) })
		s.fanOut()
	}
	if req.Near != 0 && req.Near <= gk.MaxIndex {
		slot.open.Hint(req.Near)
	}
	return bus.Empty{}, nil
}

// release forgets a session; one that is not here is no error.
func (s *Service) release(_ context.Context, req bus.ReleaseStream) (bus.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.obey(req.Stream, req.Term)
	if err != nil {
		return bus.Empty{}, err
	}
	if ses := st.session(req.Session); ses != nil {
		s.forget(ses)
		st.end(ses.id)
	}
	return bus.Empty{}, nil
}

// forget delivers what a session still holds, wipes its keys and takes it off its
// stream. The caller holds mu.
func (s *Service) forget(ses *session) {
	s.drain(ses)
	ses.keys.clear()
	s.wipeDropped(ses, s.cfg.Host.Now())
	delete(s.routes, ses.ssrc)
	st := ses.stream
	if st.current == ses {
		st.current = nil
	}
	if st.former == ses {
		st.former = nil
	}
	st.waiting = slices.DeleteFunc(st.waiting, func(o *session) bool { return o == ses })
}

// drain delivers what a session still holds. The caller holds mu.
func (s *Service) drain(ses *session) {
	ses.order.drain(s.cfg.Host.Now(), func(u unit) { s.deliverHeld(ses, u) })
	s.fanOut()
}

// retire ends the keys, and the viewers, that have had their time.
func (s *Service) retire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.routes {
		ses.keys.expire(now)
		s.lapse(ses, now)
		if st := ses.stream; st.former == ses && ses.lapsed {
			s.forget(ses) // nobody vouches for it any more
		}
		s.wipeDropped(ses, now)
		ses.stream.viewers.dropSlow()
	}
}

func (s *Service) wipeDropped(ses *session, now time.Time) {
	for _, slot := range ses.keys.takeDropped() {
		s.tellGone(ses, slot.epoch, now)
	}
}
