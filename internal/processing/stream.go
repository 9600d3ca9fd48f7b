package processing

import (
	"slices"
	"sync/atomic"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// stream is one stream's goroutine and everything that only it touches: the
// protocol's state machine, and what the service knows beside it.
type stream struct {
	svc     *Service
	id      gk.StreamID
	device  gk.DeviceID
	machine *gkrp.Stream
	loop    host.Loop
	writer  *writer

	known     map[*gkrp.Session]*run // what is known of each session that is being run
	lost      bool                   // another instance owns the stream
	lastEpoch gk.Epoch               // highest ever seen, for people to look at
	waiting   []waiter               // who asked for a rotation and wants to know when it is done
	orders    []ordered              // the last rotations that were asked for, oldest first

	behaviour               *behaviour
	measured                feature.Window // the newest, decoded
	profileFile, alertsFile *file
	alertsVersion           uint64 // under which alerts were last sealed; as file.revision is
	tuner                   *tuner
	holding                 holding
	reports                 reportWatch

	nowServing atomic.Pointer[[]*serving]
}

// serving is a session that transports hold keys of, for other goroutines.
type serving struct {
	x          *gkrp.Session // for the stream's goroutine alone
	session    gk.SessionID
	live       bool // its device confirmed a key
	transports []gk.TransportID
}

// run is what the service keeps of a session beside its state machine.
type run struct {
	assigned map[gk.TransportID]bool
	statuses map[gk.TransportID]bus.StreamStatus
	leases   map[gk.TransportID]bus.Lease // on the strength of which the last key was released
	opening  bool                         // it is on its way, or waits for its turn
}

// waiter wants to know when an epoch after one that it saw is in use.
type waiter struct {
	after  gk.Epoch
	answer chan<- rotated
}

// ordered is a rotation that was asked for: asked again, it is not ordered again.
type ordered struct {
	asking string
	before gk.Epoch // in use then
}

// maxOrdered bounds the orders that are remembered. Who repeats one does so for seconds.
const maxOrdered = 32

type rotated struct {
	reply bus.RotateReply
	err   error
}

// inboxSize bounds what may wait for one stream.
const inboxSize = 256

func newStream(s *Service, id gk.StreamID, device gk.DeviceID, revision uint64) *stream {
	st := &stream{
		svc: s, id: id, device: device, machine: gkrp.NewStream(id, device, &s.protocol),
		loop: s.cfg.Host.Loop(inboxSize), known: map[*gkrp.Session]*run{},
	}
	st.writer = newWriter(st, revision)
	st.behaviour = newBehaviour(&s.cfg.Behaviour, id)
	st.profileFile, st.alertsFile = newFile(s, id, profileToken), newFile(s, id, alertsToken)
	st.tuner = newTuner(st)
	return st
}

// post has f run on the stream's goroutine.
func (st *stream) post(f func()) { st.loop.Post(st.svc.ctx, f) }

// run is the stream's goroutine: one thing at a time, and the ticks that its
// sessions ask for.
func (st *stream) run() {
	// fenced replaces the machine, so the loop must not hold on to it.
	deadline := func() time.Time { return st.machine.Deadline() }
	st.loop.Run(st.svc.ctx, deadline, func() { st.step(gkrp.Tick{}) })
}

// step feeds the state machine and does what it asks for, and what the behaviour
// makes of it.
func (st *stream) step(in gkrp.Input) {
	st.execute(st.machine.Step(st.svc.now(), in))
	st.react()
}

// outcome feeds what became of an effect back to the session that asked for it.
func (st *stream) outcome(x *gkrp.Session, in gkrp.Input) {
	st.step(gkrp.Outcome{Session: x, Input: in})
}

// heard takes a verified message of an enrolled device.
func (st *stream) heard(dev bus.DeviceRecord, h gkrp.Heard) {
	if dev.Device != st.device {
		return // the stream's record names another device; enrolment keeps them apart
	}
	if st.lost {
		return // it is another instance's to answer
	}
	st.step(gkrp.From{Heard: h, Revoked: dev.Revoked})
}

func (st *stream) of(x *gkrp.Session) *run {
	r := st.known[x]
	if r == nil {
		r = &run{assigned: map[gk.TransportID]bool{}, statuses: map[gk.TransportID]bus.StreamStatus{}, leases: map[gk.TransportID]bus.Lease{}}
		st.known[x] = r
	}
	return r
}

// status takes a transport's word of a stream.
func (st *stream) status(u bus.StreamStatus) {
	x := st.carried(u.Session, u.Transport)
	if x != nil {
		st.of(x).statuses[u.Transport] = u
	}
	if l := st.machine.Live(); l != nil && len(l.Transports) > 0 && l.Transports[0] == u.Transport {
		st.behaviour.status(st.svc.now(), &u)
		st.watchReports(st.svc.now(), &u)
		st.react()
		st.hold(st.svc.now())
	}
	if x != nil && u.Delivered > 0 {
		st.step(gkrp.Media{Session: u.Session, At: st.svc.now().Add(-time.Duration(u.SilentMs) * time.Millisecond)})
	}
}

func (st *stream) transportLost(id gk.TransportID) {
	for _, r := range st.known {
		delete(r.assigned, id)
	}
	delete(st.holding.told, id)
	st.step(gkrp.TransportLost{Transport: id})
}

// rotate orders a rotation for somebody who may wait for its end, and asks again under
// the same asking where the answer was lost.
func (st *stream) rotate(r bus.RotateRequest, asking string, answer chan<- rotated) {
	l := st.machine.Live()
	if l == nil || l.Record.Ended {
		answer <- rotated{err: bus.Refuse(bus.CodeConflict, "stream %q has no session at the moment: start its device first", st.id)}
		return
	}
	before, again := st.order(asking, l.Record.Epoch)
	if !again {
		st.step(gkrp.Rotate{Reason: r.Reason, Known: before})
	}
	switch l := st.machine.Live(); {
	case !r.Wait:
		answer <- rotated{reply: bus.RotateReply{Epoch: before}}
	case again && l != nil && l.Record.Epoch > before:
		answer <- rotated{reply: bus.RotateReply{Epoch: l.Record.Epoch, Done: true, Took: l.Took}}
	default:
		st.waiting = append(st.waiting, waiter{before, answer})
	}
}

// order remembers an order that may be repeated. It tells whether it was given before,
// and the epoch that was in use when it was.
func (st *stream) order(asking string, now gk.Epoch) (before gk.Epoch, again bool) {
	if asking == "" {
		return now, false
	}
	for _, o := range st.orders {
		if o.asking == asking {
			return o.before, true
		}
	}
	st.orders = append(st.orders, ordered{asking, now})
	st.orders = st.orders[max(0, len(st.orders)-maxOrdered):]
	return now, false
}

// done answers those who wait for an epoch.
func (st *stream) done(e gk.Epoch, took time.Duration) {
	st.waiting = slices.DeleteFunc(st.waiting, func(w waiter) bool {
		if w.after < e {
			w.answer <- rotated{reply: bus.RotateReply{Epoch: e, Done: true, Took: took}}
			return true
		}
		return false
	})
}

// disappoint answers those who wait for an epoch that will not come.
func (st *stream) disappoint(why error) {
	for _, w := range st.waiting {
		w.answer <- rotated{err: why}
	}
	st.waiting = nil
}

// serves tells, to other goroutines, which sessions transports carry.
func (st *stream) serves() []*serving {
	if p := st.nowServing.Load(); p != nil {
		return *p
	}
	return nil
}

// info describes the stream.
func (st *stream) info() *bus.StreamInfo {
	x, state := st.machine.Live(), "live"
	switch {
	case x == nil && st.machine.Candidate() != nil:
		x, state = st.machine.Candidate(), "starting"
	case x == nil:
		return &bus.StreamInfo{Stream: st.id, Device: st.device, State: "ended", Epoch: st.lastEpoch}
	case x.Record.Ended:
		state = "ended"
	case st.svc.now().Sub(st.machine.Seen()) > 2*time.Second+st.svc.cfg.SilentAfter:
		state = "silent"
	}
	_, stage := x.Rotating()
	i := &bus.StreamInfo{
		Stream: st.id, Device: st.device, Session: x.Record.Session, State: state,
		Epoch: x.Record.Epoch, KeySince: x.Since, Rotations: x.Rotations, LastTook: x.Took,
		ByReason: map[gk.Reason]uint64{}, Rotating: stage != 0, SSRC: x.SSRC, Payload: x.Payload,
		Sent: x.Reported(), Started: x.Started,
	}
	for k, v := range x.ByReason {
		i.ByReason[k] = v
	}
	for _, id := range x.Transports {
		if u, ok := st.of(x).statuses[id]; ok {
			i.Status = append(i.Status, u)
		}
	}
	return i
}
