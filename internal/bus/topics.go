package bus

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Events carries what happened, for the audit trail, the live feed and metrics.
const Events News[gk.Event] = "gk.events"

// What the key management service answers. Who may ask which of them is in
// [Permissions].
const (
	KMSInfo     Repeatable[Empty, KMSInfoReply]                = "gk.kms.info"
	KMSOpen     Repeatable[KMSOpenRequest, KMSOpenReply]       = "gk.kms.open"
	KMSRelease  Repeatable[KMSReleaseRequest, KMSReleaseReply] = "gk.kms.release"
	KMSSetState Repeatable[KMSStateRequest, Empty]             = "gk.kms.state"
	KMSKeys     Repeatable[KMSKeysRequest, KMSKeysReply]       = "gk.kms.keys"
	KMSDevice   Repeatable[KMSDeviceRequest, DeviceRecord]     = "gk.kms.device"
	KMSEnroll   Call[EnrollRequest, EnrollReply]               = "gk.kms.enroll"
	KMSJoin     Repeatable[JoinRequest, JoinReply]             = "gk.kms.join"

	// KMSCertify goes to the role and id that the certificate is for ([As]): so the
	// bus lets each ask for its own only.
	KMSCertify RepeatableTo[CertifyRequest, CertifyReply] = "gk.kms.certify"
)

// As names a role and an instance for [KMSCertify].
func As(role, id string) string { return role + "." + id }

// What a transport answers and announces.
const (
	TransportAssign  RepeatableTo[AssignRequest, Empty] = "gk.transport.assign"
	TransportArm     RepeatableTo[ArmRequest, Empty]    = "gk.transport.arm"
	TransportSwitch  RepeatableTo[SwitchRequest, Empty] = "gk.transport.switch"
	TransportRelease RepeatableTo[ReleaseStream, Empty] = "gk.transport.release"
	TransportReport  CallTo[ReportRequest, Empty]       = "gk.transport.report"

	TransportHere   NewsOf[TransportAnnouncement] = "gk.transport-news.here"   // every 2 s and at start
	TransportFirst  NewsOf[FirstPacket]           = "gk.transport-news.first"  // at once
	TransportStatus NewsOf[StreamStatus]          = "gk.transport-news.status" // every second for each stream
	TransportGone   NewsOf[EpochGone]             = "gk.transport-news.gone"   // an epoch is no longer armed
	TransportProof  NewsOf[Proof]                 = "gk.transport-news.proof"  // at once, then at most every second for a key
)

// From names the transport that announces it: see [NewsOf].
func (a TransportAnnouncement) From() gk.TransportID { return a.Transport }

// From names the transport that announces it: see [NewsOf].
func (f FirstPacket) From() gk.TransportID { return f.Transport }

// From names the transport that announces it: see [NewsOf].
func (u StreamStatus) From() gk.TransportID { return u.Transport }

// From names the transport that announces it: see [NewsOf].
func (g EpochGone) From() gk.TransportID { return g.Transport }

// From names the transport that announces it: see [NewsOf].
func (p Proof) From() gk.TransportID { return p.Transport }

// What the processing service answers and announces.
const (
	ProcessingRotate  Repeatable[RotateRequest, RotateReply] = "gk.processing.rotate"
	ProcessingStreams Repeatable[Empty, StreamsReply]        = "gk.processing.streams"
	ProcessingStop    Call[StopRequest, Empty]               = "gk.processing.stop"

	DeviceReports News[DeviceReport] = "gk.processing-news.report" // each that a live session's device sent
)

// Empty is the request or reply that says nothing.
type Empty struct{}

// KMSInfoReply tells whom to trust.
type KMSInfoReply struct {
	CA     []byte `cbor:"1,keyasint"` // certificate, DER
	Public []byte `cbor:"2,keyasint"` // the key management service's Ed25519 signing key
	KeyID  []byte `cbor:"3,keyasint"`
}

// KMSOpenRequest opens a session: its first epoch is allocated, and one more is
// held in reserve. Asking again gives the same answer.
type KMSOpenRequest struct {
	Device    gk.DeviceID  `cbor:"1,keyasint"`
	Stream    gk.StreamID  `cbor:"2,keyasint"`
	Session   gk.SessionID `cbor:"3,keyasint"`
	HighWater gk.Epoch     `cbor:"4,keyasint"`
	SSRC      uint32       `cbor:"5,keyasint"`
}

