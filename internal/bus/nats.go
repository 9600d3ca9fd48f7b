package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// NATS is a [Conn] over a NATS connection.
type NATS struct{ nc *nats.Conn }

// InboxOption gives a role its own reply subjects, which its permissions name.
func InboxOption(r Role) nats.Option { return nats.CustomInboxPrefix(inbox(r)) }

// NewNATS wraps nc; Close closes it.
func NewNATS(nc *nats.Conn) *NATS { return &NATS{nc: nc} }

// Publish implements [Conn].
func (n *NATS) Publish(subject string, data []byte) error { return n.nc.Publish(subject, data) }

// Subscribe implements [Conn].
func (n *NATS) Subscribe(subject string, handle func(string, []byte)) (Subscription, error) {
	s, err := n.nc.Subscribe(subject, func(m *nats.Msg) { handle(m.Subject, m.Data) })
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return natsSub{s}, nil
}

// ErrCut says that the connection ended while an answer was awaited: whether the request
// was heard is not known. Who asks again asks over another connection.
var ErrCut = errors.New("bus: the connection was lost before the answer")

// resubscribeGrace bounds how long a request without any responder is asked again.
// A server of a cluster that dies takes the interest of its clients with it, and
// they are at the next within milliseconds.
const resubscribeGrace, resubscribePace = time.Second, 20 * time.Millisecond

// Request implements [Conn]. It does not wait for an answer to a connection that
// is no more: whoever asks can ask again over the next. One that reached nobody is
// asked again for up to a second: no service has seen it.
func (n *NATS) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := n.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer n.nc.RemoveStatusListener(lost)
	go func() {
		if _, ok := <-lost; ok {
			cancel(ErrCut)
		}
	}()
	m, err := n.nc.RequestWithContext(ctx, subject, data)
	for tries := resubscribeGrace / resubscribePace; tries > 0 && errors.Is(err, nats.ErrNoResponders); tries-- {
		select {
		case <-time.After(resubscribePace):
			m, err = n.nc.RequestWithContext(ctx, subject, data)
		case <-ctx.Done():
			tries = 0
		}
	}
	if errors.Is(context.Cause(ctx), ErrCut) && err != nil {
		return nil, ErrCut
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, ErrNoResponder
	}
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

// Respond implements [Conn]. Every request runs in a goroutine of its own, so
// that one that waits for storage does not hold up the next.
func (n *NATS) Respond(subject string, handle func(context.Context, string, []byte) []byte) (Subscription, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := n.nc.Subscribe(subject, func(m *nats.Msg) {
		go func() {
			// A failed reply needs no handling: the asker's deadline covers it.
			_ = m.Respond(handle(ctx, m.Subject, m.Data))
		}()
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("serve %s: %w", subject, err)
	}
	return natsResponder{natsSub{s}, cancel}, nil
}

// flushTimeout bounds a Flush whose context has no end.
const flushTimeout = 10 * time.Second

// Flush implements [Conn]: it returns when the server has seen everything before.
func (n *NATS) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return n.nc.FlushWithContext(ctx)
}

// Close implements [Conn].
func (n *NATS) Close() { n.nc.Close() }

type natsSub struct{ s *nats.Subscription }

func (s natsSub) Close() error { return s.s.Unsubscribe() }

type natsResponder struct {
	natsSub
	cancel context.CancelFunc
}

func (r natsResponder) Close() error {
	r.cancel()
	return r.natsSub.Close()
}
