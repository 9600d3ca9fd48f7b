package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

const (
	defaultTokenTTL = 15 * time.Minute
	maxTokenTTL     = 7 * 24 * time.Hour
	maxStreams      = 64 // of one device
)

// enroll accepts a join token, of which only the hash of its secret ever comes
// here; a new token for a device takes the place of the one before.
func (s *Service) enroll(ctx context.Context, req bus.EnrollRequest) (bus.EnrollReply, error) {
	var rep bus.EnrollReply
	if _, err := gk.ParseDeviceID(string(req.Device)); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	ttl := req.TTL
	if ttl == 0 {
		ttl = defaultTokenTTL
	}
	if ttl < 0 || ttl > maxTokenTTL {
		return rep, bus.Refuse(bus.CodeBadRequest, "a join token may live up to %v, not %v", maxTokenTTL, req.TTL)
	}
	if len(req.Hash) != sha256.Size {
		return rep, bus.Refuse(bus.CodeBadRequest, "the hash of the token's secret has %d bytes, want %d", len(req.Hash), sha256.Size)
	}
	streams := req.Streams
	if len(streams) == 0 {
		streams = []gk.StreamID{gk.StreamID(req.Device)}
	}
	if err := s.checkStreams(ctx, req.Device, streams); err != nil {
		return rep, err
	}
	rec := tokenRecord{Hash: req.Hash, Expires: s.cfg.Host.Now().Add(ttl).UTC().Truncate(time.Second), Streams: streams}
	b, err := s.vault.seal(tokenKey(req.Device), rec)
	if err != nil {
		return rep, err
	}
	if _, err := s.kv.Put(ctx, tokenKey(req.Device), b); err != nil {
		return rep, unavailable(err)
	}
	s.tell(gk.Event{Kind: gk.EventTokenIssued, Device: req.Device, Detail: map[string]string{"expires": rec.Expires.Format(time.RFC3339)}})
	ca := sha256.Sum256(s.ca.cert.Raw)
	return bus.EnrollReply{CAFingerprint: ca[:], Expires: rec.Expires}, nil
}

// checkStreams refuses streams that another device has.
func (s *Service) checkStreams(ctx context.Context, device gk.DeviceID, streams []gk.StreamID) error {
	if len(streams) > maxStreams {
		return bus.Refuse(bus.CodeBadRequest, "%d streams for one device, at most %d", len(streams), maxStreams)
	}
	for _, id := range streams {
		if _, err := gk.ParseStreamID(string(id)); err != nil {
			return bus.Refuse(bus.CodeBadRequest, "%v", err)
		}
	}
	others, err := s.kv.List(ctx, "device")
	if err != nil {
		return unavailable(err)
	}
	for _, e := range others {
		var other deviceRecord
		if err := s.vault.open(e, &other); err != nil {
			return err
		}
		for _, id := range streams {
			if other.Device != device && slices.Contains(other.Streams, id) {
				return bus.Refuse(bus.CodeConflict, "stream %s belongs to device %s: choose another name", id, other.Device)
			}
		}
	}
	return nil
}

// join turns a token into a device's identity. The token serves one public key:
// the same request repeated gives an identity again, another key is refused.
func (s *Service) join(ctx context.Context, req bus.JoinRequest) (bus.JoinReply, error) {
	var rep bus.JoinReply
	if _, err := gk.ParseDeviceID(string(req.Device)); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	public, err := checkRequest(req.CSR)
	if err != nil {
		return rep, err
	}
	before, err := s.device(ctx, req.Device)
	if err != nil && bus.CodeOf(err) != bus.CodeNotFound {
		return rep, err
	}
	now := s.cfg.Host.Now()
	token, err := s.useToken(ctx, req, public, now)
	if err != nil {
		return rep, err
	}
	// When the token was made, another device may have had one for the same streams.
	if err := s.checkStreams(ctx, req.Device, token.Streams); err != nil {
		return rep, err
	}
	cert, err := s.ca.issue(roleDevice, string(req.Device), public, nil, now)
	if err != nil {
		return rep, err
	}
	revoked := false
	err = s.changeDevice(ctx, req.Device, func(d *deviceRecord) {
		// A revocation that came between is later than the token's use.
		if revoked = d.Revoked && !before.Revoked; revoked || slices.Equal(d.Token, token.Hash) {
			return // or the same join, asked for again
		}
		*d = deviceRecord{Token: token.Hash, DeviceRecord: bus.DeviceRecord{
			Device: req.Device, Streams: token.Streams, Public: public, Enrolled: now.UTC(),
		}}
	})
	if err == nil && revoked {
		err = refuseRevoked(req.Device)
	}
	if err != nil {
		return rep, err
	}
	s.tell(gk.Event{Kind: gk.EventDeviceEnrolled, Device: req.Device})
	return bus.JoinReply{Device: req.Device, Streams: token.Streams, Certificate: cert, CA: s.ca.cert.Raw, KMSPublic: s.signer.public}, nil
}

// checkRequest takes the Ed25519 key out of a certificate request. Whatever
// else the request asks for is not looked at.
func checkRequest(der []byte) (ed25519.PublicKey, error) {
	if len(der) > gkrp.MaxMessage {
		return nil, bus.Refuse(bus.CodeBadRequest, "certificate request of %d bytes, the limit is %d", len(der), gkrp.MaxMessage)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "certificate request does not parse: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, bus.Refuse(bus.CodeBadRequest, "certificate request is not signed by its own key: %v", err)
	}
	public, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, bus.Refuse(bus.CodeBadRequest, "certificate request has a %T: make an Ed25519 key", csr.PublicKey)
	}
	return public, nil
}

