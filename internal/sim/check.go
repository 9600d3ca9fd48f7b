package sim

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

// The invariants.
const (
	InvArmed     = "nothing is sent under a key that its receiver had not armed"
	InvDecrypt   = "nothing is undecryptable but by impairment"
	InvThief     = "nothing of a thief is delivered from first on"
	InvRising    = "epochs only rise and never fork"
	InvIndex     = "no key, SSRC and index twice"
	InvPersisted = "no key is used before it was persisted or after it was destroyed"
	InvLive      = "no device ends locked out"
	InvKeyless   = "nobody without a key causes a rotation or a hold"
	InvBudget    = "budgets hold"
	InvAudit     = "the audit chain verifies"
	InvChosen    = "only the key service chooses keys, and only verified receivers are given them"
)

// Invariants lists them all.
var Invariants = []string{InvArmed, InvDecrypt, InvThief, InvRising, InvIndex, InvPersisted, InvLive, InvKeyless, InvBudget, InvAudit, InvChosen}

// Violation is an invariant that did not hold.
type Violation struct {
	Invariant string
	At        time.Duration
	Text      string
}

func (v Violation) String() string {
	return fmt.Sprintf("at %.6f s: %s: %s", v.At.Seconds(), v.Invariant, v.Text)
}

// place is where a key belongs.
type place struct {
	stream  gk.StreamID
	session gk.SessionID
	epoch   gk.Epoch
}

func (p place) String() string {
	return fmt.Sprintf("%s session %s epoch %d", p.stream, short(p.session), p.epoch)
}

// record is the name that the key has in the store.
func (p place) record() string { return fmt.Sprintf("key.%s.%s.%d", p.stream, p.session, p.epoch) }

// keyFacts are what is true of a key, whoever knows it.
type keyFacts struct {
	print     fingerprint // of the one that the key service sealed last
	used      fingerprint // of the one that the device opened last
	ssrc      uint32
	installed bool
	first     gk.Index // that its device sent
	last      gk.Index
	sent      bool
	armed     map[gk.TransportID]int      // in which start of the transport
	begins    map[gk.TransportID]gk.Index // where that transport knows the epoch to begin
	told      map[gk.TransportID]bool     // that transport has the device's word for it
	key       keyring.MediaKey            // as the device opened it
	stolen    bool
	misused   time.Duration // when a thief last sent under it
	destroyed bool          // the key service had the store erase it
}

type streamFacts struct {
	sessions map[gk.SessionID]*sessionFacts
	budgets  map[*process]*bucket
	epochs   map[gk.Epoch]fingerprint // that a device used
	mark     uint64                   // rotations when the watch began
}

// bucket is what a processing service may still spend on rotations for evidence.
type bucket struct {
	tokens   float64
	refilled time.Duration
}

type sessionFacts struct {
	by     *encoder
	over   bool
	held   time.Duration // when it was last told that another session is alive
	agreed bool          // its first ACK was verified
	begun  time.Duration
	alive  time.Duration // when it last said something
	epochs []gk.Epoch    // installed, in order
}

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

// checker watches a run from above. What it knows, it has seen happen, and not
// been told.
type checker struct {
	*world
	keys      map[place]*keyFacts
	prints    map[fingerprint]place
	receivers map[string]string // owner by key id
	streams   map[gk.StreamID]*streamFacts
	raised    map[*encoder]gk.Epoch
	restored  bool
	taken     map[spot]gk.Epoch             // where a thief's packet was delivered, and under which
	within    map[spot]place                // packets that transports took and have not handed on
	due       []arrival                     // when they were taken
	lapsed    map[gk.TransportID]bool       // that once let a lease run out
	jumped    map[gk.StreamID]time.Duration // when the device last left indices out

	rotations, packets, delivered, sessionCount uint64
	byReason                                    map[gk.Reason]uint64
	violations                                  []Violation
}

func newChecker(w *world) *checker {
	return &checker{
		world: w, keys: map[place]*keyFacts{}, prints: map[fingerprint]place{}, receivers: map[string]string{},
		streams: map[gk.StreamID]*streamFacts{}, raised: map[*encoder]gk.Epoch{}, jumped: map[gk.StreamID]time.Duration{}, taken: map[spot]gk.Epoch{}, within: map[spot]place{}, lapsed: map[gk.TransportID]bool{}, byReason: map[gk.Reason]uint64{},
	}
}

