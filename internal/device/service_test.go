package device

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// service is the other side of the protocol, and the network's far end: the
// service's own state machine with everything around it made of maps. It keeps
// every key and opens every packet as a transport would.
type service struct {
	t          *testing.T
	w          *world
	courier    bus.Courier
	kms        gkrp.Signer
	signer     gkrp.Signer
	controller []byte
	device     gkrp.Verifier
	timing     gkrp.Timing
	scope      gkrp.Scope

	mu       sync.Mutex
	closed   bool
	timer    *time.Timer
	session  *gkrp.Session
	nonces   map[string]bool
	epoch    gk.Epoch // highest ever made
	keys     map[gk.Epoch]keyring.MediaKey
	openers  map[gk.Epoch]*media.Opener
	ssrc     uint32
	known    map[gk.SessionID]bool
	reports  []gkrp.Report
	byes     []gkrp.Bye
	sessions []gk.SessionID
	prekeys  map[string]bool // used
	refuse   gkrp.Code       // answer to every HELLO
	newest   gkrp.Version    // highest that it speaks
	spoil    func(*gkrp.KeyEnvelope)

	received []byte // clear payload, in order of arrival
	indices  map[gk.Index]bool
	tags     map[gk.Index][]byte // beginning of each packet's tag
	last     gk.Index
	firsts   map[gk.Epoch]gk.Index
	done     []gk.Event
}

func newService(t *testing.T, w *world, m *bus.Memory, timing gkrp.Timing) *service {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &service{
		t: t, w: w, courier: m.Courier(), timing: timing, scope: gkrp.Scope{Device: "cam-1", Stream: "cam-1"},
		nonces: map[string]bool{}, keys: map[gk.Epoch]keyring.MediaKey{}, openers: map[gk.Epoch]*media.Opener{},
		known: map[gk.SessionID]bool{}, prekeys: map[string]bool{}, indices: map[gk.Index]bool{}, tags: map[gk.Index][]byte{}, newest: gkrp.CurrentVersion, firsts: map[gk.Epoch]gk.Index{},
	}
	s.timing.Retry, s.timing.RetryMax = 100*time.Millisecond, time.Second
	s.timing.CloseAfter, s.timing.Linger = 30*time.Second, time.Second
	s.timing.Addresses = map[gk.TransportID]string{"t1": "transport:7004"}
	var err error
	s.kms, err = gkrp.NewSigner(w.kmsKey)
	must(err)
	s.signer, err = gkrp.NewSigner(w.controllerKey)
	must(err)
	s.device, err = gkrp.NewVerifier(w.deviceKey.Public().(ed25519.PublicKey))
	must(err)
	s.controller, err = gkrp.SignController(s.kms, []byte("kms"), &gkrp.Controller{ID: "p1", Public: w.controllerKey.Public().(ed25519.PublicKey)})
	must(err)
	s.timer = time.AfterFunc(time.Hour, s.tick)
	must(s.courier.Listen(gkrp.ServiceFilter(), s.receive))
	return s
}

func (s *service) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.timer.Stop()
	s.courier.Close()
}

func (s *service) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(gkrp.Tick{})
}

// forget loses everything about the session but its keys, as a service whose
// state was lost would.
func (s *service) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = nil
	s.known = map[gk.SessionID]bool{}
}

// lose loses everything.
func (s *service) lose() {
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.last = 0, 0
	clear(s.keys)
	clear(s.openers)
	clear(s.indices)
	clear(s.firsts)
}

func (s *service) end(c gkrp.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(gkrp.End{Code: c})
}

func (s *service) receive(topic string, wire []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	r, err := gkrp.Parse(wire, gkrp.Up)
	if err != nil {
		return // damaged on the way
	}
	m, err := r.Verify(s.device, s.scope)
	if err != nil {
		return
	}
	if topic != gkrp.Topic("cam-1", "cam-1", gkrp.Up) {
		s.t.Errorf("message on topic %s", topic)
	}
	in := gkrp.Heard{Message: m, Payload: r.Payload}
	switch m := m.(type) {
	case *gkrp.Hello:
		switch {
		case s.refuse != "":
			s.send(&gkrp.Reject{Session: m.Session, Regarding: gkrp.Hash(r.Payload), Code: s.refuse, Text: "words of the service", Supported: []gkrp.Version{7}, RetryAfter: 3000})
			return
		case m.Nonce == nil:
			nonce := gkrp.Hash(append([]byte{byte(len(s.nonces))}, r.Payload...))
			s.nonces[string(nonce)] = true
			s.send(&gkrp.Challenge{Session: m.Session, HelloHash: gkrp.Hash(r.Payload), Nonce: nonce})
			return
		case !s.nonces[string(m.Nonce)]:
			return
		case !s.known[m.Session]:
			if m.HighWater > s.epoch {
				s.epoch = m.HighWater
			}
			s.known[m.Session] = true
			s.sessions = append(s.sessions, m.Session)
			s.ssrc++
			version, ok := gkrp.ChooseVersion(m.Versions, gkrp.MinVersion, s.newest)
			if !ok {
				s.t.Errorf("versions %v offered", m.Versions)
			}
			var fx []gkrp.Effect
			s.session, fx = gkrp.Begin(time.Now(), gkrp.Record{SSRC: s.ssrc, Version: version, Transports: []gk.TransportID{"t1"}, Suite: gkrp.SuiteMLKEM768X25519}, in, s.timing)
			s.execute(fx)
			s.rearm()
			return
		}
	case *gkrp.Report:
		s.reports = append(s.reports, *m)
		if !s.known[m.Session] {
			s.send(&gkrp.Reject{Session: m.Session, Regarding: gkrp.Hash(r.Payload), Code: gkrp.CodeUnknownSession})
			return
		}
	case *gkrp.Bye:
		s.byes = append(s.byes, *m)
	}
	s.step(in)
}

