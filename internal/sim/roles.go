package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/kms"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

// again is how long a supervisor waits before it starts a role that failed.
const again = 300 * time.Millisecond

// kmsRole is the key management service.
type kmsRole struct {
	*world
	p   *process
	svc *kms.Service
}

func (r *kmsRole) start() {
	p := r.newProcess("kms")
	r.p, r.svc = p, nil
	p.start(func() {
		svc, err := kms.New(p.context(), kms.Config{
			Lease: r.config.lease,
			KEK:   kms.KEK{URI: "file:" + r.opt.Dir + "/kek"}, Host: p,
			KEM: r.kem("kms"), Sign: r.suite.sign, Verifier: r.kmsVerifier,
		}, &shelf{p, r.disk}, &port{p, r.bus})
		if err == nil {
			err = svc.Attach()
		}
		if p.dead {
			return
		}
		if err != nil {
			r.trace("kms does not start: %v", err)
			r.after(0, p.kill)
			if p.inherit() {
				r.after(again, r.start)
			}
			return
		}
		r.svc = svc
		r.saver(p, svc)
	})
}

// saver runs what the service's own saver would.
func (r *kmsRole) saver(p *process, svc *kms.Service) {
	busy := false
	r.every(10*time.Millisecond, 20*time.Millisecond, func() bool {
		if !busy && !p.dead {
			busy = true
			p.start(func() {
				if !svc.SaveDue(p.context()) {
					_ = p.Sleep(p.context(), 100*time.Millisecond)
				}
				busy = false
			})
		}
		return !p.dead
	})
}

// transportRole is one transport.
type transportRole struct {
	*world
	id          gk.TransportID
	p           *process
	svc         *transport.Detached
	key         ed25519.PrivateKey
	certificate []byte
	kmsPublic   ed25519.PublicKey
	run         int                   // counts its starts
	here        bus.TransportReceiver // as it announces itself
	announced   bus.TransportAnnouncement
}

func (r *transportRole) start() {
	p := r.newProcess(string(r.id))
	r.p = p
	r.run++
	signer, err := r.suite.signer(r.key)
	must(err)
	verifier, err := r.suite.verifier(r.kmsPublic)
	must(err)
	if r.broken(breakLease) {
		verifier = gullible{}
	}
	cfg := transport.Defaults()
	// Rotations follow one another a thousand times as fast as on a site. Slots that
	// are kept to watch for misuse must not outlast a minute's worth of them.
	cfg.WatchFor = 5 * time.Second
	cfg.ID, cfg.Advertise, cfg.Host, cfg.KEM = r.id, string(r.id)+":1", p, r.kem("transport/"+string(r.id))
	cfg.Tap = func(stream gk.StreamID, index gk.Index, payload []byte) { r.check.tapped(r, stream, index, payload) }
	r.svc, err = transport.NewDetached(cfg, &port{p, r.bus}, transport.Identity{Signer: signer, Certificate: r.certificate, KMS: verifier}, r.log)
	must(err)
	svc := r.svc
	r.every(0, 2*time.Second, func() bool {
		if !p.dead {
			svc.Announce()
		}
		return !p.dead
	})
	r.every(time.Second, time.Second, func() bool {
		if !p.dead {
			svc.Report(p.Now())
		}
		return !p.dead
	})
	r.every(10*time.Millisecond, 10*time.Millisecond, func() bool {
		if !p.dead {
			svc.Tick(p.Now())
		}
		return !p.dead
	})
}

// processingRole is the processing service: one instance as a rule, and for a
// while several that all believe to be it. The newest is embedded.
type processingRole struct {
	*world
	*instance
	others     []*instance
	svc        *processing.Service // the one that began to serve last
	serving    *process            // and where it runs
	key        ed25519.PrivateKey
	controller []byte
}

// instance is one place where the processing service runs, with a supervisor.
type instance struct {
	role  *processingRole
	name  string
	p     *process
	ended bool // its supervisor was stopped too
}

