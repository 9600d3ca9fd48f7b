package keyring

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
)

// HPKE suites (RFC 9180), all with HKDF-SHA256 and AES-256-GCM. The numbers
// are Gaitkeeper's own and travel on the wire.
const (
	SuiteMLKEM768X25519 uint16 = 1 // KEM MLKEM768-X25519 (draft-ietf-hpke-pq), the default
	SuiteX25519         uint16 = 2 // KEM DHKEM(X25519, HKDF-SHA256)
)

// MaxPublicSize is the largest public key of any suite in bytes.
const MaxPublicSize = 1216

func kemOf(suite uint16) (hpke.KEM, error) {
	switch suite {
	case SuiteMLKEM768X25519:
		return hpke.MLKEM768X25519(), nil
	case SuiteX25519:
		return hpke.DHKEM(ecdh.X25519()), nil
	}
	return nil, fmt.Errorf("unknown HPKE suite %d: known are %d (MLKEM768X25519) and %d (X25519)", suite, SuiteMLKEM768X25519, SuiteX25519)
}

// ReceiverKey is an HPKE private key to which keys are sealed. It lives in
// memory only. The zero value can open nothing.
type ReceiverKey struct {
	hidden
	p *receiver
}

type receiver struct {
	suite  uint16
	public []byte
	id     [16]byte
	key    hpke.PrivateKey // nil once wiped
}

// GenerateReceiverKey makes a fresh key pair for suite.
func GenerateReceiverKey(suite uint16) (ReceiverKey, error) {
	kem, err := kemOf(suite)
	if err != nil {
		return ReceiverKey{}, err
	}
	key, err := kem.GenerateKey()
	if err != nil {
		return ReceiverKey{}, fmt.Errorf("cannot make an HPKE key: %w", err)
	}
	return newReceiverKey(suite, key), nil
}

func newReceiverKey(suite uint16, key hpke.PrivateKey) ReceiverKey {
	public := key.PublicKey().Bytes()
	return ReceiverKey{p: &receiver{suite: suite, public: public, id: PublicID(public), key: key}}
}

// PublicID names a public key: the first 16 bytes of its SHA-256.
func PublicID(public []byte) (id [16]byte) {
	h := sha256.Sum256(public)
	copy(id[:], h[:])
	return id
}

// CheckPublic reports whether public is a valid key of suite.
func CheckPublic(suite uint16, public []byte) error {
	_, err := publicOf(suite, public)
	return err
}

func publicOf(suite uint16, public []byte) (hpke.PublicKey, error) {
	kem, err := kemOf(suite)
	if err != nil {
		return nil, err
	}
	pk, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("bad HPKE public key of %d bytes for suite %d: %w", len(public), suite, err)
	}
	return pk, nil
}

// IsZero reports whether r holds no key, or no longer holds one.
func (r ReceiverKey) IsZero() bool { return r.p == nil || r.p.key == nil }

// Suite is the HPKE suite of the key.
func (r ReceiverKey) Suite() uint16 { return r.p.suite }

// Public is the encoded public key. It stays readable after Wipe.
func (r ReceiverKey) Public() []byte { return append([]byte(nil), r.p.public...) }

// ID is [PublicID] of the public key. It stays readable after Wipe.
func (r ReceiverKey) ID() [16]byte { return r.p.id }

// Wipe drops the private key, for every copy of r. crypto/hpke gives no access
// to the key's memory, so the bytes go when the garbage collector reuses it.
// Wipe must not run at the same time as OpenMediaKey.
func (r ReceiverKey) Wipe() {
	if r.p != nil {
		r.p.key = nil
	}
}

// Seal encrypts plaintext to public in HPKE base mode and returns
// enc‖ciphertext. info binds the context: opening needs the same info.
// Base mode does not authenticate the sender; sign the result.
func Seal(suite uint16, public, info, plaintext []byte) ([]byte, error) {
	pk, err := publicOf(suite, public)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plaintext)
}

// SealMediaKey seals k like [Seal]. A wiped or zero key is an error.
func SealMediaKey(suite uint16, public, info []byte, k MediaKey) (sealed []byte, err error) {
	k.m.expose(func(b []byte) {
		if b == nil {
			err = fmt.Errorf("cannot seal a media key that was wiped")
			return
		}
		sealed, err = Seal(suite, public, info, b)
	})
	return sealed, err
}

// OpenMediaKey opens what [SealMediaKey] made for r's public key and info.
func (r ReceiverKey) OpenMediaKey(info, sealed []byte) (MediaKey, error) {
	if r.IsZero() {
		return MediaKey{}, fmt.Errorf("cannot open a sealed key: the receiver key was wiped")
	}
	b, err := hpke.Open(r.p.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	defer clear(b)
	if err != nil {
		return MediaKey{}, fmt.Errorf("sealed key of %d bytes does not open with receiver key %x: %w", len(sealed), r.p.id, err)
	}
	return MediaKeyFromBytes(b)
}
