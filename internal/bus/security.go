package bus

import (
	"encoding/binary"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Revocation and leases.
//
// An armed key serves only while a lease on it runs. The proof that a revoked
// device's media ends, whatever is cut off from whatever, is a chain in which
// every delay makes a lease shorter and none makes it longer: a transport tells
// the time of its own clock in every announcement (Beat), with a mark that nobody
// else can make or foresee; processing notes the beats, then asks the key
// management service who is in good standing, and carries its signed word
// ([gkrp.Lease]) to the transport, by which keys may serve for a lease's length
// counted from that beat. So a lease that runs was granted on an answer given
// before the revocation, counts from a moment before that answer, and is over one
// length after the revocation at the latest, whatever processing or the bus do.
const (
	KMSRevoke   Repeatable[RevokeRequest, RevokeReply]     = "gk.kms.revoke"
	KMSDevices  Repeatable[DevicesRequest, DevicesReply]   = "gk.kms.devices"
	KMSStanding Repeatable[StandingRequest, StandingReply] = "gk.kms.standing"

	ProcessingDisarm Repeatable[DisarmDeviceRequest, DisarmDeviceReply] = "gk.processing.disarm"

	TransportLease  RepeatableTo[LeaseRequest, Empty]  = "gk.transport.lease"
	TransportDisarm RepeatableTo[DisarmRequest, Empty] = "gk.transport.disarm"

	// BrokerCut is answered by the process that runs the broker for devices;
	// nobody answers where devices use a broker of somebody else's.
	BrokerCut Repeatable[CutRequest, CutReply] = "gk.broker.cut"
)

// KMSSignHead has the head of the audit trail signed. Only the audit trail may ask.
const KMSSignHead Call[AuditHead, SignedAuditHead] = "gk.kms.audit-head"

// RevokeRequest asks that a device is given no key any more. Repeating it is no
// error.
type RevokeRequest struct {
	Device gk.DeviceID `cbor:"1,keyasint"`
}

// RevokeReply comes when the revocation is persisted and every later release is
// refused.
type RevokeReply struct {
	Device DeviceRecord `cbor:"1,keyasint"`
	// Lease is how long keys that are armed already may serve on, from now.
	Lease time.Duration `cbor:"2,keyasint"`
}

// MaxDevices bounds the records in one [DevicesReply].
const MaxDevices = 500

// DevicesRequest asks for enrolment records by rising name, those after After.
type DevicesRequest struct {
	After gk.DeviceID `cbor:"1,keyasint,omitempty"`
}

// DevicesReply has at most [MaxDevices] records.
type DevicesReply struct {
	Devices []DeviceRecord `cbor:"1,keyasint"`
	More    bool           `cbor:"2,keyasint,omitempty"`
}

// MaxStanding bounds the sessions in one [StandingRequest] and [LeaseRequest].
const MaxStanding = gkrp.MaxLeaseSessions

// SessionRef names a session of a device's stream.
type SessionRef struct {
	Device  gk.DeviceID  `cbor:"1,keyasint,omitempty"`
	Stream  gk.StreamID  `cbor:"2,keyasint"`
	Session gk.SessionID `cbor:"3,keyasint"`
}

// StandingRequest asks which sessions may still have keys, for one transport.
type StandingRequest struct {
	Sessions  []SessionRef   `cbor:"1,keyasint"`
	Transport gk.TransportID `cbor:"2,keyasint,omitempty"`
	Mark      []byte         `cbor:"3,keyasint,omitempty"` // of its beat; none: no lease is wanted
}

// StandingReply has, for each session asked for, an empty code where it is in
// good standing; [CodeRevoked] where the device was revoked or enrolled anew
// since; [CodeNotFound] where there is no such session.
type StandingReply struct {
	Codes []Code `cbor:"1,keyasint"`
	// Lease is how long a transport may use keys on the strength of this answer,
	// counted from before the question.
	Lease time.Duration `cbor:"2,keyasint"`
	// Word is the signed [gkrp.Lease] for those in good standing; none where no
	// session is.
	Word []byte `cbor:"3,keyasint,omitempty"`
}

// Lease is the right to use keys for a while. The zero value gives none.
type Lease struct {
	Started time.Time     `cbor:"1,keyasint,omitzero"`  // of the transport that it is for: [TransportAnnouncement]
	Beat    time.Duration `cbor:"2,keyasint,omitempty"` // that transport's clock, from which For counts
	Mark    []byte        `cbor:"3,keyasint,omitempty"` // that it announced with the beat
	Word    []byte        `cbor:"4,keyasint,omitempty"` // the key management service's signed [gkrp.Lease]: how long, for whom
}

// LeaseRequest tells a transport which sessions' keys may serve on. One that it
// does not have is no error.
type LeaseRequest struct {
	Lease    Lease        `cbor:"1,keyasint"`
	Sessions []SessionRef `cbor:"2,keyasint"` // without the device
	Term     uint64       `cbor:"3,keyasint"` // the sender's fencing term, for each stream
}

// DisarmRequest tells a transport to wipe every key of the streams, and to take
// none on the strength of a lease that counts from before now.
type DisarmRequest struct {
	Streams []gk.StreamID `cbor:"1,keyasint"`
	Term    uint64        `cbor:"2,keyasint"`
	Beat    time.Duration `cbor:"3,keyasint,omitempty"` // see [Newer]
	// Started is of the transport that it is for, as in [Lease]: one that started since
	// has no key that the order could mean, and does not know either that it obeyed it
	// before. Zero where the sender never heard it.
	Started time.Time `cbor:"4,keyasint,omitzero"`
}

// Newer reports whether a command is one that was given after the last of its kind,
// by the beat that its sender put into it: how long it had run, by a clock that nobody
// sets, when it gave the command. One that comes late, twice, or from who kept it, is
// not, and must change nothing. Beats are compared within one fencing term only; a
// sender that tells none is taken at its word until one is told.
func Newer(beat, last time.Duration) bool { return beat > last || beat == 0 && last == 0 }

// DisarmDeviceRequest tells processing that a device was revoked: its sessions
// end, and every transport disarms.
type DisarmDeviceRequest struct {
	Device  gk.DeviceID   `cbor:"1,keyasint"`
	Streams []gk.StreamID `cbor:"2,keyasint"`
	Lease   time.Duration `cbor:"3,keyasint"` // how long leases granted before the revocation may run
}

// DisarmDeviceReply names the transports that confirmed, and those that may hold
// keys and did not.
type DisarmDeviceReply struct {
	Confirmed []gk.TransportID `cbor:"1,keyasint"`
	Missing   []gk.TransportID `cbor:"2,keyasint"`
	Sessions  int              `cbor:"3,keyasint"` // that ended by it
}

// Revocation is what came of revoking a device, for operators.
type Revocation struct {
	Device   gk.DeviceID   `json:"device"`
	Streams  []gk.StreamID `json:"streams"`
	Sessions int           `json:"sessions_ended"`
	// How says why nothing is delivered any more: every transport confirmed, or
	// the lease on whatever was not confirmed has run out.
	How       RevokedBy        `json:"how"`
	Confirmed []gk.TransportID `json:"confirmed"`
	Missing   []gk.TransportID `json:"unconfirmed"`
	Waited    time.Duration    `json:"waited_ns"`
	// Cut says whether the broker has cut the device's connections; a broker of
	// somebody else's cannot be told to.
	Cut bool `json:"connection_cut"`
}

// RevokedBy is how a [Revocation] became effective.
type RevokedBy string

// The ways in which a revocation becomes effective.
const (
	RevokedByDisarming RevokedBy = "disarmed"
	RevokedByLease     RevokedBy = "lease-ran-out"
)

// CutRequest tells the broker to cut a device's connections.
type CutRequest struct {
	Device gk.DeviceID `cbor:"1,keyasint"`
}

// CutReply says how many connections were cut.
type CutReply struct {
	Connections int `cbor:"1,keyasint"`
}

// AuditHead is the state of an audit trail at a moment.
type AuditHead struct {
	Trail []byte `cbor:"1,keyasint"` // SHA-256 of the trail's first line
	Lines uint64 `cbor:"2,keyasint"`
	Head  []byte `cbor:"3,keyasint"` // SHA-256 of the last line
}

// SignedAuditHead is the key management service's word for an [AuditHead]. It
// never signs a head of the same trail with fewer lines than one before.
type SignedAuditHead struct {
	Serial    uint64    `cbor:"1,keyasint"` // rises by one a head, over all trails
	At        time.Time `cbor:"2,keyasint"`
	Public    []byte    `cbor:"3,keyasint"` // Ed25519, 32 bytes
	Signature []byte    `cbor:"4,keyasint"` // over [AuditHeadBytes]
}

// AuditHeadBytes is what is signed of an audit trail's head. The words in front
// keep it apart from everything else that the key signs: COSE structures begin
// with the byte 0x84.
func AuditHeadBytes(h AuditHead, serial uint64, at time.Time) []byte {
	b := []byte("gaitkeeper audit head 1\x00")
	b = binary.BigEndian.AppendUint64(b, serial)
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, h.Lines)
	b = append(b, byte(len(h.Trail)))
	b = append(b, h.Trail...)
	return append(b, h.Head...)
}
