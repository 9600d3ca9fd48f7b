package sim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// suite is the cryptography of a run. Media is sealed by the real SRTP in both;
// the cheap one replaces what costs most, key agreement and signatures, by keyed
// hashes that fail in the same places.
type suite struct {
	kem      keyring.KEM
	sign     func(ed25519.PrivateKey, []byte) []byte
	signer   func(ed25519.PrivateKey) (gkrp.Signer, error)
	verifier func(ed25519.PublicKey) (gkrp.Verifier, error)
}

func realSuite() suite {
	return suite{keyring.HPKE{}, ed25519.Sign, gkrp.NewSigner, gkrp.NewVerifier}
}

func cheapSuite(random io.Reader) suite {
	return suite{
		kem: &cheapKEM{random: random}, sign: cheapSign,
		signer: func(k ed25519.PrivateKey) (gkrp.Signer, error) { return cheapSigner(k), nil },
		verifier: func(k ed25519.PublicKey) (gkrp.Verifier, error) {
			if len(k) != ed25519.PublicKeySize {
				return nil, fmt.Errorf("public key of %d bytes", len(k))
			}
			return cheapVerifier(k), nil
		},
	}
}

// cheapSign is a hash under the public key: whoever knows that could forge it,
// and nobody in the simulation does.
func cheapSign(private ed25519.PrivateKey, content []byte) []byte {
	return cheapMAC(private[ed25519.SeedSize:], content)
}

func cheapMAC(key, content []byte) []byte {
	h := sha256.New()
	h.Write(key)
	h.Write(content)
	return h.Sum(nil)
}

type cheapSigner ed25519.PrivateKey

func (cheapSigner) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }

func (s cheapSigner) Sign(_ io.Reader, content []byte) ([]byte, error) {
	return cheapSign(ed25519.PrivateKey(s), content), nil
}

type cheapVerifier []byte

func (cheapVerifier) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }

func (v cheapVerifier) Verify(content, signature []byte) error {
	if !bytes.Equal(cheapMAC(v, content), signature) {
		return errors.New("signature does not verify")
	}
	return nil
}

// cheapKEM seals by a pad that hangs on the receiver's key and the context.
type cheapKEM struct{ random io.Reader }

type cheapReceiver struct {
	suite  uint16
	public []byte
	wiped  bool
}

func (k *cheapKEM) Generate(suite uint16) (keyring.Receiver, error) {
	r := &cheapReceiver{suite: suite, public: make([]byte, 32)}
	_, err := io.ReadFull(k.random, r.public)
	return r, err
}

func (k *cheapKEM) CheckPublic(_ uint16, public []byte) error {
	if len(public) != 32 {
		return fmt.Errorf("public key of %d bytes", len(public))
	}
	return nil
}

func cheapPad(public, info []byte) []byte {
	a := cheapMAC(public, info)
	return append(a, cheapMAC(a, public)...)
}

func (k *cheapKEM) SealMediaKey(_ uint16, public, info []byte, m keyring.MediaKey) ([]byte, error) {
	if m.IsZero() {
		return nil, errors.New("cannot seal a media key that was wiped")
	}
	out := make([]byte, 0, 64)
	m.Expose(func(key, salt []byte) { out = append(append(out, key...), salt...) })
	pad := cheapPad(public, info)
	for i := range out {
		out[i] ^= pad[i]
	}
	return append(out, cheapMAC(pad, out)[:16]...), nil
}

func (r *cheapReceiver) Suite() uint16  { return r.suite }
func (r *cheapReceiver) Public() []byte { return bytes.Clone(r.public) }
func (r *cheapReceiver) ID() [16]byte   { return keyring.PublicID(r.public) }
func (r *cheapReceiver) Wipe()          { r.wiped = true }

func (r *cheapReceiver) OpenMediaKey(info, sealed []byte) (keyring.MediaKey, error) {
	const n = keyring.MediaKeySize
	if r.wiped || len(sealed) != n+16 {
		return keyring.MediaKey{}, errors.New("sealed key does not open")
	}
	pad := cheapPad(r.public, info)
	if !bytes.Equal(cheapMAC(pad, sealed[:n])[:16], sealed[n:]) {
		return keyring.MediaKey{}, errors.New("sealed key does not open")
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = sealed[i] ^ pad[i]
	}
	return keyring.MediaKeyFromBytes(b)
}

// fingerprint stands for a media key where the key itself is not wanted.
type fingerprint [8]byte

func printOf(m keyring.MediaKey) (f fingerprint) {
	m.Expose(func(key, salt []byte) {
		h := sha256.New()
		h.Write(key)
		h.Write(salt)
		copy(f[:], h.Sum(nil))
	})
	return f
}

// watchedKEM is a role's key agreement, with the simulation looking on.
type watchedKEM struct {
	keyring.KEM
	w    *world
	role string // who uses it
}

const infoPrefix = "gkrp/1 media key\x00"

// envelopeOf reads back what an envelope was bound to.
func envelopeOf(info []byte) (e gkrp.KeyEnvelope) {
	b, ok := bytes.CutPrefix(info, []byte(infoPrefix))
	if !ok || cbor.Unmarshal(b, &e) != nil {
		panic("sim: the info of a key envelope does not read")
	}
	return e
}

func (k *watchedKEM) Generate(suite uint16) (keyring.Receiver, error) {
	r, err := k.KEM.Generate(suite)
	if err != nil {
		return nil, err
	}
	k.w.check.receiverMade(string(gkrp.KeyID(r.Public())), k.role)
	return &watchedReceiver{r, k}, nil
}

func (k *watchedKEM) SealMediaKey(suite uint16, public, info []byte, m keyring.MediaKey) ([]byte, error) {
	k.w.check.sealed(envelopeOf(info), printOf(m))
	return k.KEM.SealMediaKey(suite, public, info, m)
}

type watchedReceiver struct {
	keyring.Receiver
	k *watchedKEM
}

func (r *watchedReceiver) OpenMediaKey(info, sealed []byte) (keyring.MediaKey, error) {
	m, err := r.Receiver.OpenMediaKey(info, sealed)
	if err == nil {
		r.k.w.check.opened(r.k.role, envelopeOf(info), printOf(m), m)
		if r.k.w.broken(breakOpening) && r.k.w.engine.now > breakAfter && strings.HasPrefix(r.k.role, "transport/") {
			return keyring.MediaKeyFromBytes(bytes.Repeat([]byte{1}, keyring.MediaKeySize))
		}
	}
	return m, err
}
