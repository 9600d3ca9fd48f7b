package gaitkeeper

import "time"

// EventKind says what happened.
type EventKind string

// The kinds of event. They are the audit trail, the live feed and what tests assert.
const (
	EventSessionStarted   EventKind = "session-started"    // first ACK of a session verified
	EventSessionEnded     EventKind = "session-ended"      // BYE, STOP, replaced or silent
	EventSessionRejected  EventKind = "session-rejected"   // HELLO refused; Detail has the code
	EventSessionRecovered EventKind = "session-recovered"  // a restarted service took a running session up again
	EventRotationDecided  EventKind = "rotation-decided"   // a new epoch was ordered
	EventEpochArmed       EventKind = "epoch-armed"        // a transport can open the epoch
	EventGrantSent        EventKind = "grant-sent"         // the sealed key left for the device
	EventRotationDone     EventKind = "rotation-done"      // the device's ACK verified
	EventEpochFirstPacket EventKind = "epoch-first-packet" // a transport opened the epoch's first packet
	EventEpochRetired     EventKind = "epoch-retired"      // an epoch stopped being delivered
	EventKeyState         EventKind = "key-state"          // a key changed its SP 800-57 state
	EventDeviceEnrolled   EventKind = "device-enrolled"
	EventDeviceRevoked    EventKind = "device-revoked"
	EventTokenIssued      EventKind = "token-issued"
	EventProof            EventKind = "proof"        // evidence of a second key holder
	EventIdentity         EventKind = "identity"     // a second session of a device that is sending was held
	EventBudgetSpent      EventKind = "budget-spent" // evidence asks for more rotations than the budget allows
	EventOutsider         EventKind = "outsider"     // forged, replayed or unknown traffic; at once, then at most once a minute while it lasts
	EventServiceStarted   EventKind = "service-started"
	EventServiceStopped   EventKind = "service-stopped"

	EventAlertOpened    EventKind = "alert-opened"    // evidence about a stream; Detail has id, class, kind, evidence, response
	EventAlertChanged   EventKind = "alert-changed"   // something was done about it, or an operator is asked
	EventAlertClosed    EventKind = "alert-closed"    // Detail has the outcome
	EventProfileStage   EventKind = "profile-stage"   // a profile is learning, provisional or mature; approved; its probation is over
	EventProfileRefused EventKind = "profile-refused" // a stored profile was changed by somebody, or put back
	EventPlannedChange  EventKind = "planned-change"  // an operator announced that a source will change, or its device that it began its encoder anew; Detail has who

	EventAnnouncementRefused EventKind = "announcement-refused" // a device's announcement came late, or too often: it changes nothing; told once a minute

	EventRenewalRefused EventKind = "renewal-refused" // a source breaks off too often: its key is changed, but breaks excuse nothing; told once a minute

	EventStreamDisarmed EventKind = "stream-disarmed" // a transport wiped a stream's keys by order
	EventStreamHeld     EventKind = "stream-held"     // viewers get what was chosen for held streams; Detail has what and why
	EventStreamFreed    EventKind = "stream-freed"    // they get the stream again
	EventLeaseLapsed    EventKind = "lease-lapsed"    // a transport stopped delivering: nobody vouches for the session
	EventLeaseRenewed   EventKind = "lease-renewed"   // it delivers again
	EventAuditBroken    EventKind = "audit-broken"    // the audit trail was cut or changed; Detail has where it is kept
	EventKEKRotated     EventKind = "kek-rotated"     // the key store is wrapped with another key-encryption key; Detail has from, to and the outcome, once "begun"
)

// Event is one thing that happened, told by the service that did or saw it.
// It never carries a secret. Unused fields are zero.
type Event struct {
	At      time.Time         `json:"at" cbor:"1,keyasint"`
	Kind    EventKind         `json:"kind" cbor:"2,keyasint"`
	Service string            `json:"service,omitempty" cbor:"3,keyasint,omitempty"`
	Device  DeviceID          `json:"device,omitempty" cbor:"4,keyasint,omitempty"`
	Stream  StreamID          `json:"stream,omitempty" cbor:"5,keyasint,omitempty"`
	Session SessionID         `json:"session,omitzero" cbor:"6,keyasint,omitzero"`
	Epoch   Epoch             `json:"epoch,omitempty" cbor:"7,keyasint,omitempty"`
	Reason  Reason            `json:"reason,omitempty" cbor:"8,keyasint,omitempty"`
	Index   Index             `json:"index,omitempty" cbor:"9,keyasint,omitempty"`
	Took    time.Duration     `json:"took_ns,omitempty" cbor:"10,keyasint,omitempty"`
	Detail  map[string]string `json:"detail,omitempty" cbor:"11,keyasint,omitempty"`
}
