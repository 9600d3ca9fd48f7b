package bus

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Tuning: what operators say of alerts, and the settings that follow from it.
const (
	ProcessingFeedback Call[FeedbackRequest, FeedbackReply] = "gk.processing.feedback"
	ProcessingTuning   Call[TuningRequest, TuningInfo]      = "gk.processing.tuning"
	ProcessingFleet    Call[FleetRequest, FleetInfo]        = "gk.processing.fleet-tuning"
)

// FeedbackRequest is an operator's word: what an alert was, or, with Stream, that
// something was missed.
type FeedbackRequest struct {
	Alert string `cbor:"1,keyasint,omitempty"` // STREAM.NUMBER
	Real  bool   `cbor:"2,keyasint"`
	Note  string `cbor:"3,keyasint,omitempty"`
	By    string `cbor:"4,keyasint,omitempty"`

	Stream gk.StreamID `cbor:"5,keyasint,omitempty"`
	From   time.Time   `cbor:"6,keyasint,omitzero"`
	To     time.Time   `cbor:"7,keyasint,omitzero"`
	Kind   string      `cbor:"8,keyasint,omitempty"` // of what was missed, in the operator's words
}

// MaxNote bounds notes and kinds, in bytes, and MaxMissed the length of what was
// missed.
const (
	MaxNote   = 500
	MaxMissed = time.Hour
)

// FeedbackReply says what follows. The label is written down before it is given.
type FeedbackReply struct {
	Stream      gk.StreamID `cbor:"1,keyasint" json:"stream"`
	Label       string      `cbor:"2,keyasint" json:"label"`
	Contested   bool        `cbor:"3,keyasint" json:"contested"` // it is proven: the answer is kept and counts for nothing
	Sensitivity float64     `cbor:"4,keyasint" json:"sensitivity"`
	// Proposed is the sensitivity that is in the shadow now; 0 where there is none.
	Proposed float64 `cbor:"5,keyasint" json:"proposed_sensitivity,omitzero"`
	Text     string  `cbor:"6,keyasint" json:"text"`
}

// What can be asked of tuning.
const (
	TuningShow    = ""
	TuningPropose = "propose" // search for settings, and show them
	TuningApply   = "apply"   // the same, and put them in the shadow
	TuningRevert  = "revert"
	TuningAuto    = "auto"
)

// TuningRequest asks about the settings of a stream, or changes them.
type TuningRequest struct {
	Stream gk.StreamID `cbor:"1,keyasint"`
	Do     string      `cbor:"2,keyasint,omitempty"`
	// Saw is the revision that was looked at: a change of another is refused. 0: any.
	Saw  uint64 `cbor:"3,keyasint,omitempty"`
	To   uint64 `cbor:"4,keyasint,omitempty"` // revert to this revision; 0: to the one before
	Auto bool   `cbor:"5,keyasint,omitempty"`
	By   string `cbor:"6,keyasint,omitempty"`
}

// TuningSetting is a setting of a stream, with why it is there.
type TuningSetting struct {
	Revision    uint64             `cbor:"1,keyasint" json:"revision"`
	Phase       string             `cbor:"2,keyasint" json:"phase"`
	At          time.Time          `cbor:"3,keyasint" json:"at"`
	Sensitivity float64            `cbor:"4,keyasint" json:"sensitivity"`
	Cutoff      float64            `cbor:"5,keyasint" json:"cutoff"` // in limits at sensitivity 0.5
	Persistence int                `cbor:"6,keyasint" json:"persistence_windows"`
	Weights     map[string]float64 `cbor:"7,keyasint" json:"weights"`
	By          string             `cbor:"8,keyasint" json:"by"`
	Method      string             `cbor:"9,keyasint,omitempty" json:"method,omitempty"`
	Reason      string             `cbor:"10,keyasint,omitempty" json:"reason,omitempty"`
	Saw         string             `cbor:"11,keyasint,omitempty" json:"saw,omitempty"`
	// Expected false alarms a day with their 95 % interval, and share of known
	// episodes detected; of what they were found from.
	FalsePerDay float64 `cbor:"12,keyasint" json:"false_per_day"`
	Low         float64 `cbor:"13,keyasint" json:"false_per_day_low"`
	High        float64 `cbor:"14,keyasint" json:"false_per_day_high"`
	Detected    float64 `cbor:"15,keyasint" json:"detected"`
	Episodes    float64 `cbor:"16,keyasint" json:"episodes"`
	Hours       float64 `cbor:"17,keyasint" json:"quiet_hours"`
}

