package kms

import (
	"context"
	"errors"
	"math"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Issuing, in the order in which the store learns of it:
//
//	claim    head.STREAM moves on: the epochs belong to one session from here on
//	ssrc     ssrc.SSRC is the session's, only if it is nobody's
//	open     session.STREAM.SESSION says for whom they are
//	create   key.STREAM.SESSION.EPOCH, only if it does not exist
//
// Each step is a compare-and-set. A crash between two leaves at worst a claim
// that nobody ever uses; asking again claims anew. A key is in memory, and so can
// be released, only after the store has it.

const (
	// maxJump is how far a device's high-water mark may be ahead of the store.
	maxJump = 1 << 20
	// maxSessions bounds the sessions of one stream that are open at one time.
	maxSessions = 16
	// idleAfter is when an open session that was given no key may be closed to
	// make room: far beyond the life of any key.
	idleAfter = 48 * time.Hour
)

// open gives a session its first epoch, and reserves the next.
func (s *Service) open(ctx context.Context, req bus.KMSOpenRequest) (bus.KMSOpenReply, error) {
	var rep bus.KMSOpenReply
	if req.Session.IsZero() {
		return rep, bus.Refuse(bus.CodeBadRequest, "the session is not named")
	}
	if _, err := gk.ParseStreamID(string(req.Stream)); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	dev, err := s.entitled(ctx, req.Device, req.Stream)
	if err != nil {
		return rep, err
	}
	st := s.stream(req.Stream)
	done, err := s.write(ctx, st)
	if err != nil {
		return rep, unavailable(err)
	}
	defer done()
	ss := st.session(req.Session)
	if ss == nil {
		if ss, err = s.openSession(ctx, st, dev, req); err != nil {
			return rep, err
		}
	}
	st.mu.Lock()
	rec := ss.rec
	st.mu.Unlock()
	if err := rec.serves(dev, req.Stream, req.Session); err != nil {
		return rep, err
	}
	switch {
	case rec.SSRC != req.SSRC:
		return rep, bus.Refuse(bus.CodeConflict, "session %s of stream %s has SSRC %08x, not %08x: a session keeps its SSRC", req.Session, req.Stream, rec.SSRC, req.SSRC)
	case rec.Ended:
		return rep, bus.Refuse(bus.CodeConflict, "session %s of stream %s has ended: start a new one", req.Session, req.Stream)
	}
	if err := s.reserve(ctx, st, ss); err != nil {
		return rep, err
	}
	rep.Epoch = rec.First
	return rep, nil
}

// openSession finds the session in the store or makes it. The caller holds the
// writer token.
func (s *Service) openSession(ctx context.Context, st *stream, dev deviceRecord, req bus.KMSOpenRequest) (*session, error) {
	if err := s.loadStream(ctx, st); err != nil {
		return nil, err
	}
	if ss := st.session(req.Session); ss != nil {
		return ss, nil
	}
	if err := s.makeRoom(ctx, st); err != nil {
		return nil, err
	}
	first, err := s.claimFirst(ctx, st, dev, req)
	if err != nil {
		return nil, err
	}
	mine := ssrcRecord{st.id, req.Session}
	if err := s.claimSSRC(ctx, req.SSRC, mine); err != nil {
		return nil, err
	}
	rec := sessionRecord{Device: req.Device, SSRC: req.SSRC, First: first, Opened: s.cfg.Host.Now().UTC(), Enrolled: dev.Enrolled}
	b, err := s.vault.seal(sessionKey(st.id, req.Session), rec)
	if err != nil {
		return nil, err
	}
	rev, err := s.kv.Create(ctx, sessionKey(st.id, req.Session), b)
	if errors.Is(err, store.ErrExists) {
		// Another instance opened it meanwhile, with the epochs that count.
		if err := s.loadStream(ctx, st); err != nil {
			return nil, err
		}
		if ss := st.session(req.Session); ss != nil {
			if ss.rec.SSRC != req.SSRC {
				if err := s.freeSSRC(ctx, req.SSRC, mine); err != nil {
					return nil, err
				}
			}
			return ss, nil
		}
	}
	if err != nil {
		return nil, unavailable(err)
	}
	ss := &session{id: req.Session, rec: rec, rev: rev, keys: map[gk.Epoch]*key{}}
	st.mu.Lock()
	st.sessions[req.Session] = ss
	st.mu.Unlock()
	return ss, nil
}

// makeRoom refuses a session too many. The ones that are open are not touched
// unless long idle: a newcomer must not push out who is on the air.
func (s *Service) makeRoom(ctx context.Context, st *stream) error {
	now := s.cfg.Host.Now()
	var idle []*session
	st.mu.Lock()
	open := 0
	for _, ss := range st.sessions {
		if ss.rec.Ended {
			continue
		}
		open++
		last := ss.rec.Opened
		for _, k := range ss.keys {
			if k.rec.Created.After(last) {
				last = k.rec.Created
			}
		}
		if now.Sub(last) > idleAfter {
			idle = append(idle, ss)
		}
	}
	st.mu.Unlock()
	if open < maxSessions {
		return nil
	}
	if len(idle) == 0 {
		return bus.Refuse(bus.CodeConflict, "stream %s has %d open sessions: stop the stream first, and if its device did not open them, revoke it", st.id, open)
	}
	for _, ss := range idle {
		s.end(st, ss, bus.KeyDestroyed)
	}
	return s.save(ctx, st)
}

// claimFirst claims a session's first two epochs: above everything that the
// store or the device ever saw of the stream.
func (s *Service) claimFirst(ctx context.Context, st *stream, dev deviceRecord, req bus.KMSOpenRequest) (gk.Epoch, error) {
	for {
		head, rev, err := s.readHead(ctx, st.id)
		if err != nil {
			return 0, err
		}
		if uint64(req.HighWater) > uint64(head.Last)+maxJump && head.Enrolled.Equal(dev.Enrolled) {
			return 0, bus.Refuse(bus.CodeEpochJump,
				"device %s used epoch %d of stream %s, but the key store knows none above %d (a jump may be %d at most): if the data directory was lost or restored, run gaitkeeper enroll %s and join with the token; if not, revoke the device: its memory is not its own",
				req.Device, req.HighWater, st.id, head.Last, maxJump, req.Device)
		}
		first, last, err := nextEpochs(max(head.Last, req.HighWater), 2)
		if err != nil {
			return 0, err
		}
		err = s.writeHead(ctx, st.id, headRecord{First: first, Last: last, Session: req.Session, Enrolled: dev.Enrolled}, rev)
		if err == nil {
			return first, nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return 0, unavailable(err)
		}
	}
}

// nextEpochs counts n epochs on from last.
func nextEpochs(last gk.Epoch, n uint64) (gk.Epoch, gk.Epoch, error) {
	end := uint64(last) + n
	if end > math.MaxUint32 {
		return 0, 0, bus.Refuse(bus.CodeEpochJump, "the stream has used up its 2^32 epochs: enrol the device under a new stream name")
	}
	return last + 1, gk.Epoch(end), nil
}

func (s *Service) readHead(ctx context.Context, id gk.StreamID) (headRecord, uint64, error) {
	var head headRecord
	e, err := s.kv.Get(ctx, headKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return head, 0, nil
	}
	if err != nil {
		return head, 0, unavailable(err)
	}
	return head, e.Revision, s.vault.open(e, &head)
}

func (s *Service) writeHead(ctx context.Context, id gk.StreamID, head headRecord, rev uint64) error {
	b, err := s.vault.seal(headKey(id), head)
	if err != nil {
		return err
	}
	if rev == 0 {
		_, err = s.kv.Create(ctx, headKey(id), b)
	} else {
		_, err = s.kv.Update(ctx, headKey(id), b, rev)
	}
	return err
}

// reserve sees to it that the session has a key that was released to nobody,
// and its first key. The caller holds the writer token.
func (s *Service) reserve(ctx context.Context, st *stream, ss *session) error {
	for {
		st.mu.Lock()
		newest, ended, ready := ss.newest, ss.rec.Ended, ss.reserved() != nil
		first := ss.rec.First
		st.mu.Unlock()
		// The first key is made and reserved like any other; its successor is
		// made with it, so that a rotation right after the start finds one.
		if ended || ready && newest > first {
			return nil
		}
		epoch, err := s.nextEpoch(ctx, st, ss, newest)
		if err != nil {
			return err
		}
		if err := s.createKey(ctx, st, ss, epoch); err != nil {
			return err
		}
	}
}

// nextEpoch is the session's epoch after newest: of its claim if that is not
// used up, of a new one if it is.
func (s *Service) nextEpoch(ctx context.Context, st *stream, ss *session, newest gk.Epoch) (gk.Epoch, error) {
	if newest < ss.rec.First {
		return ss.rec.First, nil
	}
	if newest == ss.rec.First {
		return newest + 1, nil // claimed together with the first
	}
	for {
		head, rev, err := s.readHead(ctx, st.id)
		if err != nil {
			return 0, err
		}
		if head.Session == ss.id && head.First <= newest+1 && newest+1 <= head.Last {
			return newest + 1, nil
		}
		first, last, err := nextEpochs(head.Last, 1)
		if err != nil {
			return 0, err
		}
		err = s.writeHead(ctx, st.id, headRecord{First: first, Last: last, Session: ss.id, Enrolled: head.Enrolled}, rev)
		if err == nil {
			return first, nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return 0, unavailable(err)
		}
	}
}

// createKey makes the key of an epoch that the session claimed, or takes the
// one that exists.
func (s *Service) createKey(ctx context.Context, st *stream, ss *session, epoch gk.Epoch) error {
	media, err := keyring.NewMediaKey(nil)
	if err != nil {
		return err
	}
	k := &key{
		epoch: epoch, saved: true, media: media, sealed: map[string][]byte{},
		rec: keyRecord{State: bus.KeyPreActive, Created: s.cfg.Host.Now().UTC()},
	}
	if k.rec.Wrapped, err = s.vault.wrapMediaKey(media, boundToKey(st.id, ss.id, epoch, k.rec.State)); err != nil {
		return err
	}
	name := mediaKey(st.id, ss.id, epoch)
	b, err := s.vault.seal(name, k.rec)
	if err != nil {
		return err
	}
	k.rev, err = s.kv.Create(ctx, name, b)
	created := err == nil
	if errors.Is(err, store.ErrExists) {
		media.Wipe()
		e, err := s.kv.Get(ctx, name)
		if err != nil {
			return unavailable(err)
		}
		if k, err = s.openKey(st.id, ss.id, epoch, e); err != nil {
			return err
		}
	} else if err != nil {
		media.Wipe()
		return unavailable(err)
	}
	st.mu.Lock()
	ss.keys[epoch] = k
	ss.newest = max(ss.newest, epoch)
	st.mu.Unlock()
	if created {
		s.tellState(st, ss, k.info(st.id, ss.id), "")
	}
	return nil
}
