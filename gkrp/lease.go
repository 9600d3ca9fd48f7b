package gkrp

import (
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

const typLease = "gkrp/1.lease"

// MaxLeaseSessions bounds the sessions of one [Lease].
const MaxLeaseSessions = 64

// Lease is the key management service's word that one transport may use keys of
// sessions for a while. It counts from a moment that the transport marked: only the
// transport can make the mark, and nobody can guess one that is to come, so that
// who carries the lease can make it neither longer nor ahead of its time.
type Lease struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Mark      []byte         `cbor:"2,keyasint"` // 16 to 64 bytes, of the transport
	ForMs     uint32         `cbor:"3,keyasint"` // milliseconds from the mark
	Sessions  []LeaseSession `cbor:"4,keyasint"` // 1 to [MaxLeaseSessions]
}

// LeaseSession names a session whose device is in good standing.
type LeaseSession struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
}

// For is the lease's length.
func (l *Lease) For() time.Duration { return time.Duration(l.ForMs) * time.Millisecond }

// Covers reports whether the lease is for a session too.
func (l *Lease) Covers(stream gk.StreamID, session gk.SessionID) bool {
	return slices.Contains(l.Sessions, LeaseSession{stream, session})
}

// SignLease signs l with the key management service's key.
func SignLease(kms Signer, kid []byte, l *Lease) ([]byte, error) {
	return signStatement(kms, kid, typLease, l)
}

// OpenLease verifies a signed lease against the pinned key management service key.
// Whether the mark is one of its own, the transport must check.
func OpenLease(kms Verifier, wire []byte) (*Lease, error) {
	var l Lease
	if err := openStatement(kms, wire, typLease, &l); err != nil {
		return nil, err
	}
	if l.Transport == "" || len(l.Mark) < 16 || len(l.Mark) > 64 || len(l.Sessions) == 0 || len(l.Sessions) > MaxLeaseSessions {
		return nil, fmt.Errorf("%w: lease without its transport, mark or sessions", ErrMalformed)
	}
	return &l, nil
}
