package gkrp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Stream is the service's half of the protocol for one stream over all its
// sessions: it answers HELLOs, decides which session holds the stream, and sends
// every other input to the session that it belongs to. Like [Session] it is a
// pure state machine.
//
// A HELLO is only a candidate until its ACK verifies. While the incumbent's media
// is alive a candidate is not even begun: it is held, and that it came is evidence
// of a cloned identity. A silent incumbent is replaced at once.
type Stream struct {
	ID     gk.StreamID
	Device gk.DeviceID

	cfg       *StreamConfig
	live      *Session  // its device confirmed a key
	candidate *Session  // its device has not yet
	since     time.Time // the live session is live here
	seen      time.Time // the live session's last accepted media
	sends     time.Time // the candidate's last accepted media
	heldAt    time.Time // when a held newcomer was last told of
	proof     Budget
	spentAt   time.Time      // when a spent budget was last told of
	closed    []gk.SessionID // that are over here, newest last
	told      Budget         // refusals that are told of
}

// StreamConfig is what all streams of a service share.
type StreamConfig struct {
	Timing      func(transports []gk.TransportID) Timing
	Place       func(now time.Time) []gk.TransportID // where a new session's media goes; none: nowhere
	SSRC        func(gk.StreamID) uint32             // an SSRC that no other stream has (RFC 3550 §8)
	Term        uint64
	NonceKey    [32]byte  // secret; challenges are computed from it and not stored
	Started     time.Time // challenges count time from it
	SilentAfter time.Duration
	BusyRetry   time.Duration
	MinVersion  Version
	AllowX25519 bool
	Urgent      Budget // rotations caused by proof or behaviour, for each stream
	Site        Taker  // the same for all streams together; nil: no bound
}

// Taker is a [Budget], or one that several goroutines share.
type Taker interface{ Take(now time.Time) bool }

// Of says which session an effect or an outcome belongs to.
type Of struct {
	Session *Session
	Effect  Effect
}

// The inputs of a [Stream], besides those that go to its sessions.
type (
	// From is a message of the stream's device whose signature verified.
	From struct {
		Heard
		Revoked bool // the device may no longer have a session
	}
	// Outcome is the outcome of an effect of one session.
	Outcome struct {
		Session *Session
		Input   Input
	}
	// Media: media of a session was accepted by a transport at At.
	Media struct {
		Session gk.SessionID
		At      time.Time
	}
)

func (From) input()    {}
func (Outcome) input() {}
func (Media) input()   {}

// Replaced is given for a session whose place another one took: its keys are
// wiped, and nothing is written, because the record is the newcomer's now.
type Replaced struct{ Why string }

func (Replaced) effect() {}

// Insists is given when a second session is refused whose nonce is younger than the
// live one: somebody has the device's identity now. A HELLO that was proven before,
// of a session that the device gave up, a broker can have kept.
type Insists struct{ Session gk.SessionID }

func (Insists) effect() {}

// NewStream begins without a session.
func NewStream(id gk.StreamID, device gk.DeviceID, cfg *StreamConfig) *Stream {
	return &Stream{ID: id, Device: device, cfg: cfg, proof: cfg.Urgent, told: Budget{Burst: 100, Every: 500 * time.Millisecond}}
}

// Resume takes the stream's recorded session up again.
func (s *Stream) Resume(now time.Time, r Record) []Of {
	r.Term = s.cfg.Term
	sess, fx := Resume(now, r, s.cfg.Timing(r.Transports))
	s.live, s.since = sess, now
	return of(sess, fx)
}

// Live is the session whose device confirmed a key, or nil.
func (s *Stream) Live() *Session { return s.live }

// Candidate is the session whose device has not confirmed a key yet, or nil.
func (s *Stream) Candidate() *Session { return s.candidate }

// Seen is when media of the live session was last accepted.
func (s *Stream) Seen() time.Time { return s.seen }

