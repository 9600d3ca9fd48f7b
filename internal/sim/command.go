package sim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A bus that is not honest: it keeps the commands of leases and holds, brings them
// again, mixes them, and does not bring what keeps leases alive.

// command is a request to a transport, as it passed.
type command struct {
	subject string
	data    []byte
}

const keptCommands = 256

var leaseSubject, disarmSubject = string(bus.TransportLease) + ".", string(bus.TransportDisarm) + "."

// keep records a request that is worth bringing again.
func (b *busNet) keep(subject string, data []byte) {
	if !strings.HasPrefix(subject, leaseSubject) && !strings.HasPrefix(subject, holdSubject) && !strings.HasPrefix(subject, disarmSubject) {
		return
	}
	if len(b.commands) < keptCommands {
		b.commands = append(b.commands, command{subject, data})
	} else if b.chance(0.2) {
		b.commands[b.rng.IntN(keptCommands)] = command{subject, data}
	}
}

// again brings a request to whoever answers it.
func (b *busNet) again(c command) {
	for _, r := range b.responders {
		if r.serves(c.subject) && !r.p.dead {
			r.p.start(func() { b.serve(r, c.subject, c.data) })
			return
		}
	}
}

func (w *world) replayCommands() {
	all := w.bus.commands
	if len(all) == 0 {
		return
	}
	w.trace("the bus repeats commands")
	for range 1 + w.rng.IntN(12) {
		c := all[w.rng.IntN(len(all))]
		switch w.rng.IntN(4) {
		case 0: // under a beat that it is not for
			c = w.mixed(c, nil)
		case 1: // and spoilt
			c = w.mixed(c, func(_ gk.TransportID, l bus.Lease) []byte {
				word := slices.Clone(l.Word)
				if len(word) > 0 {
					word[w.rng.IntN(len(word))] ^= 1 << w.rng.IntN(8)
				}
				return word
			})
		}
		w.after(w.between(0, time.Second), func() { w.bus.again(c) })
	}
}

// mixed puts the newest beat of its transport, and the latest term, into a lease that
// passed: what the key service signed is for an earlier one. Where word is given, it
// stands in place of the key service's.
func (w *world) mixed(c command, word func(gk.TransportID, bus.Lease) []byte) command {
	var r bus.LeaseRequest
	id, ok := strings.CutPrefix(c.subject, leaseSubject)
	if !ok || cbor.Unmarshal(c.data, &r) != nil {
		return c
	}
	for _, t := range w.transports {
		if string(t.id) == id {
			a := t.announced
			r.Lease.Started, r.Lease.Beat, r.Lease.Mark, r.Term = a.Started, a.Beat, a.Mark, max(r.Term, a.Term)
			if word != nil {
				r.Lease.Word = word(t.id, r.Lease)
			}
		}
	}
	b, err := exact.Marshal(r)
	must(err)
	return command{c.subject, b}
}

// exact writes times as the services do, to the nanosecond.
var exact = func() cbor.EncMode {
	m, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	must(err)
	return m
}()

// forgeLeases has the bus make leases of its own.
func (w *world) forgeLeases() {
	_, private, err := ed25519.GenerateKey(seeded{w.rng})
	must(err)
	signer, err := w.suite.signer(private)
	must(err)
	w.trace("the bus forges leases")
	for _, c := range w.bus.commands {
		w.bus.again(w.mixed(c, func(to gk.TransportID, l bus.Lease) []byte {
			own := &gkrp.Lease{Transport: to, Mark: l.Mark, ForMs: 3_600_000}
			for _, e := range w.encoders {
				if !e.p.dead {
					own.Sessions = append(own.Sessions, gkrp.LeaseSession{Stream: e.stream(), Session: e.dev.Session()})
				}
			}
			if len(own.Sessions) == 0 {
				return nil
			}
			word, err := gkrp.SignLease(signer, []byte("kms"), own)
			must(err)
			return word
		}))
	}
}

// withholdLeases keeps what renews leases off its way for a while.
func (w *world) withholdLeases() {
	d := w.between(time.Second, 20*time.Second)
	subject := []string{leaseSubject, string(bus.KMSStanding), string(bus.TransportHere)}[w.rng.IntN(3)]
	w.trace("the bus withholds %s for %v", subject, d)
	w.fault(d)
	w.bus.denied = append(w.bus.denied, denial{subject, w.engine.now + d})
}

type denial struct {
	prefix string
	until  time.Duration
}

func (b *busNet) denies(subject string) bool {
	return slices.ContainsFunc(b.denied, func(d denial) bool { return d.until > b.engine.now && strings.HasPrefix(subject, d.prefix) })
}

// An operator who revokes a device, does as the API does, and enrols it anew.

func (w *world) revoke() {
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	// A store from yesterday has forgotten both revocation and enrolment: operators
	// have to enrol again what they had enrolled since.
	if w.check.revoked[e.stream()] != nil || w.disk.backup != nil {
		return
	}
	if w.engine.now+max(w.config.lease, lateRevocation) > w.opt.active()+settleFor/3 {
		return // the device could not be back at the end
	}
	w.trace("%s is revoked", e.id)
	w.fault(10 * time.Second)
	r := &revocation{asked: w.engine.now}
	w.check.revoked[e.stream()] = r
	p := w.newProcess("operator")
	w.guests = append(w.guests, p)
	p.start(func() {
		done := w.dismiss(p, e, r)
		wait := w.between(silenceAfter, 5*time.Second)
		if p.wait(p.context(), max(wait, done-w.engine.now)) == nil {
			w.enrolAnew(p, e)
		}
	})
}

