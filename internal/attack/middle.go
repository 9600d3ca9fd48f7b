package attack

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// Pace says when a packet of a size leaves that arrived now, while the last one
// leaves at busy; false where it is dropped.
type Pace func(now, busy time.Time, size int) (time.Time, bool)

const (
	relayDelay = 6 * time.Millisecond
	relayTick  = time.Millisecond
)

// Relayed is the pace of a program in the path that reads every packet and sends it
// on: some milliseconds later, on the tick of its timer.
func Relayed() Pace {
	return func(now, _ time.Time, _ int) (time.Time, bool) {
		return now.Add(relayDelay).Truncate(relayTick).Add(relayTick), true
	}
}

// Throttled is the pace of a link that carries so many bytes a second, behind a
// queue that is so long at most.
func Throttled(rate float64, queue time.Duration) Pace {
	return func(now, busy time.Time, size int) (time.Time, bool) {
		if busy.Before(now) {
			busy = now
		}
		due := busy.Add(time.Duration(float64(size) / rate * float64(time.Second)))
		return due, due.Sub(now) <= queue
	}
}

// Middle is somebody in the path without a key: he takes every packet and sends it
// on, unchanged, at a pace of his own and from a socket of his own.
type Middle struct {
	pace   Pace
	send   func(pkt []byte) error
	onDrop func(pkt []byte)

	mu     sync.Mutex
	active bool
	stats  Stats
	err    error
	busy   time.Time
	queue  []delayed
	wake   chan struct{}
}

type delayed struct {
	due time.Time
	pkt []byte
}

// NewMiddle makes one that does nothing before [Middle.Begin]. onDrop is called with
// what he throws away.
func NewMiddle(p Pace, send func(pkt []byte) error, onDrop func(pkt []byte)) *Middle {
	return &Middle{pace: p, send: send, onDrop: onDrop, wake: make(chan struct{}, 1)}
}

// Begin starts the attack; End sends what is held and lets everything pass again.
func (m *Middle) Begin() { m.set(true) }

// End: see [Middle.Begin].
func (m *Middle) End() { m.set(false) }

func (m *Middle) set(active bool) {
	m.mu.Lock()
	m.active = active
	if !active {
		for i := range m.queue {
			m.queue[i].due = time.Time{}
		}
	}
	m.mu.Unlock()
	m.nudge()
}

func (m *Middle) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Stats tells what he did, and the first error that he met.
func (m *Middle) Stats() (Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats, m.err
}

// Intercept is called with every packet of the path, as by
// [media.Impairment.Intercept].
func (m *Middle) Intercept(pkt []byte, forward func(pkt []byte)) {
	m.mu.Lock()
	if !m.active && len(m.queue) == 0 {
		m.mu.Unlock()
		forward(pkt)
		return
	}
	now := time.Now()
	due, ok := now, true
	if m.active {
		if m.stats.Sent == 0 {
			m.stats.Began = now
		}
		m.stats.Sent++
		if due, ok = m.pace(now, m.busy, len(pkt)); ok {
			m.busy = due
		}
	}
	if ok {
		m.queue = append(m.queue, delayed{due, bytes.Clone(pkt)})
	}
	m.mu.Unlock()
	if !ok {
		m.onDrop(pkt)
		return
	}
	m.nudge()
}

// Run sends until ctx ends.
func (m *Middle) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-t.C:
		}
		m.mu.Lock()
		for len(m.queue) > 0 {
			wait := time.Until(m.queue[0].due)
			if wait > 0 {
				t.Reset(wait)
				break
			}
			if err := m.send(m.queue[0].pkt); err != nil && m.err == nil {
				m.err = err
			}
			m.queue = m.queue[1:]
		}
		m.mu.Unlock()
	}
}
