package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// An SSRC is one session's, of all that are open at the site: a transport finds a
// packet's session by it. Processing draws it; what makes it one session's is a
// record here that only one can create. Nobody takes such a record over: it goes with
// its session. A crash between record and session leaves an SSRC unused for ever, and
// there are 2^32.

// ssrcRecord says whose an SSRC is.
type ssrcRecord struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
}

func ssrcKey(ssrc uint32) string { return fmt.Sprintf("ssrc.%08x", ssrc) }

// claimSSRC makes an SSRC the session's, unless it is another one's.
func (s *Service) claimSSRC(ctx context.Context, ssrc uint32, of ssrcRecord) error {
	b, err := s.vault.seal(ssrcKey(ssrc), of)
	if err != nil {
		return err
	}
	_, err = s.kv.Create(ctx, ssrcKey(ssrc), b)
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrExists) {
		return unavailable(err)
	}
	has, err := s.readSSRC(ctx, ssrc)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return bus.Refuse(bus.CodeUnavailable, "ssrc %08x is being given back: ask again", ssrc)
	case err != nil:
		return err
	case has != of:
		return bus.Refuse(bus.CodeConflict, "ssrc %08x belongs to session %s of stream %s: draw another", ssrc, has.Session, has.Stream)
	}
	return nil // asked for before
}

// freeSSRC gives a session's SSRC back. One that is another session's stays.
func (s *Service) freeSSRC(ctx context.Context, ssrc uint32, of ssrcRecord) error {
	has, err := s.readSSRC(ctx, ssrc)
	if errors.Is(err, store.ErrNotFound) || err == nil && has != of {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.kv.Erase(ctx, ssrcKey(ssrc)); err != nil {
		return unavailable(err)
	}
	return nil
}

func (s *Service) readSSRC(ctx context.Context, ssrc uint32) (has ssrcRecord, err error) {
	e, err := s.kv.Get(ctx, ssrcKey(ssrc))
	if errors.Is(err, store.ErrNotFound) {
		return has, err
	}
	if err != nil {
		return has, unavailable(err)
	}
	return has, s.vault.open(e, &has)
}
