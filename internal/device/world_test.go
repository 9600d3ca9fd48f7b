package device

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// world is everything that a device meets: a CA, a key management service's key,
// a controller's, and a device's own identity.
type world struct {
	ca            *x509.Certificate
	caKey         ed25519.PrivateKey
	kmsKey        ed25519.PrivateKey
	controllerKey ed25519.PrivateKey
	deviceKey     ed25519.PrivateKey
	token         gkrp.JoinToken
	serial        int64
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{caKey: newKey(t), kmsKey: newKey(t), controllerKey: newKey(t), deviceKey: newKey(t)}
	w.ca = w.certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, w.caKey.Public(), nil)
	w.token = gkrp.JoinToken{
		Address: "127.0.0.1:1", CAFingerprint: sha256.Sum256(w.ca.Raw), Device: "cam-1",
		Secret: []byte("sixteen  bytes  "), Expires: time.Now().Add(time.Hour),
	}
	return w
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify signs c with the CA's key; a nil parent is c itself.
func (w *world) certify(t testing.TB, c *x509.Certificate, public any, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	w.serial++
	c.SerialNumber = big.NewInt(w.serial)
	// Wide enough for the virtual clock of testing/synctest, which begins in 2000.
	c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Now().AddDate(50, 0, 0)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(nil, c, parent, public, w.caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (w *world) deviceCert(t testing.TB, id string, public any) *x509.Certificate {
	return w.certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: id}, URIs: []*url.URL{{Scheme: "gaitkeeper", Opaque: "device/" + id}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, w.ca)
}

func (w *world) identity(t testing.TB) Identity {
	return Identity{
		Device: "cam-1", Streams: []gk.StreamID{"cam-1"}, Key: w.deviceKey, CA: w.ca, Broker: "127.0.0.1:1",
		Cert: w.deviceCert(t, "cam-1", w.deviceKey.Public()), KMSPublic: w.kmsKey.Public().(ed25519.PublicKey),
	}
}

// answer is what a join endpoint says to a device with w's device key.
func (w *world) answer(t testing.TB, id string) joinAnswer {
	return joinAnswer{Broker: "127.0.0.1:8883", JoinReply: bus.JoinReply{
		Device: gk.DeviceID(id), Streams: []gk.StreamID{gk.StreamID(id)}, CA: w.ca.Raw,
		Certificate: w.deviceCert(t, id, w.deviceKey.Public()).Raw, KMSPublic: w.kmsKey.Public().(ed25519.PublicKey),
	}}
}

// serverTLS is the join endpoint's side of TLS, with the CA in the chain.
func (w *world) serverTLS(t testing.TB) *tls.Config {
	key := newKey(t)
	cert := w.certify(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public(), w.ca)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw, w.ca.Raw}, PrivateKey: key}}}
}
