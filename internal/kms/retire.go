package kms

import (
	"cmp"
	"context"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// setState retires and destroys. Memory moves first; the answer comes when the
// store has followed, and if it cannot now, the save goes on behind the error.
func (s *Service) setState(ctx context.Context, req bus.KMSStateRequest) (bus.Empty, error) {
	var none bus.Empty
	if rank(req.State) <= rank(bus.KeyPreActive) {
		return none, bus.Refuse(bus.CodeBadRequest, "a key cannot be made %q: ask for %s, %s or %s", req.State, bus.KeyActive, bus.KeyDeactivated, bus.KeyDestroyed)
	}
	if req.Epoch == 0 && req.State == bus.KeyActive {
		return none, bus.Refuse(bus.CodeBadRequest, "a session's keys become active one by one")
	}
	if _, err := gk.ParseStreamID(string(req.Stream)); err != nil {
		return none, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	st := s.stream(req.Stream)
	ss := st.session(req.Session)
	if ss == nil {
		done, err := s.write(ctx, st)
		if err != nil {
			return none, unavailable(err)
		}
		err = s.loadStream(ctx, st)
		done()
		if err != nil {
			return none, err
		}
		// What is not there was destroyed before, and a repeat is no error.
		if ss = st.session(req.Session); ss == nil {
			return none, nil
		}
	}
	if req.Epoch == 0 {
		s.end(st, ss, req.State)
	} else if err := s.move(st, ss, req.Epoch, req.State); err != nil {
		return none, err
	}
	if req.Epoch != 0 && req.State == bus.KeyActive {
		s.supersede(st, ss)
	}
	done, err := s.write(ctx, st)
	if err != nil {
		s.saveLater(st)
		return none, unavailable(err)
	}
	defer done()
	if err := s.save(ctx, st); err != nil {
		s.saveLater(st)
		return none, err
	}
	return none, nil
}

// end closes a session: no epoch is added, and every key moves to state. The
// reserved key was never active, so all that can become of it is destruction.
func (s *Service) end(st *stream, ss *session, state bus.KeyState) {
	st.mu.Lock()
	ss.rec.Ended = true
	var told []transition
	for _, epoch := range ss.epochs() {
		k, to := ss.keys[epoch], state
		if k.rec.State == bus.KeyPreActive {
			to = bus.KeyDestroyed
		}
		moves, err := movesTo(k.rec.State, to)
		if err == nil {
			told = append(told, k.apply(s.cfg.Host.Now().UTC(), st.id, ss.id, moves)...)
		}
	}
	st.mu.Unlock()
	s.tellAll(st, ss, told)
}

// supersede ends the sessions that were opened before one that is in use: whoever
// knew of them may have crashed, and a stream has one session at a time.
func (s *Service) supersede(st *stream, ss *session) {
	st.mu.Lock()
	var old []*session
	for _, o := range st.sessions {
		if !o.rec.Ended && o.rec.First < ss.rec.First {
			old = append(old, o)
		}
	}
	st.mu.Unlock()
	slices.SortFunc(old, func(a, b *session) int { return cmp.Compare(a.rec.First, b.rec.First) })
	for _, o := range old {
		s.end(st, o, bus.KeyDestroyed)
	}
}

// move brings one key to a later state.
func (s *Service) move(st *stream, ss *session, epoch gk.Epoch, to bus.KeyState) error {
	st.mu.Lock()
	k := ss.keys[epoch]
	if k == nil {
		newest := ss.newest
		st.mu.Unlock()
		if epoch > newest || epoch < ss.rec.First {
			return bus.Refuse(bus.CodeNotFound, "stream %s has no key for epoch %d in session %s", st.id, epoch, ss.id)
		}
		if to == bus.KeyActive {
			return bus.Refuse(bus.CodeConflict, "key of stream %s, epoch %d, is destroyed", st.id, epoch)
		}
		return nil // destroyed before
	}
	moves, err := movesTo(k.rec.State, to)
	if err == nil && k.rec.State == bus.KeyPreActive && to == bus.KeyDestroyed {
		err = bus.Refuse(bus.CodeConflict, "the reserved key goes with its session")
	}
	if err != nil {
		st.mu.Unlock()
		return bus.Refuse(bus.CodeConflict, "key of stream %s, epoch %d: %v", st.id, epoch, err)
	}
	told := k.apply(s.cfg.Host.Now().UTC(), st.id, ss.id, moves)
	st.mu.Unlock()
	s.tellAll(st, ss, told)
	return nil
}

// transition is one step that a key took.
type transition struct {
	from bus.KeyState
	info bus.KeyInfo
}

// apply takes checked steps, in memory. The caller holds the stream's lock.
func (k *key) apply(now time.Time, stream gk.StreamID, session gk.SessionID, moves []bus.KeyState) (told []transition) {
	for _, to := range moves {
		from := k.rec.State
		info := k.info(stream, session)
		info.State = to
		switch to {
		case bus.KeyActive:
			info.Activated = now
		case bus.KeyDeactivated:
			info.Deactivated = now
		case bus.KeyDestroyed:
			info.Destroyed = now
			k.wipe()
		}
		k.rec.State, k.rec.Activated, k.rec.Deactivated = to, info.Activated, info.Deactivated
		k.gone, k.saved = info, false
		told = append(told, transition{from, info})
	}
	return told
}

// keys lists a stream's keys, newest first, without their bytes.
func (s *Service) keys(ctx context.Context, req bus.KMSKeysRequest) (bus.KMSKeysReply, error) {
	var rep bus.KMSKeysReply
	if _, err := gk.ParseStreamID(string(req.Stream)); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	gone, _, err := s.readGone(ctx, req.Stream)
	if err != nil {
		return rep, err
	}
	st := s.stream(req.Stream)
	st.mu.Lock()
	for _, ss := range st.sessions {
		for _, k := range ss.keys {
			rep.Keys = append(rep.Keys, k.info(st.id, ss.id))
		}
	}
	st.mu.Unlock()
	for _, k := range gone.Keys {
		if !slices.ContainsFunc(rep.Keys, func(o bus.KeyInfo) bool { return o.Session == k.Session && o.Epoch == k.Epoch }) {
			rep.Keys = append(rep.Keys, k)
		}
	}
	slices.SortFunc(rep.Keys, func(a, b bus.KeyInfo) int { return cmp.Compare(b.Epoch, a.Epoch) })
	return rep, nil
}
