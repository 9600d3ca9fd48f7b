package sim

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
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
	InvLease     = "no key serves longer than the key service vouches for it"
	InvRevoked   = "nothing of a revoked device is delivered"
	InvOwner     = "one processing service commands at a time"
)

// Invariants lists them all.
var Invariants = []string{InvArmed, InvDecrypt, InvThief, InvRising, InvIndex, InvPersisted, InvLive, InvKeyless, InvBudget, InvAudit, InvChosen, InvLease, InvRevoked, InvOwner}

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

// checker watches a run from above. What it knows, it has seen happen, and not
// been told.
type checker struct {
	*world
	standings
	turns
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
		world: w, standings: newStandings(), turns: newTurns(), keys: map[place]*keyFacts{}, prints: map[fingerprint]place{}, receivers: map[string]string{},
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
	c.bears(r.Stream, r.Epoch, r.Session)
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
		if e.Reason == gk.ReasonSource {
			c.forSource(e)
		}
	case gk.EventProof:
		c.accused(e, "proof")
	case gk.EventAlertOpened:
		if e.Detail["class"] == string(bus.ClassSource) {
			c.sources[e.Stream]++
		}
	case gk.EventStreamHeld:
		c.heldBy(gk.TransportID(p.name), e.Stream)
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
	c.inTurn()
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
