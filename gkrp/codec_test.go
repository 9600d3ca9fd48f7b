package gkrp

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// identity is a fixed signing key, so that failures repeat.
func identity(n byte) (Signer, Verifier) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
	return must(NewSigner(key)), must(NewVerifier(key.Public().(ed25519.PublicKey)))
}

var (
	testSession = gk.SessionID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	testScope   = Scope{Device: "cam-1", Stream: "cam-1"}
)

// examples has one valid message of every type and direction.
func examples() map[string]Message {
	nonce := bytes.Repeat([]byte{7}, 16)
	hash := bytes.Repeat([]byte{8}, 32)
	return map[string]Message{
		"up hello": &Hello{
			Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0}, Suites: []Suite{1},
			Payload:   Payload{Kind: PayloadMP2T, Type: 33, ClockRate: 90000},
			HighWater: 41, Nonce: nonce, Prekeys: [][]byte{{1}, {2}}, Software: "test/1",
		},
		"down challenge": &Challenge{Session: testSession, HelloHash: hash, Nonce: nonce},
		"down welcome": &Welcome{
			Session: testSession, HelloHash: hash, Versions: []Version{0}, Suites: []Suite{1}, Suite: 1,
			Stream: "cam-1", SSRC: 0xdeadbeef, Transports: []string{"127.0.0.1:7004"},
			Policy: Policy{ReportEveryMs: 1000, RejectAfterS: 86400}, Grant: []byte{1, 2, 3},
		},
		"down grant":  &Grant{Stream: "cam-1", Session: testSession, Epoch: 42, Reason: gk.ReasonSchedule, ActWithin: 2000, Envelope: []byte{9}, Term: 3},
		"up ack":      &Ack{Stream: "cam-1", Session: testSession, Epoch: 42, GrantHash: hash, Confirm: hash, First: 1 << 20, Prekeys: [][]byte{{3}}},
		"up report":   &Report{Stream: "cam-1", Session: testSession, Number: 9, Epoch: 42, From: 5, To: 70, Packets: 65, Bytes: 85540, Ingress: &Ingress{SpanMs: 1000, Packets: 65, Bytes: 85540, GapMs: 41, IdleMs: 3, Frames: 25, Marks: []byte{1, 2, 3, 4}}, Encoder: &Encoder{Changes: 2, AgoMs: 140, Why: WhyFailed, Regime: "night"}},
		"down reject": &Reject{Session: testSession, Regarding: hash, Code: CodeUnsupportedVersion, Text: "no", Supported: []Version{0}, RetryAfter: 400},
		"up reject":   &Reject{Session: testSession, Regarding: hash, Code: CodeCannotOpen},
		"up refill":   &Refill{Stream: "cam-1", Session: testSession, Prekeys: [][]byte{{4}}},
		"down refill": &Refill{Stream: "cam-1", Session: testSession},
		"down stop":   &Stop{Session: testSession, Code: CodeRevoked, Text: "revoked"},
		"up bye":      &Bye{Stream: "cam-1", Session: testSession, End: 70},
	}
}

func sign(t testing.TB, name string, m Message) []byte {
	s, _ := identity(1)
	dir, _, _ := strings.Cut(name, " ")
	payload := must(Encode(m))
	wire, err := SignPayload(s, []byte("cam-1"), nil, testScope, Direction(dir), m.Type(), payload)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestEveryMessageSurvivesTheWire(t *testing.T) {
	_, v := identity(1)
	for name, m := range examples() {
		dir, typ, _ := strings.Cut(name, " ")
		r, err := Parse(sign(t, name, m), Direction(dir))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(r.Type) != typ || string(r.KeyID) != "cam-1" {
			t.Errorf("%s: parsed as %s of %q", name, r.Type, r.KeyID)
		}
		got, err := r.Verify(v, testScope)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, m)
		}
	}
}

