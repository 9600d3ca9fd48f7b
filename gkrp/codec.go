package gkrp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	gk "github.com/gaitkeeper/gaitkeeper"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// Errors that a receiver counts apart. Every other failure wraps one of them.
var (
	ErrTooLarge         = errors.New("gkrp: message is too large")
	ErrMalformed        = errors.New("gkrp: message is malformed")
	ErrSignature        = errors.New("gkrp: signature does not verify")
	ErrUnknownMandatory = errors.New("gkrp: message has a mandatory field that this version does not know")
)

// Signer makes the signatures of one identity; [NewSigner] gives the real one.
type Signer = cose.Signer

// Verifier checks the signatures of one identity; [NewVerifier] gives the real one.
type Verifier = cose.Verifier

// NewSigner signs with Ed25519 (COSE algorithm EdDSA, RFC 9053 §2.2).
func NewSigner(key ed25519.PrivateKey) (Signer, error) {
	return cose.NewSigner(cose.AlgorithmEdDSA, key)
}

// NewVerifier verifies with Ed25519.
func NewVerifier(key ed25519.PublicKey) (Verifier, error) {
	return cose.NewVerifier(cose.AlgorithmEdDSA, key)
}

// labelController is the private COSE header label under which a service
// message carries its [Controller] statement. It may stand unprotected because
// the statement has its own signature.
const labelController int64 = -70001

var encMode = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic, Time: cbor.TimeUnix}.EncMode())

var decMode = must(cbor.DecOptions{
	DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	IndefLength:      cbor.IndefLengthForbidden,
	TagsMd:           cbor.TagsForbidden,
	MaxNestedLevels:  4,
	MaxArrayElements: 64,
	MaxMapPairs:      64,
	UTF8:             cbor.UTF8RejectInvalid,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Scope is where a message belongs. It is bound into every signature, so that
// no broker can carry a message over to another device's or stream's topic.
type Scope struct {
	Device gk.DeviceID
	Stream gk.StreamID
}

func (s Scope) aad() []byte { return []byte(string(s.Device) + "/" + string(s.Stream)) }

// Hash is how messages refer to one another: SHA-256 of the payload.
func Hash(payload []byte) []byte {
	h := sha256.Sum256(payload)
	return h[:]
}

// Encode gives the payload of a message: deterministic CBOR (RFC 8949 §4.2.1).
func Encode(m Message) ([]byte, error) { return encMode.Marshal(m) }

// Sign encodes m and signs it for scope. kid names the signing key; controller
// is the service's signed [Controller] statement, nil at a device.
func Sign(s Signer, kid, controller []byte, scope Scope, m Message) ([]byte, error) {
	payload, err := Encode(m)
	if err != nil {
		return nil, err
	}
	return SignPayload(s, kid, controller, scope, directionOf(m, controller), m.Type(), payload)
}

// directionOf tells a device's REFILL from a service's: only services have a
// controller statement, and every other type goes one way only.
func directionOf(m Message, controller []byte) Direction {
	if controller != nil || newMessage(m.Type(), Up) == nil {
		return Down
	}
	return Up
}

// SignPayload signs an already encoded payload, as a resend of a stored one does.
func SignPayload(s Signer, kid, controller []byte, scope Scope, d Direction, t Type, payload []byte) ([]byte, error) {
	wire, err := sign1(s, kid, controller, typ(d, t), scope.aad(), payload)
	if err != nil {
		return nil, err
	}
	if len(wire) > limit(t) {
		return nil, fmt.Errorf("%w: %s of %d bytes, the limit is %d", ErrTooLarge, t, len(wire), limit(t))
	}
	return wire, nil
}

func typ(d Direction, t Type) string { return fmt.Sprintf("gkrp/%d.%s.%s", Major, d, t) }

func limit(t Type) int {
	if t == TypeReport {
		return MaxReport
	}
	return MaxMessage
}

// Received is a message that was taken apart but not yet verified: nothing of
// it may be acted on but looking its key up.
type Received struct {
	Type       Type
	KeyID      []byte
	Controller []byte // the sender's [Controller] statement, at a device
	Payload    []byte

	msg       *cose.Sign1Message
	direction Direction
}

// Parse takes wire apart. It checks sizes and structure and no signature.
func Parse(wire []byte, want Direction) (*Received, error) {
	if len(wire) > MaxReport {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(wire), MaxReport)
	}
	msg, typ, err := parse1(wire)
	if err != nil {
		return nil, err
	}
	var major int
	var rest string
	if n, err := fmt.Sscanf(typ, "gkrp/%d.%s", &major, &rest); n != 2 || err != nil || major != Major {
		return nil, fmt.Errorf("%w: type %q is not one of gkrp/%d", ErrMalformed, typ, Major)
	}
	d, t, ok := bytes.Cut([]byte(rest), []byte("."))
	r := &Received{Type: Type(t), Payload: msg.Payload, msg: msg, direction: Direction(d)}
	if !ok || r.direction != want || newMessage(r.Type, r.direction) == nil {
		return nil, fmt.Errorf("%w: type %q does not go %s", ErrMalformed, typ, want)
	}
	if len(wire) > limit(r.Type) {
		return nil, fmt.Errorf("%w: %s of %d bytes, the limit is %d", ErrTooLarge, r.Type, len(wire), limit(r.Type))
	}
	r.KeyID, _ = msg.Headers.Protected[cose.HeaderLabelKeyID].([]byte)
	r.Controller, _ = msg.Headers.Unprotected[labelController].([]byte)
	return r, nil
}

// Verify checks the signature and decodes the message.
func (r *Received) Verify(v Verifier, scope Scope) (Message, error) {
	if err := r.msg.Verify(scope.aad(), v); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrSignature, r.Type, err)
	}
	m := newMessage(r.Type, r.direction)
	if err := decodeStrict(r.Payload, m); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Type, err)
	}
	if err := validate(m); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrMalformed, r.Type, err)
	}
	return m, nil
}

