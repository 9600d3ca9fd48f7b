package gkrp_test

import (
	"bytes"
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
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