// KMSOpenReply names the session's first epoch. Its key is persisted.
type KMSOpenReply struct {
	Epoch gk.Epoch `cbor:"1,keyasint"`
}

// KMSReleaseRequest asks for the key of one epoch, sealed for its receivers. The
// epoch must be the session's first, any later one already released, or the
// reserved one; none asks for the session's first epoch after After, because
// only the key management service knows its number. Asking again seals the same
// key again.
type KMSReleaseRequest struct {
	Device     gk.DeviceID         `cbor:"1,keyasint"`
	Stream     gk.StreamID         `cbor:"2,keyasint"`
	Session    gk.SessionID        `cbor:"3,keyasint"`
	Epoch      gk.Epoch            `cbor:"4,keyasint"`
	Prekey     []byte              `cbor:"5,keyasint,omitempty"` // a device-signed gkrp.Prekey; none: no device envelope
	Transports []TransportReceiver `cbor:"6,keyasint,omitempty"`
	After      gk.Epoch            `cbor:"7,keyasint,omitempty"`
	// Marks are those of the transports' beats, from which their leases count.
	Marks map[gk.TransportID][]byte `cbor:"8,keyasint,omitempty"`
}

// TransportReceiver is a transport's word for its own HPKE key; the key
// management service checks it itself.
type TransportReceiver struct {
	Transport   gk.TransportID `cbor:"1,keyasint"`
	Key         []byte         `cbor:"2,keyasint"` // a signed gkrp.ReceiverKey
	Certificate []byte         `cbor:"3,keyasint"` // DER, URI SAN gaitkeeper:transport/ID
}

// KMSReleaseReply has one signed gkrp.KeyEnvelope for each receiver, and the
// confirmation that the device must send back.
type KMSReleaseReply struct {
	Device     []byte                    `cbor:"1,keyasint,omitempty"`
	Confirm    []byte                    `cbor:"2,keyasint,omitempty"` // 32 bytes
	Transports map[gk.TransportID][]byte `cbor:"3,keyasint,omitempty"`
	Epoch      gk.Epoch                  `cbor:"4,keyasint"`
	// Lease is how long a transport may use the key on the strength of this
	// answer, counted from before the question.
	Lease time.Duration `cbor:"5,keyasint"`
	// Words are the signed [gkrp.Lease] of each transport whose mark was given.
	Words map[gk.TransportID][]byte `cbor:"6,keyasint,omitempty"`
}

// KeyState is a media key's state (NIST SP 800-57 part 1 §7).
type KeyState string

// The states of a media key.
const (
	KeyPreActive   KeyState = "pre-active"
	KeyActive      KeyState = "active"
	KeyDeactivated KeyState = "deactivated"
	KeyDestroyed   KeyState = "destroyed"
)

// KMSStateRequest moves a key to a later state; repeating a move is no error.
type KMSStateRequest struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Epoch   gk.Epoch     `cbor:"3,keyasint"` // 0: every epoch of the session, the reserved one too
	State   KeyState     `cbor:"4,keyasint"`
}

// KMSKeysRequest asks for the keys of a stream, newest first.
type KMSKeysRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
}

// KMSKeysReply lists keys without their bytes.
type KMSKeysReply struct {
	Keys []KeyInfo `cbor:"1,keyasint" json:"keys"`
}

// KeyInfo describes a media key. It never holds one.
type KeyInfo struct {
	Stream      gk.StreamID  `cbor:"1,keyasint" json:"stream"`
	Session     gk.SessionID `cbor:"2,keyasint" json:"session"`
	Epoch       gk.Epoch     `cbor:"3,keyasint" json:"epoch"`
	State       KeyState     `cbor:"4,keyasint" json:"state"`
	Created     time.Time    `cbor:"5,keyasint" json:"created"`
	Activated   time.Time    `cbor:"6,keyasint,omitzero" json:"activated,omitzero"`
	Deactivated time.Time    `cbor:"7,keyasint,omitzero" json:"deactivated,omitzero"`
	Destroyed   time.Time    `cbor:"8,keyasint,omitzero" json:"destroyed,omitzero"`
}

