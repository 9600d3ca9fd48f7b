package processing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// stream is one stream's goroutine and everything that only it touches.
type stream struct {
	svc    *Service
	id     gk.StreamID
	device gk.DeviceID
	inbox  chan func()
	writer *writer

	lastEpoch gk.Epoch // highest ever seen, for people to look at
	live      *run     // the session whose device confirmed a key
	candidate *run     // a session whose device has not yet
	waiting   []waiter // who asked for a rotation and wants to know when it is done

	nowServing atomic.Pointer[[]gk.TransportID]
}

// run is one session being run.
type run struct {
	*gkrp.Session
	assigned map[gk.TransportID]bool
	seen     time.Time // last accepted media packet, as transports tell
	statuses map[gk.TransportID]bus.StreamStatus
}

type waiter struct {
	epoch  gk.Epoch
	answer chan<- rotated
}

type rotated struct {
	reply bus.RotateReply
	err   error
}

// inboxSize bounds what may wait for one stream; beyond it, news is dropped and
// the protocol's retries bring it again.
const inboxSize = 256

func newStream(s *Service, id gk.StreamID, device gk.DeviceID, revision uint64) *stream {
	st := &stream{svc: s, id: id, device: device, inbox: make(chan func(), inboxSize)}
	st.writer = newWriter(st, revision)
	s.wg.Go(st.writer.run)
	return st
}

// post has f run on the stream's goroutine.
func (st *stream) post(f func()) {
	select {
	case st.inbox <- f:
	case <-st.svc.ctx.Done():
	}
}

// run is the stream's goroutine: one thing at a time, and the ticks that its
// sessions ask for.
func (st *stream) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d := st.deadline(); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		select {
		case f := <-st.inbox:
			f()
		case <-timer.C:
			now := time.Now()
			for _, r := range []*run{st.live, st.candidate} {
				if r != nil {
					st.execute(r, r.Step(now, gkrp.Tick{}))
				}
			}
		case <-st.svc.ctx.Done():
			return
		}
	}
}

