package sim

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

// spot is an index of a stream at a transport.
type spot struct {
	by     gk.TransportID
	stream gk.StreamID
	index  gk.Index
}

// arrival is a packet that reached a transport.
type arrival struct {
	t     *transportRole
	run   int
	place place
	index gk.Index
	at    time.Duration
}

// datagram is a packet on its way, with what only the simulation knows.
type datagram struct {
	kind   byte
	bytes  []byte
	place  place
	index  gk.Index
	sentAt time.Duration
	again  bool // a copy of it came before
	run    int  // of the transport, when it was sent
}

// sent: a device hands a packet to its socket.
func (c *checker) sent(e *encoder, t *transportRole, pkt []byte, index gk.Index) {
	epoch, _ := media.PacketEpoch(pkt)
	p := place{e.stream(), e.dev.Session(), epoch}
	// Between two sessions the packets still belong to the one before.
	if k := c.keys[p]; k == nil || !k.installed {
		for id, x := range c.of(p.stream).sessions {
			if x.by == e && c.keys[place{p.stream, id, epoch}] != nil && c.keys[place{p.stream, id, epoch}].installed {
				p.session = id
			}
		}
	}
	k := c.facts(p)
	c.packets++
	if k.sent && index <= k.last || index < k.first {
		c.violate(InvIndex, "%s: index %d after %d, first %d", p, index, k.last, k.first)
	}
	k.sent, k.last = true, index
	if x := c.session(p.stream, p.session); x != nil {
		x.alive = c.engine.now
	}
	if _, ok := k.armed[t.id]; !ok {
		c.violate(InvArmed, "%s: index %d leaves for %s, which never armed it", p, index, t.id)
	}
	d := datagram{kind: fromDevice, bytes: append([]byte{}, pkt...), place: p, index: index, sentAt: c.engine.now, run: t.run}
	if c.cutOff[e.id] > c.engine.now && !e.clone {
		return
	}
	c.capture(t, d)
	c.throw(t, d)
}

// throw sends a datagram over the network for media.
func (w *world) throw(t *transportRole, d datagram) {
	for i, delay := range w.arrivals(w.weather.media) {
		d.again = i > 0
		w.after(delay, func() { w.land(t, d) })
	}
}

// land brings a datagram to a transport.
func (w *world) land(t *transportRole, d datagram) {
	if t.p.dead {
		return
	}
	w.check.landing(t, d)
	cause := t.svc.Judge(t.p.Now(), d.bytes)
	if k := w.check.keys[d.place]; w.opt.Trace != nil && (cause != "" || d.kind != fromDevice || k != nil && d.index < k.first+4) {
		w.trace("%s: %c index %d of %s: %q", t.id, d.kind, d.index, d.place, cause)
	}
	w.check.landed(t, d, cause)
}

// How old a packet has to be that a transport may give up, or whose key it may have
// destroyed. Its clock may be a little fast.
var (
	outAfter   = transport.Defaults().Latency + 50*time.Millisecond
	lateAfter  = transport.Defaults().Latency - time.Millisecond
	staleAfter = lateAfter + transport.Defaults().RoundTrip
)

// landed: a transport took a packet, or left it out for cause.
func (c *checker) landed(t *transportRole, d datagram, cause string) {
	k := c.keys[d.place]
	if d.kind != fromDevice || k == nil {
		return
	}
	if cause == "" {
		c.begins(t, d.place, d.index)
		return
	}
	if !d.again {
		delete(c.within, spot{t.id, d.place.stream, d.index})
	}
	if c.broken(breakReplay) && cause == "duplicate" && !k.stolen {
		p := d.place
		_ = bus.TransportProof.Tell(&port{t.p, c.bus}, bus.Proof{Transport: t.id, Stream: p.stream, Session: p.session, Epoch: p.epoch, Index: d.index, What: "two-writers"})
	}
	age := c.engine.now - d.sentAt
	switch {
	case d.again:
	case c.ofClone(d.place): // it has no right to be seen
	case cause == "duplicate": // somebody repeated it, and was faster
	case k.stolen: // the thief is free to fill indices, and to leap, before first
	case d.run != t.run || k.armed[t.id] != t.run: // it restarted
	case c.ended(d.place):
	case c.restored && k.print != k.used: // the store forgot its key; the device's next word ends the session
	case cause == "lease-over" && c.troubled(20*time.Second):
	case cause == "replaced" && !k.told[t.id] && c.forgotten(d.place): // the ACK settles it
	case cause == "late" && c.displaced(t, d):
	case (cause == "late" || cause == "too-old") && age >= lateAfter: // the reorder buffer does not wait longer
	case (cause == "stale-epoch" || cause == "stale-proven") && age >= staleAfter: // nor does a key that retired
	case (cause == "late" || cause == "too-old") && c.engine.now-c.jumped[d.place.stream] < 500*time.Millisecond: // overtaken across the jump
	default:
		c.violate(InvDecrypt, "%s: index %d, sent %v ago, is left out by %s: %s", d.place, d.index, age, t.id, cause)
	}
}

// landing: a packet of a device reaches a transport. Unless it is left out, it has
// to come out again.
func (c *checker) landing(t *transportRole, d datagram) {
	c.overdue()
	if d.kind == fromDevice && !d.again && !c.ofClone(d.place) {
		c.within[spot{t.id, d.place.stream, d.index}] = d.place
		c.due = append(c.due, arrival{t, t.run, d.place, d.index, c.engine.now})
	}
}

