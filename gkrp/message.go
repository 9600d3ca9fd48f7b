// Package gkrp is the Gaitkeeper key rotation protocol: a small two-way protocol
// that gives a sending device its media keys over any MQTT 3.1.1 broker, and
// trusts that broker with nothing.
//
// Every message is a COSE_Sign1 structure (RFC 9052 §4.2, EdDSA) around a CBOR
// map with integer keys (RFC 8949); type, direction and major version stand in
// the protected header. Keys travel only inside a [KeyEnvelope]: sealed with
// HPKE (RFC 9180) to one receiver and signed by the key management service.
//
// The package holds messages, their strict encoding, and the two halves of the
// protocol as pure state machines ([Device], [Stream]): they own no clock, no
// lock and no connection, so that both can be run on virtual time.
//
// SPEC.md specifies the protocol, gkrp.cddl its structures, and testdata/vectors
// has test vectors: enough to write a device in another language.
package gkrp

import (
	"fmt"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Major is the protocol's major version: it is part of every topic and of every
// protected header, so two majors never meet.
const Major = 1

// Version is a minor version of the protocol, negotiated in HELLO and WELCOME.
type Version uint16

// The minor versions that this package speaks.
const (
	Version0       Version = 0
	Version1       Version = 1 // REPORT carries tag prefixes
	Version2       Version = 2 // REPORT carries a summary of what came in from the source
	Version3       Version = 3 // REPORT tells what the device did with an encoder that it runs
	MinVersion             = Version0
	CurrentVersion         = Version3
)

// Suite names the HPKE algorithms that a media key is sealed with (RFC 9180 §7).
type Suite uint16

// The suites of the protocol.
const (
	SuiteMLKEM768X25519 Suite = 1 // MLKEM768-X25519, HKDF-SHA256, AES-256-GCM: the default
	SuiteX25519         Suite = 2 // DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: by policy only
)

// Limits on what a receiver will look at. A message beyond them is refused
// before any signature is checked.
const (
	MaxMessage   = 8 << 10  // bytes, every message but REPORT
	MaxReport    = 32 << 10 // bytes
	MaxPrekeys   = 4        // in one message
	MaxTextBytes = 512      // any text field
	TagPrefix    = 4        // bytes of a packet's tag in a REPORT
	MaxTags      = 8000     // packets whose tags one REPORT has room for
)

// Type is a message's type.
type Type string

// The types of message, and the direction each goes.
const (
	TypeHello     Type = "hello"     // up
	TypeChallenge Type = "challenge" // down
	TypeWelcome   Type = "welcome"   // down
	TypeGrant     Type = "grant"     // down
	TypeAck       Type = "ack"       // up
	TypeReport    Type = "report"    // up
	TypeReject    Type = "reject"    // both: a HELLO or a message of an unknown session; a GRANT that does not open
	TypeRefill    Type = "refill"    // both: asks for prekeys, brings prekeys
	TypeStop      Type = "stop"      // down
	TypeBye       Type = "bye"       // up
)

// Direction tells who speaks.
type Direction string

// The two directions.
const (
	Up   Direction = "up"   // device to service
	Down Direction = "down" // service to device
)

// Message is one of the structures below.
type Message interface{ Type() Type }

// PayloadKind says what the device puts into its packets.
type PayloadKind string

// The payloads that a device can carry.
const (
	PayloadMP2T   PayloadKind = "mp2t" // MPEG-TS in RTP, RFC 2250, payload type 33
	PayloadNative PayloadKind = "rtp"  // the encoder's own RTP payload format
)

// Payload describes what the device will send.
type Payload struct {
	Kind      PayloadKind `cbor:"1,keyasint" json:"kind"`
	Type      uint8       `cbor:"2,keyasint" json:"type"`                         // RTP payload type, 0 to 127
	ClockRate uint32      `cbor:"3,keyasint" json:"clock_rate"`                   // RTP timestamp units a second
	Encoding  string      `cbor:"4,keyasint,omitempty" json:"encoding,omitempty"` // as in SDP a=rtpmap, e.g. "H264"
}

// Hello asks for a session. The first one has no nonce; the service answers
// with a [Challenge], and the second one, with that nonce, is proven fresh.
type Hello struct {
	Device    gk.DeviceID  `cbor:"1,keyasint"`
	Stream    gk.StreamID  `cbor:"2,keyasint"`
	Session   gk.SessionID `cbor:"3,keyasint"`
	Versions  []Version    `cbor:"4,keyasint"`
	Suites    []Suite      `cbor:"5,keyasint"`
	Payload   Payload      `cbor:"6,keyasint"`
	HighWater gk.Epoch     `cbor:"7,keyasint"` // highest epoch that the device ever used for the stream
	Nonce     []byte       `cbor:"8,keyasint,omitempty"`
	Prekeys   [][]byte     `cbor:"9,keyasint"` // signed [Prekey] statements
	Software  string       `cbor:"10,keyasint,omitempty"`
	// Next is the lowest index not used yet. A device that goes on counting over
	// its sessions says so by it, because its receiver cannot guess the rollover
	// counter.
	Next gk.Index `cbor:"11,keyasint,omitempty"`
}

// Challenge gives the nonce that the next [Hello] must carry.
type Challenge struct {
	Session   gk.SessionID `cbor:"1,keyasint"`
	HelloHash []byte       `cbor:"2,keyasint"` // SHA-256 of the payload of the HELLO that it answers
	Nonce     []byte       `cbor:"3,keyasint"` // 16 to 32 bytes
}

// Policy is what the service asks of the device for the length of a session.
// All durations count from the receipt of the message.
type Policy struct {
	ReportEveryMs uint32 `cbor:"1,keyasint"`           // milliseconds between REPORTs, 100 to 60000
	RejectAfterS  uint32 `cbor:"2,keyasint"`           // seconds after which a key is no longer used
	Tags          bool   `cbor:"3,keyasint,omitempty"` // REPORTs shall carry tag prefixes; minor version 1
}

// For is what of p a session of version v knows.
func (p Policy) For(v Version) Policy {
	p.Tags = p.Tags && v >= Version1
	return p
}

// Welcome accepts a session and brings its first key.
type Welcome struct {
	Session    gk.SessionID `cbor:"1,keyasint"`
	HelloHash  []byte       `cbor:"2,keyasint"` // SHA-256 of the proven HELLO's payload
	Versions   []Version    `cbor:"3,keyasint"` // as offered
	Suites     []Suite      `cbor:"4,keyasint"` // as offered
	Version    Version      `cbor:"5,keyasint"` // chosen
	Suite      Suite        `cbor:"6,keyasint"` // chosen
	Stream     gk.StreamID  `cbor:"7,keyasint"`
	SSRC       uint32       `cbor:"8,keyasint"`
	Transports []string     `cbor:"9,keyasint"` // host:port, UDP
	Policy     Policy       `cbor:"10,keyasint"`
	Grant      []byte       `cbor:"11,keyasint"` // the payload of the first [Grant]
}

// Grant brings the key of one epoch.
type Grant struct {
	Stream    gk.StreamID  `cbor:"1,keyasint"`
	Session   gk.SessionID `cbor:"2,keyasint"`
	Epoch     gk.Epoch     `cbor:"3,keyasint"`
	Reason    gk.Reason    `cbor:"4,keyasint"`
	ActWithin uint32       `cbor:"5,keyasint"` // milliseconds from receipt in which to switch
	Envelope  []byte       `cbor:"6,keyasint"` // a signed [KeyEnvelope]
	Term      uint64       `cbor:"7,keyasint"` // fencing term of the sender's lease
}

// Ack says that the device has the key, proves it, and says from which packet
// on it is used.
type Ack struct {
	Stream    gk.StreamID  `cbor:"1,keyasint"`
	Session   gk.SessionID `cbor:"2,keyasint"`
	Epoch     gk.Epoch     `cbor:"3,keyasint"`
	GrantHash []byte       `cbor:"4,keyasint"` // SHA-256 of the GRANT's payload
	Confirm   []byte       `cbor:"5,keyasint"` // 32 bytes, computed from the key
	First     gk.Index     `cbor:"6,keyasint"` // first index sent under the epoch
	Prekeys   [][]byte     `cbor:"7,keyasint,omitempty"`
}

// Report tells, once a second, what the device sent.
type Report struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Number  uint64       `cbor:"3,keyasint"`           // rises by one a report
	Epoch   gk.Epoch     `cbor:"4,keyasint"`           // the epoch in use at the end
	From    gk.Index     `cbor:"5,keyasint"`           // first index of the report's range
	To      gk.Index     `cbor:"6,keyasint"`           // index after the last
	Packets uint64       `cbor:"7,keyasint"`           // sent since the session began
	Bytes   uint64       `cbor:"8,keyasint"`           // RTP payload bytes sent since the session began
	Renew   bool         `cbor:"9,keyasint,omitempty"` // the source restarted or jumped: a new epoch is asked for
	// Tags has, from minor version 1 on and where the service asks for it, the
	// first 4 bytes of every packet's authentication tag, in the order of the
	// indices From to To; a packet that was not sent has 4 zero bytes. A report
	// without tags says nothing of single packets.
	Tags []byte `cbor:"10,keyasint,omitempty"`
	// Since is how many milliseconds ago the key of Epoch was installed, by a clock
	// that nobody sets, read before To was; 0: not told.
	Since uint64 `cbor:"11,keyasint,omitempty"`
	// Term is the highest fencing term that the device heeds in this session: GRANTs
	// of a lower one are ignored.
	Term uint64 `cbor:"12,keyasint,omitempty"`
	// Ingress is, from minor version 2 on, what came in from the source.
	Ingress *Ingress `cbor:"13,keyasint,omitempty"`
	// Encoder is, from minor version 3 on, what the device did with the encoder that
	// it runs itself; nil where it runs none.
	Encoder *Encoder `cbor:"14,keyasint,omitempty"`
}

