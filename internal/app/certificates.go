package app

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// credentials are a service's key and certificate, made anew at every start and
// held in memory alone.
type credentials struct {
	key        crypto.Signer
	cert       *x509.Certificate
	ca         *x509.Certificate
	controller []byte // of a processing service
}

// certify makes a key for a role and has the key management service certify it.
// Services sign protocol statements with theirs and so get Ed25519 keys; what
// faces browsers and players gets one that all of them know.
func certify(ctx context.Context, conn bus.Conn, role, id string, hosts ...string) (*credentials, error) {
	var key crypto.Signer
	var err error
	if role == "server" {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	rep, err := bus.KMSCertify.Do(ctx, conn, bus.As(role, id), bus.CertifyRequest{Role: role, ID: id, Key: public, Hosts: hosts})
	if err != nil {
		return nil, fmt.Errorf("certificate for %s %s: %w", role, id, err)
	}
	c := &credentials{key: key, controller: rep.Controller}
	if c.cert, err = x509.ParseCertificate(rep.Certificate); err != nil {
		return nil, fmt.Errorf("certificate for %s %s: %w", role, id, err)
	}
	if c.ca, err = x509.ParseCertificate(rep.CA); err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	return c, nil
}

// chain is what to show to peers: our certificate, and the CA's for devices
// that know only its fingerprint yet.
func (c *credentials) chain() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.cert.Raw, c.ca.Raw}, PrivateKey: c.key, Leaf: c.cert}
}

func (c *credentials) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	return pool
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// lateTLS is the configuration of a listener that opens before its certificate
// exists: the broker carries the very requests by which the key management
// service, which needs the broker for its state, certifies it. Until then, and
// without a certificate of our CA, nobody gets in.
type lateTLS struct{ ready atomic.Pointer[tls.Config] }

var errStarting = errors.New("the service is starting")

func (l *lateTLS) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if c := l.ready.Load(); c != nil {
				return c, nil
			}
			return nil, errStarting
		},
	}
}

// admit lets holders of certificates from the CA of c in.
func (l *lateTLS) admit(c *credentials) {
	l.ready.Store(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{c.chain()},
		ClientCAs:    c.pool(),
		ClientAuth:   tls.RequireAndVerifyClientCert,

		SessionTicketsDisabled: true, // every connection shows its certificate
	})
}
