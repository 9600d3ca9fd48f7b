package bus

import (
	"context"
	"strings"
)

// Repeatable is a [Call] that may be asked twice: its responder answers a repeated
// request as the first, and does nothing twice. The connection asks again by itself,
// within the asker's deadline, where the request or its answer may have been lost
// with a server of the bus. What only reads is repeatable, and so is what brings about
// a state that the request names in full; an order whose effect adds up is a [Call].
type Repeatable[Req, Rep any] string

// Do is as [Call.Do].
func (c Repeatable[Req, Rep]) Do(ctx context.Context, conn Conn, req Req) (Rep, error) {
	return request[Req, Rep](ctx, conn, string(c), req, true)
}

// Serve is as [Call.Serve].
func (c Repeatable[Req, Rep]) Serve(conn Conn, handle func(context.Context, Req) (Rep, error)) (Subscription, error) {
	return respond(conn, string(c), handle)
}

// RepeatableTo is a [Repeatable] with one more subject token: whom it goes to.
type RepeatableTo[Req, Rep any] string

// Do asks the instance named to.
func (c RepeatableTo[Req, Rep]) Do(ctx context.Context, conn Conn, to string, req Req) (Rep, error) {
	return request[Req, Rep](ctx, conn, string(c)+"."+to, req, true)
}

// Serve answers requests to the instance named me.
func (c RepeatableTo[Req, Rep]) Serve(conn Conn, me string, handle func(context.Context, Req) (Rep, error)) (Subscription, error) {
	return respond(conn, string(c)+"."+me, handle)
}

// ServeEach answers requests to every instance; handle is told which one was
// asked for, in one or more subject tokens.
func (c RepeatableTo[Req, Rep]) ServeEach(conn Conn, handle func(ctx context.Context, to string, req Req) (Rep, error)) (Subscription, error) {
	return respondTo(conn, string(c)+".>", func(ctx context.Context, subject string, req Req) (Rep, error) {
		return handle(ctx, strings.TrimPrefix(subject, string(c)+"."), req)
	})
}

// Question is a [Call] or a [Repeatable].
type Question[Req, Rep any] interface {
	Do(ctx context.Context, conn Conn, req Req) (Rep, error)
	Serve(conn Conn, handle func(context.Context, Req) (Rep, error)) (Subscription, error)
}

type askingKey struct{}

// WithAsking notes, for [Asking], which asking a request belongs to.
func WithAsking(ctx context.Context, asking string) context.Context {
	return context.WithValue(ctx, askingKey{}, asking)
}

// Asking names, to the handler of a [Repeatable], what a request and its repetitions have
// in common and no other request has; empty where the asker does not repeat. A handler
// whose work would add up knows by it that it did it already.
func Asking(ctx context.Context) string {
	asking, _ := ctx.Value(askingKey{}).(string)
	return asking
}
