package gkrp

import (
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Record is what of a session is written down. A service that takes the session
// over goes on from it.
type Record struct {
	Device     gk.DeviceID          `cbor:"1,keyasint"`
	Stream     gk.StreamID          `cbor:"2,keyasint"`
	Session    gk.SessionID         `cbor:"3,keyasint"`
	SSRC       uint32               `cbor:"4,keyasint"`
	Version    Version              `cbor:"5,keyasint"`
	Suite      Suite                `cbor:"6,keyasint"`
	Payload    Payload              `cbor:"7,keyasint"`
	Transports []gk.TransportID     `cbor:"8,keyasint"`
	Epoch      gk.Epoch             `cbor:"9,keyasint"`            // confirmed by the device; 0 until the first ACK
	First      gk.Index             `cbor:"10,keyasint"`           // where Epoch begins
	Near       gk.Index             `cbor:"11,keyasint"`           // last reported
	Pending    gk.Reason            `cbor:"12,keyasint,omitempty"` // of a rotation that was ordered, perhaps granted, not confirmed
	Prekeys    [][]byte             `cbor:"13,keyasint"`           // not yet used
	Rotations  uint64               `cbor:"14,keyasint"`
	ByReason   map[gk.Reason]uint64 `cbor:"15,keyasint"`
	Since      time.Time            `cbor:"16,keyasint"` // when Epoch was confirmed
	Started    time.Time            `cbor:"17,keyasint"`
	Took       time.Duration        `cbor:"18,keyasint"` // of the last rotation, decision to ACK
	Ended      bool                 `cbor:"19,keyasint,omitempty"`
	Term       uint64               `cbor:"20,keyasint"`
}

// snapshot is a copy of the record that later steps do not change.
func (s *Session) snapshot() Record {
	r := s.Record
	r.Prekeys = slices.Clone(r.Prekeys)
	r.Transports = slices.Clone(r.Transports)
	r.ByReason = make(map[gk.Reason]uint64, len(s.ByReason))
	for k, v := range s.ByReason {
		r.ByReason[k] = v
	}
	return r
}
