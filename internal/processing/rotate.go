package processing

import (
	"context"
	"errors"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// execute does what a step asked for. The cases stand in the order in which one
// rotation meets them. What waits for another service runs in a goroutine of its
// own and posts its outcome back; what fails is simply not posted, because the
// session asks again for everything that it lacks.
func (st *stream) execute(effects []gkrp.Of) {
	for _, of := range effects {
		x := of.Session
		switch fx := of.Effect.(type) {
		case gkrp.OpenKeys:
			st.openKeys(x, fx)
		case gkrp.Write:
			st.lastEpoch = max(st.lastEpoch, fx.Record.Epoch)
			st.writer.write(x, fx.Record)
		case gkrp.Release:
			st.release(x, fx)
		case gkrp.Arm:
			st.arm(x, fx)
		case gkrp.Send:
			st.send(fx.Message)
		case gkrp.SendGrant:
			st.sendPayload(gkrp.TypeGrant, fx.Payload)
		case gkrp.Switch:
			st.switchAt(x, fx)
		case gkrp.Activate:
			st.activate(x, fx)
		case gkrp.Outranked:
			st.svc.ifLatest(func(context.Context) {
				st.post(func() { st.outcome(x, gkrp.End{Code: gkrp.CodeUnknownSession}) })
			})
		case gkrp.Reported:
			st.reported(x, fx)
		case gkrp.Insists:
			st.holding.refused(st.svc.now())
		case gkrp.Tell:
			st.tell(x, fx.Event)
		case gkrp.Close:
			st.close(x)
		case gkrp.Over:
			st.over(x)
		}
	}
	st.publishServing()
}

// openKeys has a session opened. The state machine asks again and again; what was asked
// and not answered yet, or waits for its turn, is not asked twice: when a thousand
// sessions begin together, the key store would do little else than answer nobody.
func (st *stream) openKeys(x *gkrp.Session, fx gkrp.OpenKeys) {
	r := st.of(x)
	if r.opening {
		return
	}
	r.opening = true
	svc := st.svc
	req := bus.KMSOpenRequest{Device: st.device, Stream: st.id, Session: x.Record.Session, HighWater: fx.HighWater, SSRC: x.SSRC}
	svc.beside(func() {
		var rep bus.KMSOpenReply
		err := svc.opens.pass(svc.ctx, svc, st.id, func() (err error) {
			ctx, cancel := svc.cfg.Host.WithTimeout(svc.ctx, callTimeout)
			defer cancel()
			rep, err = bus.KMSOpen.Do(ctx, svc.conn, req)
			return err
		})
		st.post(func() {
			r.opening = false
			if err == nil {
				st.outcome(x, gkrp.Opened{Epoch: rep.Epoch})
				return
			}
			if svc.ctx.Err() == nil {
				svc.log.Warn("keys were not opened", "stream", st.id, "error", err)
			}
			switch bus.CodeOf(err) {
			case bus.CodeRevoked:
				st.outcome(x, gkrp.End{Code: gkrp.CodeRevoked})
			case bus.CodeEpochJump:
				st.outcome(x, gkrp.End{Code: gkrp.CodeEpochJump})
			case bus.CodeConflict:
				// Another instance opened the session, and is gone: it cannot be gone on with.
				st.outcome(x, gkrp.End{Code: gkrp.CodeUnknownSession})
			}
		})
	})
}

func (st *stream) release(x *gkrp.Session, fx gkrp.Release) {
	req := bus.KMSReleaseRequest{
		Device: st.device, Stream: st.id, Session: x.Record.Session, Epoch: fx.Epoch,
		After: fx.After, Prekey: fx.Prekey, Transports: st.svc.receivers(fx.Transports),
	}
	leases := st.svc.beats(fx.Transports...)
	req.Marks = make(map[gk.TransportID][]byte, len(leases))
	for id, l := range leases {
		if l.Mark != nil {
			req.Marks[id] = l.Mark
		}
	}
	st.call(func(ctx context.Context) {
		rep, err := bus.KMSRelease.Do(ctx, st.svc.conn, req)
		if err == nil {
			st.post(func() {
				st.leased(x, leases, rep.Words)
				st.outcome(x, gkrp.Released{Epoch: rep.Epoch, Device: rep.Device, Confirm: rep.Confirm, Transports: rep.Transports})
			})
			return
		}
		st.svc.log.Warn("key was not released", "stream", st.id, "epoch", fx.Epoch, "error", err)
		switch bus.CodeOf(err) {
		case bus.CodeRevoked:
			st.post(func() { st.outcome(x, gkrp.End{Code: gkrp.CodeRevoked}) })
		case bus.CodeBadRequest, bus.CodeUsed:
			st.post(func() { st.outcome(x, gkrp.PrekeyRefused{}) })
		case bus.CodeExpired:
			st.post(func() { st.outcome(x, gkrp.KeyRetired{Epoch: fx.Epoch}) })
		case bus.CodeNotFound, bus.CodeConflict:
			st.post(func() { st.outcome(x, gkrp.KeyUnknown{Epoch: fx.Epoch}) })
		}
	})
}

// leased keeps the leases that a release is good for.
func (st *stream) leased(x *gkrp.Session, leases map[gk.TransportID]bus.Lease, words map[gk.TransportID][]byte) {
	for id, l := range leases {
		l.Word = words[id]
		st.of(x).leases[id] = l
	}
}

func (st *stream) arm(x *gkrp.Session, fx gkrp.Arm) {
	if fx.Envelope == nil {
		return // the transport was away when the key was sealed: the next release has it
	}
	assign := bus.AssignRequest{Stream: st.id, Session: x.Record.Session, SSRC: x.SSRC, Payload: x.Payload, Term: st.svc.protocol.Term}
	arm := bus.ArmRequest{
		Stream: st.id, Session: x.Record.Session, Epoch: fx.Epoch, Envelope: fx.Envelope,
		Reason: fx.Reason, Term: st.svc.protocol.Term, Joining: fx.Joining, Near: fx.Near,
		Lease: st.of(x).leases[fx.Transport],
	}
	known := st.of(x).assigned[fx.Transport]
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
			st.of(x).assigned[fx.Transport] = err == nil
			if err == nil {
				st.outcome(x, gkrp.Armed{Transport: fx.Transport, Epoch: fx.Epoch})
			}
		})
	})
}

