package kms

import (
	"context"
	"errors"
	"strconv"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// What processing keeps at rest is encrypted here, because processing has no key
// to do it with: under the data-encryption key, bound to what it is, whose it is
// and which version. Nothing of it is kept but the newest version that was opened:
// whoever can write processing's store could otherwise put an older profile back.

// seal encrypts content for its place.
func (s *Service) seal(ctx context.Context, r bus.SealRequest) (bus.SealReply, error) {
	ad, err := boundToPlace(r.Place)
	if err != nil {
		return bus.SealReply{}, err
	}
	if len(r.Content) > bus.MaxSealed {
		return bus.SealReply{}, bus.Refuse(bus.CodeBadRequest, "%d bytes to seal, at most %d", len(r.Content), bus.MaxSealed)
	}
	var opened sealedRecord
	if !many(r.Place) {
		if opened, _, err = s.opened(ctx, r.Place); err != nil {
			return bus.SealReply{}, err
		}
	}
	sealed, err := s.vault.aead.Encrypt(r.Content, ad)
	return bus.SealReply{Sealed: sealed, Newest: opened.Newest}, err
}

// unseal decrypts what seal made for the same place.
func (s *Service) unseal(ctx context.Context, r bus.UnsealRequest) (bus.UnsealReply, error) {
	ad, err := boundToPlace(r.Place)
	if err != nil {
		return bus.UnsealReply{}, err
	}
	content, err := s.vault.aead.Decrypt(r.Sealed, ad)
	if err != nil {
		return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "%s of stream %s, version %d: it was changed, or sealed for another place", r.Place.Kind, r.Place.Stream, r.Place.Version)
	}
	if err := s.noteOpened(ctx, r.Place); err != nil {
		return bus.UnsealReply{}, err
	}
	return bus.UnsealReply{Content: content}, nil
}

// opened reads the newest version of a place that was opened.
func (s *Service) opened(ctx context.Context, p bus.SealPlace) (rec sealedRecord, rev uint64, err error) {
	e, err := s.kv.Get(ctx, sealedKey(p))
	if errors.Is(err, store.ErrNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, unavailable(err)
	}
	return rec, e.Revision, s.vault.open(e, &rec)
}

// many reports whether there are many of a kind, each of a version of its own: of those
// no newest is remembered.
func many(p bus.SealPlace) bool {
	return p.Kind == bus.SealedScores || p.Kind == bus.SealedWindows || p.Kind == bus.SealedContext || p.Kind == bus.SealedEpisode
}

// noteOpened refuses a version older than one that was opened, and remembers this one.
func (s *Service) noteOpened(ctx context.Context, p bus.SealPlace) error {
	if many(p) {
		return nil
	}
	rec, rev, err := s.opened(ctx, p)
	switch {
	case err != nil:
		return err
	case p.Version < rec.Newest:
		return bus.Refuse(bus.CodeUnauthorized, "%s of stream %s: version %d was put back, but version %d was in use", p.Kind, p.Stream, p.Version, rec.Newest)
	case p.Version == rec.Newest:
		return nil
	}
	b, err := s.vault.seal(sealedKey(p), sealedRecord{Newest: p.Version})
	if err != nil {
		return err
	}
	if rev == 0 {
		_, err = s.kv.Create(ctx, sealedKey(p), b)
	} else {
		_, err = s.kv.Update(ctx, sealedKey(p), b, rev)
	}
	if err != nil { // somebody else opened one at the same time, or the store is away
		return unavailable(err)
	}
	return nil
}

func boundToPlace(p bus.SealPlace) ([]byte, error) {
	switch p.Kind {
	case bus.SealedProfile, bus.SealedTuning, bus.SealedScores, bus.SealedWindows, bus.SealedAlerts, bus.SealedContext, bus.SealedEpisode, bus.SealedFleet:
	default:
		return nil, bus.Refuse(bus.CodeBadRequest, "%q is nothing that is sealed here", p.Kind)
	}
	if _, err := gk.ParseStreamID(string(p.Stream)); err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	return bound("sealed", p.Kind, string(p.Stream), strconv.FormatUint(p.Version, 10)), nil
}
