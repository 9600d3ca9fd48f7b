package transport

import (
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// stream is what outlives the sessions of one stream: its outputs, its viewers
// and the fencing term of whoever commands it. Guarded by Service.mu.
type stream struct {
	id      gk.StreamID
	term    uint64 // highest seen; lower ones are refused
	current *session
	// waiting are sessions that were assigned and whose first packet has not come,
	// oldest first. Several may wait: what is asked late for an older one must not
	// push out the newest.
	waiting []*session
	// former is the session that an unconfirmed one took the stream from. It keeps
	// its keys until the newcomer's device has confirmed one.
	former   *session
	viewers  *viewers
	outputs  []output     // that are open
	taken    map[int]bool // places in the configuration of those and of the ones being opened
	held     *held
	disarmed time.Time // when its keys were last ordered away; leases from before are void

	// Of the term, so that a command from before, late, doubled or kept, does nothing.
	holdBeat, disarmBeat time.Duration  // of the last orders that were obeyed
	over                 []gk.SessionID // that were released, newest last
}

// keptOver is how many sessions of a stream are remembered that are over.
const keptOver = 16

// under takes the stream's commands under a term from now on.
func (st *stream) under(term uint64) {
	if term > st.term {
		st.term, st.holdBeat, st.disarmBeat, st.over = term, 0, 0, nil
	}
}

// end remembers that a session is over.
func (st *stream) end(id gk.SessionID) {
	if st.over = append(st.over, id); len(st.over) > keptOver {
		st.over = slices.Delete(st.over, 0, 1)
	}
}

// session finds the session with an id, nil if it is not here.
func (st *stream) session(id gk.SessionID) *session {
	for _, s := range st.sessions() {
		if s.id == id {
			return s
		}
	}
	return nil
}

// sessions lists the current one, the one before it and those that wait.
func (st *stream) sessions() []*session {
	all := slices.Clone(st.waiting)
	if st.former != nil {
		all = append(all, st.former)
	}
	if st.current != nil {
		all = append(all, st.current)
	}
	return all
}

// after reports whether a session was opened after another one, by the epochs that
// each began with here: they rise over a stream's sessions.
func (s *session) after(o *session) bool { return s.began > o.epoch }

// serving is the session that the stream is: the one whose packets came last, or
// the one that is waited for. Nil if there is none.
func (st *stream) serving() *session {
	if st.current != nil {
		return st.current
	}
	if n := len(st.waiting); n > 0 {
		return st.waiting[n-1]
	}
	return nil
}

// session is one run of one stream. Guarded by Service.mu.
type session struct {
	stream  *stream
	id      gk.SessionID
	ssrc    uint32
	payload gkrp.Payload
	keys    slots
	order   reorder
	ledger  ledger
	gauge   *gauge    // nil where nothing is measured
	pending *delivery // filled by the batch in work

	lease  time.Time // until then the keys may serve; zero until the first is armed
	lapsed bool      // the lease has run out, or never began: nothing is delivered

	confirmed bool // the service told of it what only a session can have whose device confirmed a key
	yielded   bool // it took the stream unconfirmed, and had to give it back

	counts    counts
	delivered uint64   // packets
	bytes     uint64   // RTP payload, delivered
	epoch     gk.Epoch // of the newest packet that was accepted
	began     gk.Epoch // the lowest that was armed
	highest   gk.Index // accepted
	last      time.Time
}

// status is the session as others may see it.
func (s *session) status(me gk.TransportID, now time.Time) bus.StreamStatus {
	st := bus.StreamStatus{
		Transport: me, Stream: s.stream.id, Session: s.id, Epoch: s.epoch, Highest: s.highest,
		Delivered: s.delivered, Bytes: s.bytes, Lost: s.order.gaps.count(now, s.ledger.reach), Dropped: s.counts.names(),
		Viewers: s.stream.viewers.count(),
		Sent:    s.ledger.sent, PathLoss: s.ledger.lost, Vouched: s.ledger.vouched, Foreign: s.ledger.foreign,
	}
	st.SilentMs = uint32(min(now.Sub(s.last).Milliseconds(), 1<<32-1))
	return st
}

// delivery is what one batch gave a session's outputs, in order. Its buffer is
// contiguous, so that the outputs which want a byte stream need no gathering.
type delivery struct {
	buf   []byte
	units []unit
}

// deliverySize has room for a full batch and the packets that it releases; what
// does not fit goes to the outputs in several deliveries.
const deliverySize = 128 << 10

func newDelivery() *delivery {
	return &delivery{buf: make([]byte, 0, deliverySize), units: make([]unit, 0, 128)}
}

// tail is the free room of the buffer, empty when less than n bytes are left.
func (d *delivery) tail(n int) []byte {
	if cap(d.buf)-len(d.buf) < n {
		return nil
	}
	return d.buf[len(d.buf):len(d.buf):cap(d.buf)]
}

// add takes a unit in. A payload that already lies at the buffer's end stays
// where it is.
func (d *delivery) add(u unit) {
	at := len(d.buf)
	d.buf = append(d.buf, u.payload...)
	u.payload = d.buf[at:len(d.buf):len(d.buf)]
	d.units = append(d.units, u)
}

func (d *delivery) reset() { d.buf, d.units = d.buf[:0], d.units[:0] }