func TestWhatAReceiverRefuses(t *testing.T) {
	s, v := identity(1)
	_, other := identity(2)
	hello := examples()["up hello"].(*Hello)
	raw := func(typ string, payload []byte) []byte {
		return must(sign1(s, []byte("k"), nil, typ, testScope.aad(), payload))
	}
	change := func(f func(h *Hello)) []byte {
		h := *hello
		f(&h)
		return sign(t, "up hello", &h)
	}
	es256 := func() []byte {
		m := cose.NewSign1Message()
		m.Headers.Protected.SetAlgorithm(cose.AlgorithmES256)
		m.Headers.Protected[cose.HeaderLabelType] = typ(Up, TypeHello)
		m.Payload, m.Signature = []byte{0xa0}, bytes.Repeat([]byte{1}, 64)
		return must(m.MarshalCBOR())
	}
	good := sign(t, "up hello", hello)
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	for _, row := range []struct {
		name  string
		wire  []byte
		ver   Verifier
		scope Scope
		want  error
	}{
		{"empty", nil, v, testScope, ErrMalformed},
		{"not CBOR", []byte("hello"), v, testScope, ErrMalformed},
		{"cut short", good[:len(good)-9], v, testScope, ErrMalformed},
		{"a byte behind it", append(bytes.Clone(good), 0), v, testScope, ErrMalformed},
		{"signature damaged", damaged, v, testScope, ErrSignature},
		{"another signer", good, other, testScope, ErrSignature},
		{"another device's topic", good, v, Scope{"cam-2", "cam-1"}, ErrSignature},
		{"another stream's topic", good, v, Scope{"cam-1", "cam-2"}, ErrSignature},
		{"another algorithm", es256(), v, testScope, ErrMalformed},
		{"a service's type from a device", raw("gkrp/1.up.grant", []byte{0xa0}), v, testScope, ErrMalformed},
		{"the wrong direction", raw("gkrp/1.down.grant", []byte{0xa0}), v, testScope, ErrMalformed},
		{"another major", raw("gkrp/2.up.hello", []byte{0xa0}), v, testScope, ErrMalformed},
		{"no such type", raw("gkrp/1.up.howdy", []byte{0xa0}), v, testScope, ErrMalformed},
		{"a statement as message", raw(typPrekey, []byte{0xa0}), v, testScope, ErrMalformed},
		{"payload with a key twice", raw("gkrp/1.up.bye", []byte{0xa2, 1, 0x61, 'a', 1, 0x61, 'a'}), v, testScope, ErrMalformed},
		{"payload of indefinite length", raw("gkrp/1.up.bye", []byte{0xbf, 1, 0x61, 'a', 0xff}), v, testScope, ErrMalformed},
		{"payload with bytes behind it", raw("gkrp/1.up.bye", []byte{0xa0, 0}), v, testScope, ErrMalformed},
		{"payload nested too deep", raw("gkrp/1.up.bye", []byte{0xa1, 9, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80}), v, testScope, ErrMalformed},
		{"payload with a tag", raw("gkrp/1.up.bye", []byte{0xa1, 9, 0xc1, 0}), v, testScope, ErrMalformed},
		{"an unknown mandatory field", raw("gkrp/1.up.bye", []byte{0xa1, 0x20, 0}), v, testScope, ErrUnknownMandatory},
		{"too large", change(func(h *Hello) { h.Prekeys = [][]byte{make([]byte, MaxMessage-400)}; h.Nonce = make([]byte, 16) }), v, testScope, nil},
		{"no session", change(func(h *Hello) { h.Session = gk.SessionID{} }), v, testScope, ErrMalformed},
		{"a device id that is none", change(func(h *Hello) { h.Device = "cam/1" }), v, testScope, ErrMalformed},
		{"no prekeys", change(func(h *Hello) { h.Prekeys = nil }), v, testScope, ErrMalformed},
		{"too many prekeys", change(func(h *Hello) { h.Prekeys = make([][]byte, 5) }), v, testScope, ErrMalformed},
		{"payload type of 128", change(func(h *Hello) { h.Payload.Type = 128 }), v, testScope, ErrMalformed},
		{"text without end", change(func(h *Hello) { h.Software = strings.Repeat("x", MaxTextBytes+1) }), v, testScope, ErrMalformed},
	} {
		r, err := Parse(row.wire, Up)
		if err == nil {
			_, err = r.Verify(row.ver, row.scope)
		}
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

func TestSizeLimits(t *testing.T) {
	s, _ := identity(1)
	h := *examples()["up hello"].(*Hello)
	h.Prekeys = [][]byte{make([]byte, MaxMessage)}
	if _, err := Sign(s, []byte("k"), nil, testScope, &h); !errors.Is(err, ErrTooLarge) {
		t.Errorf("signing an oversized HELLO: %v", err)
	}
	wire := must(sign1(s, []byte("k"), nil, typ(Up, TypeHello), testScope.aad(), must(Encode(&h))))
	if _, err := Parse(wire, Up); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an oversized HELLO: %v", err)
	}
	if _, err := Parse(make([]byte, MaxReport+1), Up); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than any message may have: %v", err)
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	s, v := identity(1)
	var fields map[int]any
	if err := cbor.Unmarshal(must(Encode(examples()["up bye"])), &fields); err != nil {
		t.Fatal(err)
	}
	fields[99] = "from a later minor version"
	payload := must(encMode.Marshal(fields))
	r, err := Parse(must(SignPayload(s, []byte("k"), nil, testScope, Up, TypeBye, payload)), Up)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Verify(v, testScope)
	if err != nil || !reflect.DeepEqual(m, examples()["up bye"]) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestTopics(t *testing.T) {
	d, s, dir, err := ParseTopic(Topic("cam-1", "left", Down))
	if err != nil || d != "cam-1" || s != "left" || dir != Down {
		t.Errorf("%s %s %s %v", d, s, dir, err)
	}
	for _, bad := range []string{"", "gkrp", "gkrp/2/a/b/up", "gkrp/1/a/b", "gkrp/1/a/b/up/", "gkrp/1/a/b/sideways", "gkrp/1/a b/c/up", "gkrp/1//c/up", "x/1/a/b/up"} {
		if _, _, _, err := ParseTopic(bad); err == nil {
			t.Errorf("topic %q was accepted", bad)
		}
	}
}

func TestStatementsAreNotInterchangeable(t *testing.T) {
	s, v := identity(1)
	_, other := identity(2)
	pub := bytes.Repeat([]byte{5}, 32)
	envelope := must(SignKeyEnvelope(s, []byte("kms"), &KeyEnvelope{Stream: "a", Session: testSession, Epoch: 1, Suite: 1, Receiver: "device/a", KeyID: KeyID(pub), Sealed: []byte{1}, SSRC: 7}))
	prekey := must(SignPrekey(s, []byte("a"), &Prekey{Device: "a", Stream: "a", Session: testSession, Suite: 1, Public: pub}))
	controller := must(SignController(s, []byte("kms"), &Controller{ID: "p", Public: pub}))
	receiver := must(SignReceiverKey(s, []byte("t"), &ReceiverKey{Transport: "t", Suite: 1, Public: pub}))
	open := map[string]func(Verifier, []byte) error{
		"envelope":   func(v Verifier, b []byte) error { _, err := OpenKeyEnvelope(v, b); return err },
		"prekey":     func(v Verifier, b []byte) error { _, err := OpenPrekey(v, b); return err },
		"controller": func(v Verifier, b []byte) error { _, _, err := OpenController(v, b); return err },
		"receiver":   func(v Verifier, b []byte) error { _, err := OpenReceiverKey(v, b); return err },
	}
	wires := map[string][]byte{"envelope": envelope, "prekey": prekey, "controller": controller, "receiver": receiver}
	for kind, f := range open {
		for other, wire := range wires {
			if err := f(v, wire); (err == nil) != (kind == other) {
				t.Errorf("a %s opened as a %s: %v", other, kind, err)
			}
		}
		if err := f(other, wires[kind]); !errors.Is(err, ErrSignature) {
			t.Errorf("a %s under another key: %v", kind, err)
		}
		if err := f(v, make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("an oversized %s: %v", kind, err)
		}
	}
}

func TestEnvelopeInfoBindsEveryField(t *testing.T) {
	base := KeyEnvelope{Stream: "a", Session: testSession, Epoch: 1, Suite: 1, Receiver: "device/a", KeyID: make([]byte, 16), SSRC: 7, Sealed: []byte{1}}
	seen := map[string]string{string(base.Info()): "base"}
	for name, f := range map[string]func(e *KeyEnvelope){
		"stream": func(e *KeyEnvelope) { e.Stream = "b" }, "session": func(e *KeyEnvelope) { e.Session[0]++ },
		"epoch": func(e *KeyEnvelope) { e.Epoch++ }, "suite": func(e *KeyEnvelope) { e.Suite++ },
		"receiver": func(e *KeyEnvelope) { e.Receiver = "device/b" }, "key": func(e *KeyEnvelope) { e.KeyID = bytes.Repeat([]byte{1}, 16) },
		"ssrc": func(e *KeyEnvelope) { e.SSRC++ },
	} {
		e := base
		f(&e)
		if other, dup := seen[string(e.Info())]; dup {
			t.Errorf("info does not bind %s (same as %s)", name, other)
		}
		seen[string(e.Info())] = name
	}
	sealed := base
	sealed.Sealed = []byte{2, 3}
	if !bytes.Equal(sealed.Info(), base.Info()) {
		t.Error("info must not depend on the ciphertext, which is made from it")
	}
}

func TestJoinToken(t *testing.T) {
	in := JoinToken{Address: "127.0.0.1:8843", CAFingerprint: [32]byte{1}, Device: "cam-1", Secret: bytes.Repeat([]byte{0xee}, 16), Expires: time.Unix(1800000000, 0)}
	out, err := ParseJoinToken(" " + in.Text() + "\n")
	if err != nil || !out.Expires.Equal(in.Expires) || out.Address != in.Address || !bytes.Equal(out.Secret, in.Secret) {
		t.Fatalf("%#v, %v", out.Expires, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if s := fmt.Sprintf(verb, in); strings.Contains(s, "238") || strings.Contains(s, "ee") && verb != "%v" && strings.Contains(s, "eeee") {
			t.Errorf("%s prints the secret: %s", verb, s)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "other text": "hello", "cut short": in.Text()[:40], "not base64": "gkj1.!!!!",
		"damaged": in.Text()[:len(in.Text())-12] + "AAAAAAAAAAAA",
	} {
		if _, err := ParseJoinToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wires are the protocol's vectors as seeds.
func wires(f *testing.F, file string) (out [][]byte) {
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", file+".json"))
	if err != nil {
		f.Fatal(err)
	}
	var all struct {
		Vectors []struct {
			Wire string `json:"wire"`
		} `json:"vectors"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		f.Fatal(err)
	}
	for _, v := range all.Vectors {
		wire, err := hex.DecodeString(v.Wire)
		if err != nil {
			f.Fatal(err)
		}
		if len(wire) < 4096 { // the long ones slow the search down
			out = append(out, wire)
		}
	}
	return out
}

func FuzzParse(f *testing.F) {
	for name, m := range examples() {
		f.Add(sign(f, name, m))
	}
	for _, wire := range wires(f, "messages") {
		f.Add(wire)
	}
	_, v := identity(1)
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, dir := range []Direction{Up, Down} {
			r, err := Parse(wire, dir)
			if err != nil {
				continue
			}
			// What verifies was signed above, and must decode to what encodes again.
			if m, err := r.Verify(v, testScope); err == nil {
				if _, err := Encode(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func FuzzPayload(f *testing.F) {
	for name, m := range examples() {
		dir, _, _ := strings.Cut(name, " ")
		f.Add(dir, string(m.Type()), must(Encode(m)))
	}
	f.Fuzz(func(t *testing.T, dir, typ string, payload []byte) {
		m := newMessage(Type(typ), Direction(dir))
		if m == nil || decodeStrict(payload, m) != nil || validate(m) != nil {
			return
		}
		again := newMessage(Type(typ), Direction(dir))
		if err := decodeStrict(must(Encode(m)), again); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

func FuzzStatements(f *testing.F) {
	s, v := identity(1)
	f.Add(must(SignController(s, []byte("kms"), &Controller{ID: "p", Public: make([]byte, 32)})))
	f.Add(must(SignPrekey(s, []byte("a"), &Prekey{Device: "a", Stream: "a", Session: testSession, Suite: 1, Public: make([]byte, 32)})))
	for _, wire := range wires(f, "statements") {
		f.Add(wire)
	}
	f.Add(must(SignLease(s, []byte("kms"), &Lease{Transport: "a", Mark: make([]byte, 32), ForMs: 60_000, Sessions: []LeaseSession{{Stream: "a", Session: testSession}}})))
	f.Fuzz(func(t *testing.T, wire []byte) {
		_, _ = OpenKeyEnvelope(v, wire)
		_, _ = OpenPrekey(v, wire)
		_, _, _ = OpenController(v, wire)
		_, _ = OpenReceiverKey(v, wire)
		if l, err := OpenLease(v, wire); err == nil && (len(l.Sessions) > MaxLeaseSessions || len(l.Mark) < 16) {
			t.Errorf("%+v", l)
		}
	})
}

func FuzzJoinToken(f *testing.F) {
	f.Add(JoinToken{Address: "a:1", Device: "cam-1", Secret: make([]byte, 16)}.Text())
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := ParseJoinToken(text); err == nil {
			if again, err := ParseJoinToken(tok.Text()); err != nil || again.Device != tok.Device {
				t.Fatalf("%v", err)
			}
		}
	})
}
