package gkrp

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// The types of statement: signed structures that travel inside messages or
// between services, each under its own type so that none passes for another.
const (
	typKey        = "gkrp/1.key"
	typPrekey     = "gkrp/1.prekey"
	typController = "gkrp/1.controller"
	typReceiver   = "gkrp/1.receiver"
)

// KeyEnvelope brings one media key to one receiver: sealed with HPKE to the
// receiver's key, and signed by the key management service, because HPKE's base
// mode authenticates nobody (RFC 9180 §9.7).
type KeyEnvelope struct {
	Stream   gk.StreamID  `cbor:"1,keyasint"`
	Session  gk.SessionID `cbor:"2,keyasint"`
	Epoch    gk.Epoch     `cbor:"3,keyasint"`
	Suite    Suite        `cbor:"4,keyasint"`
	Receiver string       `cbor:"5,keyasint"` // "device/ID" or "transport/ID"
	KeyID    []byte       `cbor:"6,keyasint"` // [KeyID] of the receiver's HPKE public key
	Sealed   []byte       `cbor:"7,keyasint"` // encapsulated key ‖ ciphertext
	SSRC     uint32       `cbor:"8,keyasint"` // the only SSRC that the key may protect
}

// KeyID names an HPKE public key: the first 16 bytes of its SHA-256.
func KeyID(public []byte) []byte {
	h := sha256.Sum256(public)
	return h[:16]
}

// Info is the HPKE info string (RFC 9180 §5.1): everything of the envelope but
// the ciphertext, so that a sealed key opens only in the place it was made for.
func (e *KeyEnvelope) Info() []byte {
	bound := *e
	bound.Sealed = nil
	b, err := encMode.Marshal(&bound)
	if err != nil {
		panic(err) // a fixed structure of plain types always encodes
	}
	return append([]byte("gkrp/1 media key\x00"), b...)
}

// SignKeyEnvelope signs e with the key management service's key.
func SignKeyEnvelope(kms Signer, kid []byte, e *KeyEnvelope) ([]byte, error) {
	return signStatement(kms, kid, typKey, e)
}

// OpenKeyEnvelope verifies a signed envelope against the pinned key management
// service key. Opening Sealed is the receiver's business.
func OpenKeyEnvelope(kms Verifier, wire []byte) (*KeyEnvelope, error) {
	var e KeyEnvelope
	if err := openStatement(kms, wire, typKey, &e); err != nil {
		return nil, err
	}
	if e.Epoch == 0 || e.Session.IsZero() || len(e.KeyID) != 16 || len(e.Sealed) == 0 {
		return nil, fmt.Errorf("%w: key envelope is incomplete", ErrMalformed)
	}
	return &e, nil
}

// Prekey is a one-time HPKE public key of a device. The device deletes the
// private half as soon as one message was opened with it.
type Prekey struct {
	Device  gk.DeviceID  `cbor:"1,keyasint"`
	Stream  gk.StreamID  `cbor:"2,keyasint"`
	Session gk.SessionID `cbor:"3,keyasint"`
	Suite   Suite        `cbor:"4,keyasint"`
	Public  []byte       `cbor:"5,keyasint"`
}

// SignPrekey signs p with the device's identity key.
func SignPrekey(device Signer, kid []byte, p *Prekey) ([]byte, error) {
	return signStatement(device, kid, typPrekey, p)
}

// OpenPrekey verifies a signed prekey.
func OpenPrekey(device Verifier, wire []byte) (*Prekey, error) {
	var p Prekey
	if err := openStatement(device, wire, typPrekey, &p); err != nil {
		return nil, err
	}
	if p.Session.IsZero() || len(p.Public) == 0 {
		return nil, fmt.Errorf("%w: prekey is incomplete", ErrMalformed)
	}
	return &p, nil
}

// Controller is the key management service's word for the key that a processing
// service signs its messages with. A device pins the key management service
// alone, and so follows any processing instance that it vouches for.
type Controller struct {
	ID     string `cbor:"1,keyasint"`
	Public []byte `cbor:"2,keyasint"` // Ed25519, 32 bytes
}

// SignController signs c with the key management service's key.
func SignController(kms Signer, kid []byte, c *Controller) ([]byte, error) {
	return signStatement(kms, kid, typController, c)
}

// OpenController verifies a signed controller statement and gives the verifier
// for the messages that carry it.
func OpenController(kms Verifier, wire []byte) (*Controller, Verifier, error) {
	var c Controller
	if err := openStatement(kms, wire, typController, &c); err != nil {
		return nil, nil, err
	}
	if len(c.Public) != ed25519.PublicKeySize {
		return nil, nil, fmt.Errorf("%w: controller key of %d bytes", ErrMalformed, len(c.Public))
	}
	v, err := NewVerifier(c.Public)
	return &c, v, err
}

// ReceiverKey is a transport's HPKE public key, signed with its certificate's key.
type ReceiverKey struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Suite     Suite          `cbor:"2,keyasint"`
	Public    []byte         `cbor:"3,keyasint"`
}

// SignReceiverKey signs r with the transport's identity key.
func SignReceiverKey(transport Signer, kid []byte, r *ReceiverKey) ([]byte, error) {
	return signStatement(transport, kid, typReceiver, r)
}

// OpenReceiverKey verifies a signed receiver key.
func OpenReceiverKey(transport Verifier, wire []byte) (*ReceiverKey, error) {
	var r ReceiverKey
	if err := openStatement(transport, wire, typReceiver, &r); err != nil {
		return nil, err
	}
	if r.Transport == "" || len(r.Public) == 0 {
		return nil, fmt.Errorf("%w: receiver key is incomplete", ErrMalformed)
	}
	return &r, nil
}

func signStatement(s Signer, kid []byte, typ string, v any) ([]byte, error) {
	payload, err := encMode.Marshal(v)
	if err != nil {
		return nil, err
	}
	return sign1(s, kid, nil, typ, nil, payload)
}

func openStatement(ver Verifier, wire []byte, typ string, v any) error {
	if len(wire) > MaxMessage {
		return fmt.Errorf("%w: statement of %d bytes, the limit is %d", ErrTooLarge, len(wire), MaxMessage)
	}
	m, t, err := parse1(wire)
	if err != nil {
		return err
	}
	if t != typ {
		return fmt.Errorf("%w: statement of type %q where %q is wanted", ErrMalformed, t, typ)
	}
	if err := m.Verify(nil, ver); err != nil {
		return errors.Join(ErrSignature, err)
	}
	return decodeStrict(m.Payload, v)
}
