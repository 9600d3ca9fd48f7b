package gkrp_test

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

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
