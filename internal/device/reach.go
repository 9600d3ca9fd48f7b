package device

import (
	"context"
	"slices"
	"time"
)

const (
	// lookupTimeout bounds one look-up of a transport's name.
	lookupTimeout = 2 * time.Second
	// lookupGrace is how long a session's beginning waits for its first address: packets
	// that have nowhere to go are lost. A name server answers within it, or hangs.
	lookupGrace = 100 * time.Millisecond
)

// found is what came of looking a transport up.
type found struct {
	address string
	out     sender
	err     error
}

// reach prepares the way to a session's transports. Where one was found before, packets
// go there until the look-up has ended, however long that takes.
func (x *session) reach(ctx context.Context, transports []string) {
	x.found = make(chan found, len(transports))
	good := make(map[string]sender, len(transports))
	for _, address := range transports {
		if out := x.good[address]; out != nil {
			good[address] = out
			x.path.setOut(x.link, nil, out)
		}
	}
	x.stream.good, x.missing = good, slices.Clone(transports)
	x.lookUp(ctx)
	grace := time.NewTimer(lookupGrace)
	defer grace.Stop()
	for len(x.good) == 0 && x.looking > 0 {
		select {
		case f := <-x.found:
			x.take(f)
		case <-grace.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// lookUp looks for the transports that have no address yet, beside the control loop: a
// name server that hangs must hold up no key.
func (x *session) lookUp(ctx context.Context) {
	wanted, c := x.missing, x.found
	x.missing, x.looking = nil, x.looking+len(wanted)
	for _, address := range wanted {
		x.beside(func() {
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			out, err := x.dial(ctx, address)
			c <- found{address, out, err}
		})
	}
}

// take has packets go to where a transport was found.
func (x *session) take(f found) {
	x.looking--
	if f.err != nil {
		x.warn("a transport cannot be reached yet", "err", f.err)
		x.missing = append(x.missing, f.address)
		return
	}
	x.path.setOut(x.link, x.good[f.address], f.out)
	x.good[f.address] = f.out
}