// KMSDeviceRequest asks for a device's enrolment record.
type KMSDeviceRequest struct {
	Device gk.DeviceID `cbor:"1,keyasint"`
}

// DeviceRecord is what is known of an enrolled device.
type DeviceRecord struct {
	Device   gk.DeviceID   `cbor:"1,keyasint" json:"device"`
	Streams  []gk.StreamID `cbor:"2,keyasint" json:"streams"`
	Public   []byte        `cbor:"3,keyasint" json:"public"` // Ed25519, 32 bytes
	Enrolled time.Time     `cbor:"4,keyasint" json:"enrolled"`
	Revoked  bool          `cbor:"5,keyasint,omitempty" json:"revoked,omitempty"`
}

// EnrollRequest has a join token accepted. Its secret stays with whoever made
// it: only the hash passes the bus.
type EnrollRequest struct {
	Device  gk.DeviceID   `cbor:"1,keyasint"`
	Streams []gk.StreamID `cbor:"2,keyasint,omitempty"` // none: one, with the device's name
	TTL     time.Duration `cbor:"3,keyasint"`
	Hash    []byte        `cbor:"4,keyasint"` // SHA-256 of the token's secret
}

// EnrollReply brings what the token has to say beside its secret.
type EnrollReply struct {
	CAFingerprint []byte    `cbor:"1,keyasint"` // SHA-256 of the CA certificate's DER form
	Expires       time.Time `cbor:"2,keyasint"`
}

// JoinRequest uses a join token up.
type JoinRequest struct {
	Device gk.DeviceID `cbor:"1,keyasint"`
	Hash   []byte      `cbor:"2,keyasint"` // SHA-256 of the secret that the device presented
	CSR    []byte      `cbor:"3,keyasint"` // PKCS #10, DER, Ed25519
}

// JoinReply is the new device's identity.
type JoinReply struct {
	Device      gk.DeviceID   `cbor:"1,keyasint" json:"device"`
	Streams     []gk.StreamID `cbor:"2,keyasint" json:"streams"`
	Certificate []byte        `cbor:"3,keyasint" json:"certificate"` // DER
	CA          []byte        `cbor:"4,keyasint" json:"ca"`          // DER
	KMSPublic   []byte        `cbor:"5,keyasint" json:"kms_public"`  // Ed25519, 32 bytes
}

// CertifyRequest asks for a service's certificate, over its own connection to the
// bus.
type CertifyRequest struct {
	Role  string   `cbor:"1,keyasint"` // transport, processing, server
	ID    string   `cbor:"2,keyasint"`
	Key   []byte   `cbor:"3,keyasint"` // PKIX public key, DER
	Hosts []string `cbor:"4,keyasint,omitempty"`
}

// CertifyReply is a service's certificate; for a processing service also the
// signed gkrp.Controller statement for its key.
type CertifyReply struct {
	Certificate []byte `cbor:"1,keyasint"`
	CA          []byte `cbor:"2,keyasint"`
	Controller  []byte `cbor:"3,keyasint,omitempty"`
}

// AssignRequest tells a transport of a stream to come. Repeating it is no error;
// another session of the same stream replaces the one before when its first packet comes.
type AssignRequest struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	SSRC    uint32       `cbor:"3,keyasint"`
	Payload gkrp.Payload `cbor:"4,keyasint"`
	Term    uint64       `cbor:"5,keyasint"` // the sender's fencing term; a lower one than seen is refused
}

// ArmRequest gives a transport one epoch's key. The answer means that packets of
// the epoch can be opened from now on. Repeating it is no error.
type ArmRequest struct {
	Stream   gk.StreamID  `cbor:"1,keyasint"`
	Session  gk.SessionID `cbor:"2,keyasint"`
	Epoch    gk.Epoch     `cbor:"3,keyasint"`
	Envelope []byte       `cbor:"4,keyasint"` // a signed gkrp.KeyEnvelope
	Reason   gk.Reason    `cbor:"5,keyasint"`
	Term     uint64       `cbor:"6,keyasint"`
	// Joining is set where the epoch is already in use, so that the first packet
	// opened need not be its first: Near is an index recently sent, for the ROC.
	Joining bool     `cbor:"7,keyasint,omitempty"`
	Near    gk.Index `cbor:"8,keyasint,omitempty"`
	Lease   Lease    `cbor:"9,keyasint"` // the session's first, counted from before the key was asked for
}

