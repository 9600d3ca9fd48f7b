package kms

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Saving brings the store to the state of memory: it writes what is wanted now
// and not every step on the way. A crash leaves the state before, which is safe:
// a key that is active in memory is at worst still reserved in the store, and
// asking for it again gives the same key.

const (
	saveTimeout  = 30 * time.Second // outlasts the election of a JetStream leader
	saveRetryMin = 100 * time.Millisecond
	saveRetryMax = 5 * time.Second
	savesAtOnce  = 8
)

// saveLater has the stream saved by Run, soon.
func (s *Service) saveLater(st *stream) {
	s.mu.Lock()
	s.unsaved[st] = struct{}{}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// saver saves streams as they change, until ctx ends.
func (s *Service) saver(ctx context.Context) error {
	retry := saveRetryMin
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		if s.savePending(ctx) {
			retry = saveRetryMin
			continue
		}
		if s.cfg.Host.Sleep(ctx, retry) == nil {
			retry = min(2*retry, saveRetryMax)
		}
	}
}

// savePending reports whether all went well; what did not is pending again.
func (s *Service) savePending(ctx context.Context) bool {
	pending := s.takeUnsaved()
	results := make(chan bool, len(pending))
	slots := make(chan struct{}, savesAtOnce)
	for _, st := range pending {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			results <- s.saveOne(ctx, st)
		}()
	}
	ok := true
	for range pending {
		ok = <-results && ok
	}
	return ok
}

// takeUnsaved gives the streams that are to be saved, by name.
func (s *Service) takeUnsaved() []*stream {
	s.mu.Lock()
	pending := slices.Collect(maps.Keys(s.unsaved))
	s.unsaved = map[*stream]struct{}{}
	s.mu.Unlock()
	slices.SortFunc(pending, func(a, b *stream) int { return strings.Compare(string(a.id), string(b.id)) })
	return pending
}

func (s *Service) saveOne(ctx context.Context, st *stream) bool {
	err := s.saveNow(ctx, st)
	if err != nil {
		s.saveLater(st)
	}
	return err == nil
}

// SaveDue does the work of [Service.Run]'s saver once, one stream after the
// other, for a host that calls [Service.Attach] in place of Run. It reports
// whether all went well; what did not is due again.
func (s *Service) SaveDue(ctx context.Context) bool {
	ok := true
	for _, st := range s.takeUnsaved() {
		ok = s.saveOne(ctx, st) && ok
	}
	return ok
}

func (s *Service) saveNow(ctx context.Context, st *stream) error {
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, saveTimeout)
	defer cancel()
	done, err := s.write(ctx, st)
	if err != nil {
		return err
	}
	defer done()
	return s.save(ctx, st)
}

// save writes everything of a stream that the store does not have. The caller
// holds the writer token.
func (s *Service) save(ctx context.Context, st *stream) error {
	st.mu.Lock()
	var sessions []*session
	for _, ss := range st.sessions {
		sessions = append(sessions, ss)
	}
	st.mu.Unlock()
	slices.SortFunc(sessions, func(a, b *session) int { return bytes.Compare(a.id[:], b.id[:]) })
	var failed error
	for _, ss := range sessions {
		failed = errors.Join(failed, s.saveSession(ctx, st, ss))
	}
	return failed
}

// saveSession first makes sure that the session's newest epoch can be told from
// the store, by a reserved key or by its end, and only then erases keys: an
// epoch that is gone must never look as if it had never been.
func (s *Service) saveSession(ctx context.Context, st *stream, ss *session) error {
	if err := s.reserve(ctx, st, ss); err != nil {
		return err
	}
	if err := s.saveEnd(ctx, st, ss); err != nil {
		return err
	}
	st.mu.Lock()
	epochs := ss.epochs()
	st.mu.Unlock()
	for _, epoch := range epochs {
		if err := s.saveKey(ctx, st, ss, epoch); err != nil {
			return err
		}
	}
	st.mu.Lock()
	over := ss.rec.Ended && len(ss.keys) == 0
	st.mu.Unlock()
	if !over {
		return nil
	}
	if err := s.freeSSRC(ctx, ss.rec.SSRC, ssrcRecord{st.id, ss.id}); err != nil {
		return err
	}
	if err := s.kv.Erase(ctx, sessionKey(st.id, ss.id)); err != nil {
		return unavailable(err)
	}
	st.mu.Lock()
	delete(st.sessions, ss.id)
	st.mu.Unlock()
	return nil
}

