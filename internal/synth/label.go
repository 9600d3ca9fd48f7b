package synth

// Event is something that was done to a stream. Times are in seconds: those of a
// film count from its beginning, those of a capture from its first packet.
type Event struct {
	Start     float64 `json:"t_start"`
	End       float64 `json:"t_end"`
	Kind      string  `json:"kind"`
	Malicious bool    `json:"malicious"`
	Planned   bool    `json:"planned"` // the device announces it
	Detail    string  `json:"detail"`
}

// Label is what is known of a capture: the file NAME.json beside NAME.pcap.gz.
type Label struct {
	Capture     string  `json:"capture"`
	Split       Split   `json:"split"`
	Seed        uint64  `json:"seed"`
	Footage     string  `json:"footage"`
	Encoder     string  `json:"encoder"`
	Codec       string  `json:"codec"`
	PayloadForm string  `json:"payload_form"` // ts or native
	Sender      string  `json:"sender"`
	Network     string  `json:"network"`
	Position    string  `json:"attacker_position,omitempty"` // pre or post: before or behind the path
	Baseline    float64 `json:"baseline_end_s"`
	Duration    float64 `json:"duration_s"`
	Port        int     `json:"dst_port"`
	SSRC        string  `json:"ssrc"`
	PayloadType int     `json:"pt"`
	Packets     int     `json:"packets"`
	Bytes       int     `json:"bytes"`
	MeanKbps    float64 `json:"mean_kbps"`
	SnapLength  int     `json:"snap_length"`
	Software    string  `json:"software"` // ffmpeg's version
	RepeatsFrom float64 `json:"content_repeats_from_s,omitempty"`
	Events      []Event `json:"events"`
}
