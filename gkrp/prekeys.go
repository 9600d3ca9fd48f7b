package gkrp

import (
	"bytes"
	"slices"
	"time"
)

// proofReserve is the number of prekeys that only proof may use up.
const proofReserve = 1

// refill asks the device for prekeys, and for when to ask again.
func (s *Session) refill(now time.Time) Effect {
	s.refilling.next(now, s.timing)
	return Send{&Refill{Stream: s.Stream, Session: s.Session}}
}

func (s *Session) addPrekeys(keys [][]byte) {
	defer func() {
		if len(s.Prekeys) > proofReserve {
			s.refilling = backoff{}
		}
	}()
	for _, k := range keys {
		if len(s.Prekeys) < 2*MaxPrekeys && !slices.ContainsFunc(s.Prekeys, func(o []byte) bool { return bytes.Equal(o, k) }) {
			s.Prekeys = append(s.Prekeys, k)
		}
	}
}