// lateRevocation is how long after it was asked for a revocation may be done, or done
// again: a request that the bus brings late or twice, to a key service whose store
// stalls. It is then of the enrolment that is there, to be on the safe side, so that who
// enrols the device anew has to wait for that.
const lateRevocation = 15 * time.Second

// insist does something until it succeeds.
func (p *process) insist(do func() error) {
	for !p.dead && do() != nil {
		_ = p.Sleep(p.context(), 300*time.Millisecond)
	}
}

// dismiss revokes a device. It gives the time from which no order of it is under way.
func (w *world) dismiss(p *process, e *encoder, r *revocation) (done time.Duration) {
	o := &port{p, w.bus}
	var rep bus.RevokeReply
	p.insist(func() (err error) {
		ctx, _ := p.WithTimeout(p.context(), 5*time.Second)
		done = w.engine.now + lateRevocation
		rep, err = bus.KMSRevoke.Do(ctx, o, bus.RevokeRequest{Device: e.id})
		return err
	})
	over := w.engine.now + p.real(rep.Lease)
	ctx, _ := p.WithTimeout(p.context(), 8*time.Second)
	disarmed, err := bus.ProcessingDisarm.Do(ctx, o, bus.DisarmDeviceRequest{Device: e.id, Streams: rep.Device.Streams, Lease: rep.Lease})
	if p.dead {
		return done
	}
	if err != nil || len(disarmed.Missing) > 0 || len(disarmed.Confirmed) == 0 {
		w.trace("the revocation of %s has to wait for leases: %v, %v", e.id, err, disarmed.Missing)
		_ = p.wait(p.context(), max(0, over-w.engine.now))
	}
	r.silence = w.engine.now + silenceAfter
	w.trace("%s is known to be revoked", e.id)
	return done
}

func (w *world) enrolAnew(p *process, e *encoder) {
	o := &port{p, w.bus}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	must(err)
	secret := []byte("secret of " + e.id + " again")
	joined := false
	// Whoever does not know whether a token was used makes another.
	p.insist(func() error {
		secret = append(secret, '.')
		hash := sha256.Sum256(secret)
		ctx, _ := p.WithTimeout(p.context(), 5*time.Second)
		_, err := bus.KMSEnroll.Do(ctx, o, bus.EnrollRequest{Device: e.id, Hash: hash[:]})
		if err == nil {
			_, err = bus.KMSJoin.Do(ctx, o, bus.JoinRequest{Device: e.id, Hash: hash[:], CSR: csr})
		}
		joined = err == nil
		return err
	})
	if !joined || p.dead {
		return
	}
	w.trace("%s is enrolled anew", e.id)
	for _, c := range w.clones {
		if c.id == e.id {
			c.p.kill() // what it copied is worth nothing now
		}
	}
	e.key, e.ended = private, ""
	if !e.p.dead {
		e.p.kill()
		if e.p.inherit() {
			e.start()
		}
	}
}

// lie has a device's reports tell of its source whatever comes to mind: who has the
// device's identity can sign that.
func (w *world) lie() {
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	d := w.between(time.Second, 10*time.Second)
	w.trace("%s lies about its source for %v", e.id, d)
	w.liars[e.id] = w.engine.now + d
}

// lied rewrites a report of a device that lies.
func (d *desk) lied(topic string, wire []byte) []byte {
	w := d.b.world
	device, stream, way, err := gkrp.ParseTopic(topic)
	if err != nil || way != gkrp.Up || w.liars[device] <= w.engine.now {
		return wire
	}
	m, err := gkrp.Parse(wire, gkrp.Up)
	if err != nil || m.Type != gkrp.TypeReport {
		return wire
	}
	i := slices.IndexFunc(w.encoders, func(e *encoder) bool { return e.id == device && e.p == d.p })
	if i < 0 {
		return wire
	}
	signer, err := w.suite.signer(w.encoders[i].key)
	must(err)
	verifier, err := w.suite.verifier(w.encoders[i].key.Public().(ed25519.PublicKey))
	must(err)
	scope := gkrp.Scope{Device: device, Stream: stream}
	told, err := m.Verify(verifier, scope)
	must(err)
	r := told.(*gkrp.Report)
	huge := func() uint64 { return w.rng.Uint64() >> w.rng.IntN(64) }
	r.Ingress = &gkrp.Ingress{
		SpanMs: uint32(huge()), Packets: huge(), Bytes: huge(), GapMs: uint32(huge()), IdleMs: uint32(huge()),
		Frames: huge(), Missing: huge(), Breaks: huge() >> 40, Strange: huge(), Marks: make([]byte, gkrp.MarkBytes*w.rng.IntN(gkrp.MaxMarks)),
	}
	_, _ = seeded{w.rng}.Read(r.Ingress.Marks)
	r.Encoder = &gkrp.Encoder{Changes: huge(), AgoMs: uint32(huge()), Why: gkrp.WhyFailed, Regime: "night"}
	if w.broken(breakIngress) && r.Ingress.Breaks > 0 && w.processing.svc != nil && !w.processing.serving.dead {
		w.processing.svc.Order(stream, gk.ReasonSource)
	}
	out, err := gkrp.Sign(signer, gkrp.KeyID(w.encoders[i].key.Public().(ed25519.PublicKey)), nil, scope, r)
	must(err)
	return out
}
