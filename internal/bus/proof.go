package bus

// proofs say what a transport saw that shows a second holder of the media key.
var proofs = map[string]string{
	"two-writers":      "two different packets, both sealed with the stream's key, under one number",
	"before-first":     "a packet sealed with a new key, before the device's own switch to it",
	"past-end":         "a packet sealed with the key before, behind the device's own switch to a new one",
	"other-tag":        "a packet sealed with the stream's key in place of the one that the device signed for",
	"unlisted":         "a packet sealed with the stream's key under a number that the device did not use",
	"more-than-sent":   "more packets sealed with the stream's key than the device signed for",
	"longer-than-sent": "packets sealed with the stream's key that are longer than the device signed for",
	"other-length":     "packets sealed with the stream's key that have other lengths than the device signed for",
	"ahead":            "a packet sealed with the stream's key under a number that the device had not come to",
}

// Words says what was seen, for people; empty for a kind that this program does not know.
func (p *Proof) Words() string { return proofs[p.What] }
