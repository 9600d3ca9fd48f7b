package gkrp

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The limits of an [Encoder]'s words.
const (
	MaxWhy    = 32 // bytes
	MaxRegime = 63 // bytes
)

// Why says for what cause a device began its encoder anew.
type Why string

// The causes that this package's device gives; others may come.
const (
	WhyFailed  Why = "failed"  // the encoder ended by itself
	WhyLost    Why = "lost"    // what receives from the encoder for the device lost it, and was begun anew
	WhyChanged Why = "changed" // the device's owner had it run otherwise
)

// Encoder is what a device says of an encoder that it runs itself: that it began it
// anew, why, and in which regime it has it run. It is told in every REPORT, so that no
// single one matters, and a change is news once.
type Encoder struct {
	Changes uint64 `cbor:"1,keyasint"`           // how often it was begun anew or changed since the device's start
	AgoMs   uint32 `cbor:"2,keyasint"`           // since the first packet after the last of those; 0 where there was none
	Why     Why    `cbor:"3,keyasint,omitempty"` // of the last
	Regime  string `cbor:"4,keyasint,omitempty"` // the owner's name for how the encoder runs now
}

// majorText is the major type of text in the first three bits of an item (RFC 8949 §3.1).
const majorText = 3

// UnmarshalCBOR decodes strictly: a cause or regime that is there is not empty. One that
// is left out is.
func (e *Encoder) UnmarshalCBOR(data []byte) error {
	var wire struct {
		Changes uint64          `cbor:"1,keyasint"`
		AgoMs   uint32          `cbor:"2,keyasint"`
		Why     cbor.RawMessage `cbor:"3,keyasint"`
		Regime  cbor.RawMessage `cbor:"4,keyasint"`
	}
	if err := decMode.Unmarshal(data, &wire); err != nil {
		return err
	}
	*e = Encoder{Changes: wire.Changes, AgoMs: wire.AgoMs}
	return errors.Join(optionalName(wire.Why, (*string)(&e.Why)), optionalName(wire.Regime, &e.Regime))
}

// optionalName decodes a name where there is one.
func optionalName(wire cbor.RawMessage, name *string) error {
	if len(wire) == 0 {
		return nil
	}
	if err := decMode.Unmarshal(wire, name); err != nil {
		return err
	}
	if wire[0]>>5 != majorText || *name == "" {
		return errors.New("the name of a cause or regime is empty, or no text: leave it out")
	}
	return nil
}

func (e *Encoder) validate() error {
	if e.Why != "" && (len(e.Why) > MaxWhy || !isName(string(e.Why))) {
		return fmt.Errorf("the cause of a change is %d bytes, want letters, digits, - and _, %d at most", len(e.Why), MaxWhy)
	}
	if e.Regime != "" && !IsRegime(e.Regime) {
		return fmt.Errorf("a regime of %d bytes, want letters, digits, - and _, %d at most", len(e.Regime), MaxRegime)
	}
	return nil
}

// IsRegime reports whether s can be the name of a regime: 1 to 63 letters, digits, '-'
// and '_', beginning with a letter or digit.
func IsRegime(s string) bool { return len(s) <= MaxRegime && isName(s) }

// isName keeps what is shown to people to what no terminal acts on.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '-' || c == '_') && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