func (st *stream) deadline() time.Time {
	var d time.Time
	for _, r := range []*run{st.live, st.candidate} {
		if r == nil {
			continue
		}
		if t := r.Deadline(); !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	return d
}

// step feeds an outcome to a session that is still being run.
func (st *stream) step(r *run, in gkrp.Input) {
	if r != st.live && r != st.candidate {
		return
	}
	fx := r.Step(time.Now(), in)
	if r == st.candidate && !r.Candidate() {
		st.promote(r)
	}
	st.execute(r, fx)
}

// promote makes a candidate that confirmed its key the stream's session.
func (st *stream) promote(r *run) {
	old := st.live
	st.live, st.candidate = r, nil
	if old != nil {
		st.retire(old, "replaced by a new session")
	}
}

// retire ends a session that another took the place of. Its record is the new
// one's by now, so nothing is written.
func (st *stream) retire(old *run, why string) {
	if !old.Candidate() && !old.Record.Ended {
		st.tell(old, gk.Event{Kind: gk.EventSessionEnded, Epoch: old.Record.Epoch, Detail: map[string]string{"by": "service", "why": why}})
	}
	st.close(old)
}

// heard takes a verified message of an enrolled device.
func (st *stream) heard(dev bus.DeviceRecord, h gkrp.Heard) {
	if dev.Device != st.device {
		return // the stream's record names another device; enrolment keeps them apart
	}
	var session gk.SessionID
	switch m := h.Message.(type) {
	case *gkrp.Hello:
		st.hello(dev, m, h)
		return
	case *gkrp.Ack:
		session = m.Session
	case *gkrp.Report:
		session = m.Session
	case *gkrp.Refill:
		session = m.Session
	case *gkrp.Bye:
		session = m.Session
	}
	for _, r := range []*run{st.candidate, st.live} {
		if r != nil && r.Record.Session == session {
			st.step(r, h)
			return
		}
	}
	if _, bye := h.Message.(*gkrp.Bye); !bye {
		st.reject(session, h, gkrp.CodeUnknownSession, "this session is not known here: start a new one", 0)
	}
}

// hello answers a HELLO: with the reason why not, with a CHALLENGE, or by
// beginning a candidate session.
func (st *stream) hello(dev bus.DeviceRecord, m *gkrp.Hello, h gkrp.Heard) {
	now := time.Now()
	if m.Device != st.device || m.Stream != st.id {
		st.reject(m.Session, h, gkrp.CodeMalformed, "device and stream must be those of the topic", 0)
		return
	}
	if dev.Revoked {
		st.reject(m.Session, h, gkrp.CodeRevoked, "this device was revoked: enrol it anew", 0)
		return
	}
	version, ok := chooseVersion(m.Versions)
	if !ok {
		st.reject(m.Session, h, gkrp.CodeUnsupportedVersion, fmt.Sprintf("minor versions %d to %d are spoken here", gkrp.MinVersion, gkrp.CurrentVersion), 0)
		return
	}
	suite, ok := st.svc.chooseSuite(m.Suites)
	if !ok {
		st.reject(m.Session, h, gkrp.CodeUnsupportedSuite, "MLKEM768X25519 is asked for; the classical suite only where the operator allows it", 0)
		return
	}
	if !st.svc.fresh(now, m) {
		first := *m
		first.Nonce = nil
		payload := h.Payload
		if m.Nonce != nil { // a nonce that expired: challenge the HELLO that it was added to
			payload, _ = gkrp.Encode(&first)
		}
		st.send(&gkrp.Challenge{Session: m.Session, HelloHash: gkrp.Hash(payload), Nonce: st.svc.nonce(now, m)})
		return
	}
	if c := st.candidate; c != nil && c.Record.Session == m.Session {
		st.step(c, h)
		return
	}
	if st.live != nil && st.live.Record.Session == m.Session {
		return // its key is confirmed: a repetition that came late
	}
	if l := st.live; l != nil && !l.Record.Ended && now.Sub(l.seen) < st.svc.cfg.SilentAfter {
		st.reject(m.Session, h, gkrp.CodeBusy, "another session of this stream is sending", helloBusyRetry)
		return
	}
	transport, ok := st.svc.pickTransport(now)
	if !ok {
		st.reject(m.Session, h, gkrp.CodeUnavailable, "no transport service is there", time.Second)
		return
	}
	if st.candidate != nil {
		st.retire(st.candidate, "another candidate came")
	}
	ids := []gk.TransportID{transport}
	record := gkrp.Record{SSRC: st.svc.newSSRC(st.id), Version: version, Suite: suite, Transports: ids, Term: st.svc.term}
	sess, fx := gkrp.Begin(now, record, h, st.svc.timing(ids))
	st.candidate = &run{Session: sess}
	st.execute(st.candidate, fx)
}

func chooseVersion(offered []gkrp.Version) (best gkrp.Version, ok bool) {
	for _, v := range offered {
		if v >= gkrp.MinVersion && v <= gkrp.CurrentVersion && (!ok || v > best) {
			best, ok = v, true
		}
	}
	return best, ok
}

func (s *Service) chooseSuite(offered []gkrp.Suite) (gkrp.Suite, bool) {
	if slices.Contains(offered, gkrp.SuiteMLKEM768X25519) {
		return gkrp.SuiteMLKEM768X25519, true
	}
	return gkrp.SuiteX25519, s.cfg.AllowX25519 && slices.Contains(offered, gkrp.SuiteX25519)
}

// nonceLife is how long a CHALLENGE can be answered: between one and two of it.
const nonceLife = 30 * time.Second

// nonce is computed, not stored, so that a flood of HELLOs fills no memory. It
// is bound to the device's session and to a stretch of this process's life.
func (s *Service) nonce(now time.Time, m *gkrp.Hello) []byte { return s.nonceAt(s.stretch(now), m) }

func (s *Service) stretch(now time.Time) uint64 { return uint64(now.UnixNano() / int64(nonceLife)) }

func (s *Service) nonceAt(stretch uint64, m *gkrp.Hello) []byte {
	h := hmac.New(sha256.New, s.nonceKey[:])
	_ = binary.Write(h, binary.BigEndian, stretch) // a hash takes every write
	fmt.Fprintf(h, "%s/%s/%s", m.Device, m.Stream, m.Session)
	return h.Sum(nil)
}

func (s *Service) fresh(now time.Time, m *gkrp.Hello) bool {
	if m.Nonce == nil {
		return false
	}
	n := s.stretch(now)
	return hmac.Equal(m.Nonce, s.nonceAt(n, m)) || hmac.Equal(m.Nonce, s.nonceAt(n-1, m))
}

func (st *stream) reject(session gk.SessionID, h gkrp.Heard, code gkrp.Code, text string, retry time.Duration) {
	st.svc.tell(gk.Event{Kind: gk.EventSessionRejected, Device: st.device, Stream: st.id, Session: session, Detail: map[string]string{"code": string(code)}})
	r := &gkrp.Reject{Session: session, Regarding: gkrp.Hash(h.Payload), Code: code, Text: text, RetryAfter: uint32(retry.Milliseconds())}
	if code == gkrp.CodeUnsupportedVersion {
		for v := gkrp.MinVersion; v <= gkrp.CurrentVersion; v++ {
			r.Supported = append(r.Supported, v)
		}
	}
	st.send(r)
}

// status takes a transport's word of a stream.
func (st *stream) status(u bus.StreamStatus) {
	for _, r := range []*run{st.live, st.candidate} {
		if r != nil && r.Record.Session == u.Session {
			if r.statuses == nil {
				r.statuses = map[gk.TransportID]bus.StreamStatus{}
			}
			r.statuses[u.Transport] = u
		}
	}
	if u.Delivered > 0 {
		st.mediaSeen(u.Session, time.Duration(u.SilentMs)*time.Millisecond)
	}
}

func (st *stream) mediaSeen(session gk.SessionID, ago time.Duration) {
	for _, r := range []*run{st.live, st.candidate} {
		if r != nil && r.Record.Session == session {
			if t := time.Now().Add(-ago); t.After(r.seen) {
				r.seen = t
			}
		}
	}
}

func (st *stream) transportLost(id gk.TransportID) {
	for _, r := range []*run{st.live, st.candidate} {
		if r != nil {
			delete(r.assigned, id)
			st.step(r, gkrp.TransportLost{Transport: id})
		}
	}
}

// rotate orders a rotation for somebody who may wait for its end.
func (st *stream) rotate(r bus.RotateRequest, answer chan<- rotated) {
	l := st.live
	if l == nil || l.Record.Ended {
		answer <- rotated{err: bus.Refuse(bus.CodeConflict, "stream %q has no session at the moment: start its device first", st.id)}
		return
	}
	st.step(l, gkrp.Rotate{Reason: r.Reason})
	epoch, _ := l.Rotating()
	if !r.Wait {
		answer <- rotated{reply: bus.RotateReply{Epoch: epoch}}
		return
	}
	st.waiting = append(st.waiting, waiter{epoch, answer})
}

// done answers those who wait for an epoch.
func (st *stream) done(e gk.Epoch, took time.Duration) {
	st.waiting = slices.DeleteFunc(st.waiting, func(w waiter) bool {
		if w.epoch <= e {
			w.answer <- rotated{reply: bus.RotateReply{Epoch: e, Done: true, Took: took}}
			return true
		}
		return false
	})
}

func (st *stream) stop() {
	for _, r := range []*run{st.live, st.candidate} {
		if r != nil {
			st.step(r, gkrp.End{Code: gkrp.CodeRevoked})
		}
	}
}

// serving tells, to other goroutines, which transports carry the stream.
func (st *stream) serving() []gk.TransportID {
	if p := st.nowServing.Load(); p != nil {
		return *p
	}
	return nil
}

// info describes the stream, or is nil when it never had a session.
func (st *stream) info() *bus.StreamInfo {
	r, state := st.live, "live"
	switch {
	case r == nil && st.candidate != nil:
		r, state = st.candidate, "starting"
	case r == nil:
		return &bus.StreamInfo{Stream: st.id, Device: st.device, State: "ended", Epoch: st.lastEpoch}
	case r.Record.Ended:
		state = "ended"
	case time.Since(r.seen) > 2*time.Second+st.svc.cfg.SilentAfter:
		state = "silent"
	}
	_, stage := r.Rotating()
	i := &bus.StreamInfo{
		Stream: st.id, Device: st.device, Session: r.Record.Session, State: state,
		Epoch: r.Record.Epoch, KeySince: r.Since, Rotations: r.Rotations, LastTook: r.Took,
		ByReason: map[gk.Reason]uint64{}, Rotating: stage != 0, SSRC: r.SSRC, Payload: r.Payload,
		Sent: r.Reported(), Started: r.Started,
	}
	for k, v := range r.ByReason {
		i.ByReason[k] = v
	}
	for _, id := range r.Transports {
		if u, ok := r.statuses[id]; ok {
			i.Status = append(i.Status, u)
		}
	}
	return i
}
