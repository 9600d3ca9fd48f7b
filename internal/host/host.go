// Package host is what a service needs of the machine it runs on: the time, and
// ways to wait and to do things beside one another. [Real] is the machine. A
// simulation brings its own, and then whole services run in one goroutine on
// virtual time.
package host

import (
	"context"
	"time"
)

// Host gives time and concurrency to a service.
type Host interface {
	// Now is the present.
	Now() time.Time
	// Go runs f beside the caller.
	Go(f func())
	// Sleep waits for d. It returns ctx's error if ctx ends before.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is [context.WithTimeout] on the host's time.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// Acquire puts something into token, a channel of capacity 1, as soon as there
	// is room. It returns ctx's error if ctx ends before. Whoever takes it out
	// again releases the token.
	Acquire(ctx context.Context, token chan struct{}) error
	// Loop makes a [Loop] with room for size things that wait.
	Loop(size int) Loop
}

// Loop runs one thing after another, in the order in which they came.
type Loop interface {
	// Post has f run. It waits while the loop is full, and gives up when ctx ends.
	Post(ctx context.Context, f func())
	// Offer is Post, but for a loop that is full: then it does nothing and is false.
	Offer(f func()) bool
	// Run runs what was posted, and tick whenever the time that deadline gives has
	// come; a zero time never comes. deadline and tick may be nil. It is called
	// once, by [Host.Go]; Real returns when ctx ends.
	Run(ctx context.Context, deadline func() time.Time, tick func())
}

// Real is the machine that the process runs on.
type Real struct{}

// Now is [time.Now].
func (Real) Now() time.Time { return time.Now() }

// Go starts a goroutine.
func (Real) Go(f func()) { go f() }

// Sleep implements [Host].
func (Real) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WithTimeout is [context.WithTimeout].
func (Real) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// Loop implements [Host].
func (Real) Loop(size int) Loop { return realLoop(make(chan func(), size)) }

type realLoop chan func()

func (l realLoop) Post(ctx context.Context, f func()) {
	select {
	case l <- f:
	case <-ctx.Done():
	}
}

func (l realLoop) Offer(f func()) bool {
	select {
	case l <- f:
		return true
	default:
		return false
	}
}

func (l realLoop) Run(ctx context.Context, deadline func() time.Time, tick func()) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if deadline == nil {
			timer.Stop()
		} else if d := deadline(); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		select {
		case f := <-l:
			f()
		case <-timer.C:
			tick()
		case <-ctx.Done():
			return
		}
	}
}

// Acquire implements [Host].
func (Real) Acquire(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