// For is what of r a session of version v knows.
func (r Report) For(v Version) Report {
	if v < Version1 {
		r.Tags = nil
	}
	if v < Version2 {
		r.Ingress = nil
	}
	if v < Version3 {
		r.Encoder = nil
	}
	return r
}

// Code is why a message was refused.
type Code string

// The codes of [Reject].
const (
	CodeUnsupportedVersion Code = "unsupported-version" // Supported lists what would do
	CodeUnsupportedSuite   Code = "unsupported-suite"
	CodeUnknownSession     Code = "unknown-session" // start a new one
	CodeBusy               Code = "busy"            // another session of the stream is alive; try again later
	CodeRevoked            Code = "revoked"
	CodeNotYours           Code = "not-yours" // the stream belongs to another device
	CodeEpochJump          Code = "epoch-jump"
	CodeUnavailable        Code = "unavailable" // a service is not there; try again later
	CodeMalformed          Code = "malformed"
	CodeCannotOpen         Code = "cannot-open" // up: the prekey that a GRANT is sealed to is not there any more
)

// Final reports whether asking again in the same way can never help.
func (c Code) Final() bool {
	switch c {
	case CodeUnsupportedVersion, CodeUnsupportedSuite, CodeRevoked, CodeNotYours, CodeEpochJump, CodeMalformed:
		return true
	}
	return false
}

