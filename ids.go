// Package gaitkeeper holds the words that every part of the system shares:
// identifiers, key epochs, packet indices, reasons for a rotation, and events.
// It imports nothing of the project.
package gaitkeeper

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// DeviceID names an enrolled encoding device; see [ParseDeviceID] for its form.
type DeviceID string

// StreamID names one live stream. A device's first stream has the device's own
// name; see [ParseStreamID] for its form.
type StreamID string

// TransportID names one transport service instance.
type TransportID string

// maxIDLen keeps ids short enough for a certificate's common name (RFC 5280,
// ub-common-name 64), an MQTT topic level and a key-value key.
const maxIDLen = 63

// ErrBadID is wrapped by the errors of the Parse functions.
var ErrBadID = errors.New("invalid id")

func checkID(kind, s string) error {
	if s == "" || len(s) > maxIDLen {
		return fmt.Errorf("%w: %s %q has %d characters: use 1 to %d", ErrBadID, kind, s, len(s), maxIDLen)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '-' || c == '_') && i > 0:
		default:
			return fmt.Errorf("%w: %s %q has %q at %d: use letters, digits, '-' and '_', starting with a letter or digit", ErrBadID, kind, s, c, i+1)
		}
	}
	return nil
}

// ParseDeviceID accepts 1 to 63 letters, digits, '-' and '_', beginning with a
// letter or digit: what is safe in MQTT topics, NATS subjects and certificates.
func ParseDeviceID(s string) (DeviceID, error) { return DeviceID(s), checkID("device", s) }

// ParseStreamID accepts the same form as [ParseDeviceID].
func ParseStreamID(s string) (StreamID, error) { return StreamID(s), checkID("stream", s) }

// ParseTransportID accepts the same form as [ParseDeviceID].
func ParseTransportID(s string) (TransportID, error) { return TransportID(s), checkID("transport", s) }

// Epoch numbers the media keys of one stream. It rises over the stream's whole
// life, across sessions, and travels in every packet as the SRTP MKI
// (RFC 3711 §3.1). Zero is not a valid epoch.
type Epoch uint32

// Index is an SRTP packet index, ROC‖SEQ, 48 bits (RFC 3711 §3.3.1).
type Index uint64

// MaxIndex is the last index that a key may be used for.
const MaxIndex Index = 1<<48 - 1

// ROC is the index's rollover counter.
func (i Index) ROC() uint32 { return uint32(i >> 16) }

// Seq is the index's RTP sequence number.
func (i Index) Seq() uint16 { return uint16(i) }

// SessionID names one run of one stream at one device. It is 128 random bits,
// so a restart can never be taken for the run before it.
type SessionID [16]byte

// NewSessionID draws a session id from r (crypto/rand.Reader when nil).
func NewSessionID(r io.Reader) (SessionID, error) {
	if r == nil {
		r = rand.Reader
	}
	var s SessionID
	_, err := io.ReadFull(r, s[:])
	return s, err
}

// ParseSessionID reads the 32 hexadecimal digits that [SessionID.String] writes.
func ParseSessionID(s string) (SessionID, error) {
	var id SessionID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("%w: session %q: want %d hexadecimal digits", ErrBadID, s, 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return SessionID{}, fmt.Errorf("%w: session %q: %v", ErrBadID, s, err)
	}
	return id, nil
}

// IsZero reports whether s is unset.
func (s SessionID) IsZero() bool { return s == SessionID{} }

func (s SessionID) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes s as hexadecimal digits.
func (s SessionID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *SessionID) UnmarshalText(b []byte) error {
	id, err := ParseSessionID(string(b))
	*s = id
	return err
}

// Reason says why a key was changed.
type Reason string

// The reasons for a new epoch.
const (
	ReasonStart         Reason = "start"         // first key of a session
	ReasonSchedule      Reason = "schedule"      // the key's age
	ReasonPackets       Reason = "packets"       // the number of packets sent under it
	ReasonOperator      Reason = "operator"      // somebody asked
	ReasonDiscontinuity Reason = "discontinuity" // the source restarted or jumped
	ReasonRecovery      Reason = "recovery"      // an epoch found in use that had not been written down
	ReasonProof         Reason = "proof"         // somebody else holds the key
	ReasonSource        Reason = "source"        // the source's behaviour is not its own
)

// Urgent reports whether a rotation for r may not wait for storage.
func (r Reason) Urgent() bool { return r == ReasonProof || r == ReasonSource }
