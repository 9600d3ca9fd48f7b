package feature

// OutsiderCounters counts what somebody without the media key sent. It is a type
// of its own and has no path into a [Window]: outsiders can shape no profile, no
// score and no label.
type OutsiderCounters struct {
	Forged       uint64 // authentication failed
	Replayed     uint64 // authentic, and seen before
	UnknownEpoch uint64 // names a key that is not armed
	BadLength    uint64 // too short for what it announces
}

// Add adds the counts of o.
func (c *OutsiderCounters) Add(o OutsiderCounters) {
	c.Forged += o.Forged
	c.Replayed += o.Replayed
	c.UnknownEpoch += o.UnknownEpoch
	c.BadLength += o.BadLength
}

// Total is the number of packets counted.
func (c OutsiderCounters) Total() uint64 {
	return c.Forged + c.Replayed + c.UnknownEpoch + c.BadLength
}
