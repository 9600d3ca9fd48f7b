package kms

import (
	"context"
	"strconv"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// What processing keeps at rest is encrypted here, because processing has no key
// to do it with: under the data-encryption key, bound to what it is, whose it is
// and which version. Nothing of it is kept.

// seal encrypts content for its place.
func (s *Service) seal(_ context.Context, r bus.SealRequest) (bus.SealReply, error) {
	ad, err := boundToPlace(r.Place)
	if err != nil {
		return bus.SealReply{}, err
	}
	if len(r.Content) > bus.MaxSealed {
		return bus.SealReply{}, bus.Refuse(bus.CodeBadRequest, "%d bytes to seal, at most %d", len(r.Content), bus.MaxSealed)
	}
	sealed, err := s.vault.aead.Encrypt(r.Content, ad)
	return bus.SealReply{Sealed: sealed}, err
}

// unseal decrypts what seal made for the same place.
func (s *Service) unseal(_ context.Context, r bus.UnsealRequest) (bus.UnsealReply, error) {
	ad, err := boundToPlace(r.Place)
	if err != nil {
		return bus.UnsealReply{}, err
	}
	content, err := s.vault.aead.Decrypt(r.Sealed, ad)
	if err != nil {
		return bus.UnsealReply{}, bus.Refuse(bus.CodeUnauthorized, "%s of stream %s, version %d: it was changed, or sealed for another place", r.Place.Kind, r.Place.Stream, r.Place.Version)
	}
	return bus.UnsealReply{Content: content}, nil
}

func boundToPlace(p bus.SealPlace) ([]byte, error) {
	if p.Kind != bus.SealedProfile {
		return nil, bus.Refuse(bus.CodeBadRequest, "%q is nothing that is sealed here", p.Kind)
	}
	if _, err := gk.ParseStreamID(string(p.Stream)); err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	return bound("sealed", p.Kind, string(p.Stream), strconv.FormatUint(p.Version, 10)), nil
}
