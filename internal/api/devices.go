package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// tokenSecretSize is what [gkrp.JoinToken] asks for.
const tokenSecretSize = 16

// enroll makes a join token. Its secret is made here, and the answer is the only
// place that it goes to: the key management service is told its hash alone.
func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Device  string   `json:"device"`
		Streams []string `json:"streams"`
		TTL     string   `json:"ttl"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if s.cfg.JoinAddress == "" {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "the join endpoint's address is not known: set it with --advertise"))
		return
	}
	req := bus.EnrollRequest{TTL: s.cfg.TokenLife}
	var err error
	if req.Device, err = gk.ParseDeviceID(body.Device); err != nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
		return
	}
	for _, name := range body.Streams {
		id, err := gk.ParseStreamID(name)
		if err != nil {
			s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
			return
		}
		req.Streams = append(req.Streams, id)
	}
	if body.TTL != "" {
		if req.TTL, err = time.ParseDuration(body.TTL); err != nil || req.TTL <= 0 {
			s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "ttl %q is not a duration: write for example 1h", body.TTL))
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	token := gkrp.JoinToken{Address: s.cfg.JoinAddress, Device: req.Device, Secret: make([]byte, tokenSecretSize)}
	defer clear(token.Secret)
	_, _ = rand.Read(token.Secret) // crypto/rand does not fail
	hash := sha256.Sum256(token.Secret)
	req.Hash = hash[:]
	rep, err := bus.KMSEnroll.Do(ctx, s.conn, req)
	if err == nil && len(rep.CAFingerprint) != len(token.CAFingerprint) {
		err = bus.Refuse(bus.CodeInternal, "the key management service names no CA")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	token.CAFingerprint, token.Expires = [sha256.Size]byte(rep.CAFingerprint), rep.Expires
	reply(w, http.StatusOK, struct {
		Device  gk.DeviceID `json:"device"`
		Token   string      `json:"token"`
		Expires time.Time   `json:"expires"`
	}{req.Device, token.Text(), rep.Expires})
}

// devices lists the enrolment records.
func (s *Server) devices(w http.ResponseWriter, r *http.Request) {
	all := []bus.DeviceRecord{}
	for after, more := gk.DeviceID(""), true; more; {
		ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
		rep, err := bus.KMSDevices.Do(ctx, s.conn, bus.DevicesRequest{After: after})
		cancel()
		if err != nil {
			s.fail(w, r, err)
			return
		}
		all = append(all, rep.Devices...)
		if more = rep.More && len(rep.Devices) > 0; more {
			after = rep.Devices[len(rep.Devices)-1].Device
		}
	}
	reply(w, http.StatusOK, struct {
		Devices []bus.DeviceRecord `json:"devices"`
	}{all})
}

// farewell is how long the word that a device was revoked has to reach it before
// its connection is cut.
const farewell = 250 * time.Millisecond

// revoke answers when nothing of the device is delivered any more: every
// transport that may hold one of its keys has wiped them, or has had no right to
// use them for longer than it could have been cut off.
//
// Once the revocation is persisted, it goes on without whoever asked for it.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	id, err := gk.ParseDeviceID(r.PathValue("id"))
	if err != nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
		return
	}
	// The limit on the request's body would end the wait as well.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	began := time.Now()
	ctx := context.WithoutCancel(r.Context())
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	rep, err := bus.KMSRevoke.Do(ask, s.conn, bus.RevokeRequest{Device: id})
	cancel()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	over := time.Now().Add(rep.Lease)
	out := bus.Revocation{Device: id, Streams: rep.Device.Streams, How: bus.RevokedByDisarming, Confirmed: []gk.TransportID{}, Missing: []gk.TransportID{}}

	ask, cancel = context.WithTimeout(ctx, disarmTimeout)
	disarmed, err := bus.ProcessingDisarm.Do(ask, s.conn, bus.DisarmDeviceRequest{Device: id, Streams: rep.Device.Streams, Lease: rep.Lease})
	cancel()
	if err != nil {
		s.cfg.Log.Warn("sessions of a revoked device were not ended by order; they end with their leases", "device", id, "error", err)
	}
	out.Sessions = disarmed.Sessions
	out.Confirmed, out.Missing = append(out.Confirmed, disarmed.Confirmed...), append(out.Missing, disarmed.Missing...)
	if out.Sessions > 0 {
		time.Sleep(farewell)
	}
	ask, cancel = context.WithTimeout(ctx, askTimeout)
	_, cutErr := bus.BrokerCut.Do(ask, s.conn, bus.CutRequest{Device: id})
	cancel()
	out.Cut = cutErr == nil
	// Where no transport answered at all, there may be some that nobody sees.
	if err != nil || len(out.Missing) > 0 || len(out.Confirmed) == 0 {
		out.How = bus.RevokedByLease
		select {
		case <-time.After(time.Until(over)):
		case <-r.Context().Done():
			return
		}
	}
	out.Waited = time.Since(began)
	reply(w, http.StatusOK, out)
}
