package attack

import (
	"fmt"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Mode is what the thief does with the key.
type Mode string

// The modes.
const (
	// Inject: now and then a burst of packets at the indices that come next.
	Inject Mode = "inject"
	// Replay: what the source showed a moment ago comes once more, sealed anew at
	// the indices that come next.
	Replay Mode = "replay"
	// Leap: packets far ahead of the source, so that it falls out of the receiver's
	// replay window and rollover counter.
	Leap Mode = "leap"
	// FirstWriter: every index, just before the source can use it.
	FirstWriter Mode = "first-writer"
	// Replace: the source's packets are taken off the path and the thief's put in
	// their place, for as long as his key opens them: who takes away what he cannot
	// replace is seen by all. It needs a place in the path.
	Replace Mode = "replace"
	// Flood: with every packet of the source, several of the thief's at the indices
	// that come next.
	Flood Mode = "flood"
)

// Modes are all of them.
var Modes = []Mode{Inject, Replay, Leap, FirstWriter, Replace, Flood}

const (
	burst      = 8  // packets of Inject and Replay at a time
	burstEvery = 40 // packets of the source between two bursts
	// leapBy is nearly the half cycle of sequence numbers that a receiver follows
	// (RFC 3711 §3.3.1). leaps of them leave every rollover counter that it would
	// try around the source.
	leapBy = 1<<15 - 2000
	leaps  = 12
)

// Stats are what the thief did.
type Stats struct {
	First gk.Index  // the first index that he took
	Began time.Time // when
	Sent  uint64
}

// Attack is a thief at work: he reads every packet that passes, and sends his own
// from where he stands.
type Attack struct {
	mode   Mode
	thief  *thief
	aside  func(pkt []byte) error // nil: from the path itself
	film   Film
	passed uint64

	mu    sync.Mutex
	stats Stats
	err   error
}

// New makes a thief with a stolen key. aside sends a packet from a place of his
// own; where it is nil, his packets go out between those that pass, from the same
// address. The error names a mode that is not one, or that needs the path.
func New(mode Mode, s Stolen, aside func(pkt []byte) error) (*Attack, error) {
	switch mode {
	case Inject, Replay, Leap, FirstWriter, Flood:
	case Replace:
		if aside != nil {
			return nil, fmt.Errorf("mode %s takes packets off the path: it cannot be done from aside", mode)
		}
	default:
		return nil, fmt.Errorf("mode %q is none of %v", mode, Modes)
	}
	t, err := newThief(s)
	if err != nil {
		return nil, err
	}
	return &Attack{mode: mode, thief: t, aside: aside}, nil
}

// Show gives the thief a film for [FirstWriter], [Replace] and [Flood]. It is to be
// called before the first packet passes; without one he makes pictures up.
func (a *Attack) Show(f Film) { a.film = f }

// Stats tells what the thief did so far, and the first error that he met.
func (a *Attack) Stats() (Stats, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats, a.err
}

// Intercept is called with every packet of the path, as by
// [media.Impairment.Intercept]. Packets of other streams pass untouched.
func (a *Attack) Intercept(pkt []byte, forward func(pkt []byte)) {
	if !a.thief.look(pkt) {
		forward(pkt)
		return
	}
	at := a.thief.at
	a.passed++
	switch a.mode {
	case FirstWriter:
		if a.aside != nil {
			// From aside the packet that passes has won already: take the next one.
			forward(pkt)
			a.write(at+1, a.picture(at+1), forward)
			return
		}
		a.write(at, a.picture(at), forward)
		forward(pkt)
	case Replace:
		a.write(at, a.picture(at), forward)
		if a.thief.shut {
			forward(pkt)
		}
	case Inject, Replay:
		forward(pkt)
		if a.passed%burstEvery != 1 {
			return
		}
		for i := range gk.Index(burst) {
			a.write(at+1+i, a.show(at+1+i, int(i)), forward)
		}
	case Flood:
		forward(pkt)
		for i := range gk.Index(burst) {
			a.write(at+1+i, a.picture(at+1+i), forward)
		}
	case Leap:
		forward(pkt)
		if a.passed%burstEvery != 1 {
			return
		}
		for i := range gk.Index(leaps) {
			to := at + (i+1)*leapBy
			a.write(to, forgery(to), forward)
		}
	}
}

// show is the picture of a burst's packet n.
func (a *Attack) show(at gk.Index, n int) []byte {
	if films := a.thief.films; a.mode == Replay && n < len(films) {
		return films[n]
	}
	return forgery(at)
}

// picture is what the film shows next.
func (a *Attack) picture(at gk.Index) []byte {
	if a.film != nil {
		if p := a.film(a.thief.films); p != nil {
			return p
		}
	}
	return forgery(at)
}

// write sends a packet of the thief's.
func (a *Attack) write(at gk.Index, payload []byte, forward func(pkt []byte)) {
	if at > gk.MaxIndex {
		return
	}
	pkt, err := a.thief.forge(at, payload)
	if err == nil {
		if a.aside != nil {
			err = a.aside(pkt)
		} else {
			forward(pkt)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if a.err == nil {
			a.err = err
		}
		return
	}
	if a.stats.Sent == 0 {
		a.stats.First, a.stats.Began = at, time.Now()
	}
	a.stats.Sent++
}
