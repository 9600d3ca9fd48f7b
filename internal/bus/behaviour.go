package bus

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Behaviour: what transports measure, what processing makes of it, and what
// operators ask and say about it.
const (
	// TransportWindow tells, every 250 ms for each stream, how it behaved.
	TransportWindow NewsOf[StreamWindow] = "gk.transport-news.window"

	ProcessingAlerts  Repeatable[AlertsRequest, AlertsReply]  = "gk.processing.alerts"
	ProcessingExplain Repeatable[ExplainRequest, Explanation] = "gk.processing.explain"
	ProcessingProfile Call[ProfileRequest, ProfileInfo]       = "gk.processing.profile"
	ProcessingPlanned Call[PlannedRequest, ProfileInfo]       = "gk.processing.planned-change"

	// ProcessingScores tells, once a second for each stream, how far it is from its
	// profile.
	ProcessingScores News[StreamScores] = "gk.processing-news.scores"

	// KMSSeal and KMSUnseal encrypt what processing keeps at rest and has no key
	// for. The key stays where it is.
	KMSSeal   Repeatable[SealRequest, SealReply]     = "gk.kms.seal"
	KMSUnseal Repeatable[UnsealRequest, UnsealReply] = "gk.kms.unseal"
)

// StreamWindow is the behaviour of a session over 250 ms, of packets that
// authenticated and were accepted.
type StreamWindow struct {
	Transport gk.TransportID `cbor:"1,keyasint"`
	Stream    gk.StreamID    `cbor:"2,keyasint"`
	Session   gk.SessionID   `cbor:"3,keyasint"`
	Epoch     gk.Epoch       `cbor:"4,keyasint"` // of the newest packet
	Form      uint8          `cbor:"5,keyasint"` // a feature.Form
	Window    []byte         `cbor:"6,keyasint"` // a feature.Window as it encodes itself
}

// From names the transport that announces it: see [NewsOf].
func (w StreamWindow) From() gk.TransportID { return w.Transport }

// The kinds of content that may be sealed. A profile and the settings of a stream that
// are older than what was opened before are refused, as are alerts and the fleet's
// settings; of scores, contexts, windows and episodes there are many, and their version is which.
const (
	SealedProfile = "profile"
	SealedTuning  = "tuning"  // labels and settings
	SealedScores  = "scores"  // what detectors said, a stretch
	SealedWindows = "windows" // a recording of windows
	SealedAlerts  = "alerts"  // a stream's alerts
	SealedContext = "context" // what detectors said around an alert, which the version numbers
	SealedEpisode = "episode" // windows around an alert, a part
	SealedFleet   = "fleet"   // what new streams start from, of the stream [FleetPlace]
)

// FleetPlace stands for the stream in the place of what is the fleet's.
const FleetPlace = gk.StreamID("fleet")

// MaxSealed bounds what is sealed, in bytes.
const MaxSealed = 192 << 10

// SealPlace is what sealed content belongs to. It opens for no other place.
type SealPlace struct {
	Kind    string      `cbor:"1,keyasint"` // [SealedProfile], …
	Stream  gk.StreamID `cbor:"2,keyasint"`
	Version uint64      `cbor:"3,keyasint"` // of the content
}

// SealRequest asks for content to be encrypted.
type SealRequest struct {
	Place   SealPlace `cbor:"1,keyasint"`
	Content []byte    `cbor:"2,keyasint"`
}

// SealReply brings the encrypted content.
type SealReply struct {
	Sealed []byte `cbor:"1,keyasint"`
	// Newest is the newest version that was opened. What is sealed as this one or an
	// older one does not open any more, unless it is this one itself.
	Newest uint64 `cbor:"2,keyasint,omitempty"`
}

// UnsealRequest asks for sealed content. What was changed, sealed for another place,
// or is older than a version that was opened before, is refused with
// [CodeUnauthorized].
type UnsealRequest struct {
	Place  SealPlace `cbor:"1,keyasint"`
	Sealed []byte    `cbor:"2,keyasint"`
}

// UnsealReply brings the content.
type UnsealReply struct {
	Content []byte `cbor:"1,keyasint"`
}