func (s *service) step(in gkrp.Input) {
	if s.session == nil || s.closed {
		return
	}
	s.execute(s.session.Step(time.Now(), in))
	s.rearm()
}

func (s *service) rearm() {
	if s.session == nil {
		return
	}
	if d := s.session.Deadline(); !d.IsZero() {
		s.timer.Reset(time.Until(d))
	}
}

func (s *service) execute(fx []gkrp.Effect) {
	for _, f := range fx {
		switch f := f.(type) {
		case gkrp.OpenKeys:
			s.execute(s.session.Step(time.Now(), gkrp.Opened{Epoch: s.epoch + 1}))
		case gkrp.Write:
			s.execute(s.session.Step(time.Now(), gkrp.Recorded{Epoch: f.Record.Epoch, Pending: f.Record.Pending}))
		case gkrp.Release:
			s.release(f)
		case gkrp.Arm:
			s.execute(s.session.Step(time.Now(), gkrp.Armed{Transport: f.Transport, Epoch: f.Epoch}))
		case gkrp.Send:
			s.send(f.Message)
		case gkrp.SendGrant:
			wire, err := gkrp.SignPayload(s.signer, []byte("p1"), s.controller, s.scope, gkrp.Down, gkrp.TypeGrant, f.Payload)
			if err != nil {
				s.t.Error(err)
				return
			}
			_ = s.courier.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Down), wire)
		case gkrp.Switch:
			if f.First != 0 || f.Near == 0 {
				s.firsts[f.Epoch] = f.First
			}
		case gkrp.Tell:
			if f.Event.Kind == gk.EventRotationDone {
				s.done = append(s.done, f.Event)
			}
		case gkrp.Over:
			s.session = nil
			return
		}
	}
}

func (s *service) send(m gkrp.Message) {
	wire, err := gkrp.Sign(s.signer, []byte("p1"), s.controller, s.scope, m)
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = s.courier.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Down), wire)
}

// release makes the epoch's key if it is new, and seals it to a prekey.
func (s *service) release(f gkrp.Release) {
	p, err := gkrp.OpenPrekey(s.device, f.Prekey)
	if err != nil {
		s.t.Errorf("prekey: %v", err)
		return
	}
	if p.Session != s.session.Session || s.prekeys[string(p.Public)] {
		s.t.Errorf("prekey of session %s, used before: %v", p.Session, s.prekeys[string(p.Public)])
	}
	s.prekeys[string(p.Public)] = true
	if f.Epoch == 0 {
		f.Epoch = f.After + 1
	}
	k, ok := s.keys[f.Epoch]
	if !ok {
		if k, err = keyring.NewMediaKey(nil); err != nil {
			s.t.Error(err)
		}
		s.keys[f.Epoch], s.epoch = k, max(s.epoch, f.Epoch)
		if s.openers[f.Epoch], err = media.NewOpener(k, s.session.SSRC, f.Epoch); err != nil {
			s.t.Error(err)
		}
		s.openers[f.Epoch].Hint(s.last)
	}
	e := &gkrp.KeyEnvelope{
		Stream: "cam-1", Session: s.session.Session, Epoch: f.Epoch, Suite: p.Suite, Receiver: "device/cam-1",
		KeyID: gkrp.KeyID(p.Public), SSRC: s.session.SSRC,
	}
	if s.spoil != nil {
		s.spoil(e)
	}
	if e.Sealed, err = keyring.SealMediaKey(uint16(p.Suite), p.Public, e.Info(), k); err != nil {
		s.t.Error(err)
	}
	wire, err := gkrp.SignKeyEnvelope(s.kms, []byte("kms"), e)
	if err != nil {
		s.t.Error(err)
	}
	confirm := k.Confirm("cam-1", s.session.Session, f.Epoch, "device/cam-1")
	s.execute(s.session.Step(time.Now(), gkrp.Released{Epoch: f.Epoch, Device: wire, Confirm: confirm[:], Transports: map[gk.TransportID][]byte{"t1": {1}}}))
}

// Send implements the far end of the network: every packet must open under the
// epoch that it names, at an index above all before.
func (s *service) Send(pkts [][]byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pkt := range pkts {
		e, ok := media.PacketEpoch(pkt)
		if !ok || s.openers[e] == nil {
			s.t.Errorf("packet under epoch %d, which nobody can open", e)
			return 0, errors.New("no such epoch")
		}
		o, v := s.openers[e].Open(nil, pkt)
		if v != media.OK {
			s.t.Errorf("packet of epoch %d: verdict %d", e, v)
			continue
		}
		if o.Index <= s.last && s.last != 0 || s.indices[o.Index] {
			s.t.Errorf("index %d after %d", o.Index, s.last)
		}
		s.last = o.Index
		s.indices[o.Index] = true
		s.tags[o.Index] = bytes.Clone(pkt[len(pkt)-media.Overhead:][:gkrp.TagPrefix])
		if first, ok := s.firsts[e]; ok && o.Index < first {
			s.t.Errorf("index %d under epoch %d, which begins at %d", o.Index, e, first)
		}
		if first, ok := s.firsts[e+1]; ok && o.Index >= first {
			s.t.Errorf("index %d under epoch %d, but the next begins at %d", o.Index, e, first)
		}
		s.received = append(s.received, o.Payload...)
	}
	return len(pkts), nil
}

func (s *service) completed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.done)
}

func (s *service) equalReceived(want []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Equal(s.received, want)
}