// TuningInfo is how a stream is tuned.
type TuningInfo struct {
	Stream   gk.StreamID     `cbor:"1,keyasint" json:"stream"`
	Revision uint64          `cbor:"2,keyasint" json:"revision"`
	Auto     bool            `cbor:"3,keyasint" json:"auto"`
	Live     TuningSetting   `cbor:"4,keyasint" json:"live"`
	Shadow   *TuningSetting  `cbor:"5,keyasint,omitempty" json:"shadow,omitempty"`
	History  []TuningSetting `cbor:"6,keyasint" json:"history"`
	Proposal *TuningProposal `cbor:"7,keyasint,omitempty" json:"proposal,omitempty"`
	Labels   TuningLabels    `cbor:"8,keyasint" json:"labels"`
	// Budget is how long one false rotation is granted for, Left how many rotations
	// evidence about the source may cause at once now.
	Budget   time.Duration `cbor:"9,keyasint" json:"budget_ns"`
	Left     int           `cbor:"10,keyasint" json:"rotations_left"`
	Observed time.Duration `cbor:"11,keyasint" json:"shadow_observed_ns,omitzero"` // of the setting in the shadow
	// Searched is when the system last looked for better settings by itself, Next when it
	// will; zero where it did not or will not.
	Searched time.Time `cbor:"12,keyasint,omitzero" json:"searched,omitzero"`
	Next     time.Time `cbor:"13,keyasint,omitzero" json:"next_search,omitzero"`
}

// TuningLabels counts what is known.
type TuningLabels struct {
	False     int `cbor:"1,keyasint" json:"false"`
	Real      int `cbor:"2,keyasint" json:"real"`
	Missed    int `cbor:"3,keyasint" json:"missed"`
	Proven    int `cbor:"4,keyasint" json:"proven"`
	Contested int `cbor:"5,keyasint" json:"contested"`
	Simulated int `cbor:"6,keyasint" json:"simulated"`
}

// TuningProposal is what a search found.
type TuningProposal struct {
	Now    TuningSetting `cbor:"1,keyasint" json:"now"`
	Then   TuningSetting `cbor:"2,keyasint" json:"then"`
	Method string        `cbor:"3,keyasint" json:"method"`
	Why    string        `cbor:"4,keyasint" json:"why"`
	Tried  int           `cbor:"5,keyasint" json:"settings_tried"`
	Took   time.Duration `cbor:"6,keyasint" json:"took_ns"`
	Data   string        `cbor:"7,keyasint" json:"data"`
	// HeldOut is the share detected of simulated kinds that nothing was tuned by.
	HeldOut         float64 `cbor:"8,keyasint" json:"held_out_detected"`
	Unseen          int     `cbor:"9,keyasint" json:"simulated_unseen"` // simulated episodes that no cut-off would show
	HeldOutEpisodes int     `cbor:"10,keyasint" json:"held_out_episodes"`
	// Anew is how many labels count by what is said of their windows now, Lost how many do
	// not count because other detectors ran then.
	Anew int `cbor:"11,keyasint,omitempty" json:"labels_judged_anew,omitempty"`
	Lost int `cbor:"12,keyasint,omitempty" json:"labels_lost,omitempty"`
}

// FleetRequest asks for the settings of all streams together: with Apply, they are put
// in every stream's shadow, and new streams begin with them.
type FleetRequest struct {
	Apply bool   `cbor:"1,keyasint,omitempty"`
	By    string `cbor:"2,keyasint,omitempty"`
}

// FleetInfo is how the fleet is tuned.
type FleetInfo struct {
	Prior    TuningSetting   `cbor:"1,keyasint" json:"prior"` // what new streams begin with
	Proposal *TuningProposal `cbor:"2,keyasint,omitempty" json:"proposal,omitempty"`
	Streams  int             `cbor:"3,keyasint" json:"streams"` // with a history
	Applied  []gk.StreamID   `cbor:"4,keyasint" json:"applied,omitempty"`
}
