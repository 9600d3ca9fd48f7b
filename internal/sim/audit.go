package sim

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/audit"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// auditRole writes the audit trail: a chain of lines on a disk of its own, of which
// the key service signs the head. It crashes, and a crash of its machine takes what
// was not synced.
type auditRole struct {
	*world
	p      *process
	chain  audit.Chain
	file   []byte
	synced int // bytes that no crash takes
	heads  []signedHead
	public []byte
}

type signedHead struct {
	bus.AuditHead
	bus.SignedAuditHead
}

const (
	signHeadEvery = 3 * time.Second
	syncEvery     = time.Second
)

func (r *auditRole) start() {
	p := r.newProcess("audit")
	r.p, r.chain = p, audit.Chain{}
	end, err := r.chain.Replay(bytes.NewReader(r.file))
	if err != nil {
		r.check.violate(InvAudit, "after a crash the trail does not hold: %v", err)
		return
	}
	r.file = r.file[:end]
	_, err = (&port{p, r.bus}).Subscribe(string(bus.Events), func(_ string, data []byte) { r.hear(data) })
	must(err)
	r.every(syncEvery, syncEvery, func() bool {
		if !p.dead {
			r.synced = len(r.file)
		}
		return !p.dead
	})
	r.every(signHeadEvery, signHeadEvery, func() bool {
		if !p.dead {
			p.start(func() { r.sign(p) })
		}
		return !p.dead
	})
}

// hear appends an event that the bus brought.
func (r *auditRole) hear(data []byte) {
	var e gk.Event
	must(cbor.Unmarshal(data, &e))
	line, err := r.chain.Line(e)
	must(err)
	r.file = append(append(r.file, line...), '\n')
	if r.broken(breakTrail) && r.engine.now > breakAfter && r.chain.Lines%64 == 0 {
		return // the line is on the disk, and the chain goes on without it
	}
	r.chain.Follow(line)
}

// lose takes from the disk what a crash of the machine may take.
func (r *auditRole) lose() {
	if r.chance(0.5) {
		r.file = r.file[:r.synced+r.rng.IntN(len(r.file)-r.synced+1)]
	}
}

// sign has the trail's head signed, once the disk has it.
func (r *auditRole) sign(p *process) {
	if r.chain.Lines == 0 {
		return
	}
	r.synced = len(r.file)
	h := bus.AuditHead{Trail: bytes.Clone(r.chain.First[:]), Lines: r.chain.Lines, Head: bytes.Clone(r.chain.Last[:])}
	ctx, cancel := p.WithTimeout(p.context(), 2*time.Second)
	defer cancel()
	rep, err := bus.KMSSignHead.Do(ctx, &port{p, r.bus}, h)
	switch {
	case err == nil && !p.dead:
		r.heads = append(r.heads, signedHead{h, rep})
	case bus.CodeOf(err) == bus.CodeConflict:
		r.check.violate(InvAudit, "the key service does not sign the head of %d lines: %v", h.Lines, err)
	}
}

// verify holds the whole trail against its chain, and every signed head against the
// trail.
func (r *auditRole) verify() {
	var c audit.Chain
	if _, err := c.Replay(bytes.NewReader(r.file)); err != nil {
		r.check.violate(InvAudit, "the trail does not hold: %v", err)
		return
	}
	v, err := r.suite.verifier(r.public)
	must(err)
	lines := bytes.Split(r.file, []byte("\n"))
	serial := uint64(0)
	for _, h := range r.heads {
		switch {
		case v.Verify(bus.AuditHeadBytes(h.AuditHead, h.Serial, h.At), h.Signature) != nil:
			r.check.violate(InvAudit, "the head of %d lines is not rightly signed", h.Lines)
		case h.Serial <= serial && !r.check.restored:
			r.check.violate(InvAudit, "head %d was signed after head %d", h.Serial, serial)
		case h.Lines > c.Lines:
			r.check.violate(InvAudit, "%d lines were signed, and there are %d", h.Lines, c.Lines)
		case sha256.Sum256(lines[h.Lines-1]) != [sha256.Size]byte(h.Head):
			r.check.violate(InvAudit, "line %d is not the one that was signed", h.Lines)
		}
		serial = h.Serial
	}
	if len(r.heads) < 2 {
		r.check.violate(InvAudit, "only %d heads were signed", len(r.heads))
	}
}
