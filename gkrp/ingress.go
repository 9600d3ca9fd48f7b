package gkrp

import "fmt"

// The limits of an [Ingress].
const (
	MarkBytes = 4  // of one mark
	MaxMarks  = 48 // in one summary
)

// Ingress sums up what came into the device from its source since the summary
// before, or since the session's first key: what the encoder did before the
// device's pacing and the network touched it. Whoever receives the media tells by
// it a source that changed from a path that did.
type Ingress struct {
	SpanMs  uint32 `cbor:"1,keyasint"`           // what the summary covers
	Packets uint64 `cbor:"2,keyasint"`           // that came in
	Bytes   uint64 `cbor:"3,keyasint"`           // of their RTP payload
	GapMs   uint32 `cbor:"4,keyasint"`           // the longest time without a packet that ended, or goes on, in the span
	IdleMs  uint32 `cbor:"5,keyasint"`           // since the last packet, at the span's end
	Frames  uint64 `cbor:"6,keyasint,omitempty"` // pictures, or stretches of one timestamp
	Missing uint64 `cbor:"7,keyasint,omitempty"` // packets that were lost on the way to the device, by the encoder's own numbers
	Breaks  uint64 `cbor:"8,keyasint,omitempty"` // restarts and jumps of the source
	Strange uint64 `cbor:"9,keyasint,omitempty"` // input that was no media, and left out
	// Marks are hashes of what the encoder says of itself and repeats: parameter
	// sets, its own signature, the kinds of its units. How they are made is the
	// device's business; one that a session did not have before means that the
	// encoder changed.
	Marks []byte `cbor:"10,keyasint,omitempty"`
}

func (i *Ingress) validate() error {
	if len(i.Marks)%MarkBytes != 0 || len(i.Marks) > MaxMarks*MarkBytes {
		return fmt.Errorf("%d bytes of marks, want %d for each of %d at most", len(i.Marks), MarkBytes, MaxMarks)
	}
	return nil
}
