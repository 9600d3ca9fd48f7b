package sim

import (
	"crypto/ed25519"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// adversary has one of them do something.
func (w *world) adversary() {
	switch n := w.rng.IntN(114); {
	case n < 28:
		w.steal()
	case n < 38:
		w.cloned()
	case n < 52:
		w.replayLetters()
	case n < 64:
		w.withholdLetters()
	case n < 78:
		w.outsider()
	case n < 88:
		w.mallory()
	case n < 94:
		w.secondOwner()
	case n < 100:
		w.backup()
	case n < 104:
		w.replayCommands()
	case n < 108:
		w.withholdLeases()
	case n < 111:
		w.lie()
	default:
		w.revoke()
	}
}

func (w *world) adversariesLeave() {
	for _, c := range w.clones {
		if !c.p.dead {
			w.trace("the clone of %s leaves", c.id)
			c.p.kill()
		}
	}
	clear(w.cutOff)
}

// A thief who has a media key.

type theft struct {
	*world
	of    *encoder
	place place
	mode  int
	until time.Duration
	next  gk.Index
}

const (
	inject = iota // at the indices that come next
	leap          // far ahead
	far           // beyond every rollover counter that is tried
	repeat        // at indices that the device used
	oust          // in place of the device, whose packets are taken off the path
	modes
)

func (w *world) steal() {
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	if w.broken(breakBudget) {
		e = w.encoders[0]
	}
	if e.p.dead || e.dev.Epoch() == 0 {
		return
	}
	p := place{e.stream(), e.dev.Session(), e.dev.Epoch()}
	k := w.check.keys[p]
	if k == nil || k.key.IsZero() || !k.sent {
		return
	}
	t := &theft{world: w, of: e, place: p, mode: w.rng.IntN(modes), next: k.last + 1, until: w.engine.now + w.between(200*time.Millisecond, 6*time.Second)}
	k.stolen = true
	w.trace("the key of %s is stolen, mode %d", p, t.mode)
	if t.mode == oust {
		w.cutOff[e.id] = w.engine.now + w.between(100*time.Millisecond, 3*time.Second)
	}
	w.every(0, w.config.pace/2, func() bool {
		if w.quiet || w.engine.now > t.until {
			return false
		}
		t.write()
		return true
	})
}

func (t *theft) write() {
	k := t.check.keys[t.place]
	index := max(t.next, k.last+1)
	switch t.mode {
	case leap:
		index += 1<<15 - 2000
	case far:
		index += gk.Index(1+t.rng.IntN(5)) << 16
	case repeat:
		index = k.last - min(k.last-k.first, gk.Index(t.rng.IntN(200)))
	}
	if t.mode != repeat {
		t.next = index + 1
	}
	t.forge(t.place, index)
	if t.broken(breakSecrecy) {
		for p, k := range t.check.keys {
			if p.session == t.place.session && p.epoch == t.place.epoch+1 && k.sent {
				k.stolen = true
				t.forge(p, k.last+1)
			}
		}
	}
}

func (t *theft) forge(p place, index gk.Index) {
	k := t.check.keys[p]
	pkt := t.seal(k, p.epoch, index, mark(fromThief, t.of.number, t.place.epoch, index))
	k.misused = max(1, t.engine.now)
	for _, to := range t.transports {
		if _, ok := k.armed[to.id]; ok {
			t.throw(to, datagram{kind: fromThief, bytes: pkt, place: p, index: index, sentAt: t.engine.now})
		}
	}
}

// A clone, with the identity of a device.

func (w *world) cloned() {
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	for _, c := range w.clones {
		if c.id == e.id && !c.p.dead {
			return
		}
	}
	c := &encoder{world: w, id: e.id, number: e.number + 100, clone: true, key: e.key, kmsKey: e.kmsKey, high: e.high}
	w.clones = append(w.clones, c)
	w.trace("a clone of %s comes", c.id)
	w.fault(10 * time.Second)
	c.start()
	p := c.p
	w.after(w.between(500*time.Millisecond, 10*time.Second), func() {
		if !p.dead {
			w.trace("the clone of %s leaves", c.id)
			p.kill()
		}
	})
}

// A broker that is not honest.

func (w *world) replayLetters() {
	all := w.broker.record
	if len(all) == 0 {
		return
	}
	n := 1 + w.rng.IntN(30)
	from := w.rng.IntN(len(all))
	w.trace("the broker repeats %d messages of %v ago", n, w.engine.now-all[from].at)
	for i := range n {
		l := all[(from+i)%len(all)]
		l.from = nil
		switch w.rng.IntN(8) {
		case 0: // spoilt
			l.payload = slices.Clone(l.payload)
			l.payload[w.rng.IntN(len(l.payload))] ^= 1 << w.rng.IntN(8)
		case 1: // to somebody else
			l.topic = all[w.rng.IntN(len(all))].topic
		}
		w.after(w.between(0, 200*time.Millisecond), func() { w.broker.deliver(l) })
	}
}

func (w *world) withholdLetters() {
	d := w.between(200*time.Millisecond, 12*time.Second)
	r := rule{until: w.engine.now + d, direction: gkrp.Up}
	switch w.rng.IntN(6) {
	case 0, 1:
		r.kind = gkrp.TypeAck
	case 2:
		r.kind, r.direction = gkrp.TypeGrant, gkrp.Down
	case 3:
		r.kind = gkrp.TypeReport
	case 4:
		r.direction = gkrp.Down
	}
	if w.chance(0.5) {
		r.stream = w.encoders[w.rng.IntN(len(w.encoders))].stream()
	}
	w.trace("the broker withholds %q %s of %q for %v", r.kind, r.direction, r.stream, d)
	w.fault(d)
	w.withhold = append(w.withhold, r)
}

// An outsider, who has no key.

// captured are packets that an outsider saw pass.
const captured = 512

func (w *world) capture(t *transportRole, d datagram) {
	c := capture{t, d}
	if len(w.tapes) < captured {
		w.tapes = append(w.tapes, c)
	} else if w.chance(0.2) {
		w.tapes[w.rng.IntN(captured)] = c
	}
}

type capture struct {
	t *transportRole
	d datagram
}

func (w *world) outsider() {
	if len(w.tapes) == 0 {
		return
	}
	w.trace("an outsider throws packets")
	for range 1 + w.rng.IntN(60) {
		c := w.tapes[w.rng.IntN(len(w.tapes))]
		d := c.d
		d.kind, d.sentAt = fromNobody, w.engine.now
		switch w.rng.IntN(5) {
		case 0: // noise
			d.bytes = make([]byte, w.rng.IntN(80))
			_, _ = seeded{w.rng}.Read(d.bytes)
		case 1: // forged, with what can be seen from outside
			d.bytes = slices.Clone(d.bytes)
			d.bytes[12+w.rng.IntN(len(d.bytes)-16)] ^= 1 << w.rng.IntN(8)
		case 2: // of an epoch that does not exist
			d.bytes = slices.Clone(d.bytes)
			d.bytes[len(d.bytes)-1-w.rng.IntN(4)] ^= 1 << w.rng.IntN(8)
		}
		w.after(w.between(0, 500*time.Millisecond), func() { w.throw(c.t, d) })
	}
}

// Mallory runs on the machine of the processing service: she has its place on the
// bus and its signing key, and wants keys.

func (w *world) mallory() {
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	if e.p.dead || e.dev.Epoch() == 0 {
		return
	}
	p := w.newProcess("mallory")
	w.guests = append(w.guests, p)
	w.trace("mallory tries to have the key of %s", e.stream())
	session, epoch := e.dev.Session(), e.dev.Epoch()
	p.start(func() { w.intrude(p, e, session, epoch) })
}

func (w *world) intrude(p *process, e *encoder, session gk.SessionID, epoch gk.Epoch) {
	ctx, _ := p.WithTimeout(p.context(), 5*time.Second)
	o := &port{p, w.bus}
	_, private, err := ed25519.GenerateKey(seeded{w.rng})
	must(err)
	signer, err := w.suite.signer(private)
	must(err)
	receiver, err := w.suite.kem.Generate(uint16(gkrp.SuiteMLKEM768X25519))
	must(err)
	ask := func(r bus.KMSReleaseRequest) {
		r.Device, r.Stream, r.Session = e.id, e.stream(), session
		_, _ = bus.KMSRelease.Do(ctx, o, r)
	}
	t := w.transports[w.rng.IntN(len(w.transports))]
	word, err := gkrp.SignReceiverKey(signer, []byte("mallory"), &gkrp.ReceiverKey{Transport: t.id, Suite: gkrp.SuiteMLKEM768X25519, Public: receiver.Public()})
	must(err)
	prekey, err := gkrp.SignPrekey(signer, []byte("mallory"), &gkrp.Prekey{Device: e.id, Stream: e.stream(), Session: session, Suite: gkrp.SuiteMLKEM768X25519, Public: receiver.Public()})
	must(err)
	switch w.rng.IntN(5) {
	case 0: // a key of her own under a transport's certificate
		ask(bus.KMSReleaseRequest{Epoch: epoch, Transports: []bus.TransportReceiver{{Transport: t.id, Key: word, Certificate: t.certificate}}})
	case 1: // a prekey of her own
		ask(bus.KMSReleaseRequest{Epoch: epoch, Prekey: prekey})
	case 2: // a key of her choice for the device
		w.chooseKey(p, e, session, epoch+1, signer)
	case 3: // and for a transport
		env := w.ownEnvelope(e, session, epoch+1, "transport/"+string(t.id), signer)
		_, _ = bus.TransportArm.Do(ctx, o, string(t.id), bus.ArmRequest{Stream: e.stream(), Session: session, Epoch: epoch + 1, Envelope: env, Reason: gk.ReasonOperator, Term: w.term()})
	case 4: // a key that was in use before, for a receiver that may have keys
		ask(bus.KMSReleaseRequest{Epoch: epoch - min(epoch-1, gk.Epoch(1+w.rng.IntN(40))), Transports: []bus.TransportReceiver{t.here}})
	}
}

// ownEnvelope is one that the key service never saw.
func (w *world) ownEnvelope(e *encoder, session gk.SessionID, epoch gk.Epoch, to string, signer gkrp.Signer) []byte {
	env, err := gkrp.SignKeyEnvelope(signer, []byte("mallory"), &gkrp.KeyEnvelope{
		Stream: e.stream(), Session: session, Epoch: epoch, Suite: gkrp.SuiteMLKEM768X25519,
		Receiver: to, KeyID: make([]byte, 16), Sealed: make([]byte, 60), SSRC: w.check.facts(place{e.stream(), session, epoch - 1}).ssrc,
	})
	must(err)
	return env
}

func (w *world) chooseKey(p *process, e *encoder, session gk.SessionID, epoch gk.Epoch, signer gkrp.Signer) {
	official, err := w.suite.signer(w.processing.key)
	must(err)
	g := &gkrp.Grant{
		Stream: e.stream(), Session: session, Epoch: epoch, Reason: gk.ReasonOperator, ActWithin: 2000,
		Envelope: w.ownEnvelope(e, session, epoch, "device/"+string(e.id), signer), Term: w.term(),
	}
	wire, err := gkrp.Sign(official, []byte("processing-1"), w.processing.controller, gkrp.Scope{Device: e.id, Stream: e.stream()}, g)
	must(err)
	_ = (&desk{p, w.broker}).Send(gkrp.Topic(e.id, e.stream(), gkrp.Down), wire)
}

// term is the fencing term that is on record.
func (w *world) term() (t uint64) {
	for _, b := range w.disk.entries["term"].Value {
		t = 10*t + uint64(b-'0')
	}
	return t
}

// secondOwner starts a processing service beside one that does not know of it.
// The first goes as soon as it notices that the second holds its place.
func (w *world) secondOwner() {
	if w.config.turns {
		w.strand()
		return
	}
	old := w.processing.instance
	if old.p.dead || old.p.doomed {
		return
	}
	w.trace("a second processing service starts")
	w.fault(10 * time.Second)
	w.processing.add()
	w.after(w.between(100*time.Millisecond, 8*time.Second), func() {
		w.trace("%s stops", old.name)
		late := w.disk.termBy == old.p
		old.stop()
		if p := w.processing.p; late && !p.dead && p.inherit() {
			// It was slow to start and so has the later term: whoever is left has been
			// replaced by it, and a supervisor has to start it anew.
			w.trace("and so does %s, which it had replaced", p.name)
			p.kill()
			w.processing.start()
		}
	})
}

// backup makes a backup of the store, or brings one back.
func (w *world) backup() {
	if len(w.check.revoked) > 0 {
		return // see revoke
	}
	if w.disk.backup == nil || w.chance(0.3) {
		w.trace("a backup is made")
		w.disk.save()
		return
	}
	if w.chance(0.5) {
		return
	}
	w.trace("the backup is brought back")
	w.fault(10 * time.Second)
	w.check.restored = true
	stopped := func(p *process, start func()) {
		p.kill()
		if p.inherit() {
			w.after(w.between(0, time.Second), start)
		}
	}
	stopped(w.kms.p, w.kms.start)
	stopped(w.processing.p, w.processing.start)
	for _, o := range w.processing.others {
		if w.config.turns {
			stopped(o.p, o.start)
		} else {
			o.stop()
		}
	}
	w.disk.restore()
}
