package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// signHead signs the head of the audit trail, after it has persisted it: a trail
// that was cut, or written anew up to here, is refused from then on.
func (s *Service) signHead(ctx context.Context, h bus.AuditHead) (bus.SignedAuditHead, error) {
	var none bus.SignedAuditHead
	if h.Lines == 0 || len(h.Trail) != sha256.Size || len(h.Head) != sha256.Size {
		return none, bus.Refuse(bus.CodeBadRequest, "an audit head needs its lines and two hashes of %d bytes", sha256.Size)
	}
	for {
		last, rev, err := s.readAuditHead(ctx)
		if err != nil {
			return none, err
		}
		switch same := bytes.Equal(last.Trail, h.Trail); {
		case same && h.Lines < last.Lines:
			return none, bus.Refuse(bus.CodeConflict, "the audit trail has %d lines, but %d were signed at %s: its end was cut off", h.Lines, last.Lines, last.At.Format(time.RFC3339))
		case same && h.Lines == last.Lines && !bytes.Equal(last.Head, h.Head):
			return none, bus.Refuse(bus.CodeConflict, "line %d of the audit trail is not the one that was signed at %s", h.Lines, last.At.Format(time.RFC3339))
		}
		next := auditRecord{AuditHead: h, Serial: last.Serial + 1, At: s.cfg.Host.Now().UTC()}
		b, err := s.vault.seal(auditKey, next)
		if err != nil {
			return none, err
		}
		if rev == 0 {
			_, err = s.kv.Create(ctx, auditKey, b)
		} else {
			_, err = s.kv.Update(ctx, auditKey, b, rev)
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
			continue
		}
		if err != nil {
			return none, unavailable(err)
		}
		sig, err := s.signer.Sign(nil, bus.AuditHeadBytes(h, next.Serial, next.At))
		return bus.SignedAuditHead{Serial: next.Serial, At: next.At, Public: s.signer.public, Signature: sig}, err
	}
}

func (s *Service) readAuditHead(ctx context.Context) (auditRecord, uint64, error) {
	var rec auditRecord
	e, err := s.kv.Get(ctx, auditKey)
	if errors.Is(err, store.ErrNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, unavailable(err)
	}
	return rec, e.Revision, s.vault.open(e, &rec)
}
