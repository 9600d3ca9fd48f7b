package gkrp_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The vectors are files for implementers in any language. They are made by
//
//	go test ./gkrp -run Vectors -update
//
// and every run of the tests reads them and wants each outcome. The damaged ones
// are put together here by hand, by code that knows COSE but not this package.

var update = flag.Bool("update", false, "write the vectors anew")

// hexBytes are bytes that stand in JSON as hexadecimal digits.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type signerVector struct {
	Seed   hexBytes `json:"seed"` // Ed25519 private key, RFC 8032
	Public hexBytes `json:"public"`
	KeyID  hexBytes `json:"key_id,omitempty"`
}

type vectorFile[T any] struct {
	Comment string                  `json:"comment"`
	Device  gk.DeviceID             `json:"device,omitempty"`
	Stream  gk.StreamID             `json:"stream,omitempty"`
	Signers map[string]signerVector `json:"signers,omitempty"`
	Vectors []T                     `json:"vectors"`
}

type messageVector struct {
	Name      string         `json:"name"`
	Direction gkrp.Direction `json:"direction"`
	Outcome   string         `json:"outcome"`
	Type      gkrp.Type      `json:"type,omitempty"`
	Wire      hexBytes       `json:"wire,omitempty"`
	Zeros     int            `json:"zeros,omitempty"` // instead of wire: so many zero bytes
	Payload   hexBytes       `json:"payload,omitempty"`
	Hash      hexBytes       `json:"hash,omitempty"`
	Fields    string         `json:"fields,omitempty"` // the payload in diagnostic notation, RFC 8949 §8
}

type statementVector struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // what it is opened as
	Signer  string   `json:"signer"`
	Outcome string   `json:"outcome"`
	Wire    hexBytes `json:"wire,omitempty"`
	Zeros   int      `json:"zeros,omitempty"`
	Payload hexBytes `json:"payload,omitempty"`
	Fields  string   `json:"fields,omitempty"`
}

type envelopeVector struct {
	Name     string     `json:"name"`
	Suite    gkrp.Suite `json:"suite"`
	Private  hexBytes   `json:"private"` // HPKE private key as RFC 9180 serialises it; a seed for suite 1
	Public   hexBytes   `json:"public"`
	Outcome  string     `json:"outcome"` // ok, or open: the envelope verifies, its key does not open
	Wire     hexBytes   `json:"wire"`
	Info     hexBytes   `json:"info"`
	MediaKey hexBytes   `json:"media_key,omitempty"`
	Confirm  hexBytes   `json:"confirm,omitempty"`
}

type confirmVector struct {
	Name     string       `json:"name"`
	MediaKey hexBytes     `json:"media_key"`
	Stream   gk.StreamID  `json:"stream"`
	Session  gk.SessionID `json:"session"`
	Epoch    gk.Epoch     `json:"epoch"`
	Receiver string       `json:"receiver"`
	Confirm  hexBytes     `json:"confirm"`
}

type srtpVector struct {
	Name        string         `json:"name"`
	MediaKey    hexBytes       `json:"media_key"`
	SessionKey  hexBytes       `json:"session_key"`
	SessionSalt hexBytes       `json:"session_salt"`
	SSRC        uint32         `json:"ssrc"`
	Epoch       gk.Epoch       `json:"epoch"`
	First       gk.Index       `json:"first"`   // where the epoch begins
	End         gk.Index       `json:"end"`     // where the next one does; 0: not known
	Packets     []packetVector `json:"packets"` // in the order of their arrival
}

type packetVector struct {
	Name    string   `json:"name"`
	Outcome string   `json:"outcome"`
	Packet  hexBytes `json:"packet"`
	Index   gk.Index `json:"index,omitempty"`
	Header  hexBytes `json:"header,omitempty"`
	Payload hexBytes `json:"payload,omitempty"`
}

type tokenVector struct {
	Name        string      `json:"name"`
	Outcome     string      `json:"outcome"`
	Text        string      `json:"text"`
	Address     string      `json:"address,omitempty"`
	Fingerprint hexBytes    `json:"ca_fingerprint,omitempty"`
	Device      gk.DeviceID `json:"device,omitempty"`
	Secret      hexBytes    `json:"secret,omitempty"`
	Expires     int64       `json:"expires,omitempty"`
}