// Reject refuses what a device asked.
type Reject struct {
	Session    gk.SessionID `cbor:"1,keyasint"`
	Regarding  []byte       `cbor:"2,keyasint"` // SHA-256 of the refused message's payload; a device ignores a REJECT of what it did not send lately
	Code       Code         `cbor:"3,keyasint"`
	Text       string       `cbor:"4,keyasint,omitempty"`
	Supported  []Version    `cbor:"5,keyasint,omitempty"`
	RetryAfter uint32       `cbor:"6,keyasint,omitempty"` // milliseconds
}

// Refill asks for prekeys (down, none inside) or brings them (up).
type Refill struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Prekeys [][]byte     `cbor:"3,keyasint,omitempty"`
}

// Stop ends a session from the service's side.
type Stop struct {
	Session gk.SessionID `cbor:"1,keyasint"`
	Code    Code         `cbor:"2,keyasint"`
	Text    string       `cbor:"3,keyasint,omitempty"`
}

// Bye ends a session from the device's side.
type Bye struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	End     gk.Index     `cbor:"3,keyasint"` // index after the last one sent
	Text    string       `cbor:"4,keyasint,omitempty"`
}

// Type implements [Message].
func (*Hello) Type() Type     { return TypeHello }
func (*Challenge) Type() Type { return TypeChallenge }
func (*Welcome) Type() Type   { return TypeWelcome }
func (*Grant) Type() Type     { return TypeGrant }
func (*Ack) Type() Type       { return TypeAck }
func (*Report) Type() Type    { return TypeReport }
func (*Reject) Type() Type    { return TypeReject }
func (*Refill) Type() Type    { return TypeRefill }
func (*Stop) Type() Type      { return TypeStop }
func (*Bye) Type() Type       { return TypeBye }

