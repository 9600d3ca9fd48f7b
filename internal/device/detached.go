package device

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Detached is one stream of an agent without its goroutines, its socket and its
// source: the host brings media, messages and the passing of time, one thing at a
// time, and takes the packets.
type Detached struct {
	s       *stream
	x       *session
	limit   *rate.Limiter
	payload gkrp.Payload
}

// NewDetached makes the stream. index is the first that it will use, and floor
// the epoch high-water mark that was written down. send takes sealed packets for
// an address; it must not keep them.
func NewDetached(cfg Config, c StreamConfig, payload gkrp.Payload, index gk.Index, floor gk.Epoch, courier bus.Courier, send func(address string, pkts [][]byte)) (*Detached, error) {
	cfg.Streams = []StreamConfig{c}
	a, err := New(cfg, courier)
	if err != nil {
		return nil, err
	}
	s := a.streams[0]
	s.mem, s.path.next, s.path.from = floor, index, index
	s.dial = func(_ context.Context, address string) (sender, error) {
		return &sendFunc{func(pkts [][]byte) { send(address, pkts) }}, nil
	}
	s.beside = func(f func()) { f() }
	return &Detached{s: s, payload: payload, limit: rate.NewLimiter(messagesPerSecond, messagesBurst)}, nil
}

type sendFunc struct{ send func([][]byte) }

func (f *sendFunc) Send(pkts [][]byte) (int, error) {
	f.send(pkts)
	return len(pkts), nil
}

// Begin begins a session, in place of the one before.
func (d *Detached) Begin() (err error) {
	if d.x != nil {
		d.x.keys.wipe()
	}
	if d.x, err = d.s.newSession(d.payload, d.limit); err != nil {
		return err
	}
	d.settle()
	return nil
}

// settle does what the session wants done.
func (d *Detached) settle() {
	d.x.perform(context.Background())
	for d.x.looking > 0 { // nothing runs beside: what was looked up is here
		d.x.take(<-d.x.found)
	}
	d.x.prepare()
}

// Over reports whether the session has ended, and why.
func (d *Detached) Over() (gkrp.Code, bool) { return d.x.code, d.x.over }

// Session is the session's id.
func (d *Detached) Session() gk.SessionID { return d.x.id }

// Epoch is the epoch that packets are sealed under, 0 before the first.
func (d *Detached) Epoch() gk.Epoch { return d.x.dev.Epoch() }

// Deadline says when [Detached.Tick] is wanted next; zero means never.
func (d *Detached) Deadline() time.Time { return d.x.dev.Deadline() }

// Tick lets time pass.
func (d *Detached) Tick() {
	d.x.step(gkrp.Tick{})
	d.settle()
}

// Hear takes a message from the courier.
func (d *Detached) Hear(wire []byte) {
	d.x.hear(wire)
	d.settle()
}

// Media takes a batch from the source through the packet path.
func (d *Detached) Media(b *Batch) {
	if d.s.path.send(d.x.now(), b) {
		d.x.sent()
		d.settle()
	}
}

// Finish ends the session as the end of its source does.
func (d *Detached) Finish() {
	d.x.sent()
	d.x.step(gkrp.Finish{End: d.s.path.end(), Text: "source ended"})
	d.settle()
}

// Stats counts what became of the stream.
func (d *Detached) Stats() StreamStats {
	c, epoch, _ := d.s.path.snapshot()
	return StreamStats{
		Stream: d.s.id, Session: d.x.id, Epoch: epoch, Next: d.s.path.end(), Packets: c.Packets, Bytes: c.Bytes,
		Unkeyed: c.Unkeyed, Rotations: d.s.rotations.Load(), Sessions: d.s.sessions.Load(),
	}
}

// Noted gives the epoch that is to be written down since Noted was called last.
func (d *Detached) Noted() (gk.Epoch, bool) {
	select {
	case e := <-d.s.high:
		return e, true
	default:
		return 0, false
	}
}
