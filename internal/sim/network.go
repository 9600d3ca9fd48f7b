package sim

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// path is the quality of one network.
type path struct {
	loss, twice float64
	near, far   time.Duration // usual delay
	late        float64       // how often a delay is drawn from up to later instead
	later       time.Duration
}

// arrivals draws when a message comes out at the other end: never, once or twice.
func (w *world) arrivals(q path) []time.Duration {
	if w.chance(q.loss) {
		return nil
	}
	draw := func() time.Duration {
		if w.chance(q.late) {
			return w.between(q.near, q.later)
		}
		return w.between(q.near, q.far)
	}
	if w.chance(q.twice) {
		return []time.Duration{draw(), draw()}
	}
	return []time.Duration{draw()}
}

// The service bus.

type busNet struct {
	*world
	listeners  []*listener
	responders []*responder
	outbox     []news
	commands   []command // of what passed; the adversary's memory
	denied     []denial
}

type listener struct {
	p       *process
	subject string
	handle  func(string, []byte)
}

type responder struct {
	p       *process
	subject string
	handle  func(context.Context, string, []byte) []byte
}

type news struct {
	p       *process
	subject string
	data    []byte
}

// port is one process's connection to the bus.
type port struct {
	p *process
	b *busNet
}

func (o *port) Publish(subject string, data []byte) error {
	if o.p.dead {
		return errCrashed
	}
	o.b.outbox = append(o.b.outbox, news{o.p, subject, data})
	switch {
	case subject == string(bus.Events):
		o.b.check.event(o.p, data)
	case hears(string(bus.TransportHere)+".*", subject):
		o.b.announced(o.p, data)
	}
	return nil
}

// announced keeps how a transport announces itself, which everybody can hear.
func (b *busNet) announced(p *process, data []byte) {
	var a bus.TransportAnnouncement
	must(cbor.Unmarshal(data, &a))
	for _, t := range b.transports {
		if t.p == p {
			t.here, t.announced = a.TransportReceiver, a
			b.check.announcedBeat(t, a)
		}
	}
}

// settle sends what the last event published. The order in which a service does
// it may hang on how a map is walked, so that here it must not.
func (b *busNet) settle() {
	if len(b.outbox) == 0 {
		return
	}
	out := b.outbox
	b.outbox = nil
	if len(out) > 1 {
		slices.SortStableFunc(out, func(x, y news) int {
			if c := strings.Compare(x.subject, y.subject); c != 0 {
				return c
			}
			return bytes.Compare(x.data, y.data)
		})
	}
	for _, n := range out {
		for _, l := range b.listeners {
			if !hears(l.subject, n.subject) || l.p.dead || b.cut(n.p, l.p) || b.denies(n.subject) {
				continue
			}
			for _, d := range b.arrivals(b.weather.bus) {
				b.after(d, func() {
					if !l.p.dead {
						l.p.start(func() { l.handle(n.subject, n.data) })
					}
				})
			}
		}
	}
}

// hears tells whether a subscription, whose last token may be *, is for a subject.
func hears(pattern, subject string) bool {
	head, any := strings.CutSuffix(pattern, "*")
	token, ok := strings.CutPrefix(subject, head)
	return pattern == subject || any && ok && token != "" && !strings.Contains(token, ".")
}

func (o *port) Subscribe(subject string, handle func(string, []byte)) (bus.Subscription, error) {
	o.b.listeners = slices.DeleteFunc(o.b.listeners, func(l *listener) bool { return l.p.dead })
	o.b.listeners = append(o.b.listeners, &listener{o.p, subject, handle})
	return nothing{}, nil
}

func (o *port) Respond(subject string, handle func(context.Context, string, []byte) []byte) (bus.Subscription, error) {
	o.b.responders = slices.DeleteFunc(o.b.responders, func(r *responder) bool { return r.p.dead })
	o.b.responders = append(o.b.responders, &responder{o.p, subject, handle})
	return nothing{}, nil
}

// serves tells whether a request on subject is for r.
func (r *responder) serves(subject string) bool {
	each, ok := strings.CutSuffix(r.subject, ">")
	return r.subject == subject || ok && strings.HasPrefix(subject, each)
}

func (o *port) Request(ctx context.Context, subject string, data []byte, _ bool) (answer []byte, err error) {
	b, p := o.b, o.p
	if p.dead {
		return nil, errCrashed
	}
	if p.fuse.burns() {
		b.trace("%s crashes before asking %s", p.name, subject)
		p.crash()
		return nil, errCrashed
	}
	var to *responder
	for _, r := range b.responders {
		if r.serves(subject) && !r.p.dead && !b.cut(p, r.p) {
			to = r
		}
	}
	b.keep(subject, data)
	confirmed := b.check.ordersHold(p, subject, data)
	answered := false
	woken := p.park(func(wake func()) {
		left, ok := remaining(ctx)
		if !ok {
			panic("sim: a request without a deadline: " + subject)
		}
		b.after(left, wake)
		if b.isolated[p.name] > b.engine.now || b.denies(subject) {
			return // whoever is cut off is told nothing
		}
		if to == nil {
			b.after(b.weather.bus.far, func() { err = bus.ErrNoResponder; wake() })
			return
		}
		for _, d := range b.arrivals(b.weather.bus) {
			b.after(d, func() {
				if to.p.dead || b.cut(p, to.p) {
					return
				}
				to.p.start(func() {
					a := b.serve(to, subject, data)
					if to.p.dead {
						return
					}
					for _, d := range b.arrivals(b.weather.bus) {
						b.after(d, func() {
							if !answered && !b.cut(p, to.p) {
								answered, answer = true, a
								wake()
							}
						})
					}
				})
			})
		}
	})
	switch {
	case !woken || p.dead:
		return nil, errCrashed
	case err != nil:
		return nil, err
	case answered:
		var rep reply
		if must(cbor.Unmarshal(answer, &rep)); rep.Refusal == nil {
			confirmed()
		}
		return answer, nil
	}
	answered = true // what comes now comes too late
	return nil, context.DeadlineExceeded
}