func vectorPath(name string) string { return filepath.Join("testdata", "vectors", name+".json") }

func writeVectors(t *testing.T, name string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorPath(name), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVectors[T any](t testing.TB, name string) vectorFile[T] {
	t.Helper()
	b, err := os.ReadFile(vectorPath(name))
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile[T]
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) == 0 {
		t.Fatalf("%s has no vectors", name)
	}
	return f
}

func (v messageVector) bytes() []byte   { return orZeros(v.Wire, v.Zeros) }
func (v statementVector) bytes() []byte { return orZeros(v.Wire, v.Zeros) }

func orZeros(b []byte, n int) []byte {
	if n > 0 {
		return make([]byte, n)
	}
	return b
}

// class names an error as the specification does.
func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, gkrp.ErrTooLarge):
		return "too-large"
	case errors.Is(err, gkrp.ErrSignature):
		return "signature"
	case errors.Is(err, gkrp.ErrUnknownMandatory):
		return "unknown-mandatory"
	case errors.Is(err, gkrp.ErrMalformed):
		return "malformed"
	}
	return "?" + err.Error()
}

func TestMessageVectors(t *testing.T) {
	if *update {
		writeVectors(t, "messages", makeMessages(t))
	}
	f := readVectors[messageVector](t, "messages")
	scope := gkrp.Scope{Device: f.Device, Stream: f.Stream}
	for _, v := range f.Vectors {
		got := func() error {
			r, err := gkrp.Parse(v.bytes(), v.Direction)
			if err != nil {
				return err
			}
			verifier := verifierOf(t, f.Signers["device"].Public)
			if v.Direction == gkrp.Down {
				if _, verifier, err = gkrp.OpenController(verifierOf(t, f.Signers["kms"].Public), r.Controller); err != nil {
					return err
				}
			}
			m, err := r.Verify(verifier, scope)
			if err != nil {
				return err
			}
			if m.Type() != v.Type || !bytes.Equal(r.Payload, v.Payload) || !bytes.Equal(gkrp.Hash(r.Payload), v.Hash) {
				t.Errorf("%s: %s with payload %x", v.Name, m.Type(), r.Payload)
			}
			// What this package knows of it encodes to the same, but for fields that it
			// does not know.
			if again, err := gkrp.Encode(m); err != nil || !bytes.Equal(again, v.Payload) && !strings.Contains(v.Name, "unknown field") {
				t.Errorf("%s: encodes as %x (%v)", v.Name, again, err)
			}
			return nil
		}()
		if class(got) != v.Outcome {
			t.Errorf("%s: %v, want %s", v.Name, got, v.Outcome)
		}
	}
}

func TestStatementVectors(t *testing.T) {
	if *update {
		writeVectors(t, "statements", makeStatements(t))
	}
	f := readVectors[statementVector](t, "statements")
	for _, v := range f.Vectors {
		ver := verifierOf(t, f.Signers[v.Signer].Public)
		var err error
		switch v.Kind {
		case "key":
			_, err = gkrp.OpenKeyEnvelope(ver, v.bytes())
		case "prekey":
			_, err = gkrp.OpenPrekey(ver, v.bytes())
		case "controller":
			_, _, err = gkrp.OpenController(ver, v.bytes())
		case "receiver":
			_, err = gkrp.OpenReceiverKey(ver, v.bytes())
		case "lease":
			_, err = gkrp.OpenLease(ver, v.bytes())
		default:
			t.Errorf("%s: kind %q", v.Name, v.Kind)
		}
		if class(err) != v.Outcome {
			t.Errorf("%s: %v, want %s", v.Name, err, v.Outcome)
		}
	}
}

