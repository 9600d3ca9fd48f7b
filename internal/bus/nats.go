package bus

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
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

// A repeatable request that is not answered is asked again after repeatFirst, and then
// after twice as long each time, up to repeatMax: it, or its answer, may have been on its
// way through a server that died, which nobody tells whoever has another one's connection.
const repeatFirst, repeatMax = time.Second, 4 * time.Second

// busyPace is the least time until a responder that was busy is asked again, busyMax
// the longest.
const busyPace, busyMax = 20 * time.Millisecond, 640 * time.Millisecond

// Headers of requests and answers.
const (
	headerAsking = "Gk-Asking" // what a repeatable request has in common with its repetitions
	headerBusy   = "Gk-Busy"   // in an answer: nothing was done, too many ask
)

// Request implements [Conn]. It does not wait for an answer to a connection that
// is no more: a repeatable request is asked again over the next, until ctx ends, any
// other ends with [ErrCut]. One that reached nobody is asked again for up to a second,
// and one that was refused by a busy responder until ctx ends: no service has seen them.
func (n *NATS) Request(ctx context.Context, subject string, data []byte, repeatable bool) ([]byte, error) {
	m := nats.NewMsg(subject)
	m.Data = data
	tries := int(resubscribeGrace / resubscribePace)
	if !repeatable {
		return n.ask(ctx, m, &tries)
	}
	m.Header.Set(headerAsking, rand.Text())
	for patience := repeatFirst; ; patience = min(2*patience, repeatMax) {
		once, cancel := context.WithTimeout(ctx, patience)
		b, err := n.ask(once, m, &tries)
		late := once.Err() != nil
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return b, err
		case errors.Is(err, ErrCut):
			if !n.back(ctx) {
				return nil, err
			}
		case !late || errors.Is(err, ErrNoResponder):
			return nil, err
		}
	}
}

// back waits for the next connection. It is false where there will be none in time.
func (n *NATS) back(ctx context.Context) bool {
	for !n.nc.IsConnected() {
		if n.nc.IsClosed() || !wait(ctx, resubscribePace) {
			return false
		}
	}
	return true
}

// wait sleeps, and is false where ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ask asks until somebody has heard it, or nobody has in so many tries, which a request's
// repetitions share.
func (n *NATS) ask(ctx context.Context, m *nats.Msg, tries *int) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := n.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer n.nc.RemoveStatusListener(lost)
	go func() {
		if _, ok := <-lost; ok {
			cancel(ErrCut)
		}
	}()
	pace := busyPace
	for {
		answer, err := n.nc.RequestMsgWithContext(ctx, m)
		switch {
		case err == nil && answer.Header.Get(headerBusy) == "":
			return answer.Data, nil
		case err == nil:
			if wait(ctx, pace+mathrand.N(pace)) {
				pace = min(2*pace, busyMax)
				continue
			}
			err = busy(m.Subject)
		case errors.Is(err, nats.ErrNoResponders):
			if *tries--; *tries <= 0 {
				return nil, ErrNoResponder
			}
			if wait(ctx, resubscribePace) {
				continue
			}
			err = ErrNoResponder
		}
		if errors.Is(context.Cause(ctx), ErrCut) {
			return nil, ErrCut
		}
		return nil, err
	}
}

// Respond implements [Conn]. Every request runs in a goroutine of its own, so
// that one that waits for storage does not hold up the next.
func (n *NATS) Respond(subject string, handle func(context.Context, string, []byte) []byte) (Subscription, error) {
	ctx, cancel := context.WithCancel(context.Background())
	inside := newCrowd[*nats.Msg](subject)
	s, err := n.nc.Subscribe(subject, func(m *nats.Msg) {
		asking := m.Header.Get(headerAsking)
		same := func(o *nats.Msg) bool { return o.Subject == m.Subject && bytes.Equal(o.Data, m.Data) }
		switch inside.enter(asking, m, same) {
		case joined:
			return
		case refused:
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{headerBusy: {"1"}}, Data: busyAnswer(m.Subject)})
			return
		}
		go func() {
			b := handle(WithAsking(ctx, asking), m.Subject, m.Data)
			// A failed reply needs no handling: the asker's deadline covers it. One that is
			// too large would be asked for, and made, again and again until then.
			to := inside.leave(asking, m, same)
			if err := to.Respond(b); errors.Is(err, nats.ErrMaxPayload) {
				_ = to.Respond(refusalAnswer(&Refusal{CodeInternal, fmt.Sprintf("%s: an answer of %d bytes is more than the bus carries", m.Subject, len(b))}))
			}
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
