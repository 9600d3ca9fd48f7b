package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// stream is what this process holds of one stream's keys.
//
// Locking: writes hold the writer token over their store calls, one at a time
// for a stream. mu guards the fields and is never held over a store call, so a
// release from memory waits for no write. writer comes before mu.
type stream struct {
	id     gk.StreamID
	writer chan struct{} // capacity 1

	mu       sync.Mutex
	sessions map[gk.SessionID]*session
}

type session struct {
	id   gk.SessionID
	rec  sessionRecord
	rev  uint64
	keys map[gk.Epoch]*key
	// newest is the highest epoch that ever had a key in this session.
	newest gk.Epoch
	// endSaved tells that the store knows that the session has ended.
	endSaved bool
}

// key is one media key that the store holds, in the state of memory, which runs
// ahead of the store's for as long as saved is false.
type key struct {
	epoch  gk.Epoch
	rec    keyRecord
	rev    uint64
	saved  bool
	media  keyring.MediaKey
	sealed map[string][]byte // signed envelopes by receiver and key id
	gone   bus.KeyInfo       // set once destroyed
}

func newStream(id gk.StreamID) *stream {
	return &stream{id: id, writer: make(chan struct{}, 1), sessions: map[gk.SessionID]*session{}}
}

// write takes the writer token, or gives up with ctx.
func (s *Service) write(ctx context.Context, st *stream) (done func(), err error) {
	if err := s.cfg.Host.Acquire(ctx, st.writer); err != nil {
		return nil, err
	}
	return func() { <-st.writer }, nil
}

func (st *stream) session(id gk.SessionID) *session {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.sessions[id]
}

// reserved is the session's next epoch: the lowest that was released to nobody,
// or nil while it is still being made.
func (ss *session) reserved() *key {
	var found *key
	for _, k := range ss.keys {
		if k.rec.State == bus.KeyPreActive && (found == nil || k.epoch < found.epoch) {
			found = k
		}
	}
	return found
}

// epochs lists the epochs that have a key, oldest first.
func (ss *session) epochs() []gk.Epoch {
	var out []gk.Epoch
	for e := range ss.keys {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}

func (k *key) info(stream gk.StreamID, session gk.SessionID) bus.KeyInfo {
	if k.rec.State == bus.KeyDestroyed {
		return k.gone
	}
	return bus.KeyInfo{
		Stream: stream, Session: session, Epoch: k.epoch, State: k.rec.State,
		Created: k.rec.Created, Activated: k.rec.Activated, Deactivated: k.rec.Deactivated,
	}
}

// wipe removes every trace of the key's bytes from this process.
func (k *key) wipe() {
	k.media.Wipe()
	clear(k.sealed)
	k.rec.Wrapped = nil
}

// loadStream reads what the store has of a stream that memory does not have.
// The caller holds the writer token.
func (s *Service) loadStream(ctx context.Context, st *stream) error {
	sessions, err := s.kv.List(ctx, "session."+string(st.id))
	if err != nil {
		return unavailable(err)
	}
	keys, err := s.kv.List(ctx, "key."+string(st.id))
	if err != nil {
		return unavailable(err)
	}
	gone, _, err := s.readGone(ctx, st.id)
	if err != nil {
		return err
	}
	return s.take(st, sessions, keys, gone)
}

// take puts store entries of one stream into memory where they are missing.
func (s *Service) take(st *stream, sessions, keys []store.Entry, gone goneRecord) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, e := range sessions {
		id, err := gk.ParseSessionID(e.Key[strings.LastIndexByte(e.Key, '.')+1:])
		if err != nil {
			return fmt.Errorf("key store has a strange key %q: %w", e.Key, err)
		}
		if st.sessions[id] != nil {
			continue
		}
		ss := &session{id: id, rev: e.Revision, keys: map[gk.Epoch]*key{}}
		if err := s.vault.open(e, &ss.rec); err != nil {
			return err
		}
		ss.endSaved = ss.rec.Ended
		st.sessions[id] = ss
	}
	for _, e := range keys {
		id, epoch, err := parseMediaKey(e.Key)
		if err != nil {
			return err
		}
		ss := st.sessions[id]
		if ss == nil || ss.keys[epoch] != nil {
			continue
		}
		k, err := s.openKey(st.id, id, epoch, e)
		if err != nil {
			return err
		}
		ss.keys[epoch] = k
		ss.newest = max(ss.newest, epoch)
	}
	for _, k := range gone.Keys {
		if ss := st.sessions[k.Session]; ss != nil {
			ss.newest = max(ss.newest, k.Epoch)
		}
	}
	return nil
}

func parseMediaKey(s string) (gk.SessionID, gk.Epoch, error) {
	parts := strings.Split(s, ".")
	if len(parts) == 4 {
		id, err := gk.ParseSessionID(parts[2])
		n, err2 := strconv.ParseUint(parts[3], 10, 32)
		if err == nil && err2 == nil {
			return id, gk.Epoch(n), nil
		}
	}
	return gk.SessionID{}, 0, fmt.Errorf("key store has a strange key %q", s)
}

// openKey unwraps a key record.
func (s *Service) openKey(stream gk.StreamID, session gk.SessionID, epoch gk.Epoch, e store.Entry) (*key, error) {
	k := &key{epoch: epoch, rev: e.Revision, saved: true, sealed: map[string][]byte{}}
	if err := s.vault.open(e, &k.rec); err != nil {
		return nil, err
	}
	var err error
	if k.media, err = s.vault.unwrapMediaKey(k.rec.Wrapped, boundToKey(stream, session, epoch, k.rec.State)); err != nil {
		return nil, fmt.Errorf("media key of %s, epoch %d, does not unwrap as %s: %w", stream, epoch, k.rec.State, err)
	}
	return k, nil
}

func (s *Service) readGone(ctx context.Context, id gk.StreamID) (goneRecord, uint64, error) {
	var rec goneRecord
	e, err := s.kv.Get(ctx, goneKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, unavailable(err)
	}
	return rec, e.Revision, s.vault.open(e, &rec)
}
