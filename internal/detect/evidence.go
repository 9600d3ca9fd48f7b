package detect

import "github.com/gaitkeeper/gaitkeeper/internal/episode"

// Class says what evidence points to, and with it what is done about it.
type Class string

// The classes that behaviour can show.
const (
	Proof  Class = "proof"  // somebody else has the media key
	Source Class = "source" // the source is no longer itself
	Path   Class = "path"   // the network changed: shown, never answered with a key
)

// Evidence is what one detector says about one hop.
type Evidence struct {
	Kind  string // what was seen: the name of the detector
	Class Class
	Score float64 // value over limit: 1 and more accuses
	Value float64
	Limit float64
	Text  string // in words and numbers; set where Score is at least 0.5 with its gain
	Code  string // the exact words of the grammar that Text tells of, if it does
	// Level is the score before weights and sensitivity, of evidence that accuses: what
	// is kept for tuning.
	Level episode.Level
	// Advisory evidence explains and supports. It raises no alarm, because on its own
	// the picture or the path make it as well.
	Advisory bool
}

// Detector is one way of telling a source from itself.
type Detector interface {
	// Name is the detector's, for weights and for explaining.
	Name() string
	// Score looks at one hop. It is called for every hop after the baseline, in order.
	Score(v *View) Evidence
}

// said is the score from which evidence is put into words.
const said = 0.5
