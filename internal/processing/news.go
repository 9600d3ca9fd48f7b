package processing

import (
	"context"
	"slices"
	"sync"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// What transports announce. Each speaks for itself, which the bus sees to, and of
// the sessions whose media it carries, which is seen to here: whoever has taken one
// transport over has no say in what goes through the others.

func (s *Service) transportHere(a bus.TransportAnnouncement) {
	s.mu.Lock()
	old, known := s.transports[a.Transport]
	s.transports[a.Transport] = transport{a, s.now()}
	s.mu.Unlock()
	s.siteTick()
	if a.Term > s.protocol.Term {
		s.ifLatest(func(ctx context.Context) { s.raise(ctx, a.Term) })
	}
	if known && old.Started.Equal(a.Started) {
		return
	}
	s.eachStream(func(st *stream) { st.post(func() { st.transportLost(a.Transport) }) })
}

// liar tells, once, of a transport that announces in another one's name. What it
// said is dropped.
func (s *Service) liar(from gk.TransportID) {
	s.mu.Lock()
	told := s.liars[from]
	s.liars[from] = true
	s.mu.Unlock()
	if !told {
		s.log.Error("a transport announces in another one's name: what it says so is dropped; look at its host", "transport", from)
	}
}

func (s *Service) transportFirst(f bus.FirstPacket) {
	if st := s.find(f.Stream); st != nil {
		st.post(func() { st.first(f) })
	}
}

// transportProof changes a key that somebody else has, without waiting for
// anything. A key that was changed already stays changed.
func (s *Service) transportProof(p bus.Proof) {
	if st := s.find(p.Stream); st != nil {
		st.post(func() { st.proof(p) })
	}
}

func (s *Service) transportStatus(u bus.StreamStatus) {
	if st := s.find(u.Stream); st != nil {
		st.post(func() { st.status(u) })
	}
}

// carried gives the session of that name that is there and whose media goes to the
// transport, or nil: no transport has a say in what it does not carry.
func (st *stream) carried(session gk.SessionID, by gk.TransportID) *gkrp.Session {
	for _, x := range []*gkrp.Session{st.machine.Live(), st.machine.Candidate()} {
		if x != nil && x.Record.Session == session && slices.Contains(x.Transports, by) {
			return x
		}
	}
	return nil
}

// first takes the first packet of an epoch.
func (st *stream) first(f bus.FirstPacket) {
	if st.carried(f.Session, f.Transport) != nil {
		st.step(gkrp.Media{Session: f.Session, At: st.svc.now()})
	}
}

// turnstile lets news through until it is shut. A subscription that was closed may
// still be in the middle of one, and the next run must not begin beside it.
type turnstile struct {
	mu   sync.RWMutex
	over bool
}

// shut waits for news that is being heard and lets no more through.
func (t *turnstile) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

func through[T any](t *turnstile, hear func(T)) func(T) {
	return func(v T) {
		t.mu.RLock()
		defer t.mu.RUnlock()
		if !t.over {
			hear(v)
		}
	}
}