// Class says what evidence points to.
type Class string

// The classes of evidence.
const (
	ClassProof    Class = "proof"    // somebody else has the media key
	ClassSource   Class = "source"   // the source is no longer itself
	ClassIdentity Class = "identity" // the device's identity is used twice
	ClassPath     Class = "path"     // the network
	ClassNoise    Class = "noise"    // an outsider without a key
	ClassProfile  Class = "profile"  // what was learned is in doubt
)

// Response is what is done about a class of evidence.
type Response string

// The responses, from least to most.
const (
	RespondShow   Response = "show"   // shown by explain, no more
	RespondAlert  Response = "alert"  // an alert
	RespondHold   Response = "hold"   // an alert; a newcomer is kept out
	RespondRotate Response = "rotate" // an alert and a new key
)

// Outcome is what became of an alert.
type Outcome string

// The outcomes.
const (
	OutcomeOpen        Outcome = ""
	OutcomeCalm        Outcome = "calm"         // the evidence ended
	OutcomeStaleProven Outcome = "stale-proven" // the old key was used after the switch: somebody else had it
	OutcomeUnresolved  Outcome = "unresolved"   // the evidence stayed: an operator has to say
	OutcomeAccepted    Outcome = "accepted"     // an operator said that the source changed, or it came back as its device had announced
	OutcomeEnded       Outcome = "ended"        // the session ended first
)

// Done says what was done about an alert.
type Done string

// What can have been done.
const (
	DoneAlerted   Done = "alerted"
	DoneHeld      Done = "held"         // the newcomer was kept out
	DoneOrdered   Done = "rotating"     // a new key was ordered
	DoneRotated   Done = "rotated"      // the device confirmed the new key
	DoneNoBudget  Done = "budget-spent" // evidence had used the rotations up that it is granted
	DonePlanned   Done = "planned"      // an operator had announced the change
	DoneAnnounced Done = "announced"    // the device announced it, and no detector has seen it yet
	DoneRenewed   Done = "renewed"      // the key was changed with the change that the device announced
)

// Alert is one episode of evidence about one stream.
type Alert struct {
	ID        string       `cbor:"1,keyasint" json:"id"` // STREAM.NUMBER
	Stream    gk.StreamID  `cbor:"2,keyasint" json:"stream"`
	Session   gk.SessionID `cbor:"3,keyasint" json:"session,omitzero"`
	Class     Class        `cbor:"4,keyasint" json:"class"`
	Kind      string       `cbor:"5,keyasint" json:"kind"`
	Severity  string       `cbor:"6,keyasint" json:"severity"` // notice, warning, critical
	Score     float64      `cbor:"7,keyasint" json:"score"`    // the highest; 1 is the limit
	Evidence  []string     `cbor:"8,keyasint" json:"evidence"`
	Opened    time.Time    `cbor:"9,keyasint" json:"opened"`
	Closed    time.Time    `cbor:"10,keyasint,omitzero" json:"closed,omitzero"`
	Response  Response     `cbor:"11,keyasint" json:"response"` // what the table says
	Done      Done         `cbor:"12,keyasint" json:"done"`
	Outcome   Outcome      `cbor:"13,keyasint,omitempty" json:"outcome,omitempty"`
	Epoch     gk.Epoch     `cbor:"14,keyasint" json:"epoch"`                       // in use when it opened
	Rotated   gk.Epoch     `cbor:"15,keyasint,omitempty" json:"rotated,omitempty"` // the epoch that followed
	RotatedAt time.Time    `cbor:"16,keyasint,omitzero" json:"rotated_at,omitzero"`
	Took      int64        `cbor:"17,keyasint,omitempty" json:"took_ns,omitempty"` // the rotation, as [time.Duration]
	Count     uint64       `cbor:"18,keyasint" json:"count"`                       // how often it was seen
	// Ask is what an operator is asked, where the system alone cannot go on.
	Ask   string `cbor:"19,keyasint,omitempty" json:"ask,omitempty"`
	Stage Stage  `cbor:"20,keyasint,omitempty" json:"stage,omitempty"` // of the profile when it opened
	// Answer is what an operator said that it was; empty where nobody did.
	Answer string `cbor:"22,keyasint,omitempty" json:"answer,omitempty"`
	// Code has the exact words of the grammar that the first line of evidence told of when
	// the alert opened.
	Code string `cbor:"23,keyasint,omitempty" json:"code,omitempty"`
	// Announced is why the device, which runs its encoder itself, says that it began it
	// anew, and Regime how it says that it runs now; empty where it announced nothing.
	Announced string `cbor:"25,keyasint,omitempty" json:"announced,omitempty"`
	Regime    string `cbor:"24,keyasint,omitempty" json:"regime,omitempty"`
}