func (c *checker) violate(invariant, format string, args ...any) {
	v := Violation{invariant, c.engine.now, fmt.Sprintf(format, args...)}
	c.violations = append(c.violations, v)
	c.trace("VIOLATION %s", v)
}

func (c *checker) of(id gk.StreamID) *streamFacts {
	s := c.streams[id]
	if s == nil {
		s = &streamFacts{sessions: map[gk.SessionID]*sessionFacts{}, epochs: map[gk.Epoch]fingerprint{}, budgets: map[*process]*bucket{}}
		c.streams[id] = s
	}
	return s
}

func (c *checker) facts(p place) *keyFacts {
	k := c.keys[p]
	if k == nil {
		k = &keyFacts{armed: map[gk.TransportID]int{}, begins: map[gk.TransportID]gk.Index{}, told: map[gk.TransportID]bool{}}
		c.keys[p] = k
	}
	return k
}

// receiverMade: a role made a key pair for keys to be sealed to.
func (c *checker) receiverMade(id, role string) { c.receivers[id] = role }

// sealed: the key service seals a key for somebody.
func (c *checker) sealed(e gkrp.KeyEnvelope, f fingerprint) {
	p := place{e.Stream, e.Session, e.Epoch}
	if _, ok := c.disk.entries[p.record()]; !ok {
		c.violate(InvPersisted, "the key of %s is given to %s and is not in the store", p, e.Receiver)
	}
	if k := c.keys[p]; k != nil && k.destroyed && k.print == f && !c.restored {
		c.violate(InvPersisted, "the key of %s is given to %s and was destroyed", p, e.Receiver)
	}
	if o := c.receivers[string(e.KeyID)]; o != e.Receiver {
		c.violate(InvChosen, "the key of %s is sealed for %s to a key of %q", p, e.Receiver, o)
	}
	if o, used := c.prints[f]; used && o != p {
		c.violate(InvRising, "one key serves %s and %s", o, p)
	}
	c.prints[f] = p
	k := c.facts(p)
	if k.print != (fingerprint{}) && k.print != f && !c.restored {
		c.violate(InvRising, "%s has two keys", p)
	}
	k.print, k.ssrc = f, e.SSRC
}

// erased: the store erased an entry.
func (c *checker) erased(record string) {
	for p, k := range c.keys {
		if p.record() == record {
			k.destroyed = true
		}
	}
}

// opened: a receiver opened an envelope.
func (c *checker) opened(role string, e gkrp.KeyEnvelope, f fingerprint, m keyring.MediaKey) {
	p := place{e.Stream, e.Session, e.Epoch}
	if o, known := c.prints[f]; !known || o != p {
		c.violate(InvChosen, "%s opened a key for %s that the key service did not make for it", role, p)
		return
	}
	if role == "device/"+string(e.Stream) {
		k := c.facts(p)
		m.Expose(func(key, salt []byte) {
			k.key, _ = keyring.MediaKeyFromBytes(append(append([]byte{}, key...), salt...))
		})
		k.print, k.used = f, f
	}
}

// armed: a transport said that it can open an epoch.
func (c *checker) armed(t *transportRole, r bus.ArmRequest) {
	k := c.facts(place{r.Stream, r.Session, r.Epoch})
	if k.armed[t.id] != t.run {
		delete(k.begins, t.id)
	}
	k.armed[t.id] = t.run
}

// told: a transport took the word of where an epoch begins.
func (c *checker) told(t *transportRole, r bus.SwitchRequest) {
	if r.First == 0 {
		return
	}
	p := place{r.Stream, r.Session, r.Epoch}
	c.begins(t, p, r.First)
	c.facts(p).told[t.id] = true
}

func (c *checker) begins(t *transportRole, p place, i gk.Index) {
	k := c.keys[p]
	if k == nil || k.armed[t.id] != t.run {
		return
	}
	if have, ok := k.begins[t.id]; !ok || i < have {
		k.begins[t.id] = i
	}
}

