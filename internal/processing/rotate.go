package processing

import (
	"context"
	"errors"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// execute does what a session's step asked for. The cases stand in the order in
// which one rotation meets them. What waits for another service runs in a
// goroutine of its own and posts its outcome back; what fails is simply not
// posted, because the session asks again for everything that it lacks.
func (st *stream) execute(r *run, effects []gkrp.Effect) {
	for _, fx := range effects {
		switch fx := fx.(type) {
		case gkrp.OpenKeys:
			st.openKeys(r, fx)
		case gkrp.Write:
			st.lastEpoch = max(st.lastEpoch, fx.Record.Epoch, fx.Record.Pending)
			st.writer.write(r, fx.Record)
		case gkrp.Release:
			st.release(r, fx)
		case gkrp.Arm:
			st.arm(r, fx)
		case gkrp.Send:
			st.send(fx.Message)
		case gkrp.SendGrant:
			st.sendPayload(gkrp.TypeGrant, fx.Payload)
		case gkrp.Switch:
			st.switchAt(r, fx)
		case gkrp.Activate:
			st.activate(r, fx)
		case gkrp.Tell:
			st.tell(r, fx.Event)
		case gkrp.Close:
			st.close(r)
		case gkrp.Over:
			st.over(r)
		}
	}
	st.publishServing()
}

func (st *stream) openKeys(r *run, fx gkrp.OpenKeys) {
	req := bus.KMSOpenRequest{Device: st.device, Stream: st.id, Session: r.Record.Session, HighWater: fx.HighWater, SSRC: r.SSRC}
	st.call(func(ctx context.Context) {
		rep, err := bus.KMSOpen.Do(ctx, st.svc.conn, req)
		if err == nil {
			st.post(func() { st.step(r, gkrp.Opened{Epoch: rep.Epoch}) })
			return
		}
		st.svc.log.Warn("keys were not opened", "stream", st.id, "error", err)
		switch bus.CodeOf(err) {
		case bus.CodeRevoked:
			st.post(func() { st.step(r, gkrp.End{Code: gkrp.CodeRevoked}) })
		case bus.CodeEpochJump:
			st.post(func() { st.step(r, gkrp.End{Code: gkrp.CodeEpochJump}) })
		}
	})
}

func (st *stream) release(r *run, fx gkrp.Release) {
	req := bus.KMSReleaseRequest{
		Device: st.device, Stream: st.id, Session: r.Record.Session, Epoch: fx.Epoch,
		Prekey: fx.Prekey, Transports: st.svc.receivers(fx.Transports),
	}
	st.call(func(ctx context.Context) {
		rep, err := bus.KMSRelease.Do(ctx, st.svc.conn, req)
		if err == nil {
			st.post(func() {
				st.step(r, gkrp.Released{Epoch: fx.Epoch, Device: rep.Device, Confirm: rep.Confirm, Transports: rep.Transports})
			})
			return
		}
		st.svc.log.Warn("key was not released", "stream", st.id, "epoch", fx.Epoch, "error", err)
		switch bus.CodeOf(err) {
		case bus.CodeRevoked:
			st.post(func() { st.step(r, gkrp.End{Code: gkrp.CodeRevoked}) })
		case bus.CodeBadRequest, bus.CodeUsed:
			st.post(func() { st.step(r, gkrp.PrekeyRefused{Epoch: fx.Epoch}) })
		}
	})
}

func (st *stream) arm(r *run, fx gkrp.Arm) {
	if fx.Envelope == nil {
		return // the transport was away when the key was sealed: the next release has it
	}
	assign := bus.AssignRequest{Stream: st.id, Session: r.Record.Session, SSRC: r.SSRC, Payload: r.Payload, Term: st.svc.term}
	arm := bus.ArmRequest{
		Stream: st.id, Session: r.Record.Session, Epoch: fx.Epoch, Envelope: fx.Envelope,
		Reason: fx.Reason, Term: st.svc.term, Joining: fx.Joining, Near: fx.Near,
	}
	known := r.assigned[fx.Transport]
	to := string(fx.Transport)
	st.call(func(ctx context.Context) {
		var err error
		if !known {
			_, err = bus.TransportAssign.Do(ctx, st.svc.conn, to, assign)
		}
		if err == nil {
			_, err = bus.TransportArm.Do(ctx, st.svc.conn, to, arm)
		}
		if err != nil {
			st.svc.log.Warn("transport did not arm the epoch", "stream", st.id, "epoch", fx.Epoch, "transport", to, "error", err)
		}
		st.post(func() {
			if r.assigned == nil {
				r.assigned = map[gk.TransportID]bool{}
			}
			r.assigned[fx.Transport] = err == nil
			if err == nil {
				st.step(r, gkrp.Armed{Transport: fx.Transport, Epoch: fx.Epoch})
			}
		})
	})
}

// switchAt tells the transports where an epoch begins. It is repeated once; if
// both are lost, the first packet that authenticates stands for it.
func (st *stream) switchAt(r *run, fx gkrp.Switch) {
	req := bus.SwitchRequest{Stream: st.id, Session: r.Record.Session, Epoch: fx.Epoch, First: fx.First, Near: fx.Near, Term: st.svc.term}
	for _, id := range r.Transports {
		st.call(func(ctx context.Context) {
			if _, err := bus.TransportSwitch.Do(ctx, st.svc.conn, string(id), req); err != nil && ctx.Err() == nil {
				_, _ = bus.TransportSwitch.Do(ctx, st.svc.conn, string(id), req)
			}
		})
	}
}

func (st *stream) activate(r *run, fx gkrp.Activate) {
	id, session := st.id, r.Record.Session
	st.call(func(ctx context.Context) {
		_, err := bus.KMSSetState.Do(ctx, st.svc.conn, bus.KMSStateRequest{Stream: id, Session: session, Epoch: fx.Epoch, State: bus.KeyActive})
		if err == nil && fx.Before != 0 {
			_, err = bus.KMSSetState.Do(ctx, st.svc.conn, bus.KMSStateRequest{Stream: id, Session: session, Epoch: fx.Before, State: bus.KeyDeactivated})
		}
		if err != nil {
			st.svc.log.Warn("key state was not changed", "stream", id, "epoch", fx.Epoch, "error", err)
		}
	})
}

// close wipes a session's keys at the transports and in the key store.
func (st *stream) close(r *run) {
	st.svc.freeSSRC(r.SSRC)
	id, session, term := st.id, r.Record.Session, st.svc.term
	transports := r.Transports
	st.call(func(ctx context.Context) {
		for _, t := range transports {
			_, err := bus.TransportRelease.Do(ctx, st.svc.conn, string(t), bus.ReleaseStream{Stream: id, Session: session, Term: term})
			if err != nil && !errors.Is(err, bus.ErrNoResponder) && bus.CodeOf(err) != bus.CodeNotFound {
				st.svc.log.Warn("transport did not release the session", "stream", id, "transport", t, "error", err)
			}
		}
		_, err := bus.KMSSetState.Do(ctx, st.svc.conn, bus.KMSStateRequest{Stream: id, Session: session, State: bus.KeyDestroyed})
		if err != nil && bus.CodeOf(err) != bus.CodeNotFound {
			st.svc.log.Warn("keys were not destroyed", "stream", id, "error", err)
		}
	})
}

func (st *stream) over(r *run) {
	switch r {
	case st.live:
		st.live = nil
	case st.candidate:
		st.candidate = nil
	}
	for _, w := range st.waiting {
		w.answer <- rotated{err: bus.Refuse(bus.CodeConflict, "stream %q: the session ended", st.id)}
	}
	st.waiting = nil
}

// call runs f beside the stream's goroutine, with a deadline.
func (st *stream) call(f func(ctx context.Context)) {
	st.svc.wg.Go(func() {
		ctx, cancel := context.WithTimeout(st.svc.ctx, callTimeout)
		defer cancel()
		f(ctx)
	})
}

func (st *stream) send(m gkrp.Message) {
	st.svc.send(gkrp.Scope{Device: st.device, Stream: st.id}, m)
}

func (st *stream) sendPayload(t gkrp.Type, payload []byte) {
	st.svc.sendPayload(gkrp.Scope{Device: st.device, Stream: st.id}, t, payload)
}

func (s *Service) send(scope gkrp.Scope, m gkrp.Message) {
	payload, err := gkrp.Encode(m)
	if err != nil {
		s.log.Error("message does not encode", "type", m.Type(), "error", err)
		return
	}
	s.sendPayload(scope, m.Type(), payload)
}

func (s *Service) sendPayload(scope gkrp.Scope, t gkrp.Type, payload []byte) {
	wire, err := gkrp.SignPayload(s.signer, []byte(s.cfg.ID), s.controller, scope, gkrp.Down, t, payload)
	if err != nil {
		s.log.Error("message was not signed", "type", t, "error", err)
		return
	}
	if err := s.courier.Send(gkrp.Topic(scope.Device, scope.Stream, gkrp.Down), wire); err != nil {
		s.log.Warn("message was not sent; it will be repeated", "type", t, "stream", scope.Stream, "error", err)
	}
}

// tell announces an event of a session, and answers who waited for it.
func (st *stream) tell(r *run, e gk.Event) {
	e.Device, e.Stream, e.Session, e.At = st.device, st.id, r.Record.Session, time.Now()
	if e.Kind == gk.EventRotationDone {
		st.done(e.Epoch, e.Took)
	}
	st.svc.tell(e)
}

func (st *stream) publishServing() {
	var ids []gk.TransportID
	for _, r := range []*run{st.live, st.candidate} {
		if r != nil {
			ids = append(ids, r.Transports...)
		}
	}
	st.nowServing.Store(&ids)
}