// What operators can say of an alert.
const (
	AnswerReal  = "real"
	AnswerFalse = "false"
)

// AlertsRequest asks for alerts, the newest first.
type AlertsRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint,omitempty"` // empty: of every stream
	ID     string      `cbor:"2,keyasint,omitempty"` // this one alone
	Limit  int         `cbor:"3,keyasint,omitempty"` // at most so many; 0: 100
}

// AlertsReply has alerts, the newest first.
type AlertsReply struct {
	Alerts []Alert `cbor:"1,keyasint" json:"alerts"`
}

// Stage is how far a profile is.
type Stage string

// The stages of a profile.
const (
	StageLoading     Stage = "loading"     // it is being read
	StageLearning    Stage = "learning"    // nothing is judged yet but proof
	StageProvisional Stage = "provisional" // judged with wide margins, still learned
	StageMature      Stage = "mature"
)

// Detector is how one detector sees a stream at the moment.
type Detector struct {
	Kind     string  `cbor:"1,keyasint" json:"kind"`
	Class    Class   `cbor:"2,keyasint" json:"class"`
	Score    float64 `cbor:"3,keyasint" json:"score"` // 1 is the limit
	Value    float64 `cbor:"4,keyasint" json:"value"`
	Limit    float64 `cbor:"5,keyasint" json:"limit"`
	Text     string  `cbor:"6,keyasint,omitempty" json:"text,omitempty"`
	Advisory bool    `cbor:"7,keyasint,omitempty" json:"advisory,omitempty"` // raises no alert of its own
	Code     string  `cbor:"8,keyasint,omitempty" json:"code,omitempty"`     // the exact words of the grammar that Text tells of
}

// ProfileRequest asks for what is known of a stream's profile, or, with Do, to
// approve or relearn it first.
type ProfileRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
	Do     string      `cbor:"2,keyasint,omitempty"` // "", [ProfileApprove], [ProfileRelearn], [ProfileRollback]
}

// What an operator can do with a profile.
const (
	ProfileApprove  = "approve"
	ProfileRelearn  = "relearn"
	ProfileRollback = "rollback" // the profile as it was before the last of these, as a whole
)

// PlannedRequest announces that a source will change; zero For takes it back.
type PlannedRequest struct {
	Stream gk.StreamID   `cbor:"1,keyasint"`
	For    time.Duration `cbor:"2,keyasint"`
}

// MaxPlanned bounds [PlannedRequest.For].
const MaxPlanned = 24 * time.Hour

// ProfileInfo describes a stream's profile.
type ProfileInfo struct {
	Stream   gk.StreamID `cbor:"1,keyasint" json:"stream"`
	Stage    Stage       `cbor:"2,keyasint" json:"stage"`
	Form     string      `cbor:"3,keyasint,omitempty" json:"form,omitempty"` // of the payload
	Version  uint64      `cbor:"4,keyasint" json:"version"`                  // rises with every one that is stored
	Windows  int         `cbor:"5,keyasint" json:"windows"`                  // of 250 ms learned from
	Wanted   int         `cbor:"6,keyasint" json:"windows_wanted"`           // to be mature
	Words    int         `cbor:"7,keyasint" json:"words"`                    // of the source's grammar
	Learned  time.Time   `cbor:"8,keyasint,omitzero" json:"learned,omitzero"`
	Approved time.Time   `cbor:"9,keyasint,omitzero" json:"approved,omitzero"`
	Why      string      `cbor:"10,keyasint,omitempty" json:"why,omitempty"` // why it is learned anew
	// Probation is for how many windows more margins are wide.
	Probation int       `cbor:"11,keyasint,omitempty" json:"probation_windows,omitempty"`
	Planned   time.Time `cbor:"12,keyasint,omitzero" json:"planned_until,omitzero"` // by an operator
	Stored    bool      `cbor:"13,keyasint" json:"stored"`                          // encrypted, in the key-value store
	Refused   uint64    `cbor:"14,keyasint,omitempty" json:"refused_windows,omitempty"`
	Modes     []Mode    `cbor:"15,keyasint,omitempty" json:"modes,omitempty"`
	Before    uint64    `cbor:"16,keyasint,omitempty" json:"rollback_version,omitempty"` // what rollback would bring back
	// Encoder is none where the device does not run the encoder itself.
	Encoder *Encoder `cbor:"17,keyasint,omitempty" json:"encoder,omitempty"`
}