// add brings another instance.
func (r *processingRole) add() {
	if r.instance != nil {
		r.others = append(r.others, r.instance)
	}
	r.instance = &instance{role: r, name: fmt.Sprintf("%s-%d", processingName, len(r.others)+1)}
	r.start()
}

// processingName is what the names of all instances begin with.
const processingName = "processing"

// isProcessing reports whether a process is an instance of the processing service.
func (p *process) isProcessing() bool { return strings.HasPrefix(p.name, processingName) }

// stop ends the instance for good.
func (i *instance) stop() {
	i.ended = true
	i.p.kill()
}

func (i *instance) start() {
	if i.ended {
		return
	}
	r := i.role
	p := r.newProcess(i.name)
	i.p = p
	signer, err := r.suite.signer(r.key)
	must(err)
	cfg := processing.Defaults()
	cfg.Host, cfg.Verifier = p, r.suite.verifier
	cfg.RotateEvery, cfg.RotatePackets, cfg.ReportEvery = r.config.every, r.config.packets, 500*time.Millisecond
	if r.broken(breakBudget) {
		cfg.Urgent.Burst, cfg.UrgentSite.Burst = 1000, 1000
	}
	if r.config.turns {
		p.start(func() { i.inTurn(p, func() { i.serve(p, cfg, signer) }) })
		return
	}
	p.start(func() { i.serve(p, cfg, signer) })
}

// serve runs the service.
func (i *instance) serve(p *process, cfg processing.Config, signer gkrp.Signer) {
	r := i.role
	svc := processing.New(cfg, &port{p, r.bus}, &desk{p, r.broker}, &shelf{p, r.disk}, signer, r.controller, r.log.With("began", p.began))
	_, err := svc.Start(p.context())
	if p.dead {
		return
	}
	if err != nil {
		r.trace("%s does not start: %v", p.name, err)
		i.anew(p, again)
		return
	}
	r.svc, r.serving = svc, p
	r.every(100*time.Millisecond, 100*time.Millisecond, func() bool {
		select {
		case <-svc.Outranked():
			r.trace("%s has to start anew under a later term", p.name)
			i.anew(p, 0)
			return false
		default:
			return !p.dead
		}
	})
}

// anew ends a run of the instance, and has its supervisor begin the next after d.
func (i *instance) anew(p *process, d time.Duration) {
	i.role.after(0, p.kill)
	if p.inherit() {
		i.role.after(d, i.start)
	}
}

// encoder is a device with one stream, or the clone of one.
type encoder struct {
	*world
	id      gk.DeviceID
	number  byte
	clone   bool
	key     ed25519.PrivateKey
	kmsKey  ed25519.PublicKey
	p       *process
	dev     *device.Detached
	high    gk.Epoch // written down
	ended   gkrp.Code
	alarm   time.Duration
	pending []gk.Index // indices of the batch in work
	batch   device.Batch
	resting bool // between two sessions
}

func (e *encoder) stream() gk.StreamID { return gk.StreamID(e.id) }