func (s *Service) saveEnd(ctx context.Context, st *stream, ss *session) error {
	st.mu.Lock()
	rec, needed := ss.rec, ss.rec.Ended && !ss.endSaved
	st.mu.Unlock()
	if !needed {
		return nil
	}
	b, err := s.vault.seal(sessionKey(st.id, ss.id), rec)
	if err != nil {
		return err
	}
	// The end is the only change that a session record sees, so whoever writes
	// it last writes the same.
	if _, err := s.kv.Put(ctx, sessionKey(st.id, ss.id), b); err != nil {
		return unavailable(err)
	}
	st.mu.Lock()
	ss.endSaved = true
	st.mu.Unlock()
	return nil
}

func (s *Service) saveKey(ctx context.Context, st *stream, ss *session, epoch gk.Epoch) error {
	st.mu.Lock()
	k := ss.keys[epoch]
	if k == nil || k.saved {
		st.mu.Unlock()
		return nil
	}
	rec, rev, media, gone := k.rec, k.rev, k.media, k.gone
	st.mu.Unlock()
	name := mediaKey(st.id, ss.id, epoch)
	if rec.State == bus.KeyDestroyed {
		return s.eraseKey(ctx, st, ss, k, gone)
	}
	var err error
	if rec.Wrapped, err = s.vault.wrapMediaKey(media, boundToKey(st.id, ss.id, epoch, rec.State)); err != nil {
		st.mu.Lock()
		destroyed := k.rec.State == bus.KeyDestroyed
		st.mu.Unlock()
		if destroyed { // this moment
			return s.saveKey(ctx, st, ss, epoch)
		}
		return err
	}
	b, err := s.vault.seal(name, rec)
	if err != nil {
		return err
	}
	rev, err = s.kv.Update(ctx, name, b, rev)
	if errors.Is(err, store.ErrConflict) {
		return s.mergeKey(ctx, st, ss, k)
	}
	if err != nil {
		return unavailable(err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	k.rev = rev
	// It may have moved on while it was written; the next save brings that.
	if k.rec.State == rec.State && len(k.rec.Prekeys) == len(rec.Prekeys) {
		k.rec.Wrapped, k.saved = rec.Wrapped, true
	} else {
		s.saveLater(st)
	}
	return nil
}

// eraseKey destroys for good: the listing remembers that there was a key, and
// the store overwrites every envelope that it had.
func (s *Service) eraseKey(ctx context.Context, st *stream, ss *session, k *key, gone bus.KeyInfo) error {
	if err := s.rememberGone(ctx, st.id, gone); err != nil {
		return err
	}
	if err := s.kv.Erase(ctx, mediaKey(st.id, ss.id, k.epoch)); err != nil {
		return unavailable(err)
	}
	st.mu.Lock()
	delete(ss.keys, k.epoch)
	st.mu.Unlock()
	return nil
}

// rememberGone adds a destroyed key to the stream's list, once.
func (s *Service) rememberGone(ctx context.Context, id gk.StreamID, info bus.KeyInfo) error {
	for {
		rec, rev, err := s.readGone(ctx, id)
		if err != nil {
			return err
		}
		for _, k := range rec.Keys {
			if k.Session == info.Session && k.Epoch == info.Epoch {
				return nil
			}
		}
		rec.Keys = append(rec.Keys, info)
		rec.Keys = rec.Keys[max(0, len(rec.Keys)-keptGone):]
		b, err := s.vault.seal(goneKey(id), rec)
		if err != nil {
			return err
		}
		if rev == 0 {
			_, err = s.kv.Create(ctx, goneKey(id), b)
		} else {
			_, err = s.kv.Update(ctx, goneKey(id), b, rev)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return unavailable(err)
		}
	}
}

// mergeKey takes up what somebody else wrote to the key, or an own write whose
// answer was lost: states only go forward, so the later one holds.
func (s *Service) mergeKey(ctx context.Context, st *stream, ss *session, k *key) error {
	e, err := s.kv.Get(ctx, mediaKey(st.id, ss.id, k.epoch))
	if errors.Is(err, store.ErrNotFound) {
		st.mu.Lock()
		k.wipe()
		delete(ss.keys, k.epoch)
		st.mu.Unlock()
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	theirs, err := s.openKey(st.id, ss.id, k.epoch, e)
	if err != nil {
		return err
	}
	theirs.media.Wipe()
	st.mu.Lock()
	k.rev = theirs.rev
	for _, p := range theirs.rec.Prekeys {
		_ = ss.spend(k, [16]byte(p))
	}
	if rank(theirs.rec.State) > rank(k.rec.State) {
		k.rec.State, k.rec.Activated, k.rec.Deactivated = theirs.rec.State, theirs.rec.Activated, theirs.rec.Deactivated
	}
	st.mu.Unlock()
	return s.saveKey(ctx, st, ss, k.epoch)
}
