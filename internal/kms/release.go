package kms

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// A release in order: the device's record, the session, the key's state, every
// receiver's own word for its HPKE key, then sealing, signing, and the answer.
// All of it is memory. Saving the new state and reserving the next epoch follow
// behind the answer.

const (
	maxReceivers  = 16 // transports in one request
	maxSealed     = 64 // envelopes of one key that are kept to be given again
	maxKeyPrekeys = 8  // prekeys that one epoch may be sealed to
)

// receiver is somebody whose HPKE key this service has verified.
type receiver struct {
	name   string // "device/ID" or "transport/ID", as the envelope says
	suite  gkrp.Suite
	public []byte
	until  time.Time // of its certificate; zero for a prekey
}

func (s *Service) release(ctx context.Context, req bus.KMSReleaseRequest) (bus.KMSReleaseReply, error) {
	var rep bus.KMSReleaseReply
	dev, err := s.entitled(ctx, req.Device, req.Stream)
	if err != nil {
		return rep, err
	}
	if len(req.Transports) > maxReceivers {
		return rep, bus.Refuse(bus.CodeBadRequest, "%d transports in one request, at most %d", len(req.Transports), maxReceivers)
	}
	now := s.cfg.Host.Now()
	var prekey *receiver
	if req.Prekey != nil {
		if prekey, err = s.checkPrekey(dev, req); err != nil {
			return rep, err
		}
	}
	transports := make(map[gk.TransportID]*receiver, len(req.Transports))
	for _, t := range req.Transports {
		if transports[t.Transport], err = s.checkTransport(t, now); err != nil {
			return rep, err
		}
	}
	st, ss, err := s.findEpoch(ctx, req)
	if err != nil {
		return rep, err
	}

	st.mu.Lock()
	k, err := s.releasable(dev, ss, req)
	if err == nil && prekey != nil {
		err = ss.spend(k, keyring.PublicID(prekey.public))
	}
	if err != nil {
		st.mu.Unlock()
		return rep, err
	}
	rep, err = s.sealAll(st, ss, k, prekey, transports)
	if err == nil {
		rep.Words, err = s.leasesFor(st, ss, req.Marks, transports)
	}
	if err != nil {
		st.mu.Unlock()
		return bus.KMSReleaseReply{}, err
	}
	first := k.rec.State == bus.KeyPreActive
	if first {
		k.rec.State, k.rec.Activated, k.saved = bus.KeyActive, now.UTC(), false
	}
	unsaved, info := !k.saved, k.info(st.id, ss.id)
	st.mu.Unlock()

	if unsaved {
		s.saveLater(st)
	}
	if first {
		s.tellState(st, ss, info, bus.KeyPreActive)
	}
	return rep, nil
}

// checkPrekey verifies a prekey against the KMS's own record of the device.
func (s *Service) checkPrekey(dev deviceRecord, req bus.KMSReleaseRequest) (*receiver, error) {
	v, err := s.cfg.Verifier(dev.Public)
	if err != nil {
		return nil, fmt.Errorf("record of device %s has no usable key: %w", dev.Device, err)
	}
	p, err := gkrp.OpenPrekey(v, req.Prekey)
	if err != nil {
		return nil, bus.Refuse(bus.CodeUnauthorized, "prekey of device %s: %v", req.Device, err)
	}
	if p.Device != req.Device || p.Stream != req.Stream || p.Session != req.Session {
		return nil, bus.Refuse(bus.CodeUnauthorized, "prekey was made by device %s for stream %s, session %s, not for this request", p.Device, p.Stream, p.Session)
	}
	if err := s.checkSuite(p.Suite, p.Public); err != nil {
		return nil, err
	}
	return &receiver{name: roleDevice + "/" + string(dev.Device), suite: p.Suite, public: p.Public}, nil
}