// overdue looks for packets that were taken and did not come out in time.
func (c *checker) overdue() {
	n := 0
	for n < len(c.due) && c.due[n].at+outAfter < c.engine.now {
		a := c.due[n]
		n++
		s := spot{a.t.id, a.place.stream, a.index}
		if c.within[s] != a.place {
			continue
		}
		delete(c.within, s)
		k := c.keys[a.place]
		switch {
		case a.run != a.t.run || a.t.p.dead || k == nil || k.stolen:
		case c.ended(a.place) || c.restored && k.print != k.used:
		case c.lapsed[a.t.id] && c.troubled(20*time.Second):
		default:
			c.violate(InvDecrypt, "%s: index %d is taken by %s and does not come out", a.place, a.index, a.t.id)
		}
	}
	c.due = c.due[n:]
}

// displaced reports whether a thief's packet under an earlier epoch was delivered at
// the very index of a packet. Before first is known nothing tells the two apart: the
// thief's is next in order and goes out, and so does the device's next packet if it
// arrives before the one that begins the epoch. What has gone out cannot be taken
// back, and what comes then is late. It is one packet for each that the thief had
// delivered, and from first on he has none ([InvThief]).
func (c *checker) displaced(t *transportRole, d datagram) bool {
	e, ok := c.taken[spot{t.id, d.place.stream, d.index}]
	return ok && e < d.place.epoch
}

// ended reports whether a session is no longer the one that the stream runs.
func (c *checker) ended(p place) bool {
	x := c.session(p.stream, p.session)
	if x == nil || x.over || c.usurped(p) || c.banned(p) {
		return true
	}
	// A candidate may have to give way after it was given a key.
	return !x.agreed && (c.overtaken(p) || x.held > 0 && c.engine.now-x.held < 5*time.Second)
}

// forgotten reports whether a session's epochs were used by one before it, and neither
// the store, which is yesterday's, nor the device, which crashed before it wrote its
// newest down, remembers it. Of two sessions the transport then cannot tell which is the
// later one, and must not have one from before take the stream, until it is told of the
// device's ACK.
func (c *checker) forgotten(p place) bool {
	mine := c.session(p.stream, p.session)
	if mine == nil || !c.restored {
		return false
	}
	for _, x := range c.of(p.stream).sessions {
		if n := len(x.epochs); n > 0 && x.begun < mine.begun && x.epochs[n-1] >= p.epoch {
			return true
		}
	}
	return false
}

func (c *checker) ofClone(p place) bool {
	x := c.session(p.stream, p.session)
	return x != nil && x.by.clone
}

// usurped reports whether a clone took the place of a device that was silent for a
// moment, or seemed so: it has the identity, and then nothing holds it back. The
// transport goes over with the clone's first packet, and the service with its ACK,
// which ends the session. Where the clone is gone before its ACK came, the transport
// gives the session its place back by itself: it needs nobody for that, and so there
// is no excuse beyond cloneFor. While a clone is there the two go on pushing each
// other out.
func (c *checker) usurped(p place) bool {
	mine := c.session(p.stream, p.session)
	for _, x := range c.of(p.stream).sessions {
		if x.by.clone != mine.by.clone && len(x.epochs) > 0 && x.alive >= mine.begun && (!x.by.p.dead || c.engine.now-x.alive < cloneFor) {
			return true
		}
	}
	return false
}

// cloneFor is how long after it sent its last packet a clone that is gone may be in
// the way: until it has been silent at the transport for as long as a session must
// be, with what the network and the clocks add.
const cloneFor = 1500*time.Millisecond + time.Second

// overtaken reports whether another session was begun after a candidate, or a clone
// is there to bring its own: of two candidates the later HELLO holds the place.
func (c *checker) overtaken(p place) bool {
	mine := c.session(p.stream, p.session)
	for id, x := range c.of(p.stream).sessions {
		if x.begun > mine.begun || x.by.clone != mine.by.clone && !x.by.p.dead && x.by.dev.Session() == id {
			return true
		}
	}
	return false
}

// tapped: a transport hands a packet on.
func (c *checker) tapped(t *transportRole, stream gk.StreamID, index gk.Index, payload []byte) {
	c.delivered++
	kind, number, epoch, i, ok := unmark(payload)
	if !ok || i != index {
		c.violate(InvThief, "%s delivers what nobody sent: %x at index %d", t.id, payload, index)
		return
	}
	if kind != fromNobody {
		c.entitled(t, stream, epoch)
	}
	switch kind {
	case fromDevice:
		delete(c.within, spot{t.id, stream, index})
		if int(number)%100 >= len(c.encoders) || c.encoders[number%100].stream() != stream {
			c.violate(InvThief, "%s delivers a packet of another stream to %s", t.id, stream)
		}
	case fromThief:
		c.taken[spot{t.id, stream, index}] = epoch
		for id := range c.of(stream).sessions {
			if c.keys[place{stream, id, epoch}] == nil {
				continue
			}
			for p, k := range c.keys {
				if p.stream == stream && p.session == id && p.epoch > epoch {
					if b, known := k.begins[t.id]; known && k.armed[t.id] == t.run && b <= index {
						c.violate(InvThief, "%s delivers a thief's packet of %s epoch %d, index %d, and epoch %d began at %d", t.id, stream, epoch, index, p.epoch, b)
						return
					}
				}
			}
		}
	default:
		c.violate(InvThief, "%s delivers a forged packet to %s", t.id, stream)
	}
}
