package bus

import "time"

// ProcessingEpisode shows what a stream did around an alert.
const ProcessingEpisode Call[EpisodeRequest, Episode] = "gk.processing.episode"

// EpisodeRequest asks for the windows around an alert.
type EpisodeRequest struct {
	Alert string `cbor:"1,keyasint"` // STREAM.NUMBER
}

// Episode is the windows around an alert, as they were kept, and what detectors said of
// them then and would say now.
type Episode struct {
	Alert  string    `cbor:"1,keyasint" json:"alert"`
	Opened time.Time `cbor:"2,keyasint" json:"opened"`
	Closed time.Time `cbor:"3,keyasint,omitzero" json:"closed,omitzero"`
	Form   string    `cbor:"4,keyasint" json:"payload"`
	From   time.Time `cbor:"5,keyasint" json:"from"`
	// Features names the numbers of a window, in order.
	Features []string        `cbor:"6,keyasint" json:"features"`
	Windows  []EpisodeWindow `cbor:"7,keyasint" json:"windows"`
	// Now is the greatest score that the present profile gives while the alert was open,
	// in limits, and Cutoff what decides at present; NotNow says why there is none.
	Now    float64 `cbor:"8,keyasint" json:"now"`
	Kind   string  `cbor:"9,keyasint,omitempty" json:"now_kind,omitempty"`
	Cutoff float64 `cbor:"10,keyasint" json:"cutoff"`
	NotNow string  `cbor:"11,keyasint,omitempty" json:"not_now,omitempty"`
}

// EpisodeWindow is a window of 250 ms. Scores are in limits at a sensitivity of 0.5,
// the greatest that is about the source.
type EpisodeWindow struct {
	Packets uint64    `cbor:"1,keyasint" json:"packets"`
	Bytes   uint64    `cbor:"2,keyasint" json:"bytes"`
	Frames  uint64    `cbor:"3,keyasint" json:"frames"`
	Lost    uint64    `cbor:"4,keyasint" json:"lost"`
	MaxGap  int64     `cbor:"5,keyasint" json:"max_gap_ns"`
	Words   int       `cbor:"6,keyasint" json:"words"`                       // different words of grammar
	Numbers []float32 `cbor:"7,keyasint,omitempty" json:"numbers,omitempty"` // see Features; none where too few packets came
	Then    float64   `cbor:"8,keyasint" json:"then"`
	Said    string    `cbor:"9,keyasint,omitempty" json:"then_kind,omitempty"`
	Now     float64   `cbor:"10,keyasint" json:"now"`
	Says    string    `cbor:"11,keyasint,omitempty" json:"now_kind,omitempty"`
}
