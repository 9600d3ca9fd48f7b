package attack

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"
)

const (
	forgedTimes   = 10 // forged packets for one of the source's
	replayedTimes = 10 // recorded ones
	recordedFor   = time.Minute
)

// Outsider reads along and has no key: he floods the stream with packets that are
// well-formed but for their tag, ten for one, and then sends everything of the last
// minute once more.
type Outsider struct {
	send func(pkt []byte) error // nil: from the path

	mu       sync.Mutex
	phase    phase
	recorded []delayed
	stats    OutsiderStats
	err      error
}

type phase int

const (
	listening phase = iota
	flooding
	replaying
	gone
)

// OutsiderStats are what he did.
type OutsiderStats struct {
	Began            time.Time
	Forged, Replayed uint64
	Left             int // recorded packets that were not sent again yet
}

// NewOutsider makes one who listens. send sends from a place of his own; where it is
// nil, his packets go out between those that pass.
func NewOutsider(send func(pkt []byte) error) *Outsider { return &Outsider{send: send} }

// Flood, Replay and Leave are what he does next.
func (o *Outsider) Flood() { o.set(flooding) }

// Replay: see [Outsider.Flood].
func (o *Outsider) Replay() { o.set(replaying) }

// Leave: see [Outsider.Flood].
func (o *Outsider) Leave() { o.set(gone) }

func (o *Outsider) set(p phase) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.phase = p
}

// Stats tells what he did, and the first error that he met.
func (o *Outsider) Stats() (OutsiderStats, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Left = len(o.recorded)
	return s, o.err
}

// Intercept is called with every packet of the path, as by
// [media.Impairment.Intercept].
func (o *Outsider) Intercept(pkt []byte, forward func(pkt []byte)) {
	forward(pkt)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch o.phase {
	case listening, flooding:
		o.recorded = append(o.recorded, delayed{now, bytes.Clone(pkt)})
		for now.Sub(o.recorded[0].due) > recordedFor {
			o.recorded = o.recorded[1:]
		}
	}
	switch o.phase {
	case flooding:
		for i := range forgedTimes {
			fake := bytes.Clone(pkt)
			binary.BigEndian.PutUint16(fake[2:], binary.BigEndian.Uint16(pkt[2:])+uint16(i))
			fake[len(fake)/2] ^= byte(i + 1)
			fake[len(fake)-18] ^= byte(i + 1) // in the tag
			o.write(now, fake, forward)
			o.stats.Forged++
		}
	case replaying:
		for range min(replayedTimes, len(o.recorded)) {
			o.write(now, o.recorded[0].pkt, forward)
			o.recorded = o.recorded[1:]
			o.stats.Replayed++
		}
	}
}

func (o *Outsider) write(now time.Time, pkt []byte, forward func(pkt []byte)) {
	if o.stats.Began.IsZero() {
		o.stats.Began = now
	}
	if o.send == nil {
		forward(pkt)
	} else if err := o.send(pkt); err != nil && o.err == nil {
		o.err = err
	}
}