func (s *Service) useToken(ctx context.Context, req bus.JoinRequest, public ed25519.PublicKey, now time.Time) (tokenRecord, error) {
	for {
		var rec tokenRecord
		e, err := s.kv.Get(ctx, tokenKey(req.Device))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return rec, unavailable(err)
		}
		if err == nil {
			if err := s.vault.open(e, &rec); err != nil {
				return rec, err
			}
		}
		// An unknown device and a wrong secret look alike to who guesses.
		if len(rec.Hash) != sha256.Size || subtle.ConstantTimeCompare(rec.Hash, req.Hash) != 1 {
			return rec, bus.Refuse(bus.CodeNotFound, "the join token is not known here, or a newer one took its place: run gaitkeeper enroll %s again", req.Device)
		}
		switch {
		case rec.UsedBy != nil && !slices.Equal(rec.UsedBy, public):
			return rec, bus.Refuse(bus.CodeUsed, "the join token was used already, by another key: run gaitkeeper enroll %s again, and if you did not use it, revoke the device", req.Device)
		case !now.Before(rec.Expires):
			return rec, bus.Refuse(bus.CodeExpired, "the join token expired at %s: run gaitkeeper enroll %s again", rec.Expires.Format(time.RFC3339), req.Device)
		case rec.UsedBy != nil:
			return rec, nil
		}
		rec.UsedBy = public
		b, err := s.vault.seal(e.Key, rec)
		if err != nil {
			return rec, err
		}
		if _, err = s.kv.Update(ctx, e.Key, b, e.Revision); err == nil {
			return rec, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return rec, unavailable(err)
		}
	}
}

// changeDevice edits a device's record, or makes it, by compare-and-set.
func (s *Service) changeDevice(ctx context.Context, id gk.DeviceID, edit func(*deviceRecord)) error {
	for {
		var rec deviceRecord
		e, err := s.kv.Get(ctx, deviceKey(id))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return unavailable(err)
		}
		if err == nil {
			if err := s.vault.open(e, &rec); err != nil {
				return err
			}
		}
		edit(&rec)
		b, err := s.vault.seal(deviceKey(id), rec)
		if err != nil {
			return err
		}
		rev := uint64(0)
		if e.Revision == 0 {
			rev, err = s.kv.Create(ctx, deviceKey(id), b)
		} else {
			rev, err = s.kv.Update(ctx, deviceKey(id), b, e.Revision)
		}
		if err == nil {
			s.remember(id, cachedDevice{rec, rev})
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return unavailable(err)
		}
	}
}

// cachedDevice is a device's record as this instance saw it last.
type cachedDevice struct {
	deviceRecord
	rev uint64
}

// remember takes a device's record into memory, unless a newer one is there.
func (s *Service) remember(id gk.DeviceID, d cachedDevice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.devices[id]; !ok || old.rev <= d.rev {
		s.devices[id] = d
	}
}

// device gives an enrolment record, from memory if it is there: a release
// must not wait for the store.
func (s *Service) device(ctx context.Context, id gk.DeviceID) (deviceRecord, error) {
	s.mu.Lock()
	d, ok := s.devices[id]
	s.mu.Unlock()
	if ok {
		return d.deviceRecord, nil
	}
	if _, err := gk.ParseDeviceID(string(id)); err != nil {
		return deviceRecord{}, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	e, err := s.kv.Get(ctx, deviceKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return deviceRecord{}, bus.Refuse(bus.CodeNotFound, "device %s is not enrolled: run gaitkeeper enroll %s", id, id)
	}
	if err != nil {
		return deviceRecord{}, unavailable(err)
	}
	if err := s.vault.open(e, &d.deviceRecord); err != nil {
		return deviceRecord{}, err
	}
	d.rev = e.Revision
	s.remember(id, d)
	return d.deviceRecord, nil
}

// entitled gives the record of a device that may have keys of the stream.
func (s *Service) entitled(ctx context.Context, id gk.DeviceID, stream gk.StreamID) (deviceRecord, error) {
	d, err := s.device(ctx, id)
	switch {
	case err != nil:
		return d, err
	case d.Revoked:
		return d, refuseRevoked(id)
	case !slices.Contains(d.Streams, stream):
		return d, bus.Refuse(bus.CodeUnauthorized, "stream %s does not belong to device %s", stream, id)
	}
	return d, nil
}

func (s *Service) deviceInfo(ctx context.Context, req bus.KMSDeviceRequest) (bus.DeviceRecord, error) {
	d, err := s.device(ctx, req.Device)
	return d.DeviceRecord, err
}

// watchDevices keeps memory up with what other instances write.
func (s *Service) watchDevices(ctx context.Context) error {
	return s.kv.Watch(ctx, "device", func(e store.Entry, deleted bool) {
		var d cachedDevice
		if deleted || s.vault.open(e, &d.deviceRecord) != nil {
			return
		}
		d.rev = e.Revision
		s.remember(d.Device, d)
	})
}

func unavailable(err error) error {
	return bus.Refuse(bus.CodeUnavailable, "the key store did not answer: %v", err)
}