// SwitchRequest tells a transport the index at which an epoch begins, from the
// device's verified ACK, or an index recently reported, so that it can find the
// rollover counter of a stream that it joined late.
type SwitchRequest struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Epoch   gk.Epoch     `cbor:"3,keyasint"`
	First   gk.Index     `cbor:"4,keyasint"`
	Near    gk.Index     `cbor:"5,keyasint,omitempty"`
	Term    uint64       `cbor:"6,keyasint"`
}

// ReleaseStream tells a transport to forget a session and wipe its keys.
type ReleaseStream struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Term    uint64       `cbor:"3,keyasint"`
}

// TransportAnnouncement says that a transport is there, and where.
type TransportAnnouncement struct {
	TransportReceiver
	Address string    `cbor:"4,keyasint"` // host:port for devices, UDP
	Started time.Time `cbor:"5,keyasint"` // a new value means that its armed keys are gone
	// Beat is how long ago Started was, by a clock that nobody sets.
	Beat time.Duration `cbor:"6,keyasint"`
	Mark []byte        `cbor:"8,keyasint"` // of the beat: see [Lease]
	// Term is the highest fencing term that the transport was commanded under.
	Term uint64 `cbor:"7,keyasint,omitempty"`
}

// FirstPacket says that a transport opened the first packet of an epoch.
type FirstPacket struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Stream    gk.StreamID    `cbor:"2,keyasint"`
	Session   gk.SessionID   `cbor:"3,keyasint"`
	Epoch     gk.Epoch       `cbor:"4,keyasint"`
	Index     gk.Index       `cbor:"5,keyasint"`
	At        time.Time      `cbor:"6,keyasint"`
}

// EpochGone says that a transport no longer opens an epoch.
type EpochGone struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Stream    gk.StreamID    `cbor:"2,keyasint"`
	Session   gk.SessionID   `cbor:"3,keyasint"`
	Epoch     gk.Epoch       `cbor:"4,keyasint"`
}

// Proof is a transport's evidence that somebody besides the device has an epoch's
// key: packets authenticated under it that the device cannot have sent.
type Proof struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Stream    gk.StreamID    `cbor:"2,keyasint"`
	Session   gk.SessionID   `cbor:"3,keyasint"`
	Epoch     gk.Epoch       `cbor:"4,keyasint"`
	Index     gk.Index       `cbor:"5,keyasint"`
	What      string         `cbor:"6,keyasint"`
}

// StreamStatus is a stream as a transport sees it. Counts rise since the session
// was assigned.
type StreamStatus struct {
	Transport gk.TransportID    `cbor:"1,keyasint" json:"transport"`
	Stream    gk.StreamID       `cbor:"2,keyasint" json:"stream"`
	Session   gk.SessionID      `cbor:"3,keyasint" json:"session"`
	Epoch     gk.Epoch          `cbor:"4,keyasint" json:"epoch"`   // of the newest accepted packet
	Highest   gk.Index          `cbor:"5,keyasint" json:"highest"` // accepted
	Delivered uint64            `cbor:"6,keyasint" json:"delivered"`
	Bytes     uint64            `cbor:"7,keyasint" json:"bytes"` // RTP payload, delivered
	Lost      uint64            `cbor:"8,keyasint" json:"lost"`  // gaps given up, as far as the device has come by its reports
	Dropped   map[string]uint64 `cbor:"9,keyasint,omitempty" json:"dropped,omitempty"`
	SilentMs  uint32            `cbor:"10,keyasint" json:"silent_ms"` // since the last accepted packet
	Viewers   int               `cbor:"11,keyasint" json:"viewers"`
	// By the device's reports: packets that it sent in the ranges that were compared,
	// how many of those were not accepted, how many accepted packets were listed,
	// and how many were accepted that the device did not send.
	Sent     uint64 `cbor:"20,keyasint,omitempty" json:"sent"`
	PathLoss uint64 `cbor:"21,keyasint,omitempty" json:"path_loss"`
	Vouched  uint64 `cbor:"22,keyasint,omitempty" json:"vouched"`
	Foreign  uint64 `cbor:"23,keyasint,omitempty" json:"foreign"`
}

