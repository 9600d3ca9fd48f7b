package processing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// termKey is the record of the fencing term that was taken last.
const termKey = "term"

// errOutranked ends a run whose commands are refused because the store that
// counts terms was restored from a backup.
var errOutranked = errors.New("a later term was seen than the store knows of")

// raiseTerm takes the next fencing term: commands of an earlier instance that
// arrive late are refused by whoever saw a later one.
func (s *Service) raiseTerm(ctx context.Context) error {
	for {
		e, err := s.records.Get(ctx, termKey)
		switch {
		case errors.Is(err, store.ErrNotFound):
			_, err = s.records.Create(ctx, termKey, []byte("1"))
			s.protocol.Term = 1
		case err == nil:
			var t uint64
			if _, err := fmt.Sscan(string(e.Value), &t); err != nil {
				return fmt.Errorf("record %q does not read: %w", termKey, err)
			}
			s.protocol.Term = t + 1
			_, err = s.records.Update(ctx, termKey, fmt.Append(nil, s.protocol.Term), e.Revision)
		default:
			return err
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
}

// ifLatest runs f beside the caller, if by the store's word no instance has
// started since this one. Whoever was replaced must not act on being told so.
func (s *Service) ifLatest(f func(ctx context.Context)) {
	s.beside(func() {
		ctx, cancel := s.cfg.Host.WithTimeout(s.ctx, callTimeout)
		defer cancel()
		e, err := s.records.Get(ctx, termKey)
		if err == nil && !s.replaced(e) {
			f(ctx)
		}
	})
}

// replaced reports whether the term on record is later than ours and another
// instance's. An earlier one is a backup's.
func (s *Service) replaced(e store.Entry) bool {
	t, err := strconv.ParseUint(string(e.Value), 10, 64)
	return err != nil || t > s.protocol.Term && !s.wrote(t)
}

// wrote reports whether this instance tried to write a term that a transport had
// seen. Where the store did not answer, the record shows whether it was written.
func (s *Service) wrote(t uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raised[t]
}

// raise writes a term down that a transport has seen, above our own, and has the
// service start anew: it then takes the one after.
func (s *Service) raise(ctx context.Context, seen uint64) {
	const sane = 1 << 62
	e, err := s.records.Get(ctx, termKey)
	if err != nil || s.replaced(e) || seen > sane {
		return
	}
	if t, err := strconv.ParseUint(string(e.Value), 10, 64); err != nil || t <= s.protocol.Term {
		s.mu.Lock()
		s.raised[seen] = true
		s.mu.Unlock()
		if _, err := s.records.Update(ctx, termKey, fmt.Append(nil, seen), e.Revision); err != nil {
			return // it is announced again
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.outranked:
	default:
		close(s.outranked)
	}
}

// Outranked is closed when the service has to be started anew, which
// [Service.Run] does by itself.
func (s *Service) Outranked() <-chan struct{} { return s.outranked }

// anew gives a service that knows what a new process would soon hear, and what was
// spent. It is another one, because requests that the run before was asked are still
// being answered by it.
func (s *Service) anew() *Service {
	next := New(s.cfg, s.conn, s.courier, s.records, s.signer, s.controller, s.log)
	next.protocol.Site, next.protocol.Started = s.protocol.Site, s.protocol.Started
	next.strangers, next.tuning = s.strangers, s.tuning
	next.fleetRefused.Store(s.fleetRefused.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	next.transports, next.liars = maps.Clone(s.transports), maps.Clone(s.liars)
	return next
}
