package kms

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// History is how many revisions the store must keep of a key, so that every
// one of a media key's envelopes can be overwritten when it is destroyed.
const History = 16

// What the store holds, by key:
//
//	root                              the wrapped data-encryption key
//	ca, signing                       the service's own identities
//	device.DEVICE                     an enrolled device
//	token.DEVICE                      its join token's hash
//	head.STREAM                       the last epoch that was claimed
//	session.STREAM.SESSION            a session that can be given keys
//	ssrc.SSRC                         the open session that the SSRC is of
//	key.STREAM.SESSION.EPOCH          a key that is not destroyed, wrapped
//	gone.STREAM                       the last keys that were destroyed, without bytes
//	audit                             the head of the audit trail that was signed last
//	sealed.KIND.STREAM                the newest version of sealed content that was opened
const (
	auditKey   = "audit"
	caKey      = "ca"
	signingKey = "signing"
)

func deviceKey(d gk.DeviceID) string { return "device." + string(d) }
func tokenKey(d gk.DeviceID) string  { return "token." + string(d) }
func headKey(s gk.StreamID) string   { return "head." + string(s) }
func goneKey(s gk.StreamID) string   { return "gone." + string(s) }

func sealedKey(p bus.SealPlace) string { return "sealed." + p.Kind + "." + string(p.Stream) }

func sessionKey(s gk.StreamID, id gk.SessionID) string {
	return fmt.Sprintf("session.%s.%s", s, id)
}

func mediaKey(s gk.StreamID, id gk.SessionID, e gk.Epoch) string {
	return fmt.Sprintf("key.%s.%s.%d", s, id, e)
}

// identityRecord is a certificate or public key with its wrapped private key.
type identityRecord struct {
	Public  []byte `cbor:"1,keyasint"` // certificate in DER for the CA, Ed25519 key for signing
	Wrapped []byte `cbor:"2,keyasint"`
}

// deviceRecord is a device's enrolment.
type deviceRecord struct {
	bus.DeviceRecord
	Token []byte `cbor:"64,keyasint,omitempty"` // hash of the join token's secret
}

// tokenRecord is a join token without its secret.
type tokenRecord struct {
	Hash    []byte        `cbor:"1,keyasint"` // SHA-256 of the secret
	Expires time.Time     `cbor:"2,keyasint"`
	Streams []gk.StreamID `cbor:"3,keyasint"`
	UsedBy  []byte        `cbor:"4,keyasint,omitempty"` // the public key that it was used for
}

// headRecord is a stream's newest claim of epochs: nobody may use an epoch up to
// Last but the session that claimed it.
type headRecord struct {
	First   gk.Epoch     `cbor:"1,keyasint"`
	Last    gk.Epoch     `cbor:"2,keyasint"`
	Session gk.SessionID `cbor:"3,keyasint"`
	// Enrolled is the enrolment under which the stream was last opened. Under a
	// later one, by an operator's hand, its epochs may jump once.
	Enrolled time.Time `cbor:"4,keyasint,omitzero"`
}

// sessionRecord says for whom a session's keys are. Its first two epochs were
// claimed together.
type sessionRecord struct {
	Device gk.DeviceID `cbor:"1,keyasint"`
	SSRC   uint32      `cbor:"2,keyasint"`
	First  gk.Epoch    `cbor:"3,keyasint"`
	Opened time.Time   `cbor:"4,keyasint"`
	Ended  bool        `cbor:"5,keyasint,omitempty"` // no epoch may be added
	// Enrolled is the enrolment that the session was opened under.
	Enrolled time.Time `cbor:"6,keyasint,omitzero"`
}

// serves says why a session's keys are not for a device as it is enrolled now; nil if
// they are. Enrolled anew, perhaps because its identity was stolen, it has no part in
// what it opened before.
func (r sessionRecord) serves(dev deviceRecord, stream gk.StreamID, id gk.SessionID) error {
	switch {
	case r.Device != dev.Device:
		return bus.Refuse(bus.CodeUnauthorized, "session %s of stream %s is another device's", id, stream)
	case !r.Enrolled.Equal(dev.Enrolled):
		return bus.Refuse(bus.CodeRevoked, "session %s of stream %s was opened before device %s was enrolled anew: start a new one", id, stream, dev.Device)
	}
	return nil
}

// keyRecord is a media key's envelope.
type keyRecord struct {
	State       bus.KeyState `cbor:"1,keyasint"`
	Created     time.Time    `cbor:"2,keyasint"`
	Activated   time.Time    `cbor:"3,keyasint,omitzero"`
	Deactivated time.Time    `cbor:"4,keyasint,omitzero"`
	Wrapped     []byte       `cbor:"5,keyasint"`
	Prekeys     [][]byte     `cbor:"6,keyasint,omitempty"` // ids of the device prekeys it was sealed to
}

// goneRecord lists destroyed keys, oldest first.
type goneRecord struct {
	Keys []bus.KeyInfo `cbor:"1,keyasint"`
}

// auditRecord is an audit head that was signed.
type auditRecord struct {
	bus.AuditHead
	Serial uint64    `cbor:"64,keyasint"`
	At     time.Time `cbor:"65,keyasint"`
}

// sealedRecord is what is remembered of content that was sealed for others.
type sealedRecord struct {
	Newest uint64 `cbor:"1,keyasint"` // version that was opened
}

// keptGone is how many destroyed keys of a stream are remembered for its listing.
const keptGone = 32

var encMode = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic, Time: cbor.TimeRFC3339Nano}.EncMode())

var decMode = must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // fixed options; a mistake shows at the first start
	}
	return v
}
