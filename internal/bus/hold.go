package bus

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// TransportHold has a transport show, in the place of a stream, what its operator
// chose for streams that are held, or show the stream again.
const TransportHold RepeatableTo[HoldRequest, Empty] = "gk.transport.hold"

// HoldRequest says whether a stream is held. It lasts until the next; repeating it
// is no error.
type HoldRequest struct {
	Stream gk.StreamID   `cbor:"1,keyasint"`
	Held   bool          `cbor:"2,keyasint"`
	Why    string        `cbor:"3,keyasint,omitempty"` // for people
	Term   uint64        `cbor:"4,keyasint"`
	Beat   time.Duration `cbor:"5,keyasint,omitempty"` // see [Newer]
	// Started is of the transport that it is for, as in [Lease]; zero where its sender
	// never heard it.
	Started time.Time `cbor:"6,keyasint,omitzero"`
}
