package transport

import "github.com/gaitkeeper/gaitkeeper/internal/media"

// cause is why a packet was not delivered. Packets are counted by it and never
// logged one by one.
type cause uint8

const (
	causeBadLength   cause = iota // shorter than its header, its tag or its padding says
	causeBadVersion               // not RTP version 2
	causeUnknownSSRC              // no session has it
	causeUnknownEpoch
	causeStaleEpoch    // its key was held here once
	causeAuthFailed    // forged, or sealed for another index
	causeTooOld        // below the replay window
	causeDuplicate     // the network's repetition, or an outsider's
	causeTwoWriters    // authentic, but another packet had its index
	causeBeforeFirst   // authentic, but below its epoch's first index
	causePastEnd       // authentic, but the next epoch had begun
	causeStaleProven   // authentic under a key kept only to watch its misuse
	causeStaleUnproven // not authentic under such a key
	causeLate          // its gap had been given up
	causeNotSent       // authentic, but not what the device reported to have sent
	causeLeaseOver     // nobody vouches for the session any more
	causeHeld          // the stream is held, and shows something else
	causeReplaced      // authentic, but another session has the stream
	numCauses
)

var causeNames = [numCauses]string{
	causeBadLength: "bad-length", causeBadVersion: "bad-version", causeUnknownSSRC: "unknown-ssrc",
	causeUnknownEpoch: "unknown-epoch", causeStaleEpoch: "stale-epoch", causeAuthFailed: "auth-failed",
	causeTooOld: "too-old", causeDuplicate: "duplicate", causeTwoWriters: "two-writers",
	causeBeforeFirst: "before-first", causePastEnd: "past-end", causeStaleProven: "stale-proven",
	causeStaleUnproven: "stale-unproven", causeLate: "late", causeNotSent: "not-sent", causeLeaseOver: "lease-over", causeHeld: "held", causeReplaced: "replaced",
}

func (c cause) String() string { return causeNames[c] }

// outsider tells the causes that need no key, and so accuse nobody.
func (c cause) outsider() bool {
	switch c {
	case causeBadLength, causeBadVersion, causeUnknownSSRC, causeUnknownEpoch, causeStaleEpoch, causeAuthFailed, causeTooOld, causeStaleUnproven:
		return true
	}
	return false
}

// causeOf translates what the opener found; a packet under a watched key has
// causes of its own.
var causeOf = [media.NumVerdicts]cause{
	media.BadPacket: causeBadLength, media.AuthFail: causeAuthFailed, media.TooOld: causeTooOld,
	media.Duplicate: causeDuplicate, media.TwoWriters: causeTwoWriters,
	media.BeforeFirst: causeBeforeFirst, media.PastEnd: causePastEnd,
}

type counts [numCauses]uint64

// names gives the causes that occurred, and nil if none did.
func (c *counts) names() map[string]uint64 {
	var m map[string]uint64
	for i, n := range c {
		if n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[cause(i).String()] = n
		}
	}
	return m
}