// sessionBegun: a device sends its first HELLO of a session.
func (c *checker) sessionBegun(e *encoder, id gk.SessionID) {
	c.sessionCount++
	s := c.of(e.stream())
	s.sessions[id] = &sessionFacts{by: e, begun: c.engine.now, alive: c.engine.now}
}

func (c *checker) session(stream gk.StreamID, id gk.SessionID) *sessionFacts {
	return c.of(stream).sessions[id]
}

func (c *checker) sessionOver(id gk.SessionID) {
	for _, s := range c.streams {
		if x := s.sessions[id]; x != nil {
			x.over = true
		}
	}
}

// deviceTold: a device's own events.
func (c *checker) deviceTold(e *encoder, ev gk.Event) {
	if ev.Kind != gk.EventRotationDone {
		return
	}
	p := place{ev.Stream, ev.Session, ev.Epoch}
	c.trace("%s sends under epoch %d from index %d", e.p.name, ev.Epoch, ev.Index)
	c.mix(uint64(ev.Epoch)<<32 ^ uint64(ev.Index) ^ uint64(c.engine.now))
	k, s := c.facts(p), c.of(ev.Stream)
	k.installed, k.first = true, ev.Index
	// A device that crashed before it wrote its newest epoch down, and a store from
	// yesterday, together have forgotten it.
	if have := c.raised[e]; ev.Epoch <= have && !(c.restored && e.high < have) {
		c.violate(InvRising, "%s goes from epoch %d to epoch %d", e.p.name, have, ev.Epoch)
	}
	c.raised[e] = max(c.raised[e], ev.Epoch)
	// A store from yesterday cannot know an epoch that only a clone used since.
	if have, used := s.epochs[ev.Epoch]; used && have != k.print && !c.restored {
		c.violate(InvRising, "devices of %s used two keys as epoch %d", ev.Stream, ev.Epoch)
	}
	s.epochs[ev.Epoch] = k.print
	if x := s.sessions[ev.Session]; x != nil {
		x.epochs = append(x.epochs, ev.Epoch)
	}
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
	if c.cutOff[e.id] > c.engine.now {
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
	if x == nil || x.over || c.usurped(p) {
		return true
	}
	// A candidate may have to give way after it was given a key.
	return !x.agreed && (c.overtaken(p) || x.held > 0 && c.engine.now-x.held < 5*time.Second)
}

func (c *checker) ofClone(p place) bool {
	x := c.session(p.stream, p.session)
	return x != nil && x.by.clone
}

// usurped reports whether a clone took the place of a device that was silent for a
// moment: it has the identity, and then nothing holds it back.
func (c *checker) usurped(p place) bool {
	mine := c.session(p.stream, p.session)
	for _, x := range c.of(p.stream).sessions {
		if x.by.clone != mine.by.clone && x.alive >= mine.begun && len(x.epochs) > 0 {
			return true
		}
	}
	return false
}

// overtaken reports whether another session was begun after a candidate.
func (c *checker) overtaken(p place) bool {
	mine := c.session(p.stream, p.session)
	for _, x := range c.of(p.stream).sessions {
		if x.begun > mine.begun {
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

// event: a service announced something.
func (c *checker) event(p *process, data []byte) {
	var e gk.Event
	if err := cbor.Unmarshal(data, &e); err != nil {
		panic(err)
	}
	if c.opt.Trace != nil {
		c.trace("%s: %s stream %s session %s epoch %d %s index %d %v", p.name, e.Kind, e.Stream, short(e.Session), e.Epoch, e.Reason, e.Index, e.Detail)
	}
	switch e.Kind {
	case gk.EventRotationDone:
		if p.isProcessing() && e.Reason != gk.ReasonStart {
			c.rotations++
			c.byReason[e.Reason]++
		}
	case gk.EventRotationDecided:
		if e.Reason == gk.ReasonProof {
			c.accused(e, "a rotation for proof")
		}
		if e.Reason.Urgent() {
			c.spent(p, e)
		}
	case gk.EventProof:
		c.accused(e, "proof")
	case gk.EventLeaseLapsed:
		c.lapsed[gk.TransportID(p.name)] = true
	case gk.EventIdentity:
		c.identity(e)
	case gk.EventSessionStarted:
		if x := c.session(e.Stream, e.Session); x != nil && p.isProcessing() {
			x.agreed = true
		}
	case gk.EventSessionRejected:
		if x := c.session(e.Stream, e.Session); x != nil && p.isProcessing() && e.Detail["code"] == string(gkrp.CodeBusy) {
			x.held = c.engine.now
		}
	case gk.EventSessionEnded:
		c.sessionOver(e.Session)
	}
}

// accused: proof needs a thief who holds the key and used it.
func (c *checker) accused(e gk.Event, what string) {
	k := c.keys[place{e.Stream, e.Session, e.Epoch}]
	if k != nil && k.stolen && k.misused > 0 {
		return
	}
	if e.Kind == gk.EventRotationDecided {
		// It names the epoch that is confirmed; what is known may be the next one.
		for p, k := range c.keys {
			if p.stream == e.Stream && p.session == e.Session && p.epoch >= e.Epoch && k.stolen && k.misused > 0 {
				return
			}
		}
	}
	c.violate(InvKeyless, "%s of %s epoch %d (%v), whose key nobody stole", what, e.Stream, e.Epoch, e.Detail)
}

// identity: a newcomer needs the device's identity, and to be there.
func (c *checker) identity(e gk.Event) {
	id, err := gk.ParseSessionID(e.Detail["newcomer"])
	must(err)
	x := c.session(e.Stream, id)
	if x == nil {
		c.violate(InvKeyless, "newcomer %s of %s is held, and nobody is that", short(id), e.Stream)
	} else if (x.by.p.dead || x.by.dev.Session() != id) && !c.troubled(20*time.Second) {
		c.violate(InvKeyless, "newcomer %s of %s is held, which is long gone", short(id), e.Stream)
	}
}

// spent: evidence caused a rotation; a bucket of the checker's own must allow it.
func (c *checker) spent(p *process, e gk.Event) {
	s, b := c.of(e.Stream), processing.Defaults().Urgent
	k := s.budgets[p]
	if k == nil {
		k = &bucket{tokens: float64(b.Burst)}
		s.budgets[p] = k
	}
	k.tokens = min(float64(b.Burst), k.tokens+float64(c.engine.now-k.refilled)*1.01/float64(b.Every)) - 1
	k.refilled = c.engine.now
	if k.tokens < 0 {
		c.violate(InvBudget, "%s: more rotations for evidence than %d, and one each %v", e.Stream, b.Burst, b.Every)
	}
}

// beginWatch: from here on every stream must be seen to rotate.
func (c *checker) beginWatch() {
	for _, e := range c.encoders {
		c.of(e.stream()).mark = uint64(c.raised[e])
	}
}

// endWatch: every stream is live, and rotated while it was watched.
func (c *checker) endWatch() {
	c.audit.verify()
	for _, e := range c.encoders {
		s := c.of(e.stream())
		switch {
		case e.clone:
		case e.ended != "":
			c.violate(InvLive, "%s gave up: %s", e.id, e.ended)
		case uint64(c.raised[e]) < s.mark+2:
			c.violate(InvLive, "%s stays at epoch %d", e.id, c.raised[e])
		default:
			k := c.keys[place{e.stream(), e.dev.Session(), e.dev.Epoch()}]
			began := false
			if k != nil {
				for _, t := range c.transports {
					if _, ok := k.begins[t.id]; ok && k.armed[t.id] == t.run {
						began = true
					}
				}
			}
			if !began && !c.justSwitched(e) {
				c.violate(InvLive, "%s sends under epoch %d and no transport delivers it", e.id, e.dev.Epoch())
			}
		}
	}
}

// justSwitched: the device's newest epoch is so new that nothing of it can have
// arrived yet.
func (c *checker) justSwitched(e *encoder) bool {
	x := c.session(e.stream(), e.dev.Session())
	if x == nil || len(x.epochs) < 2 {
		return false
	}
	before := x.epochs[len(x.epochs)-2]
	k := c.keys[place{e.stream(), e.dev.Session(), before}]
	return k != nil && len(k.begins) > 0
}