func (e *encoder) start() {
	name := string(e.id)
	if e.clone {
		name += "-clone"
	}
	p := e.newProcess(name)
	e.p, e.alarm, e.resting = p, 0, false
	identity := device.Identity{Device: e.id, Streams: []gk.StreamID{e.stream()}, Key: e.key, KMSPublic: e.kmsKey}
	// Anywhere, but often just before the sequence number wraps, and often after
	// it has wrapped many times.
	first := gk.Index(1 + e.rng.IntN(1<<15))
	switch e.rng.IntN(4) {
	case 0:
		first = gk.Index(1+e.rng.IntN(12))<<16 - gk.Index(e.rng.IntN(200)) - 1
	case 1:
		first += gk.Index(e.rng.IntN(12)) << 16
	}
	var err error
	e.dev, err = device.NewDetached(device.Config{
		Identity: identity, Host: p, KEM: e.kem("device/" + string(e.id)), Random: e.random,
		Signer: e.suite.signer, Verifier: e.suite.verifier,
		Tell: func(ev gk.Event) { e.check.deviceTold(e, ev) },
	}, device.StreamConfig{ID: e.stream(), Source: nowhere{}}, clientPayload(), first, e.high, &desk{p, e.broker}, e.send)
	must(err)
	topic := gkrp.Topic(e.id, e.stream(), gkrp.Down)
	_ = (&desk{p, e.broker}).Listen(topic, func(_ string, wire []byte) {
		if e.p == p && !e.resting {
			e.dev.Hear(wire)
			e.settle(p)
		}
	})
	e.begin(p)
	e.every(e.config.pace, e.config.pace, func() bool {
		if !p.dead && e.ended == "" {
			e.media("")
		}
		return !p.dead
	})
}

func (e *encoder) begin(p *process) {
	if p.dead {
		return
	}
	e.resting = false
	must(e.dev.Begin())
	e.check.sessionBegun(e, e.dev.Session())
	e.trace("%s begins session %s above epoch %d", p.name, short(e.dev.Session()), e.high)
	e.settle(p)
}

// settle follows up on what the device did.
func (e *encoder) settle(p *process) {
	if p.dead || e.resting || e.ended != "" {
		return
	}
	if h, ok := e.dev.Noted(); ok {
		e.after(e.between(0, 40*time.Millisecond), func() {
			if !p.dead {
				e.high = max(e.high, h)
			}
		})
	}
	if code, over := e.dev.Over(); over {
		e.check.sessionOver(e.dev.Session())
		e.trace("%s: session %s is over: %q", p.name, short(e.dev.Session()), code)
		if code.Final() || code == "" {
			e.ended = code
			if code == "" {
				e.ended = "stopped"
			}
			return
		}
		e.resting = true
		e.after(p.real(time.Second), func() { e.begin(p) })
		return
	}
	e.arm(p)
}

func (e *encoder) arm(p *process) {
	t := e.dev.Deadline()
	if t.IsZero() {
		return
	}
	at := e.engine.now + max(0, p.until(t))
	if e.alarm != 0 && e.alarm <= at {
		return
	}
	e.alarm = at
	e.after(at-e.engine.now, func() {
		if p.dead || e.p != p || e.alarm != at {
			return
		}
		e.alarm = 0
		if e.resting {
			return
		}
		if t := e.dev.Deadline(); !t.IsZero() && !t.After(p.Now()) {
			e.dev.Tick()
			e.settle(p)
			return
		}
		e.arm(p)
	})
}

// kinds of packet, the first byte of their payload.
const (
	fromDevice = 'D'
	fromThief  = 'T'
	fromNobody = 'N'
)