func TestEnvelopeVectors(t *testing.T) {
	if *update {
		writeVectors(t, "envelopes", makeEnvelopes(t))
	}
	f := readVectors[envelopeVector](t, "envelopes")
	for _, v := range f.Vectors {
		e, err := gkrp.OpenKeyEnvelope(verifierOf(t, f.Signers["kms"].Public), v.Wire)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if !bytes.Equal(e.Info(), v.Info) || !bytes.Equal(e.KeyID, gkrp.KeyID(v.Public)) && v.Outcome == "ok" {
			t.Errorf("%s: info %x, key %x", v.Name, e.Info(), e.KeyID)
		}
		private, err := kemOf(t, v.Suite).NewPrivateKey(v.Private)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if !bytes.Equal(private.PublicKey().Bytes(), v.Public) {
			t.Errorf("%s: public key %x", v.Name, private.PublicKey().Bytes())
		}
		key, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), v.Info, e.Sealed)
		if (err == nil) != (v.Outcome == "ok") {
			t.Errorf("%s: %v, want %s", v.Name, err, v.Outcome)
		}
		if err == nil && !bytes.Equal(key, v.MediaKey) {
			t.Errorf("%s: media key %x", v.Name, key)
		}
		if err == nil && !bytes.Equal(confirmOf(t, key, e.Stream, e.Session, e.Epoch, e.Receiver), v.Confirm) {
			t.Errorf("%s: another confirmation", v.Name)
		}
	}
}

func TestConfirmVectors(t *testing.T) {
	if *update {
		writeVectors(t, "confirm", makeConfirms(t))
	}
	for _, v := range readVectors[confirmVector](t, "confirm").Vectors {
		if got := confirmOf(t, v.MediaKey, v.Stream, v.Session, v.Epoch, v.Receiver); !bytes.Equal(got, v.Confirm) {
			t.Errorf("%s: %x, want %x", v.Name, got, v.Confirm)
		}
	}
}

