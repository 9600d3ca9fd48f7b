package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/veraison/go-cose"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// signer makes the key management service's own signatures, Ed25519.
type signer struct {
	public ed25519.PublicKey
	kid    []byte
	key    keyring.Secret // ed25519.PrivateKey, 64 bytes
	sign   func(key ed25519.PrivateKey, content []byte) []byte
}

// openSigner reads the signing key from the store, or makes one in an empty store.
func openSigner(ctx context.Context, kv store.KV, v *vault, sign func(ed25519.PrivateKey, []byte) []byte) (*signer, error) {
	rec, err := openIdentity(ctx, kv, v, signingKey, func() ([]byte, []byte, error) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		return public, private, err
	})
	if err != nil {
		return nil, err
	}
	key, err := v.unwrapSecret(rec.Wrapped, bound("identity", signingKey, string(rec.Public)))
	if err != nil {
		return nil, fmt.Errorf("the signing key in the key store is damaged: %w", err)
	}
	return &signer{public: rec.Public, kid: gkrp.KeyID(rec.Public), key: key, sign: sign}, nil
}

// Algorithm implements [gkrp.Signer].
func (s *signer) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }

// Sign implements [gkrp.Signer].
func (s *signer) Sign(_ io.Reader, content []byte) (sig []byte, err error) {
	s.key.Expose(func(b []byte) {
		if len(b) != ed25519.PrivateKeySize {
			err = errors.New("the key management service was stopped")
			return
		}
		sig = s.sign(b, content)
	})
	return sig, err
}

// certify gives a service its certificate, and vouches to devices for the key
// of a processing service.
func (s *Service) certify(_ context.Context, to string, req bus.CertifyRequest) (bus.CertifyReply, error) {
	var rep bus.CertifyReply
	if to != bus.As(req.Role, req.ID) {
		return rep, bus.Refuse(bus.CodeUnauthorized, "a certificate for %s %s is not given to %s", req.Role, req.ID, to)
	}
	if req.Role != roleTransport && req.Role != roleProcessing && req.Role != roleServer {
		return rep, bus.Refuse(bus.CodeBadRequest, "no certificates are given for role %q: ask for %s, %s or %s", req.Role, roleTransport, roleProcessing, roleServer)
	}
	if _, err := gk.ParseTransportID(req.ID); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	public, err := x509.ParsePKIXPublicKey(req.Key)
	if err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "key of %s %s: %v", req.Role, req.ID, err)
	}
	now := s.cfg.Host.Now()
	if rep.Certificate, err = s.ca.issue(req.Role, req.ID, public, req.Hosts, now); err != nil {
		return rep, bus.Refuse(bus.CodeBadRequest, "%v", err)
	}
	rep.CA = s.ca.cert.Raw
	if req.Role == roleProcessing {
		rep.Controller, err = s.vouch(rep.Certificate, now)
	}
	return rep, err
}

// vouch signs the key of a processing service's certificate as one that devices
// may take protocol messages from.
func (s *Service) vouch(certificate []byte, now time.Time) ([]byte, error) {
	cert, id, err := s.ca.verify(certificate, roleProcessing, now)
	if err != nil {
		return nil, err
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, bus.Refuse(bus.CodeUnauthorized, "key of processing %s is a %T: make an Ed25519 key", id, cert.PublicKey)
	}
	return gkrp.SignController(s.signer, s.signer.kid, &gkrp.Controller{ID: id, Public: public})
}

func (s *Service) info(context.Context, bus.Empty) (bus.KMSInfoReply, error) {
	return bus.KMSInfoReply{CA: s.ca.cert.Raw, Public: s.signer.public, KeyID: s.signer.kid}, nil
}