// mark is a packet's payload: who made it, and for which place.
func mark(kind byte, number byte, epoch gk.Epoch, index gk.Index) []byte {
	b := make([]byte, 0, 24)
	b = append(b, kind, number)
	b = binary.BigEndian.AppendUint32(b, uint32(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	return b
}

func unmark(b []byte) (kind, number byte, epoch gk.Epoch, index gk.Index, ok bool) {
	if len(b) != 14 {
		return
	}
	return b[0], b[1], gk.Epoch(binary.BigEndian.Uint32(b[2:])), gk.Index(binary.BigEndian.Uint64(b[6:])), true
}

// media sends a few packets. discontinuity says why they do not go on from the
// ones before.
func (e *encoder) media(discontinuity string) {
	if e.resting && e.dev.Epoch() == 0 {
		return
	}
	st := e.dev.Stats()
	next := st.Next
	e.batch.Units, e.pending = e.batch.Units[:0], e.pending[:0]
	e.batch.Break = discontinuity
	for range 1 + e.rng.IntN(3) {
		var skip uint16
		if discontinuity != "" && e.chance(0.3) {
			skip = uint16(e.rng.IntN(3000))
			e.check.jumped[e.stream()] = e.engine.now
		}
		index := next + gk.Index(skip)
		e.batch.Units = append(e.batch.Units, device.Unit{Payload: mark(fromDevice, e.number, st.Epoch, index), Type: 33, Timestamp: uint32(index), Skip: skip})
		e.pending = append(e.pending, index)
		next = index + 1
	}
	p := e.p
	e.dev.Media(&e.batch)
	e.settle(p)
}

// send is the device's socket.
func (e *encoder) send(address string, pkts [][]byte) {
	for _, t := range e.transports {
		if address == string(t.id)+":1" {
			for i, pkt := range pkts {
				e.check.sent(e, t, pkt, e.pending[i])
				if e.broken(breakIndex) && e.engine.now > breakAfter {
					e.sealAgain(t, pkt, e.pending[i])
				}
			}
		}
	}
}

// sealAgain sends another packet under the key and index of one that was sent.
func (e *encoder) sealAgain(t *transportRole, pkt []byte, index gk.Index) {
	epoch, _ := media.PacketEpoch(pkt)
	k := e.check.keys[place{e.stream(), e.dev.Session(), epoch}]
	if k == nil || k.key.IsZero() {
		return
	}
	e.check.sent(e, t, e.seal(k, epoch, index, mark(fromDevice, e.number, epoch, index)), index)
}

// seal seals a packet under a key, whoever may do so.
func (w *world) seal(k *keyFacts, epoch gk.Epoch, index gk.Index, payload []byte) []byte {
	s, err := media.NewSealer(k.key, k.ssrc, epoch)
	must(err)
	h := media.Header{PayloadType: 33, Seq: index.Seq(), Timestamp: uint32(index), SSRC: k.ssrc}
	pkt, err := s.Seal(nil, h.AppendTo(nil), payload, index)
	must(err)
	return pkt
}

// nowhere is the source of a device whose media the simulation brings itself.
type nowhere struct{}

func (nowhere) Probe(context.Context) (gkrp.Payload, error)     { return clientPayload(), nil }
func (nowhere) Read(ctx context.Context, _ *device.Batch) error { return ctx.Err() }
func (nowhere) Dropped() uint64                                 { return 0 }
func (nowhere) Close() error                                    { return nil }

// enrolAll gives everybody an identity, as an operator and the assembly would.
func (w *world) enrolAll(p *process) {
	ctx, _ := p.WithTimeout(p.context(), time.Minute)
	o := &port{p, w.bus}
	certify := func(role, id string) (ed25519.PrivateKey, bus.CertifyReply) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		der, err := x509.MarshalPKIXPublicKey(public)
		must(err)
		rep, err := bus.KMSCertify.Do(ctx, o, bus.As(role, id), bus.CertifyRequest{Role: role, ID: id, Key: der})
		must(err)
		return private, rep
	}
	info, err := bus.KMSInfo.Do(ctx, o, bus.Empty{})
	must(err)
	w.audit.public = info.Public
	for _, t := range w.transports {
		var rep bus.CertifyReply
		t.key, rep = certify("transport", string(t.id))
		t.certificate, t.kmsPublic = rep.Certificate, info.Public
	}
	var rep bus.CertifyReply
	w.processing.key, rep = certify("processing", "processing-1")
	w.processing.controller = rep.Controller
	for _, e := range w.encoders {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
		must(err)
		hash := sha256.Sum256([]byte("secret of " + e.id))
		_, err = bus.KMSEnroll.Do(ctx, o, bus.EnrollRequest{Device: e.id, Hash: hash[:]})
		must(err)
		joined, err := bus.KMSJoin.Do(ctx, o, bus.JoinRequest{Device: e.id, Hash: hash[:], CSR: csr})
		must(err)
		e.key, e.kmsKey = private, joined.KMSPublic
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func short(s gk.SessionID) string { return s.String()[:6] }
