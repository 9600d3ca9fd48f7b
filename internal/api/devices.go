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
