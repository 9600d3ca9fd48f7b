package bus

import "time"

// Encoder is what a stream's device says of the encoder that it runs itself, and what
// was made of its word.
type Encoder struct {
	Regime  string    `cbor:"1,keyasint,omitempty" json:"regime,omitempty"` // how it runs now, by its owner's name for it
	Known   bool      `cbor:"2,keyasint,omitempty" json:"known,omitempty"`  // the profile has a regime of that name
	Changes uint64    `cbor:"3,keyasint" json:"changes"`                    // how often it was begun anew since the device's start
	Why     string    `cbor:"4,keyasint,omitempty" json:"why,omitempty"`    // the last time
	At      time.Time `cbor:"5,keyasint,omitzero" json:"at,omitzero"`       // of that
	Until   time.Time `cbor:"6,keyasint,omitzero" json:"until,omitzero"`    // for so long the announcement of it is in force
	Taken   uint64    `cbor:"7,keyasint" json:"taken"`                      // announcements that were heeded, in this session
	Refused uint64    `cbor:"8,keyasint" json:"refused"`                    // and those that were not
	Left    int       `cbor:"9,keyasint" json:"left"`                       // that would be heeded at present
}