// Mode describes one regime of a source, such as day or night.
type Mode struct {
	Name    string  `cbor:"1,keyasint" json:"name"`
	Now     bool    `cbor:"2,keyasint,omitempty" json:"now,omitempty"`   // it is judged by
	Found   bool    `cbor:"3,keyasint,omitempty" json:"found,omitempty"` // by long normal behaviour, by nobody's word
	Windows int     `cbor:"4,keyasint" json:"windows"`                   // of 250 ms learned from
	Fit     float64 `cbor:"5,keyasint" json:"fit"`                       // distance of the stream from it now, in robust deviations
	// Distance is how far the limits have moved from their anchor since the mode was
	// learned or approved, of the one that moved most: a share of how far it may.
	Distance float64 `cbor:"6,keyasint" json:"distance"`
	Moved    string  `cbor:"7,keyasint,omitempty" json:"moved,omitempty"` // the name of that limit
}

// ExplainRequest asks why a stream is judged as it is.
type ExplainRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
}

// Explanation is how a stream is judged at the moment.
type Explanation struct {
	Stream      gk.StreamID        `cbor:"1,keyasint" json:"stream"`
	Responses   map[Class]Response `cbor:"2,keyasint" json:"responses"`
	Profile     ProfileInfo        `cbor:"3,keyasint" json:"profile"`
	Sensitivity float64            `cbor:"4,keyasint" json:"sensitivity"`
	At          time.Time          `cbor:"5,keyasint,omitzero" json:"at,omitzero"` // of the newest window
	Score       float64            `cbor:"6,keyasint" json:"score"`
	Detectors   []Detector         `cbor:"7,keyasint" json:"detectors"`
	Open        []Alert            `cbor:"8,keyasint,omitempty" json:"open,omitempty"`
	Last        *Alert             `cbor:"9,keyasint,omitempty" json:"last,omitempty"`
	Outsiders   map[string]uint64  `cbor:"10,keyasint,omitempty" json:"outsiders,omitempty"` // refused in this session, by cause
	Budget      string             `cbor:"11,keyasint,omitempty" json:"budget,omitempty"`
	Ingress     *Ingress           `cbor:"20,keyasint,omitempty" json:"ingress,omitempty"`        // none: the device does not tell
	False       *Prediction        `cbor:"21,keyasint,omitempty" json:"false_episodes,omitempty"` // of class source; of a mature profile
}

// Prediction is how many false episodes a day a stream is expected to have at its
// present sensitivity, from its own quiet time and other streams': the median, and its
// central 95 % interval.
type Prediction struct {
	PerDay float64 `cbor:"1,keyasint" json:"per_day"`
	Low    float64 `cbor:"2,keyasint" json:"low"`
	High   float64 `cbor:"3,keyasint" json:"high"`
	Hours  float64 `cbor:"4,keyasint" json:"quiet_hours"` // of the stream's own
}

// StreamScores is a stream's distance from its profile.
type StreamScores struct {
	Stream    gk.StreamID        `cbor:"1,keyasint"`
	Stage     Stage              `cbor:"2,keyasint"`
	Score     float64            `cbor:"3,keyasint"` // the decision's; 1 is an alert
	Detectors map[string]float64 `cbor:"4,keyasint,omitempty"`
	Open      int                `cbor:"5,keyasint"` // alerts
}
