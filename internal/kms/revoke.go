package kms

import (
	"cmp"
	"context"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// defaultLease is how long armed keys serve on without this service's word.
const defaultLease = time.Minute

// obeyed names an order to revoke a device.
type obeyed struct {
	asking string // see [bus.Asking]
	device gk.DeviceID
}

func refuseRevoked(id gk.DeviceID) error {
	return bus.Refuse(bus.CodeRevoked, "device %s is revoked: to trust it again, run gaitkeeper enroll %s and join anew", id, id)
}

// maxObeyed bounds the revocations that are remembered.
const maxObeyed = 256

// revoke persists that a device is given no key any more; a join token that it
// did not use yet is void. What it holds already ends when the transports
// disarm, or with their leases.
//
// A repetition may come late, from a server of the bus that stood still, when the device
// was enrolled anew meanwhile: that enrolment is not what was revoked.
func (s *Service) revoke(ctx context.Context, req bus.RevokeRequest) (bus.RevokeReply, error) {
	before, err := s.device(ctx, req.Device)
	if err != nil {
		return bus.RevokeReply{}, err
	}
	order := obeyed{bus.Asking(ctx), req.Device}
	s.mu.Lock()
	again := order.asking != "" && slices.Contains(s.obeyed, order)
	s.mu.Unlock()
	if again {
		return bus.RevokeReply{Device: before.DeviceRecord, Lease: s.cfg.Lease}, nil
	}
	if err := s.changeDevice(ctx, req.Device, func(d *deviceRecord) { d.Revoked = true }); err != nil {
		return bus.RevokeReply{}, err
	}
	if err := s.kv.Erase(ctx, tokenKey(req.Device)); err != nil {
		return bus.RevokeReply{}, unavailable(err)
	}
	if !before.Revoked {
		s.tell(gk.Event{Kind: gk.EventDeviceRevoked, Device: req.Device})
	}
	s.mu.Lock()
	s.obeyed = append(s.obeyed, order)
	s.obeyed = s.obeyed[max(0, len(s.obeyed)-maxObeyed):]
	s.mu.Unlock()
	now, err := s.device(ctx, req.Device)
	return bus.RevokeReply{Device: now.DeviceRecord, Lease: s.cfg.Lease}, err
}

// listDevices gives enrolment records by rising name.
func (s *Service) listDevices(_ context.Context, req bus.DevicesRequest) (bus.DevicesReply, error) {
	var rep bus.DevicesReply
	s.mu.Lock()
	for id, d := range s.devices {
		if id > req.After {
			rep.Devices = append(rep.Devices, d.DeviceRecord)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(rep.Devices, func(a, b bus.DeviceRecord) int { return cmp.Compare(a.Device, b.Device) })
	if len(rep.Devices) > bus.MaxDevices {
		rep.Devices, rep.More = rep.Devices[:bus.MaxDevices], true
	}
	return rep, nil
}

// leaseFor signs the word that a transport may use keys of sessions for a lease's
// length, counted from the beat that it marked.
func (s *Service) leaseFor(t gk.TransportID, mark []byte, sessions ...gkrp.LeaseSession) ([]byte, error) {
	length := s.cfg.Lease
	if s.cfg.Unsure != nil {
		length -= min(s.cfg.Unsure(), length)
	}
	if length < time.Millisecond {
		return nil, bus.Refuse(bus.CodeUnavailable, "the key store has not answered for %v: another instance may serve, and know of revocations", s.cfg.Lease)
	}
	return gkrp.SignLease(s.signer, s.signer.kid, &gkrp.Lease{
		Transport: t, Mark: mark, ForMs: uint32(length.Milliseconds()), Sessions: sessions,
	})
}

// standing tells which sessions may still have keys, and signs it for a transport.
// It is what every lease on an armed key goes back to.
func (s *Service) standing(ctx context.Context, req bus.StandingRequest) (bus.StandingReply, error) {
	if len(req.Sessions) > bus.MaxStanding {
		return bus.StandingReply{}, bus.Refuse(bus.CodeBadRequest, "%d sessions in one request, at most %d", len(req.Sessions), bus.MaxStanding)
	}
	rep := bus.StandingReply{Codes: make([]bus.Code, len(req.Sessions)), Lease: s.cfg.Lease}
	for i, ref := range req.Sessions {
		code, err := s.standingOf(ctx, ref)
		if err != nil {
			return bus.StandingReply{}, err
		}
		rep.Codes[i] = code
	}
	if req.Mark == nil {
		return rep, nil
	}
	var good []gkrp.LeaseSession
	for i, ref := range req.Sessions {
		if rep.Codes[i] == "" {
			good = append(good, gkrp.LeaseSession{Stream: ref.Stream, Session: ref.Session})
		}
	}
	if len(good) == 0 {
		return rep, nil
	}
	var err error
	rep.Word, err = s.leaseFor(req.Transport, req.Mark, good...)
	return rep, err
}

func (s *Service) standingOf(ctx context.Context, ref bus.SessionRef) (bus.Code, error) {
	rec, known, err := s.sessionRecord(ctx, ref)
	if err != nil {
		return "", err
	}
	// The session first and the device last: a session that was opened in between
	// belongs to the enrolment that it was opened under.
	dev, err := s.entitled(ctx, ref.Device, ref.Stream)
	switch code := bus.CodeOf(err); {
	case err != nil && (code == bus.CodeUnavailable || code == bus.CodeInternal):
		return "", err
	case err != nil:
		return bus.CodeRevoked, nil
	case !known || rec.Ended || rec.Device != ref.Device:
		return bus.CodeNotFound, nil
	case !rec.Enrolled.Equal(dev.Enrolled):
		return bus.CodeRevoked, nil // enrolled anew since, perhaps because it was stolen
	}
	return "", nil
}

// sessionRecord finds a session in memory, or else in the store.
func (s *Service) sessionRecord(ctx context.Context, ref bus.SessionRef) (sessionRecord, bool, error) {
	if _, err := gk.ParseStreamID(string(ref.Stream)); err != nil {
		return sessionRecord{}, false, nil
	}
	st := s.stream(ref.Stream)
	ss := st.session(ref.Session)
	if ss == nil {
		done, err := s.write(ctx, st)
		if err != nil {
			return sessionRecord{}, false, unavailable(err)
		}
		err = s.loadStream(ctx, st)
		done()
		if err != nil {
			return sessionRecord{}, false, err
		}
		if ss = st.session(ref.Session); ss == nil {
			return sessionRecord{}, false, nil
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return ss.rec, true, nil
}