// newMessage gives the empty structure for a type and direction, or nil where
// the type does not exist or does not go that way.
func newMessage(t Type, d Direction) Message {
	type key struct {
		Type
		Direction
	}
	switch (key{t, d}) {
	case key{TypeHello, Up}:
		return &Hello{}
	case key{TypeAck, Up}:
		return &Ack{}
	case key{TypeReport, Up}:
		return &Report{}
	case key{TypeBye, Up}:
		return &Bye{}
	case key{TypeRefill, Up}, key{TypeRefill, Down}:
		return &Refill{}
	case key{TypeReject, Up}, key{TypeReject, Down}:
		return &Reject{}
	case key{TypeChallenge, Down}:
		return &Challenge{}
	case key{TypeWelcome, Down}:
		return &Welcome{}
	case key{TypeGrant, Down}:
		return &Grant{}
	case key{TypeStop, Down}:
		return &Stop{}
	}
	return nil
}

// Topic is the MQTT topic of one stream and direction.
func Topic(d gk.DeviceID, s gk.StreamID, dir Direction) string {
	return fmt.Sprintf("gkrp/%d/%s/%s/%s", Major, d, s, dir)
}

// ServiceFilter is what the service subscribes to: every device's up topic.
func ServiceFilter() string { return fmt.Sprintf("gkrp/%d/+/+/%s", Major, Up) }

// ParseTopic splits a topic into the ids that it names.
func ParseTopic(topic string) (gk.DeviceID, gk.StreamID, Direction, error) {
	parts := splitTopic(topic)
	if len(parts) != 5 || parts[0] != "gkrp" || parts[1] != fmt.Sprint(Major) {
		return "", "", "", fmt.Errorf("gkrp: topic %q is not gkrp/%d/DEVICE/STREAM/up or down", topic, Major)
	}
	d, err := gk.ParseDeviceID(parts[2])
	if err != nil {
		return "", "", "", err
	}
	s, err := gk.ParseStreamID(parts[3])
	if err != nil {
		return "", "", "", err
	}
	dir := Direction(parts[4])
	if dir != Up && dir != Down {
		return "", "", "", fmt.Errorf("gkrp: topic %q: direction %q is neither up nor down", topic, dir)
	}
	return d, s, dir, nil
}

func splitTopic(t string) []string {
	var parts []string
	start := 0
	for i := 0; i <= len(t) && len(parts) < 6; i++ {
		if i == len(t) || t[i] == '/' {
			parts = append(parts, t[start:i])
			start = i + 1
		}
	}
	return parts
}
