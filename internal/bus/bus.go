// Package bus is how the services meet: typed requests and announcements over
// NATS between services, and messages over MQTT between services and devices.
// The services never import one another; what they say to each other is the
// set of structures in this package, and nothing in it is a key in the clear.
package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// MaxPayload is how many bytes a message, a request or an answer may have. It is NATS'
// own default, so that somebody else's cluster carries what the embedded server does; the
// list of two thousand streams fits.
const MaxPayload = 1 << 20

// Conn is a connection to the service bus, in the shape of NATS.
//
// Handlers of Subscribe run one at a time for a subscription, in order. Handlers
// of Respond may run at the same time as one another, 1024 at most; what comes beyond
// that is refused with [CodeBusy]. A request that is repeatable may be asked again by
// the connection itself: see [Repeatable].
type Conn interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, handle func(subject string, data []byte)) (Subscription, error)
	Request(ctx context.Context, subject string, data []byte, repeatable bool) ([]byte, error)
	Respond(subject string, handle func(ctx context.Context, subject string, data []byte) []byte) (Subscription, error)
	Flush(ctx context.Context) error
	Close()
}

// Subscription is ended by Close.
type Subscription interface{ Close() error }

// Courier carries protocol messages between devices and services, in the shape
// of MQTT at QoS 0: it may lose, double and reorder what it carries.
type Courier interface {
	Send(topic string, payload []byte) error
	// Listen replaces any earlier handler for filter, and goes on through reconnects.
	Listen(filter string, handle func(topic string, payload []byte)) error
	// Connected tells whether the broker can be reached now.
	Connected() bool
	Close()
}

// ErrNoResponder means that nobody serves the subject at the moment.
var ErrNoResponder = errors.New("bus: no service answers")

// Code classifies a service's refusal, so that callers can branch on it.
type Code string

// The codes of [Refusal].
const (
	CodeInternal     Code = "internal"
	CodeBadRequest   Code = "bad-request"
	CodeNotFound     Code = "not-found"
	CodeConflict     Code = "conflict"
	CodeRevoked      Code = "revoked"
	CodeExpired      Code = "expired"
	CodeUsed         Code = "used"
	CodeEpochJump    Code = "epoch-jump"
	CodeUnavailable  Code = "unavailable"
	CodeUnauthorized Code = "unauthorized"
	CodeBusy         Code = "busy" // nothing was done: too many ask at the same time
)

// Refusal is a service's refusal of a request: a class and the words for people.
type Refusal struct {
	Code Code   `cbor:"1,keyasint" json:"code"`
	Text string `cbor:"2,keyasint" json:"error"`
}

func (r *Refusal) Error() string { return r.Text }

// Refuse builds a [Refusal].
func Refuse(code Code, format string, args ...any) error {
	return &Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
}

// CodeOf gives the code of the [Refusal] in err, or CodeInternal.
func CodeOf(err error) Code {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return CodeInternal
}

// Call is a request subject with the types that go over it. Each request is heard at
// most once: where its answer is lost, who asked decides whether to ask again.
type Call[Req, Rep any] string

// Do asks and waits for the answer. A refusal comes back as a [*Refusal]; the
// absence of any server as [ErrNoResponder].
func (c Call[Req, Rep]) Do(ctx context.Context, conn Conn, req Req) (Rep, error) {
	return request[Req, Rep](ctx, conn, string(c), req, false)
}

// Serve answers requests until the subscription is closed.
func (c Call[Req, Rep]) Serve(conn Conn, handle func(context.Context, Req) (Rep, error)) (Subscription, error) {
	return respond(conn, string(c), handle)
}

// CallTo is a [Call] with one more subject token: whom it goes to.
type CallTo[Req, Rep any] string

// Do asks the instance named to.
func (c CallTo[Req, Rep]) Do(ctx context.Context, conn Conn, to string, req Req) (Rep, error) {
	return request[Req, Rep](ctx, conn, string(c)+"."+to, req, false)
}

// Serve answers requests to the instance named me.
func (c CallTo[Req, Rep]) Serve(conn Conn, me string, handle func(context.Context, Req) (Rep, error)) (Subscription, error) {
	return respond(conn, string(c)+"."+me, handle)
}

// News is an announcement subject with the type that goes over it.
type News[T any] string