// DecodeGrant decodes the payload of a GRANT that came inside a WELCOME.
func DecodeGrant(payload []byte) (*Grant, error) {
	var g Grant
	if err := decodeStrict(payload, &g); err != nil {
		return nil, err
	}
	if err := validate(&g); err != nil {
		return nil, fmt.Errorf("%w: grant: %v", ErrMalformed, err)
	}
	return &g, nil
}

// decodeStrict decodes a payload. Unknown fields with positive keys are ignored;
// a negative key marks a field that must be understood.
func decodeStrict(payload []byte, v any) error {
	// Decoded whole, not only split: what is ignored must be sound too.
	var keys map[int64]any
	if err := decMode.Unmarshal(payload, &keys); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	for k := range keys {
		if k < 0 {
			return fmt.Errorf("%w: field %d", ErrUnknownMandatory, k)
		}
	}
	if err := decMode.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

func sign1(s Signer, kid, controller []byte, typ string, aad, payload []byte) ([]byte, error) {
	m := cose.NewSign1Message()
	m.Headers.Protected.SetAlgorithm(s.Algorithm())
	m.Headers.Protected[cose.HeaderLabelType] = typ
	m.Headers.Protected[cose.HeaderLabelKeyID] = kid
	if controller != nil {
		m.Headers.Unprotected[labelController] = controller
	}
	m.Payload = payload
	if err := m.Sign(nil, aad, s); err != nil {
		return nil, err
	}
	return m.MarshalCBOR()
}

func parse1(wire []byte) (*cose.Sign1Message, string, error) {
	m := cose.NewSign1Message()
	if err := m.UnmarshalCBOR(wire); err != nil {
		return nil, "", fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if alg, err := m.Headers.Protected.Algorithm(); err != nil || alg != cose.AlgorithmEdDSA {
		return nil, "", fmt.Errorf("%w: the signature algorithm must be EdDSA", ErrMalformed)
	}
	t, _ := m.Headers.Protected[cose.HeaderLabelType].(string)
	return m, t, nil
}

// validate checks what the CBOR types do not say.
func validate(m Message) error {
	switch m := m.(type) {
	case *Hello:
		if _, err := gk.ParseDeviceID(string(m.Device)); err != nil {
			return err
		}
		if _, err := gk.ParseStreamID(string(m.Stream)); err != nil {
			return err
		}
		if m.Session.IsZero() || len(m.Versions) == 0 || len(m.Suites) == 0 {
			return errors.New("session, versions and suites must be set")
		}
		if len(m.Prekeys) == 0 || len(m.Prekeys) > MaxPrekeys {
			return fmt.Errorf("%d prekeys, want 1 to %d", len(m.Prekeys), MaxPrekeys)
		}
		if m.Payload.Kind != PayloadMP2T && m.Payload.Kind != PayloadNative || m.Payload.Type > 127 || m.Payload.ClockRate == 0 {
			return errors.New("payload must be mp2t or rtp, of type 0 to 127, and the clock rate set")
		}
		if m.Next > gk.MaxIndex {
			return errors.New("the index has more than 48 bits")
		}
		return checkText(m.Software, m.Payload.Encoding)
	case *Challenge:
		if len(m.Nonce) < 16 || len(m.Nonce) > 32 {
			return fmt.Errorf("nonce of %d bytes, want 16 to 32", len(m.Nonce))
		}
	case *Welcome:
		if len(m.Transports) == 0 || len(m.Grant) == 0 {
			return errors.New("transports and grant must be set")
		}
		return checkText(m.Transports...)
	case *Grant:
		if m.Epoch == 0 || len(m.Envelope) == 0 {
			return errors.New("epoch and envelope must be set")
		}
		return checkText(string(m.Reason))
	case *Ack:
		if m.Epoch == 0 || len(m.Confirm) != 32 || m.First > gk.MaxIndex || len(m.Prekeys) > MaxPrekeys {
			return errors.New("epoch, a 32-byte confirmation, a 48-bit first index and at most 4 prekeys are wanted")
		}
	case *Report:
		if m.From > m.To || m.To > gk.MaxIndex {
			return errors.New("the index range falls")
		}
		if len(m.Tags) > 0 && uint64(len(m.Tags)) != TagPrefix*uint64(m.To-m.From) {
			return fmt.Errorf("%d bytes of tags for %d indices", len(m.Tags), m.To-m.From)
		}
		if m.Ingress != nil {
			if err := m.Ingress.validate(); err != nil {
				return err
			}
		}
		if m.Encoder != nil {
			return m.Encoder.validate()
		}
	case *Refill:
		if len(m.Prekeys) > MaxPrekeys {
			return fmt.Errorf("%d prekeys, want at most %d", len(m.Prekeys), MaxPrekeys)
		}
	case *Reject:
		return checkText(m.Text, string(m.Code))
	case *Stop:
		return checkText(m.Text, string(m.Code))
	case *Bye:
		return checkText(m.Text)
	}
	return nil
}

func checkText(texts ...string) error {
	for _, t := range texts {
		if len(t) > MaxTextBytes {
			return fmt.Errorf("text of %d bytes, the limit is %d", len(t), MaxTextBytes)
		}
	}
	return nil
}
