package processing

import (
	"context"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// What happens to all streams together, a restart or a cut of the network, has them
// all begin, read or write their records together. Each is several writes with a
// deadline: if all were asked for at once, none would be answered in time, and all be
// asked for again. So they pass a gate, a few at a time: new sessions through one,
// records of behaviour through another. A running session's keys wait at none.

// gateWidth is how many pass at a time.
const gateWidth = 8

// gate lets a few through at a time; each stream has its lane.
type gate [gateWidth]chan struct{}

func newGate() (g gate) {
	for i := range g {
		g[i] = make(chan struct{}, 1)
	}
	return g
}

// pass runs f when it is the stream's turn, unless ctx ends before.
func (g *gate) pass(ctx context.Context, s *Service, id gk.StreamID, f func() error) error {
	lane := g[seedOf(id)%gateWidth]
	if err := s.cfg.Host.Acquire(ctx, lane); err != nil {
		return err
	}
	defer func() { <-lane }()
	return f()
}

// phase is a stream's own part of a time. What every stream does once in that time it
// does at its phase, so that they do not all do it together.
func phase(id gk.StreamID, every time.Duration) time.Duration {
	return time.Duration(seedOf(id) % uint64(every))
}