func (s *Service) checkSuite(suite gkrp.Suite, public []byte) error {
	if !slices.Contains(s.cfg.Suites, suite) {
		return bus.Refuse(bus.CodeBadRequest, "HPKE suite %d is not allowed here", suite)
	}
	if err := s.cfg.KEM.CheckPublic(uint16(suite), public); err != nil {
		return bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	return nil
}

// checkTransport verifies that a transport, by its certificate, says that the
// HPKE key is its own. The outcome is remembered as long as the certificate lives.
func (s *Service) checkTransport(t bus.TransportReceiver, now time.Time) (*receiver, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d ", t.Transport, len(t.Key), len(t.Certificate))
	h.Write(t.Key)
	h.Write(t.Certificate)
	word := [32]byte(h.Sum(nil))
	s.mu.Lock()
	r := s.receivers[word]
	s.mu.Unlock()
	if r != nil && now.Before(r.until) {
		return r, nil
	}
	r, err := s.verifyTransport(t, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.receivers) >= 1024 {
		clear(s.receivers)
	}
	s.receivers[word] = r
	return r, nil
}

func (s *Service) verifyTransport(t bus.TransportReceiver, now time.Time) (*receiver, error) {
	cert, id, err := s.ca.verify(t.Certificate, roleTransport, now)
	if err != nil {
		return nil, err
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, bus.Refuse(bus.CodeUnauthorized, "certificate of transport %s has a %T, want an Ed25519 key", id, cert.PublicKey)
	}
	v, err := s.cfg.Verifier(public)
	if err != nil {
		return nil, err
	}
	r, err := gkrp.OpenReceiverKey(v, t.Key)
	if err != nil {
		return nil, bus.Refuse(bus.CodeUnauthorized, "receiver key of transport %s: %v", id, err)
	}
	if string(r.Transport) != id || r.Transport != t.Transport {
		return nil, bus.Refuse(bus.CodeUnauthorized, "receiver key of transport %s, certificate of %s, in a request for %s", r.Transport, id, t.Transport)
	}
	if err := s.checkSuite(r.Suite, r.Public); err != nil {
		return nil, err
	}
	return &receiver{name: roleTransport + "/" + id, suite: r.Suite, public: r.Public, until: cert.NotAfter}, nil
}

// findEpoch finds the session, and the epoch if memory has it. Only what memory
// does not have costs a store call: a session of another instance, or an epoch
// asked for before its reservation is through.
func (s *Service) findEpoch(ctx context.Context, req bus.KMSReleaseRequest) (*stream, *session, error) {
	st := s.stream(req.Stream)
	ss := st.session(req.Session)
	if ss != nil {
		s.catchUp(st, ss, req.After)
		st.mu.Lock()
		found := ss.keys[ss.wanted(req)] != nil
		st.mu.Unlock()
		if found {
			return st, ss, nil
		}
	}
	done, err := s.write(ctx, st)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	defer done()
	if err := s.loadStream(ctx, st); err != nil {
		return nil, nil, err
	}
	if ss = st.session(req.Session); ss == nil {
		return nil, nil, bus.Refuse(bus.CodeNotFound, "session %s of stream %s was not opened here: start a new one", req.Session, req.Stream)
	}
	s.catchUp(st, ss, req.After)
	return st, ss, s.reserve(ctx, st, ss)
}

// catchUp makes active what the asker knows to be in use: a crash may have come
// between a key's release and the save of its state, and a key that looks
// reserved for ever would leave the session without a next one.
func (s *Service) catchUp(st *stream, ss *session, known gk.Epoch) {
	if known == 0 {
		return
	}
	now := s.cfg.Host.Now().UTC()
	var told []transition
	st.mu.Lock()
	if ss.keys[known] != nil && !ss.rec.Ended {
		for _, epoch := range ss.epochs() {
			if k := ss.keys[epoch]; epoch <= known && k.rec.State == bus.KeyPreActive {
				told = append(told, k.apply(now, st.id, ss.id, []bus.KeyState{bus.KeyActive})...)
			}
		}
	}
	st.mu.Unlock()
	if len(told) > 0 {
		s.saveLater(st)
		s.tellAll(st, ss, told)
	}
}

// wanted is the epoch that a request is for: the one it names, or the session's
// first after the newest that the asker knows of. The answer to the second stays
// the same until a later one is named, so that asking again is a repetition.
func (ss *session) wanted(req bus.KMSReleaseRequest) gk.Epoch {
	if req.Epoch != 0 {
		return req.Epoch
	}
	for _, e := range ss.epochs() {
		if e > req.After && rank(ss.keys[e].rec.State) < rank(bus.KeyDeactivated) {
			return e
		}
	}
	return 0
}

// releasable gives the key of an epoch that may be released. The caller holds the
// stream's lock.
func (s *Service) releasable(dev deviceRecord, ss *session, req bus.KMSReleaseRequest) (*key, error) {
	if err := ss.rec.serves(dev, req.Stream, req.Session); err != nil {
		return nil, err
	}
	if ss.rec.Ended {
		return nil, bus.Refuse(bus.CodeConflict, "session %s of stream %s has ended: start a new one", req.Session, req.Stream)
	}
	req.Epoch = ss.wanted(req)
	k, reserved := ss.keys[req.Epoch], ss.reserved()
	switch {
	case k == nil && reserved != nil:
		return nil, bus.Refuse(bus.CodeNotFound, "stream %s has no key for epoch %d: the next one of session %s is %d", req.Stream, req.Epoch, req.Session, reserved.epoch)
	case k == nil:
		return nil, bus.Refuse(bus.CodeNotFound, "stream %s has no key for epoch %d", req.Stream, req.Epoch)
	case k.rec.State == bus.KeyActive, k == reserved:
		return k, nil
	case k.rec.State == bus.KeyPreActive:
		return nil, bus.Refuse(bus.CodeConflict, "epoch %d of stream %s is not due: the next one of session %s is %d", req.Epoch, req.Stream, req.Session, reserved.epoch)
	}
	return nil, bus.Refuse(bus.CodeExpired, "key of stream %s, epoch %d, is %s: ask for the next epoch", req.Stream, req.Epoch, k.rec.State)
}

// spend binds a prekey to one epoch. The caller holds the stream's lock.
func (ss *session) spend(k *key, id [16]byte) error {
	for _, other := range ss.keys {
		if slices.ContainsFunc(other.rec.Prekeys, func(b []byte) bool { return bytes.Equal(b, id[:]) }) {
			if other == k {
				return nil
			}
			return bus.Refuse(bus.CodeUsed, "prekey %x was used for epoch %d already: a prekey serves one epoch", id, other.epoch)
		}
	}
	if len(k.rec.Prekeys) >= maxKeyPrekeys {
		return bus.Refuse(bus.CodeConflict, "epoch %d was sealed to %d prekeys already: rotate to the next", k.epoch, maxKeyPrekeys)
	}
	k.rec.Prekeys = append(slices.Clip(k.rec.Prekeys), id[:])
	k.saved = false
	return nil
}

// sealAll makes the answer. The caller holds the stream's lock.
func (s *Service) sealAll(st *stream, ss *session, k *key, prekey *receiver, transports map[gk.TransportID]*receiver) (rep bus.KMSReleaseReply, err error) {
	confirm := k.media.Confirm(st.id, ss.id, k.epoch, roleDevice+"/"+string(ss.rec.Device))
	rep.Epoch, rep.Confirm, rep.Lease = k.epoch, confirm[:], s.cfg.Lease
	if prekey != nil {
		if rep.Device, err = s.sealTo(st, ss, k, prekey); err != nil {
			return rep, err
		}
	}
	if len(transports) > 0 {
		rep.Transports = make(map[gk.TransportID][]byte, len(transports))
	}
	for id, r := range transports {
		if rep.Transports[id], err = s.sealTo(st, ss, k, r); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// leasesFor signs a lease for every transport that gave a mark and gets the key.
func (s *Service) leasesFor(st *stream, ss *session, marks map[gk.TransportID][]byte, transports map[gk.TransportID]*receiver) (map[gk.TransportID][]byte, error) {
	words := make(map[gk.TransportID][]byte, len(marks))
	for id := range transports {
		if len(marks[id]) == 0 {
			continue
		}
		word, err := s.leaseFor(id, marks[id], gkrp.LeaseSession{Stream: st.id, Session: ss.id})
		if err != nil {
			return nil, err
		}
		words[id] = word
	}
	return words, nil
}

// sealTo seals and signs a key for one receiver, once: who asks again gets the
// same bytes.
func (s *Service) sealTo(st *stream, ss *session, k *key, r *receiver) ([]byte, error) {
	id := gkrp.KeyID(r.public)
	name := r.name + "/" + string(id)
	if wire := k.sealed[name]; wire != nil {
		return wire, nil
	}
	e := &gkrp.KeyEnvelope{
		Stream: st.id, Session: ss.id, Epoch: k.epoch, SSRC: ss.rec.SSRC,
		Suite: r.suite, Receiver: r.name, KeyID: id,
	}
	var err error
	if e.Sealed, err = s.cfg.KEM.SealMediaKey(uint16(r.suite), r.public, e.Info(), k.media); err != nil {
		return nil, fmt.Errorf("cannot seal the key of %s, epoch %d, for %s: %w", st.id, k.epoch, r.name, err)
	}
	wire, err := gkrp.SignKeyEnvelope(s.signer, s.signer.kid, e)
	if err != nil {
		return nil, err
	}
	if len(k.sealed) >= maxSealed {
		clear(k.sealed)
	}
	k.sealed[name] = wire
	return wire, nil
}