// switchAt tells the transports where an epoch begins. It is repeated once; if
// both are lost, the first packet that authenticates stands for it. A transport
// that went over to another session, as with the first packet of a clone that then
// did not stay, has forgotten this one's keys: it is given them again.
func (st *stream) switchAt(x *gkrp.Session, fx gkrp.Switch) {
	req := bus.SwitchRequest{Stream: st.id, Session: x.Record.Session, Epoch: fx.Epoch, First: fx.First, Near: fx.Near, Term: st.svc.protocol.Term}
	for _, id := range x.Transports {
		st.call(func(ctx context.Context) {
			_, err := bus.TransportSwitch.Do(ctx, st.svc.conn, string(id), req)
			if err != nil && ctx.Err() == nil {
				_, err = bus.TransportSwitch.Do(ctx, st.svc.conn, string(id), req)
			}
			if bus.CodeOf(err) == bus.CodeNotFound {
				st.post(func() { st.forgotten(x, id) })
			}
		})
	}
}

// forgotten has a transport given a session's keys again.
func (st *stream) forgotten(x *gkrp.Session, id gk.TransportID) {
	if r := st.known[x]; r != nil {
		delete(r.assigned, id)
		st.outcome(x, gkrp.TransportLost{Transport: id})
	}
}

// reported hands a device's report on: to the transports, which hold it against
// what they accepted, and to whoever watches behaviour. What is lost of it is not
// repeated; the next report goes on where it ended.
func (st *stream) reported(x *gkrp.Session, fx gkrp.Reported) {
	r := fx.Report
	rep := bus.DeviceReport{
		Stream: st.id, Session: r.Session, Number: r.Number, Epoch: r.Epoch,
		From: r.From, To: r.To, Packets: r.Packets, Bytes: r.Bytes, Tags: r.Tags, SinceMs: r.Since,
	}
	st.reports.report(st.svc.now(), r.Session, len(r.Tags) > 0)
	if r.Ingress != nil {
		st.behaviour.heardIngress(st.svc.now(), r.Session, r.Ingress)
	}
	if r.Encoder != nil {
		st.behaviour.heardEncoder(st.svc.now(), r.Session, r.Encoder, fx.Late)
	}
	for _, id := range x.Transports {
		st.call(func(ctx context.Context) {
			_, _ = bus.TransportReport.Do(ctx, st.svc.conn, string(id), bus.ReportRequest{Report: rep, Term: st.svc.protocol.Term})
		})
	}
	if err := bus.DeviceReports.Tell(st.svc.conn, rep); err != nil {
		st.svc.log.Warn("report was not handed on", "stream", st.id, "error", err)
	}
}

func (st *stream) activate(x *gkrp.Session, fx gkrp.Activate) {
	id, session := st.id, x.Record.Session
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
func (st *stream) close(x *gkrp.Session) {
	st.svc.freeSSRC(x.SSRC)
	id, session, term := st.id, x.Record.Session, st.svc.protocol.Term
	transports := x.Transports
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

func (st *stream) over(x *gkrp.Session) {
	delete(st.known, x)
	if st.machine.Live() != nil {
		return
	}
	st.behaviour.ended(st.svc.now())
	st.disappoint(bus.Refuse(bus.CodeConflict, "stream %q: the session ended", st.id))
}

// call runs f beside the stream's goroutine, with a deadline.
func (st *stream) call(f func(ctx context.Context)) {
	st.svc.beside(func() {
		ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, callTimeout)
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
func (st *stream) tell(x *gkrp.Session, e gk.Event) {
	e.Device, e.Stream, e.At = st.device, st.id, st.svc.now()
	if x != nil {
		e.Session = x.Record.Session
	}
	if e.Kind == gk.EventRotationDone {
		st.done(e.Epoch, e.Took)
	}
	st.behaviour.event(e.At, e)
	if e.Kind == gk.EventSessionStarted { // one of the two has given way
		st.holding.last, st.holding.insist = time.Time{}, false
	}
	st.svc.tell(e)
}

func (st *stream) publishServing() {
	var now []*serving
	for _, x := range []*gkrp.Session{st.machine.Live(), st.machine.Candidate()} {
		if x != nil {
			now = append(now, &serving{x, x.Record.Session, !x.Candidate(), slices.Clone(x.Transports)})
		}
	}
	st.nowServing.Store(&now)
}