// Deadline says when the next [Tick] is wanted; zero means never.
func (s *Stream) Deadline() time.Time {
	var d time.Time
	for _, x := range s.sessions() {
		if t := x.Deadline(); !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	return d
}

func (s *Stream) sessions() []*Session {
	var all []*Session
	if s.live != nil {
		all = append(all, s.live)
	}
	if s.candidate != nil {
		all = append(all, s.candidate)
	}
	return all
}

// Step takes one input and gives what is to be done about it.
func (s *Stream) Step(now time.Time, in Input) []Of {
	switch in := in.(type) {
	case From:
		if h, ok := in.Message.(*Hello); ok {
			return s.hello(now, h, in)
		}
		return s.message(now, in.Heard)
	case Outcome:
		return s.step(now, in.Session, in.Input)
	case Media:
		if s.live != nil && s.live.Record.Session == in.Session && in.At.After(s.seen) {
			s.seen = in.At
			return s.alive(now)
		}
		if c := s.candidate; c != nil && c.Record.Session == in.Session {
			s.sends = in.At
		}
		return nil
	case Rotate:
		return s.rotate(now, in)
	default: // Tick, TransportLost, End: to all
		var out []Of
		for _, x := range s.sessions() {
			out = append(out, s.step(now, x, in)...)
		}
		return out
	}
}

// alive drops a candidate that began while the live session was silent, when media
// of that session comes again: whoever waits for a moment of silence holds the
// device's identity, and not its place.
func (s *Stream) alive(now time.Time) []Of {
	c := s.candidate
	if c == nil || !s.seen.After(c.Started) {
		return nil
	}
	s.candidate = nil
	r := &Reject{
		Session: c.Record.Session, Regarding: c.offered, Code: CodeBusy, Text: "another session of this stream is sending",
		RetryAfter: uint32(s.cfg.BusyRetry.Milliseconds()),
	}
	out := append([]Of{{nil, Send{r}}}, s.rejected(now, c.Record.Session, CodeBusy)...)
	out = append(out, s.held(now, c.Record.Session)...)
	return append(out, s.replaced(c, "the session before it is alive")...)
}

// held tells, now and then, that a newcomer was held.
func (s *Stream) held(now time.Time, newcomer gk.SessionID) []Of {
	if !s.heldAt.IsZero() && now.Sub(s.heldAt) < quietFor {
		return nil
	}
	s.heldAt = now
	return []Of{{s.live, Tell{gk.Event{Kind: gk.EventIdentity, Epoch: s.live.Record.Epoch, Detail: map[string]string{"newcomer": newcomer.String()}}}}}
}

// step feeds a session that still has its place.
func (s *Stream) step(now time.Time, x *Session, in Input) []Of {
	if x == nil || x != s.live && x != s.candidate {
		return nil
	}
	fx := x.Step(now, in)
	var out []Of
	if x == s.candidate && !x.Candidate() {
		if old := s.live; old != nil {
			out = append(out, s.replaced(old, "a new session took its place")...)
		}
		s.live, s.candidate, s.seen, s.since = x, nil, now, now
	}
	out = append(out, of(x, fx)...)
	if x.over {
		s.close(x)
		if x == s.live {
			s.live = nil
		} else {
			s.candidate = nil
		}
	}
	return out
}

func of(x *Session, fx []Effect) []Of {
	out := make([]Of, len(fx))
	for i, f := range fx {
		out[i] = Of{x, f}
	}
	return out
}

// keptClosed is how many sessions are remembered that cannot begin again.
const keptClosed = 16

// close remembers that a session is over. Its keys are wiped, and that may take a
// while: a HELLO of it that comes late, or that its device says again because it
// missed the end, must not begin it anew.
func (s *Stream) close(x *Session) {
	if s.closed = append(s.closed, x.Record.Session); len(s.closed) > keptClosed {
		s.closed = slices.Delete(s.closed, 0, 1)
	}
}

// replaced ends a session whose place another one takes.
func (s *Stream) replaced(x *Session, why string) []Of {
	s.close(x)
	var out []Of
	if !x.Candidate() && !x.Record.Ended {
		out = append(out, Of{x, Tell{gk.Event{Kind: gk.EventSessionEnded, Epoch: x.Record.Epoch, Detail: map[string]string{"by": "service", "why": why}}}})
	}
	x.over = true
	return append(out, Of{x, Replaced{why}}, Of{x, Close{}}, Of{x, Over{}})
}

// message finds the session that a message belongs to.
func (s *Stream) message(now time.Time, h Heard) []Of {
	id := sessionOf(h.Message)
	for _, x := range s.sessions() {
		if x.Record.Session == id {
			return s.step(now, x, h)
		}
	}
	if t := h.Message.Type(); t == TypeBye || t == TypeReject {
		return nil
	}
	return s.reject(now, id, h, CodeUnknownSession, "this session is not known here: start a new one", 0)
}

func sessionOf(m Message) gk.SessionID {
	switch m := m.(type) {
	case *Hello:
		return m.Session
	case *Ack:
		return m.Session
	case *Report:
		return m.Session
	case *Refill:
		return m.Session
	case *Reject:
		return m.Session
	case *Bye:
		return m.Session
	}
	return gk.SessionID{}
}

// rotate passes a request on to the live session, within the budgets: evidence
// must not be able to rotate a stream, or a site, without end.
func (s *Stream) rotate(now time.Time, in Rotate) []Of {
	x := s.live
	if x == nil {
		return nil
	}
	if in.Reason == gk.ReasonProof && in.Known < x.Record.Epoch || in.Reason.Urgent() && x.rot != nil && (in.Reason != gk.ReasonProof || x.rot.stage != StageGranting) {
		return s.step(now, x, in) // changes nothing, and so costs nothing
	}
	if in.Reason.Urgent() && !s.spend(now) {
		if now.Sub(s.spentAt) < quietFor && !s.spentAt.IsZero() {
			return nil
		}
		s.spentAt = now
		return []Of{{x, Tell{gk.Event{Kind: gk.EventBudgetSpent, Epoch: x.Record.Epoch, Reason: in.Reason}}}}
	}
	return s.step(now, x, in)
}

// spend takes a token of the stream's budget and one of the site's, or neither.
func (s *Stream) spend(now time.Time) bool {
	return s.proof.Has(now) && (s.cfg.Site == nil || s.cfg.Site.Take(now)) && s.proof.Take(now)
}

// quietFor is how long the same alert about a stream is not repeated.
const quietFor = time.Minute

// hello answers a HELLO: with the reason why not, with a CHALLENGE, or by
// beginning a candidate session. What costs nothing to check comes first.
func (s *Stream) hello(now time.Time, m *Hello, in From) []Of {
	switch {
	case m.Device != s.Device || m.Stream != s.ID:
		return s.reject(now, m.Session, in.Heard, CodeMalformed, "device and stream must be those of the topic", 0)
	case in.Revoked:
		return s.reject(now, m.Session, in.Heard, CodeRevoked, "this device was revoked: enrol it anew", 0)
	}
	version, ok := ChooseVersion(m.Versions, s.cfg.MinVersion, CurrentVersion)
	if !ok {
		return s.reject(now, m.Session, in.Heard, CodeUnsupportedVersion, fmt.Sprintf("minor versions %d to %d are spoken here", s.cfg.MinVersion, CurrentVersion), 0)
	}
	// The prekeys are of the suite that the device puts first.
	suite := m.Suites[0]
	if suite != SuiteMLKEM768X25519 && (suite != SuiteX25519 || !s.cfg.AllowX25519) {
		return s.reject(now, m.Session, in.Heard, CodeUnsupportedSuite, "MLKEM768X25519 is asked for; the classical suite only where the operator allows it", 0)
	}
	if !s.fresh(now, m) {
		// Also where the nonce expired: the device then proves itself with the new one.
		return []Of{{nil, Send{&Challenge{Session: m.Session, HelloHash: Hash(in.Payload), Nonce: s.nonce(s.stretch(now), m)}}}}
	}
	if slices.Contains(s.closed, m.Session) {
		return []Of{{nil, Send{&Stop{Session: m.Session, Code: CodeUnknownSession}}}}
	}
	if c := s.candidate; c != nil && c.Record.Session == m.Session {
		return s.step(now, c, in.Heard)
	}
	if l := s.live; l != nil {
		if l.Record.Session == m.Session {
			return nil // its key is confirmed: a repetition that came late
		}
		if !l.Record.Ended && now.Sub(s.seen) < s.cfg.SilentAfter {
			out := s.reject(now, m.Session, in.Heard, CodeBusy, "another session of this stream is sending", s.cfg.BusyRetry)
			if s.fresher(now, m) {
				out = append(out, Of{l, Insists{m.Session}})
			}
			return append(out, s.held(now, m.Session)...)
		}
	}
	if s.candidate != nil && now.Sub(s.sends) < s.cfg.SilentAfter {
		// It has its key, and uses it; only its ACK is still on the way. A HELLO from
		// before, which a broker kept, must not push it out.
		return s.reject(now, m.Session, in.Heard, CodeBusy, "another session of this stream is sending", s.cfg.BusyRetry)
	}
	place := s.cfg.Place(now)
	if len(place) == 0 {
		return s.reject(now, m.Session, in.Heard, CodeUnavailable, "no transport service is there", time.Second)
	}
	var out []Of
	if s.candidate != nil {
		out = s.replaced(s.candidate, "another candidate came")
	}
	record := Record{SSRC: s.cfg.SSRC(s.ID), Version: version, Suite: suite, Transports: place, Term: s.cfg.Term}
	var fx []Effect
	s.sends = time.Time{}
	s.candidate, fx = Begin(now, record, in.Heard, s.cfg.Timing(place))
	return append(out, of(s.candidate, fx)...)
}

// ChooseVersion gives the highest offered version that a service speaks, which
// is least to most; false where there is none.
func ChooseVersion(offered []Version, least, most Version) (best Version, ok bool) {
	for _, v := range offered {
		if v >= least && v <= most && (!ok || v > best) {
			best, ok = v, true
		}
	}
	return best, ok
}

func (s *Stream) reject(now time.Time, session gk.SessionID, h Heard, code Code, text string, retry time.Duration) []Of {
	r := &Reject{Session: session, Regarding: Hash(h.Payload), Code: code, Text: text, RetryAfter: uint32(retry.Milliseconds())}
	if code == CodeUnsupportedVersion {
		for v := s.cfg.MinVersion; v <= CurrentVersion; v++ {
			r.Supported = append(r.Supported, v)
		}
	}
	out := s.rejected(now, session, code)
	return append(out, Of{nil, Send{r}})
}

// rejected tells that a session was refused, within a budget: who asks again and again,
// or a broker that says again what it kept, does not fill the audit trail with it.
func (s *Stream) rejected(now time.Time, session gk.SessionID, code Code) []Of {
	if !s.told.Take(now) {
		return nil
	}
	return []Of{{nil, Tell{gk.Event{Kind: gk.EventSessionRejected, Session: session, Detail: map[string]string{"code": string(code)}}}}}
}

// nonceLife is how long a CHALLENGE can be answered: between one and two of it.
const nonceLife = 30 * time.Second

// stretch counts nonceLives since the service started: a step of the wall clock
// does not move it.
func (s *Stream) stretch(now time.Time) uint64 { return uint64(now.Sub(s.cfg.Started) / nonceLife) }

// nonce is computed, not stored, so that a flood of HELLOs fills no memory. It is
// bound to the device's session and to a stretch of the service's life.
func (s *Stream) nonce(stretch uint64, m *Hello) []byte {
	h := hmac.New(sha256.New, s.cfg.NonceKey[:])
	h.Write(binary.BigEndian.AppendUint64(nil, stretch))
	fmt.Fprintf(h, "%s/%s/%s", m.Device, m.Stream, m.Session)
	return h.Sum(nil)
}

// fresher tells whether a fresh HELLO's nonce was given out in a later stretch than the
// one in which the live session became it.
func (s *Stream) fresher(now time.Time, m *Hello) bool {
	n := s.stretch(now)
	return n > s.stretch(s.since) && hmac.Equal(m.Nonce, s.nonce(n, m))
}

func (s *Stream) fresh(now time.Time, m *Hello) bool {
	n := s.stretch(now)
	return m.Nonce != nil && slices.ContainsFunc([]uint64{n, n - 1}, func(n uint64) bool { return hmac.Equal(m.Nonce, s.nonce(n, m)) })
}
