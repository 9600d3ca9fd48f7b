package media

// Verdict is what an [Opener] found out about a packet. The zero value is not a
// verdict.
type Verdict uint8

// The verdicts. Those up to [Duplicate] need no key to cause; from [TwoWriters]
// on the packet did authenticate, so that whoever made it holds the key.
const (
	// BadPacket: too short for SRTP, not RTP version 2, or of another SSRC or epoch.
	BadPacket Verdict = iota + 1
	// AuthFail: the tag is wrong under every index that the packet could have.
	AuthFail
	// TooOld: below the replay window, whose past is forgotten. Not authenticated.
	TooOld
	// Duplicate: index and tag were seen before; the network repeated the packet,
	// or an outsider did.
	Duplicate
	// TwoWriters: authentic, but another authentic packet had this index before.
	TwoWriters
	// BeforeFirst: authentic, but below the index at which the epoch begins.
	BeforeFirst
	// PastEnd: authentic, but at or past the index at which the next epoch begins.
	PastEnd
	// OK: authentic and new.
	OK
)

// NumVerdicts sizes an array indexed by Verdict.
const NumVerdicts = int(OK) + 1

// Authentic reports whether the packet was made by a holder of the key, now.
func (v Verdict) Authentic() bool { return v >= TwoWriters }

// Proof reports whether the packet shows that a second party holds the key: the
// device uses an index once, and epochs do not overlap.
func (v Verdict) Proof() bool { return v == TwoWriters || v == BeforeFirst || v == PastEnd }

func (v Verdict) String() string {
	switch v {
	case BadPacket:
		return "bad-packet"
	case AuthFail:
		return "auth-failed"
	case TooOld:
		return "too-old"
	case Duplicate:
		return "duplicate"
	case TwoWriters:
		return "two-writers"
	case BeforeFirst:
		return "before-first"
	case PastEnd:
		return "past-end"
	case OK:
		return "ok"
	}
	return "no-verdict"
}
