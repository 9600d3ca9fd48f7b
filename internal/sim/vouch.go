package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// standings is what the checker knows of the key service's word that sessions may
// have keys, and of that it is taken back.
type standings struct {
	marks   map[string]beat           // announced by transports
	until   map[vouched]time.Duration // the key service's word is good
	bearers map[spell][]gk.SessionID  // sessions that an epoch was armed for
	revoked map[gk.StreamID]*revocation
	orders  map[hold]*holdOrder
	sources map[gk.StreamID]int // what may rotate a stream for its source, less what did
}

func newStandings() standings {
	return standings{
		marks: map[string]beat{}, until: map[vouched]time.Duration{}, bearers: map[spell][]gk.SessionID{},
		revoked: map[gk.StreamID]*revocation{}, orders: map[hold]*holdOrder{}, sources: map[gk.StreamID]int{},
	}
}

// beat is one announcement of a transport's clock.
type beat struct {
	of  gk.TransportID
	run int
	at  time.Duration
}

// vouched names a session at one start of a transport.
type vouched struct {
	by      gk.TransportID
	run     int
	stream  gk.StreamID
	session gk.SessionID
}

// spell is an epoch of a stream.
type spell struct {
	stream gk.StreamID
	epoch  gk.Epoch
}

type revocation struct {
	asked   time.Duration // the operator began
	silence time.Duration // from then on nothing may be delivered; 0: not known yet
}

type hold struct {
	stream gk.StreamID
	by     gk.TransportID
}

// holdOrder is the last order of its kind that a processing service gave.
type holdOrder struct {
	held      bool
	confirmed bool
}

// leaseSlack is what a transport's clock may be slow on a lease, and how long it
// takes to look at it.
const leaseSlack = 60 * time.Millisecond

// silenceAfter is how long after a revocation returned the last packet may come out.
const silenceAfter = time.Second

// announcedBeat: a transport told its clock, with a mark that only it can make.
func (c *checker) announcedBeat(t *transportRole, a bus.TransportAnnouncement) {
	if _, known := c.marks[string(a.Mark)]; !known {
		c.marks[string(a.Mark)] = beat{t.id, t.run, c.engine.now}
	}
}

// vouches: the key service signed leases.
func (c *checker) vouches(words ...[]byte) {
	for _, word := range words {
		l, err := gkrp.OpenLease(gullible{}, word)
		if err != nil {
			continue
		}
		from, ok := c.marks[string(l.Mark)]
		if !ok || from.of != l.Transport {
			continue // of no beat that was ever told: no transport takes it
		}
		for _, s := range l.Sessions {
			if r, x := c.revoked[s.Stream], c.session(s.Stream, s.Session); r != nil && r.silence > 0 && x != nil && x.begun < r.asked && from.at > r.silence {
				c.violate(InvRevoked, "the key service vouches for session %s of %s, whose device is revoked", short(s.Session), s.Stream)
			}
			v := vouched{from.of, from.run, s.Stream, s.Session}
			c.until[v] = max(c.until[v], from.at+l.For())
		}
	}
}

// answered tells the checker what the key service said.
func (c *checker) answered(subject string, answer []byte) {
	var rep reply
	if cbor.Unmarshal(answer, &rep) != nil || rep.Refusal != nil {
		return
	}
	switch subject {
	case string(bus.KMSStanding):
		var r bus.StandingReply
		must(cbor.Unmarshal(rep.Reply, &r))
		c.vouches(r.Word)
	case string(bus.KMSRelease):
		var r bus.KMSReleaseReply
		must(cbor.Unmarshal(rep.Reply, &r))
		for _, w := range r.Words {
			c.vouches(w)
		}
	}
}

// entitled: a transport hands a packet on. Some session of its epoch must be one that
// the key service vouches for, and none that was revoked.
func (c *checker) entitled(t *transportRole, stream gk.StreamID, epoch gk.Epoch) {
	best, known := time.Duration(0), false
	r := c.revoked[stream]
	for _, id := range c.bearers[spell{stream, epoch}] {
		x := c.session(stream, id)
		if r != nil && r.silence > 0 && c.engine.now > r.silence && x != nil && x.begun < r.asked && !c.restored {
			c.violate(InvRevoked, "%s delivers epoch %d of %s, %v after its device was revoked", t.id, epoch, stream, c.engine.now-r.silence)
			return
		}
		known = true
		best = max(best, c.until[vouched{t.id, t.run, stream, id}])
	}
	if known && c.engine.now > best+leaseSlack {
		c.violate(InvLease, "%s delivers epoch %d of %s, %v after the key service's word for it ran out", t.id, epoch, stream, c.engine.now-best)
	}
}

// bears: an epoch was armed for a session.
func (c *checker) bears(stream gk.StreamID, epoch gk.Epoch, session gk.SessionID) {
	s := spell{stream, epoch}
	if !slices.Contains(c.bearers[s], session) {
		c.bearers[s] = append(c.bearers[s], session)
	}
}

// banned reports whether a session's device was revoked, or is being: there is no
// saying then who knows of it already.
func (c *checker) banned(p place) bool {
	r, x := c.revoked[p.stream], c.session(p.stream, p.session)
	return r != nil && x != nil && x.begun < r.asked
}

const holdSubject = string(bus.TransportHold) + "."

// ordersHold: a processing service orders a transport to hold a stream, or to free it.
// It gives what to call when the transport has confirmed.
func (c *checker) ordersHold(p *process, subject string, data []byte) (confirmed func()) {
	to, ok := strings.CutPrefix(subject, holdSubject)
	if !ok || !p.isProcessing() {
		return func() {}
	}
	var r bus.HoldRequest
	must(cbor.Unmarshal(data, &r))
	o := &holdOrder{held: r.Held}
	c.orders[hold{r.Stream, gk.TransportID(to)}] = o
	return func() { o.confirmed = true }
}

// heldBy: a transport holds a stream from now on.
func (c *checker) heldBy(t gk.TransportID, stream gk.StreamID) {
	if o := c.orders[hold{stream, t}]; o != nil && !o.held && o.confirmed {
		c.violate(InvKeyless, "%s holds %s, though it had confirmed that it is free", t, stream)
	}
}

// forSource: a rotation for the source was decided. An operator must have ordered it,
// or what transports measured have raised an alert.
func (c *checker) forSource(e gk.Event) {
	if c.sources[e.Stream]--; c.sources[e.Stream] < 0 {
		c.violate(InvKeyless, "%s is rotated for its source, and nobody ordered it", e.Stream)
	}
}