// Tell announces v to whoever listens.
func (n News[T]) Tell(conn Conn, v T) error {
	b, err := encMode.Marshal(v)
	if err != nil {
		return err
	}
	return conn.Publish(string(n), b)
}

// Hear calls handle for every announcement; one that does not decode is dropped.
func (n News[T]) Hear(conn Conn, handle func(T)) (Subscription, error) {
	return conn.Subscribe(string(n), func(_ string, data []byte) {
		var v T
		if decMode.Unmarshal(data, &v) == nil {
			handle(v)
		}
	})
}

// NewsOf is a [News] with one more subject token: which transport's it is. The bus
// lets each transport announce in its own name only ([PermissionsOf]).
type NewsOf[T interface{ From() gk.TransportID }] string

// Tell announces v, in the name that v gives.
func (n NewsOf[T]) Tell(conn Conn, v T) error {
	return News[T](n.Subject(v.From())).Tell(conn, v)
}

// Subject is where the transport named from announces.
func (n NewsOf[T]) Subject(from gk.TransportID) string { return string(n) + "." + string(from) }

// Hear calls handle for every transport's announcement. One that does not decode is
// dropped. So is one whose content names another transport than its subject, and
// liar, unless nil, is told which transport said it.
func (n NewsOf[T]) Hear(conn Conn, handle func(T), liar func(from gk.TransportID)) (Subscription, error) {
	return conn.Subscribe(string(n)+".*", func(subject string, data []byte) {
		var v T
		if decMode.Unmarshal(data, &v) != nil {
			return
		}
		if from := gk.TransportID(strings.TrimPrefix(subject, string(n)+".")); from != v.From() {
			if liar != nil {
				liar(from)
			}
			return
		}
		handle(v)
	})
}

// answer is what goes back over a [Call]: one of the two.
type answer struct {
	Refusal *Refusal        `cbor:"1,keyasint,omitempty"`
	Reply   cbor.RawMessage `cbor:"2,keyasint,omitempty"`
}

func request[Req, Rep any](ctx context.Context, conn Conn, subject string, req Req, repeatable bool) (Rep, error) {
	var rep Rep
	b, err := encMode.Marshal(req)
	if err != nil {
		return rep, err
	}
	data, err := conn.Request(ctx, subject, b, repeatable)
	if err != nil {
		return rep, fmt.Errorf("%s: %w", subject, err)
	}
	var a answer
	if err := decMode.Unmarshal(data, &a); err != nil {
		return rep, fmt.Errorf("%s: answer does not decode: %w", subject, err)
	}
	if a.Refusal != nil {
		return rep, a.Refusal
	}
	if err := decMode.Unmarshal(a.Reply, &rep); err != nil {
		return rep, fmt.Errorf("%s: answer does not decode: %w", subject, err)
	}
	return rep, nil
}

func respond[Req, Rep any](conn Conn, subject string, handle func(context.Context, Req) (Rep, error)) (Subscription, error) {
	return respondTo(conn, subject, func(ctx context.Context, _ string, req Req) (Rep, error) { return handle(ctx, req) })
}

func respondTo[Req, Rep any](conn Conn, subject string, handle func(context.Context, string, Req) (Rep, error)) (Subscription, error) {
	return conn.Respond(subject, func(ctx context.Context, subject string, data []byte) []byte {
		var req Req
		var a answer
		if err := decMode.Unmarshal(data, &req); err != nil {
			a.Refusal = &Refusal{Code: CodeBadRequest, Text: "request does not decode: " + err.Error()}
		} else if rep, err := handle(ctx, subject, req); err != nil {
			a.Refusal = &Refusal{Code: CodeOf(err), Text: err.Error()}
		} else if b, err := encMode.Marshal(rep); err != nil {
			a.Refusal = &Refusal{Code: CodeInternal, Text: err.Error()}
		} else {
			a.Reply = b
		}
		b, err := encMode.Marshal(a)
		if err != nil {
			return nil
		}
		return b
	})
}

var encMode = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic, Time: cbor.TimeRFC3339Nano}.EncMode())

var decMode = must(cbor.DecOptions{
	DupMapKey:   cbor.DupMapKeyEnforcedAPF,
	IndefLength: cbor.IndefLengthForbidden,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
