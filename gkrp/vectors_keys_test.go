package gkrp_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// What follows makes the vectors.

var (
	vectorScope   = gkrp.Scope{Device: "cam-1", Stream: "cam-1-main"}
	vectorSession = gk.SessionID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
)

const (
	vectorEpoch gk.Epoch = 42
	vectorSSRC           = 0xdecafbad
	vectorFirst gk.Index = 3<<16 - 2 // a sequence number's wrap is near
)

func seedOf(name string) []byte {
	h := sha256.Sum256([]byte("gkrp vector signer " + name))
	return h[:]
}

func signerOf(name string) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seedOf(name)) }

func publicOf(name string) []byte { return signerOf(name).Public().(ed25519.PublicKey) }

func signersOf(names ...string) map[string]signerVector {
	out := map[string]signerVector{}
	for _, n := range names {
		out[n] = signerVector{Seed: seedOf(n), Public: publicOf(n), KeyID: gkrp.KeyID(publicOf(n))}
	}
	return out
}

func verifierOf(t testing.TB, public []byte) gkrp.Verifier {
	t.Helper()
	v, err := gkrp.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func kemOf(t testing.TB, s gkrp.Suite) hpke.KEM {
	t.Helper()
	switch s {
	case gkrp.SuiteMLKEM768X25519:
		return hpke.MLKEM768X25519()
	case gkrp.SuiteX25519:
		return hpke.DHKEM(ecdh.X25519())
	}
	t.Fatalf("suite %d", s)
	return nil
}

// privateOf is a fixed HPKE key: 32 bytes in both suites.
func privateOf(t testing.TB, s gkrp.Suite, n byte) hpke.PrivateKey {
	t.Helper()
	k, err := kemOf(t, s).NewPrivateKey(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// mediaBytes is the media key of an epoch: master key and salt.
func mediaBytes(e gk.Epoch) []byte {
	var b []byte
	for i := range keyring.MediaKeySize {
		b = append(b, byte(int(e)+i))
	}
	return b
}

func mediaKeyOf(t testing.TB, b []byte) keyring.MediaKey {
	t.Helper()
	k, err := keyring.MediaKeyFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func confirmOf(t testing.TB, key []byte, stream gk.StreamID, session gk.SessionID, e gk.Epoch, receiver string) []byte {
	c := mediaKeyOf(t, key).Confirm(stream, session, e, receiver)
	return c[:]
}

func mustCBOR(t testing.TB, v any) []byte {
	t.Helper()
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func diagnose(t testing.TB, payload []byte) string {
	t.Helper()
	s, err := cbor.Diagnose(payload)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw is a COSE_Sign1 put together by hand.
type raw struct {
	tag         uint64
	protected   map[int64]any
	unprotected map[int64]any
	aad         string
	payload     []byte
	signer      string
}

func (r raw) wire(t testing.TB) []byte {
	t.Helper()
	protected := mustCBOR(t, r.protected)
	tbs := mustCBOR(t, []any{"Signature1", protected, []byte(r.aad), r.payload})
	if r.unprotected == nil {
		r.unprotected = map[int64]any{}
	}
	var content any = []any{protected, r.unprotected, r.payload, ed25519.Sign(signerOf(r.signer), tbs)}
	if r.tag != 0 {
		content = cbor.Tag{Number: r.tag, Content: content}
	}
	return mustCBOR(t, content)
}

// message is a rightly made message around any payload.
func message(t testing.TB, typ string, payload []byte) raw {
	r := raw{
		tag: 18, aad: string(vectorScope.Device) + "/" + string(vectorScope.Stream), payload: payload, signer: "device",
		protected: map[int64]any{1: -8, 4: gkrp.KeyID(publicOf("device")), 16: typ},
	}
	if strings.Contains(typ, ".down.") {
		r.signer = "controller"
		r.protected[4] = []byte("processing-1")
		r.unprotected = map[int64]any{-70001: controllerStatement(t)}
	}
	return r
}

func controllerStatement(t testing.TB) []byte {
	return statement("gkrp/1.controller", "kms", mustCBOR(t, map[int]any{1: "processing-1", 2: publicOf("controller")})).wire(t)
}

func statement(typ, signer string, payload []byte) raw {
	return raw{tag: 18, payload: payload, signer: signer, protected: map[int64]any{1: -8, 4: gkrp.KeyID(publicOf(signer)), 16: typ}}
}

func prekeyStatement(t testing.TB, s gkrp.Suite, n byte) []byte {
	return statement("gkrp/1.prekey", "device", mustCBOR(t, map[int]any{
		1: vectorScope.Device, 2: vectorScope.Stream, 3: vectorSession[:], 4: s, 5: privateOf(t, s, n).PublicKey().Bytes(),
	})).wire(t)
}

func prekeysOf(t testing.TB, s gkrp.Suite, numbers ...byte) (out [][]byte) {
	for _, n := range numbers {
		out = append(out, prekeyStatement(t, s, n))
	}
	return out
}

// fields is a message's map as this package encodes it, to be changed.
func fields(t testing.TB, m gkrp.Message) map[int64]any {
	t.Helper()
	b, err := gkrp.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	var out map[int64]any
	if err := cbor.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