// DeviceReport is what a device said that it sent, verified, of a live session.
type DeviceReport struct {
	Stream  gk.StreamID  `cbor:"1,keyasint"`
	Session gk.SessionID `cbor:"2,keyasint"`
	Number  uint64       `cbor:"3,keyasint"` // rises by one a report: a gap is a lost report
	Epoch   gk.Epoch     `cbor:"4,keyasint"` // in use at the end of the range
	From    gk.Index     `cbor:"5,keyasint"`
	To      gk.Index     `cbor:"6,keyasint"` // index after the last
	Packets uint64       `cbor:"7,keyasint"` // since the session began
	Bytes   uint64       `cbor:"8,keyasint"` // of RTP payload, since the session began
	// Tags has the first [gkrp.TagPrefix] bytes of every packet's tag from From to
	// To, zeros where an index was not used; nil where the device does not tell.
	Tags []byte `cbor:"9,keyasint,omitempty"`
	// SinceMs is how long the key of Epoch had been in use before the range was
	// closed, in milliseconds of the device's clock; 0: not told.
	SinceMs uint64 `cbor:"10,keyasint,omitempty"`
}

// ReportRequest has a transport hold what it accepted against what the device
// says that it sent. One that is lost leaves something unknown, and accuses nobody.
type ReportRequest struct {
	Report DeviceReport `cbor:"1,keyasint"`
	Term   uint64       `cbor:"2,keyasint"`
}

// RotateRequest asks for a new epoch.
type RotateRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
	Reason gk.Reason   `cbor:"2,keyasint"`
	Wait   bool        `cbor:"3,keyasint,omitempty"` // answer when the device has confirmed
}

// RotateReply names the epoch that the request led to.
type RotateReply struct {
	Epoch gk.Epoch      `cbor:"1,keyasint" json:"epoch"`
	Done  bool          `cbor:"2,keyasint" json:"done"`
	Took  time.Duration `cbor:"3,keyasint" json:"took_ns"`
}

// StopRequest ends a stream's session.
type StopRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
	Text   string      `cbor:"2,keyasint,omitempty"`
}

// StreamsReply lists the streams that the processing service runs.
type StreamsReply struct {
	Streams []StreamInfo `cbor:"1,keyasint" json:"streams"`
}

// StreamInfo is a stream for people and programs to look at.
type StreamInfo struct {
	Stream     gk.StreamID          `cbor:"1,keyasint" json:"stream"`
	Device     gk.DeviceID          `cbor:"2,keyasint" json:"device"`
	Session    gk.SessionID         `cbor:"3,keyasint" json:"session"`
	State      string               `cbor:"4,keyasint" json:"state"` // starting, live, silent, recovering, ended
	Epoch      gk.Epoch             `cbor:"5,keyasint" json:"epoch"`
	KeySince   time.Time            `cbor:"6,keyasint,omitzero" json:"key_since,omitzero"`
	Rotations  uint64               `cbor:"7,keyasint" json:"rotations"`
	ByReason   map[gk.Reason]uint64 `cbor:"8,keyasint,omitempty" json:"by_reason,omitempty"`
	LastTook   time.Duration        `cbor:"9,keyasint,omitempty" json:"last_rotation_ns,omitempty"`
	LastReason gk.Reason            `cbor:"10,keyasint,omitempty" json:"last_reason,omitempty"`
	Rotating   bool                 `cbor:"11,keyasint,omitempty" json:"rotating,omitempty"`
	SSRC       uint32               `cbor:"12,keyasint" json:"ssrc"`
	Payload    gkrp.Payload         `cbor:"13,keyasint" json:"payload"`
	Sent       uint64               `cbor:"14,keyasint" json:"sent"` // packets, as the device reports
	Status     []StreamStatus       `cbor:"15,keyasint,omitempty" json:"status,omitempty"`
	Started    time.Time            `cbor:"16,keyasint,omitzero" json:"started,omitzero"`
}
