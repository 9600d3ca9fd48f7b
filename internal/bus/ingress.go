package bus

import "time"

// Ingress is what a stream's device says of its source: what came in there,
// before the device's pacing and the network.
type Ingress struct {
	At      time.Time `cbor:"1,keyasint" json:"at"`                       // the newest summary was received
	Rate    float64   `cbor:"2,keyasint" json:"bytes_s"`                  // of payload, over the newest summary
	Usual   float64   `cbor:"3,keyasint" json:"usual_bytes_s"`            // the median of the last half minute
	Packets float64   `cbor:"4,keyasint" json:"packets_s"`                // the same for packets
	GapMs   uint32    `cbor:"5,keyasint" json:"gap_ms"`                   // the longest in the newest summary
	IdleMs  uint32    `cbor:"6,keyasint" json:"idle_ms"`                  // without a packet, at its end
	Missing uint64    `cbor:"7,keyasint" json:"missing"`                  // lost before the device, in this session
	Breaks  uint64    `cbor:"8,keyasint" json:"breaks"`                   // restarts and jumps of the source, in this session
	Strange uint64    `cbor:"9,keyasint" json:"not_media"`                // input left out, in this session
	Broke   time.Time `cbor:"10,keyasint,omitzero" json:"broke,omitzero"` // the last of those restarts was told
	Says    string    `cbor:"11,keyasint" json:"says"`                    // in words
}
