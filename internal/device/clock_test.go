package device

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// TestEncoderWithoutAClockJoins: the machine wakes up decades before the certificates
// of the join endpoint are valid, and believes them all the same; other doubts hold.
func TestEncoderWithoutAClockJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins in the year 2000
		key := newKey(t)
		certificate := func(c *x509.Certificate, parent *x509.Certificate, until time.Time) *x509.Certificate {
			c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), host.Earliest, until
			if parent == nil {
				parent = c
			}
			der, err := x509.CreateCertificate(nil, c, parent, key.Public().(ed25519.PublicKey), key)
			if err != nil {
				t.Fatal(err)
			}
			c, err = x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		far := host.Earliest.AddDate(100, 0, 0)
		ca := certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true}, nil, far)
		check := func(until time.Time, name string) error {
			server := certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"join.example"}}, ca, until)
			p := pinned(gkrp.JoinToken{Address: name + ":8843", CAFingerprint: sha256.Sum256(ca.Raw)})
			return p.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{server, ca}})
		}
		if err := check(far, "join.example"); err != nil {
			t.Errorf("in %d: %v", time.Now().Year(), err)
		}
		if check(far, "other.example") == nil {
			t.Error("another name was believed")
		}
		if check(host.Earliest.Add(-time.Second), "join.example") == nil {
			t.Error("a certificate that is over was believed")
		}
	})
}