func TestSRTPVectors(t *testing.T) {
	if *update {
		writeVectors(t, "srtp", makeSRTP(t))
	}
	for _, v := range readVectors[srtpVector](t, "srtp").Vectors {
		k := mediaKeyOf(t, v.MediaKey)
		o, err := media.NewOpener(k, v.SSRC, v.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		s, err := media.NewSealer(k, v.SSRC, v.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		o.Begin(v.First)
		if v.End > 0 {
			o.End(v.End)
		}
		for _, p := range v.Packets {
			opened, verdict := o.Open(nil, p.Packet)
			if verdict.String() != p.Outcome {
				t.Errorf("%s, %s: %s, want %s", v.Name, p.Name, verdict, p.Outcome)
			}
			if verdict != media.OK {
				continue
			}
			if opened.Index != p.Index || !bytes.Equal(opened.Payload, p.Payload) {
				t.Errorf("%s, %s: index %d with %x", v.Name, p.Name, opened.Index, opened.Payload)
			}
			if s.Next() <= p.Index {
				if again, err := s.Seal(nil, p.Header, p.Payload, p.Index); err != nil || !bytes.Equal(again, p.Packet) {
					t.Errorf("%s, %s: seals to %x (%v)", v.Name, p.Name, again, err)
				}
			}
		}
	}
}

func TestTokenVectors(t *testing.T) {
	if *update {
		writeVectors(t, "tokens", makeTokens(t))
	}
	for _, v := range readVectors[tokenVector](t, "tokens").Vectors {
		tok, err := gkrp.ParseJoinToken(v.Text)
		if (err == nil) != (v.Outcome == "ok") {
			t.Errorf("%s: %v, want %s", v.Name, err, v.Outcome)
		}
		if err == nil && (tok.Address != v.Address || !bytes.Equal(tok.CAFingerprint[:], v.Fingerprint) || tok.Device != v.Device || !bytes.Equal(tok.Secret, v.Secret) || tok.Expires.Unix() != v.Expires) {
			t.Errorf("%s: came out as %v", v.Name, tok)
		}
	}
}

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

func makeEnvelopes(t *testing.T) any {
	f := vectorFile[envelopeVector]{
		Comment: "Key envelopes that open, and that verify but do not open (outcome open). SPEC.md sections 7.1 and 8.",
		Device:  vectorScope.Device, Stream: vectorScope.Stream, Signers: signersOf("kms"),
	}
	for _, row := range []struct {
		name    string
		suite   gkrp.Suite
		private byte
		outcome string
		spoil   func(e *gkrp.KeyEnvelope) // after sealing
	}{
		{"suite 2", gkrp.SuiteX25519, 1, "ok", nil},
		{"suite 1", gkrp.SuiteMLKEM768X25519, 1, "ok", nil},
		{"another epoch than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Epoch++ }},
		{"another session than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Session[0]++ }},
		{"another stream than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Stream = "cam-2" }},
		{"another receiver than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Receiver = "device/cam-2" }},
		{"another SSRC than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.SSRC++ }},
		{"another suite than it was sealed for", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Suite = 3 }},
		{"another key than it was sealed to", gkrp.SuiteX25519, 2, "open", func(e *gkrp.KeyEnvelope) { e.KeyID = gkrp.KeyID([]byte("other")) }},
		{"ciphertext damaged", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Sealed[len(e.Sealed)-1] ^= 1 }},
		{"cut short", gkrp.SuiteX25519, 1, "open", func(e *gkrp.KeyEnvelope) { e.Sealed = e.Sealed[:40] }},
	} {
		e := envelope(t, row.suite, 1)
		if row.spoil != nil {
			row.spoil(e)
		}
		v := envelopeVector{
			Name: row.name, Suite: row.suite, Outcome: row.outcome, Wire: sealedWire(t, e), Info: e.Info(),
			Private: bytes.Repeat([]byte{row.private}, 32), Public: privateOf(t, row.suite, row.private).PublicKey().Bytes(),
		}
		if row.outcome == "ok" {
			v.MediaKey = mediaBytes(e.Epoch)
			v.Confirm = confirmOf(t, v.MediaKey, e.Stream, e.Session, e.Epoch, e.Receiver)
		}
		f.Vectors = append(f.Vectors, v)
	}
	return f
}

func sealedWire(t testing.TB, e *gkrp.KeyEnvelope) []byte {
	return statement("gkrp/1.key", "kms", mustCBOR(t, e)).wire(t)
}

// envelope seals the vectors' media key to the fixed private key n. Sealing is
// random: what the file has already is taken over while it opens.
func envelope(t testing.TB, s gkrp.Suite, n byte) *gkrp.KeyEnvelope {
	t.Helper()
	private := privateOf(t, s, n)
	e := &gkrp.KeyEnvelope{
		Stream: vectorScope.Stream, Session: vectorSession, Epoch: vectorEpoch, Suite: s,
		Receiver: "device/" + string(vectorScope.Device), KeyID: gkrp.KeyID(private.PublicKey().Bytes()), SSRC: vectorSSRC,
	}
	if _, err := os.Stat(vectorPath("envelopes")); err == nil {
		f := readVectors[envelopeVector](t, "envelopes")
		for _, v := range f.Vectors {
			old, err := gkrp.OpenKeyEnvelope(verifierOf(t, f.Signers["kms"].Public), v.Wire)
			if err != nil || v.Outcome != "ok" || !bytes.Equal(old.Info(), e.Info()) {
				continue
			}
			if key, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), e.Info(), old.Sealed); err == nil && bytes.Equal(key, mediaBytes(e.Epoch)) {
				e.Sealed = old.Sealed
				return e
			}
		}
	}
	var err error
	if e.Sealed, err = hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), e.Info(), mediaBytes(e.Epoch)); err != nil {
		t.Fatal(err)
	}
	return e
}

func makeStatements(t *testing.T) any {
	f := vectorFile[statementVector]{
		Comment: "Statements, each opened as kind with the public key of signer. SPEC.md sections 5 and 7.",
		Signers: signersOf("device", "kms", "transport", "other"),
	}
	payloads := map[string]map[int]any{
		"key": {
			1: vectorScope.Stream, 2: vectorSession[:], 3: vectorEpoch, 4: gkrp.SuiteX25519, 5: "device/cam-1",
			6: gkrp.KeyID(privateOf(t, 2, 1).PublicKey().Bytes()), 7: envelope(t, gkrp.SuiteX25519, 1).Sealed, 8: vectorSSRC,
		},
		"prekey":     {1: vectorScope.Device, 2: vectorScope.Stream, 3: vectorSession[:], 4: gkrp.SuiteX25519, 5: privateOf(t, 2, 1).PublicKey().Bytes()},
		"controller": {1: "processing-1", 2: publicOf("controller")},
		"receiver":   {1: "main", 2: gkrp.SuiteMLKEM768X25519, 3: privateOf(t, 1, 7).PublicKey().Bytes()},
		"lease":      {1: "main", 2: bytes.Repeat([]byte{0xbe}, 32), 3: 60_000, 4: []map[int]any{{1: vectorScope.Stream, 2: vectorSession[:]}}},
	}
	signers := map[string]string{"key": "kms", "prekey": "device", "controller": "kms", "receiver": "transport", "lease": "kms"}
	kinds := []string{"key", "prekey", "controller", "receiver", "lease"}
	add := func(name, kind, outcome string, r raw) {
		v := statementVector{Name: name, Kind: kind, Signer: signers[kind], Outcome: outcome, Wire: r.wire(t)}
		if outcome == "ok" {
			v.Payload, v.Fields = r.payload, diagnose(t, r.payload)
		}
		f.Vectors = append(f.Vectors, v)
	}
	change := func(kind string, key int, value any) []byte {
		out := map[int]any{}
		for k, v := range payloads[kind] {
			out[k] = v
		}
		out[key] = value
		if value == nil {
			delete(out, key)
		}
		return mustCBOR(t, out)
	}
	for _, kind := range kinds {
		typ, signer := "gkrp/1."+kind, signers[kind]
		good := mustCBOR(t, payloads[kind])
		add(kind, kind, "ok", statement(typ, signer, good))
		add(kind+" with an unknown field", kind, "ok", statement(typ, signer, change(kind, 99, "from a later version")))
		add(kind+" with an unknown mandatory field", kind, "unknown-mandatory", statement(typ, signer, change(kind, -1, 0)))
		add(kind+" of another signer", kind, "signature", statement(typ, "other", good))
		scoped := statement(typ, signer, good)
		scoped.aad = "cam-1/cam-1-main"
		add(kind+" with a message's external_aad", kind, "signature", scoped)
		for _, as := range kinds {
			if as != kind {
				add(kind+" opened as "+as, as, "malformed", statement(typ, signer, good))
			}
		}
		add(kind+" of another major version", kind, "malformed", statement("gkrp/2."+kind, signer, good))
		add(kind+" without a tag", kind, "malformed", func() raw { r := statement(typ, signer, good); r.tag = 0; return r }())
		f.Vectors = append(f.Vectors, statementVector{Name: kind + " of 8193 bytes", Kind: kind, Signer: signer, Outcome: "too-large", Zeros: gkrp.MaxMessage + 1})
	}
	add("key of epoch 0", "key", "malformed", statement("gkrp/1.key", "kms", change("key", 3, 0)))
	add("key without session", "key", "malformed", statement("gkrp/1.key", "kms", change("key", 2, make([]byte, 16))))
	add("key with a key id of 15 bytes", "key", "malformed", statement("gkrp/1.key", "kms", change("key", 6, make([]byte, 15))))
	add("key with nothing sealed", "key", "malformed", statement("gkrp/1.key", "kms", change("key", 7, []byte{})))
	add("prekey without session", "prekey", "malformed", statement("gkrp/1.prekey", "device", change("prekey", 3, make([]byte, 16))))
	add("prekey without a key", "prekey", "malformed", statement("gkrp/1.prekey", "device", change("prekey", 5, nil)))
	add("controller with a key of 31 bytes", "controller", "malformed", statement("gkrp/1.controller", "kms", change("controller", 2, make([]byte, 31))))
	add("receiver without a name", "receiver", "malformed", statement("gkrp/1.receiver", "transport", change("receiver", 1, "")))
	add("lease without a transport", "lease", "malformed", statement("gkrp/1.lease", "kms", change("lease", 1, "")))
	add("lease with a mark of 15 bytes", "lease", "malformed", statement("gkrp/1.lease", "kms", change("lease", 2, make([]byte, 15))))
	add("lease for nobody", "lease", "malformed", statement("gkrp/1.lease", "kms", change("lease", 4, []map[int]any{})))
	add("lease of 33 bits", "lease", "malformed", statement("gkrp/1.lease", "kms", change("lease", 3, uint64(1)<<32)))
	many := slices.Repeat([]map[int]any{{1: vectorScope.Stream, 2: vectorSession[:]}}, gkrp.MaxLeaseSessions+1)
	add("lease with 65 sessions", "lease", "malformed", statement("gkrp/1.lease", "kms", change("lease", 4, many)))
	return f
}

func makeConfirms(t *testing.T) any {
	f := vectorFile[confirmVector]{Comment: "Confirmations. SPEC.md section 8.3."}
	for _, v := range []confirmVector{
		{Name: "a device", Stream: vectorScope.Stream, Session: vectorSession, Epoch: vectorEpoch, Receiver: "device/cam-1"},
		{Name: "the epoch's four bytes", Stream: vectorScope.Stream, Session: vectorSession, Epoch: 0x01020304, Receiver: "device/cam-1"},
		{Name: "short names", Stream: "a", Session: vectorSession, Epoch: 1, Receiver: "device/b"},
		{Name: "a boundary that moved", Stream: "ab", Session: vectorSession, Epoch: 1, Receiver: "device/"},
		{Name: "the longest names", Stream: gk.StreamID(strings.Repeat("x", 63)), Session: vectorSession, Epoch: 1<<32 - 1, Receiver: "device/" + strings.Repeat("y", 63)},
	} {
		v.MediaKey = mediaBytes(v.Epoch)
		v.Confirm = confirmOf(t, v.MediaKey, v.Stream, v.Session, v.Epoch, v.Receiver)
		f.Vectors = append(f.Vectors, v)
	}
	return f
}

func makeTokens(t *testing.T) any {
	f := vectorFile[tokenVector]{Comment: "Join tokens. SPEC.md section 3.1."}
	tok := gkrp.JoinToken{
		Address: "join.example:8843", CAFingerprint: sha256.Sum256([]byte("CA")), Device: "cam-1",
		Secret: []byte("sixteen  bytes  "), Expires: time.Unix(1800000000, 0),
	}
	text := tok.Text()
	ok := tokenVector{Name: "a token", Outcome: "ok", Text: text, Address: tok.Address, Fingerprint: tok.CAFingerprint[:], Device: tok.Device, Secret: tok.Secret, Expires: 1800000000}
	spaced := ok
	spaced.Name, spaced.Text = "space around it", " "+text+"\n"
	f.Vectors = append(f.Vectors, ok, spaced)
	of := func(m map[int]any) string { return "gkj1." + base64.RawURLEncoding.EncodeToString(mustCBOR(t, m)) }
	for _, v := range []tokenVector{
		{Name: "empty"},
		{Name: "another prefix", Text: "gkj2." + text[5:]},
		{Name: "not base64url", Text: "gkj1.!!!!"},
		{Name: "cut short", Text: text[:60]},
		{Name: "bytes behind the map", Text: "gkj1." + base64.RawURLEncoding.EncodeToString(append(mustCBOR(t, map[int]any{1: "a:1", 2: make([]byte, 32), 3: "cam-1", 4: make([]byte, 16), 5: 1}), 0))},
		{Name: "secret of 15 bytes", Text: of(map[int]any{1: "a:1", 2: make([]byte, 32), 3: "cam-1", 4: make([]byte, 15), 5: 1})},
		{Name: "no address", Text: of(map[int]any{2: make([]byte, 32), 3: "cam-1", 4: make([]byte, 16), 5: 1})},
		{Name: "a device id that is none", Text: of(map[int]any{1: "a:1", 2: make([]byte, 32), 3: "cam/1", 4: make([]byte, 16), 5: 1})},
	} {
		v.Outcome = "malformed"
		f.Vectors = append(f.Vectors, v)
	}
	return f
}