func (b *busNet) serve(r *responder, subject string, data []byte) []byte {
	if a := b.mocked(subject, data); a != nil {
		return a
	}
	ctx, _ := r.p.WithTimeout(r.p.context(), 10*time.Second)
	a := r.handle(ctx, subject, b.unfenced(subject, data))
	b.overhear(r, subject, data, a)
	return a
}

// overhear tells the checker what a transport agreed to.
func (b *busNet) overhear(r *responder, subject string, data, answer []byte) {
	if b.opt.Trace != nil {
		var rep reply
		if cbor.Unmarshal(answer, &rep) == nil && rep.Refusal != nil {
			b.trace("%s refuses %s: %s: %s", r.p.name, subject, rep.Refusal.Code, rep.Refusal.Text)
		}
	}
	if r.p == b.kms.p {
		b.check.answered(subject, answer)
	}
	b.check.obeyed(r, subject, data, answer)
	arm, tell := strings.HasPrefix(subject, armSubject), strings.HasPrefix(subject, switchSubject)
	if !arm && !tell {
		return
	}
	var rep reply
	must(cbor.Unmarshal(answer, &rep))
	if rep.Refusal != nil {
		return
	}
	for _, t := range b.transports {
		if t.p != r.p {
			continue
		}
		if arm {
			var req bus.ArmRequest
			must(cbor.Unmarshal(data, &req))
			b.check.armed(t, req)
		} else {
			var req bus.SwitchRequest
			must(cbor.Unmarshal(data, &req))
			b.trace("%s is told of %s epoch %d: first %d", t.id, req.Stream, req.Epoch, req.First)
			b.check.told(t, req)
		}
	}
}

func (o *port) Flush(context.Context) error { return nil }
func (o *port) Close()                      {}

type nothing struct{}

func (nothing) Close() error { return nil }

// The broker for devices.

type broker struct {
	*world
	ears   []*ear
	record []letter // of what passed; the adversary's memory
}

type ear struct {
	p      *process
	filter []string
	handle func(string, []byte)
}

type letter struct {
	at      time.Duration
	from    *process
	topic   string
	payload []byte
}

const remembered = 4000

// desk is one process's connection to the broker.
type desk struct {
	p *process
	b *broker
}

func (d *desk) Send(topic string, payload []byte) error {
	if d.p.dead {
		return errCrashed
	}
	payload = d.lied(topic, payload)
	l := letter{d.b.engine.now, d.p, topic, bytes.Clone(payload)}
	if len(d.b.record) < remembered {
		d.b.record = append(d.b.record, l)
	} else if d.b.chance(0.1) {
		d.b.record[d.b.rng.IntN(remembered)] = l
	}
	if d.b.opt.Trace != nil {
		for _, way := range []gkrp.Direction{gkrp.Up, gkrp.Down} {
			if m, err := gkrp.Parse(payload, way); err == nil {
				d.b.trace("%s says %s on %s", d.p.name, m.Type, topic)
			}
		}
	}
	if d.b.withheld(l) {
		return nil
	}
	d.b.deliver(l)
	return nil
}

func (b *broker) deliver(l letter) {
	parts := strings.Split(l.topic, "/")
	for _, e := range b.ears {
		if e.p.dead || !topicMatches(e.filter, parts) || b.offline(e.p) || l.from != nil && b.offline(l.from) {
			continue
		}
		for _, d := range b.arrivals(b.weather.mqtt) {
			b.after(d, func() {
				if !e.p.dead && !b.offline(e.p) {
					e.handle(l.topic, l.payload)
				}
			})
		}
	}
}

func topicMatches(filter, topic []string) bool {
	if len(filter) != len(topic) {
		return false
	}
	for i, f := range filter {
		if f != "+" && f != topic[i] {
			return false
		}
	}
	return true
}

func (d *desk) Listen(filter string, handle func(string, []byte)) error {
	d.b.ears = slices.DeleteFunc(d.b.ears, func(e *ear) bool { return e.p.dead })
	d.b.ears = append(d.b.ears, &ear{d.p, strings.Split(filter, "/"), handle})
	return nil
}

func (d *desk) Connected() bool { return !d.b.offline(d.p) }
func (d *desk) Close()          {}
