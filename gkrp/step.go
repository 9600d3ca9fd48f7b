package gkrp

import (
	"bytes"
	"crypto/hmac"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Session is the service's half of the protocol for one session of one stream:
// a pure state machine. [Session.Step] takes what happened and gives what is to
// be done; whoever runs it does that and feeds the outcomes back as inputs. It
// owns no clock, lock or connection, and is not safe for concurrent use.
//
// One rotation passes the stages below, top to bottom. In each, what is still
// missing is asked for again after a while, so that a lost answer, a restarted
// service or a dropped message needs no rule of its own:
//
//	Opening    the key management service allocates the session's first epoch
//	Releasing  the epoch's key is sealed for the device and for every transport
//	Arming     every transport confirms that it can open the epoch
//	Recording  the intent is known to be written down (an urgent rotation does not wait)
//	Granting   the GRANT goes out, byte for byte the same each time, until its ACK verifies
//
// so nothing is ever sent that cannot be opened. Writing begins with the rotation
// and runs beside releasing and arming; only the GRANT waits for it.
type Session struct {
	Record

	timing    Timing
	offered   []byte                        // its hash
	offer     *Hello                        // the proven HELLO, until the first ACK
	wants     gk.Reason                     // a request that came while a rotation was in flight
	rot       *rotation                     // the rotation in flight
	rejoin    map[gk.TransportID]*rejoining // transports that lost their keys
	refilling backoff                       // asking for prekeys; its time is zero when nothing is asked
	renewals  Budget                        // of epochs for a source that breaks off
	renewAt   time.Time                     // before it, a source that breaks off again gets no new epoch
	rotateAt  time.Time                     // scheduled rotation
	base      uint64                        // device's packet count when the epoch began
	packets   uint64                        // as last reported
	reports   uint64                        // number of the last report
	confirmed time.Time                     // Epoch, to this instance; zero: to one before it
	endAt     time.Time                     // an ended session lets late packets arrive first
	over      bool
}

// Stage is how far a rotation has come.
type Stage uint8

// The stages, in order.
const (
	StageOpening Stage = iota + 1
	StageReleasing
	StageArming
	StageRecording
	StageGranting
)

func (s Stage) String() string {
	return [...]string{"?", "opening", "releasing", "arming", "recording", "granting"}[min(int(s), 5)]
}

type rotation struct {
	epoch     gk.Epoch
	reason    gk.Reason
	stage     Stage
	decided   time.Time
	prekey    []byte
	envelopes map[gk.TransportID][]byte
	armed     map[gk.TransportID]bool
	confirm   []byte
	grant     []byte // payload, fixed once made
	hash      []byte
	recorded  bool // the intent is written down, or need not be
	adopted   bool // taken over from another instance: the device may answer an earlier GRANT
	retry     backoff
}

// Begin makes the candidate session that a proven HELLO, which in must hold, asks for. The record
// names the stream's SSRC, transports and term; version and suite are chosen.
func Begin(now time.Time, r Record, in Heard, t Timing) (*Session, []Effect) {
	hello := in.Message.(*Hello)
	r.Device, r.Stream, r.Session, r.Payload = hello.Device, hello.Stream, hello.Session, hello.Payload
	r.Prekeys, r.Near = slices.Clone(hello.Prekeys), hello.Next
	r.Started = now
	r.ByReason = map[gk.Reason]uint64{}
	s := &Session{Record: r, timing: t, offer: hello, offered: Hash(in.Payload), renewals: renewBudget}
	s.rot = &rotation{reason: gk.ReasonStart, stage: StageOpening, decided: now, recorded: true}
	s.endAt = now.Add(t.CloseAfter)
	return s, s.push(now)
}

// Resume takes a recorded session up again. Its transports are given the epochs
// in use, and a rotation that was under way is repeated.
func Resume(now time.Time, r Record, t Timing) (*Session, []Effect) {
	s := &Session{Record: r, timing: t, renewals: renewBudget}
	if s.ByReason == nil {
		s.ByReason = map[gk.Reason]uint64{}
	}
	s.schedule(now)
	fx := []Effect{Tell{gk.Event{Kind: gk.EventSessionRecovered, Epoch: r.Epoch}}}
	for _, id := range r.Transports {
		fx = append(fx, s.transportLost(now, id)...)
	}
	if r.Pending != "" {
		s.rot = &rotation{reason: r.Pending, stage: StageReleasing, decided: now, recorded: true, adopted: true}
		fx = append(fx, s.push(now)...)
	}
	return s, fx
}

// Candidate reports whether the device has not confirmed its first key yet.
func (s *Session) Candidate() bool { return s.Record.Epoch == 0 }

// Rotating reports the epoch of the rotation in flight, and its stage.
func (s *Session) Rotating() (gk.Epoch, Stage) {
	if s.rot == nil {
		return 0, 0
	}
	return s.rot.epoch, s.rot.stage
}

// Reported gives the device's own count of packets sent.
func (s *Session) Reported() uint64 { return s.packets }

// Step takes one input and gives what is to be done about it.
func (s *Session) Step(now time.Time, in Input) []Effect {
	if s.over {
		return nil
	}
	switch in := in.(type) {
	case Tick:
		return s.tick(now)
	case Opened:
		if s.rot != nil && s.rot.stage == StageOpening {
			s.rot.epoch = in.Epoch
			return s.enter(now, StageReleasing)
		}
	case Recorded:
		if s.rot == nil || in.Epoch != s.Record.Epoch || in.Pending != s.rot.reason {
			return nil
		}
		s.rot.recorded = true
		if s.rot.stage == StageRecording {
			return s.grant(now)
		}
	case Released:
		return s.released(now, in)
	case Armed:
		return s.armed(now, in)
	case Heard:
		return s.heard(now, in)
	case Rotate:
		return s.rotate(now, in.Reason, in.Known)
	case TransportLost:
		return s.transportLost(now, in.Transport)
	case PrekeyRefused:
		if s.rot != nil && s.rot.stage == StageReleasing {
			s.rot.prekey = nil
		}
	case KeyUnknown:
		if in.Epoch == s.Record.Epoch || s.rot != nil && s.rot.stage == StageReleasing && in.Epoch == s.rot.epoch {
			return s.end(CodeUnknownSession)
		}
	case KeyRetired:
		return s.retired(now, in.Epoch)
	case End:
		return s.end(in.Code)
	}
	return nil
}

// rotate begins a rotation, or lets the one in flight serve the request.
func (s *Session) rotate(now time.Time, reason gk.Reason, known gk.Epoch) []Effect {
	switch {
	case s.Candidate() || s.Record.Ended:
		return nil
	case reason == gk.ReasonProof && known < s.Record.Epoch:
		return nil // that key was changed already: its holder is locked out
	case s.rot != nil:
		// The key in flight is as fresh as one asked for now, unless the device was
		// granted it already and there is proof that another knows it.
		switch {
		case reason != gk.ReasonProof:
			return nil
		case s.rot.stage == StageGranting && known >= s.rot.epoch:
			s.wants = reason
			return nil
		}
		return s.hasten(now, reason)
	case len(s.Prekeys) <= proofReserve && reason != gk.ReasonProof:
		s.wants = reason
		return []Effect{s.refill(now)}
	}
	s.wants = ""
	// A record that comes late costs an urgent rotation nothing: an epoch that was
	// perhaps granted is found again from the device's REPORT.
	s.rot = &rotation{reason: reason, decided: now, recorded: reason.Urgent()}
	s.Pending = reason
	fx := []Effect{Tell{gk.Event{Kind: gk.EventRotationDecided, Epoch: s.Record.Epoch, Reason: reason}}, Write{s.snapshot()}}
	return append(fx, s.enter(now, StageReleasing)...)
}

// hasten makes the rotation in flight one that is caused by proof: it waits for no
// write, and transports give the keys before it a hard end.
func (s *Session) hasten(now time.Time, reason gk.Reason) []Effect {
	r := s.rot
	if r.reason == reason {
		return nil
	}
	r.reason, r.recorded, s.Pending = reason, true, reason
	fx := []Effect{Write{s.snapshot()}}
	for _, id := range s.Transports {
		if env := r.envelopes[id]; env != nil {
			fx = append(fx, Arm{id, r.epoch, env, reason, r.adopted, max(s.First, s.Near)})
		}
	}
	if r.stage == StageRecording {
		fx = append(fx, s.grant(now)...)
	}
	return fx
}

func (s *Session) enter(now time.Time, stage Stage) []Effect {
	s.rot.stage = stage
	s.rot.retry = backoff{}
	return s.push(now)
}

// push asks for whatever the present stage still lacks.
func (s *Session) push(now time.Time) []Effect {
	r := s.rot
	r.retry.next(now, s.timing)
	switch r.stage {
	case StageOpening:
		return []Effect{OpenKeys{s.offer.HighWater}}
	case StageReleasing:
		if r.prekey == nil {
			if len(s.Prekeys) == 0 {
				return []Effect{s.refill(now)}
			}
			r.prekey, s.Prekeys = s.Prekeys[0], s.Prekeys[1:]
		}
		return []Effect{Release{r.epoch, s.Record.Epoch, r.prekey, s.Transports}}
	case StageArming:
		if r.retry.wait >= s.timing.RetryMax {
			// What was sealed may be for a transport that has another key by now.
			return s.enter(now, StageReleasing)
		}
		var fx []Effect
		for _, id := range s.Transports {
			if !r.armed[id] {
				fx = append(fx, Arm{id, r.epoch, r.envelopes[id], r.reason, r.adopted, max(s.First, s.Near)})
			}
		}
		return fx
	case StageRecording:
		return []Effect{Write{s.snapshot()}}
	case StageGranting:
		if s.Candidate() {
			return []Effect{Send{s.welcome()}}
		}
		return []Effect{SendGrant{r.grant}}
	}
	return nil
}

func (s *Session) released(now time.Time, in Released) []Effect {
	r := s.rot
	if r != nil && r.stage == StageReleasing && in.Device != nil && (in.Epoch == r.epoch || r.epoch == 0 && in.Epoch > s.Record.Epoch) {
		r.epoch = in.Epoch
		if slices.ContainsFunc(s.Transports, func(id gk.TransportID) bool { return in.Transports[id] == nil }) {
			return nil // a transport was not there to be sealed for: it is asked for again
		}
		r.envelopes, r.confirm, r.armed = in.Transports, in.Confirm, map[gk.TransportID]bool{}
		g := &Grant{
			Stream: s.Stream, Session: s.Session, Epoch: r.epoch, Reason: r.reason,
			ActWithin: uint32(s.timing.RetryMax.Milliseconds()), Envelope: in.Device, Term: s.Term,
		}
		r.grant = must(Encode(g))
		r.hash = Hash(r.grant)
		return s.enter(now, StageArming)
	}
	var fx []Effect
	for _, id := range s.Transports {
		j, env := s.rejoin[id], in.Transports[id]
		if j == nil || env == nil || !slices.Contains(j.want, in.Epoch) {
			continue
		}
		j.env[in.Epoch] = env
		fx = append(fx, s.armJoining(id, in.Epoch, env))
	}
	return fx
}

func (s *Session) armed(now time.Time, in Armed) []Effect {
	if j := s.rejoin[in.Transport]; j != nil {
		j.want = slices.DeleteFunc(j.want, func(e gk.Epoch) bool { return e == in.Epoch })
		if len(j.want) == 0 {
			delete(s.rejoin, in.Transport)
		}
	}
	r := s.rot
	if r == nil || in.Epoch != r.epoch || r.stage != StageArming || r.armed[in.Transport] {
		return nil
	}
	r.armed[in.Transport] = true
	fx := []Effect{Tell{gk.Event{Kind: gk.EventEpochArmed, Epoch: r.epoch, Reason: r.reason, Took: now.Sub(r.decided), Detail: map[string]string{"transport": string(in.Transport)}}}}
	for _, id := range s.Transports {
		if !r.armed[id] {
			return fx
		}
	}
	if !r.recorded {
		// The write has had its time: only its loss needs asking again, later.
		r.stage, r.retry = StageRecording, backoff{}
		r.retry.next(now, s.timing)
		return fx
	}
	return append(fx, s.grant(now)...)
}

func (s *Session) grant(now time.Time) []Effect {
	r := s.rot
	fx := []Effect{Tell{gk.Event{Kind: gk.EventGrantSent, Epoch: r.epoch, Reason: r.reason, Took: now.Sub(r.decided)}}}
	return append(fx, s.enter(now, StageGranting)...)
}

func (s *Session) welcome() *Welcome {
	w := &Welcome{
		Session: s.Session, HelloHash: s.offered,
		Versions: s.offer.Versions, Suites: s.offer.Suites, Version: s.Version, Suite: s.Suite,
		Stream: s.Stream, SSRC: s.SSRC, Policy: s.timing.Policy.For(s.Version), Grant: s.rot.grant,
	}
	for _, id := range s.Transports {
		w.Transports = append(w.Transports, s.timing.Addresses[id])
	}
	return w
}

func (s *Session) heard(now time.Time, in Heard) []Effect {
	switch m := in.Message.(type) {
	case *Hello: // the WELCOME was lost
		if s.rot != nil && s.rot.stage == StageGranting && s.Candidate() {
			s.offer, s.offered = m, Hash(in.Payload)
			return s.push(now)
		}
	case *Ack:
		return s.acked(now, m)
	case *Report:
		return s.reported(now, m)
	case *Refill:
		s.addPrekeys(m.Prekeys)
		if s.rot != nil && s.rot.stage == StageReleasing && s.rot.prekey == nil {
			return s.push(now)
		}
		if s.rot == nil && s.wants != "" && len(s.Prekeys) > proofReserve {
			return s.rotate(now, s.wants, s.Record.Epoch)
		}
	case *Reject:
		// Sealed once more, to the next prekey, after the pause that is due anyway.
		if r := s.rot; r != nil && r.stage == StageGranting && m.Code == CodeCannotOpen && bytes.Equal(m.Regarding, r.hash) {
			r.stage, r.prekey = StageReleasing, nil
		}
	case *Bye:
		if !s.Record.Ended {
			s.Record.Ended = true
			s.rot, s.rejoin, s.rotateAt = nil, nil, time.Time{}
			s.endAt = now.Add(s.timing.Linger)
			return []Effect{Tell{gk.Event{Kind: gk.EventSessionEnded, Epoch: s.Record.Epoch, Index: m.End, Detail: map[string]string{"by": "device"}}}}
		}
	}
	return nil
}

// acked completes the rotation in flight if the ACK proves that the device has
// its key.
func (s *Session) acked(now time.Time, a *Ack) []Effect {
	r := s.rot
	if r == nil || r.stage != StageGranting || a.Epoch != r.epoch {
		return nil // a repetition of an ACK that was already taken
	}
	if r.adopted && !hmac.Equal(a.Confirm, r.confirm) {
		// The device uses another key for this epoch than the key service has now:
		// its store was set back, and no repetition will bring them together.
		return s.end(CodeUnknownSession)
	}
	if !hmac.Equal(a.Confirm, r.confirm) || !r.adopted && !bytes.Equal(a.GrantHash, r.hash) || a.First < s.First {
		return []Effect{Tell{gk.Event{Kind: gk.EventOutsider, Epoch: a.Epoch, Detail: map[string]string{"cause": "ack does not fit its grant"}}}}
	}
	before, started := s.Record.Epoch, s.Candidate()
	s.Record.Epoch, s.First, s.Near, s.Since, s.confirmed = a.Epoch, a.First, max(s.Near, a.First), now, now
	s.Took = now.Sub(r.decided)
	s.Pending = ""
	s.ByReason[r.reason]++
	if !started {
		s.Rotations++
	}
	s.base = s.packets
	s.unwant(func(e gk.Epoch) bool { return e < a.Epoch })
	s.addPrekeys(a.Prekeys)
	s.rot, s.offer, s.endAt = nil, nil, time.Time{}
	s.rotateAt = time.Time{}
	if s.timing.Every > 0 {
		s.rotateAt = r.decided.Add(s.timing.Every)
	}
	fx := []Effect{Switch{Epoch: a.Epoch, First: a.First}}
	if started {
		fx = append(fx, Tell{gk.Event{Kind: gk.EventSessionStarted, Epoch: a.Epoch, Index: a.First, Took: s.Took}})
	}
	fx = append(fx,
		Tell{gk.Event{Kind: gk.EventRotationDone, Epoch: a.Epoch, Reason: r.reason, Index: a.First, Took: s.Took}},
		Activate{a.Epoch, before}, Write{s.snapshot()})
	if len(s.Prekeys) <= proofReserve {
		fx = append(fx, s.refill(now))
	}
	if s.wants != "" {
		fx = append(fx, s.rotate(now, s.wants, s.Record.Epoch)...)
	}
	return fx
}

func (s *Session) end(code Code) []Effect {
	s.over = true
	started := !s.Candidate()
	var fx []Effect
	if code != "" {
		fx = append(fx, Send{&Stop{Session: s.Session, Code: code}})
		if started {
			fx = append(fx, Tell{gk.Event{Kind: gk.EventSessionEnded, Epoch: s.Record.Epoch, Detail: map[string]string{"by": "service", "code": string(code)}}})
		}
	}
	s.Record.Ended = true
	s.Record.Prekeys = nil
	if started {
		fx = append(fx, Write{s.snapshot()})
	}
	return append(fx, Close{}, Over{code})
}
