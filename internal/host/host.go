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

// Acquire implements [Host].
func (Real) Acquire(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
