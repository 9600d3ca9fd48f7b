package sim

import (
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Processing services that serve in turn, as in a cluster: by the real lease, in a
// store that stalls, loses answers, does late what was asked, and reads stale.

const ownerRecord, termRecord = "owner", "term"

// inTurn serves while the instance holds the lease, and ends this run of it when
// another has taken it.
func (i *instance) inTurn(p *process, serve func()) {
	lease := store.NewLeaseOn(p, &shelf{p, i.role.disk}, ownerRecord, i.name)
	if lease.Acquire(p.context(), nil) != nil || p.dead {
		return
	}
	i.role.trace("%s serves from now on", p.name)
	i.role.check.holders[p] = true
	p.Go(func() {
		err := lease.Hold(p.context())
		if p.dead {
			return
		}
		i.role.trace("%s has lost its lease: %v", p.name, err)
		delete(i.role.check.holders, p)
		i.anew(p, 0)
	})
	serve()
}

// any gives one of the instances.
func (r *processingRole) any() *instance {
	n := r.rng.IntN(len(r.others) + 1)
	if n == len(r.others) {
		return r.instance
	}
	return r.others[n]
}

// strand cuts whoever serves off the store, and off nothing else: it goes on
// commanding, and does not know that another takes its place.
func (w *world) strand() {
	p := w.processing.serving
	if p == nil || p.dead || p.doomed {
		return
	}
	d := w.between(time.Second, 9*time.Second)
	w.trace("%s is cut off the store for %v", p.name, d)
	w.fault(d)
	w.stranded[p.name] = w.engine.now + d
}

// staleReads is how often what a lease's record was is read in place of what it is.
func (d *disk) staleReads() float64 {
	switch {
	case d.broken(breakTurn):
		return 0.95
	case d.quiet:
		return 0
	}
	return 0.1
}

// turns is what the checker knows of who commands.
type turns struct {
	holders map[*process]bool    // that believe to hold the lease
	lastBy  *process             // wrote the lease's record last
	lastAt  time.Duration        // and when
	free    bool                 // it was given back
	terms   map[commanded]uint64 // the latest under which a transport obeyed
}

// commanded is a stream at one start of a transport.
type commanded struct {
	by     gk.TransportID
	run    int
	stream gk.StreamID
}

func newTurns() turns { return turns{holders: map[*process]bool{}, terms: map[commanded]uint64{}} }

// The shortest times after the holder's last beat at which somebody else may take the
// lease: another instance, and one of the same name, whose process may have been
// killed. Clocks may be a little fast.
const (
	leaseQuiet = 4*store.LeaseBeat - 50*time.Millisecond
	ownQuiet   = 2*store.LeaseBeat - 50*time.Millisecond
)

// leaseWritten: the store took a lease's record.
func (c *checker) leaseWritten(p *process, value []byte, existed bool) {
	var rec struct {
		Owner string `cbor:"1,keyasint"`
	}
	must(cbor.Unmarshal(value, &rec))
	if before := c.lastBy; before != nil && before != p && !c.free && existed && !c.restored {
		quiet := leaseQuiet
		if before.name == p.name {
			quiet = ownQuiet
		}
		if c.engine.now-c.lastAt < quiet {
			c.violate(InvOwner, "%s takes the lease %v after a beat of %s", p.name, c.engine.now-c.lastAt, before.name)
		}
	}
	c.lastBy, c.lastAt, c.free = p, c.engine.now, rec.Owner == ""
}

// fencing reads the stream and the term of a command to a transport.
func fencing(subject string, data []byte) (stream gk.StreamID, term uint64, ok bool) {
	switch {
	case strings.HasPrefix(subject, armSubject):
		var r bus.ArmRequest
		must(cbor.Unmarshal(data, &r))
		return r.Stream, r.Term, true
	case strings.HasPrefix(subject, switchSubject):
		var r bus.SwitchRequest
		must(cbor.Unmarshal(data, &r))
		return r.Stream, r.Term, true
	case strings.HasPrefix(subject, releaseSubject):
		var r bus.ReleaseStream
		must(cbor.Unmarshal(data, &r))
		return r.Stream, r.Term, true
	}
	return "", 0, false
}

// obeyed: a transport did as it was told.
func (c *checker) obeyed(by *responder, subject string, data, answer []byte) {
	stream, term, ok := fencing(subject, data)
	if !ok {
		return
	}
	var rep reply
	if must(cbor.Unmarshal(answer, &rep)); rep.Refusal != nil {
		return
	}
	for _, t := range c.transports {
		if t.p != by.p {
			continue
		}
		k := commanded{t.id, t.run, stream}
		if term < c.terms[k] {
			c.violate(InvOwner, "%s obeys term %d about %s after term %d", t.id, term, stream, c.terms[k])
		}
		c.terms[k] = max(c.terms[k], term)
	}
}

// inTurn: after a while of peace one instance holds the lease, and believes so alone.
func (c *checker) inTurn() {
	n := 0
	for p := range c.holders {
		if !p.dead {
			n++
		}
	}
	if c.config.turns && n != 1 {
		c.violate(InvOwner, "%d processing services believe to hold the lease", n)
	}
}

// unfenced is a command as a transport that looks at no term would take it.
func (b *busNet) unfenced(subject string, data []byte) []byte {
	if !b.broken(breakTerm) || !strings.HasPrefix(subject, switchSubject) {
		return data
	}
	var r bus.SwitchRequest
	must(cbor.Unmarshal(data, &r))
	r.Term = max(r.Term, b.world.term())
	out, err := cbor.Marshal(r)
	must(err)
	return out
}
