package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// The roles that a certificate can carry in its URI SAN, gaitkeeper:ROLE/ID.
const (
	roleDevice     = "device"
	roleTransport  = "transport"
	roleProcessing = "processing"
	roleServer     = "server"
)

// Lives of certificates. A device is cut off by its record and not by a date,
// so its life bounds only what is forgotten; services ask anew at every start.
const (
	caLife      = 20 * 365 * 24 * time.Hour
	deviceLife  = 3 * 365 * 24 * time.Hour
	serviceLife = 397 * 24 * time.Hour
)

// validFrom is where every certificate begins. Encoders start with clocks that
// are years behind and take their software's build time instead ([host.CertTime]); a
// beginning before every build is valid to them all, and protects nothing if later.
var validFrom = host.Earliest

// authority is the site's certificate authority, ECDSA P-256: all TLS stacks
// that players and browsers bring can verify it. Its private key is in memory
// only as PKCS #8 in a Secret, and parsed for the moment of a signature.
type authority struct {
	cert *x509.Certificate
	pool *x509.CertPool
	key  keyring.Secret
}

// openAuthority reads the CA from the store, or makes one in an empty store.
func openAuthority(ctx context.Context, kv store.KV, v *vault, now time.Time) (*authority, error) {
	rec, err := openIdentity(ctx, kv, v, caKey, func() ([]byte, []byte, error) { return makeAuthority(now) })
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(rec.Public)
	if err != nil {
		return nil, fmt.Errorf("the CA certificate in the key store is damaged: %w", err)
	}
	key, err := v.unwrapSecret(rec.Wrapped, bound("identity", caKey, string(rec.Public)))
	if err != nil {
		return nil, fmt.Errorf("the CA key in the key store does not belong to its certificate: %w", err)
	}
	a := &authority{cert: cert, pool: x509.NewCertPool(), key: key}
	a.pool.AddCert(cert)
	return a, nil
}

// openIdentity reads an identity, or has one made and keeps it. Of two
// instances that start together, both end with the same.
func openIdentity(ctx context.Context, kv store.KV, v *vault, name string, create func() (public, private []byte, err error)) (identityRecord, error) {
	var rec identityRecord
	e, err := kv.Get(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		if err = createIdentity(ctx, kv, v, name, create); err == nil {
			e, err = kv.Get(ctx, name)
		}
	}
	if err != nil {
		return rec, fmt.Errorf("cannot open the key store: %w", err)
	}
	return rec, v.open(e, &rec)
}

func createIdentity(ctx context.Context, kv store.KV, v *vault, name string, create func() (public, private []byte, err error)) error {
	public, private, err := create()
	defer clear(private)
	if err != nil {
		return err
	}
	secret := keyring.NewSecret(private)
	defer secret.Wipe()
	wrapped, err := v.wrapSecret(secret, bound("identity", name, string(public)))
	if err != nil {
		return err
	}
	b, err := v.seal(name, identityRecord{Public: public, Wrapped: wrapped})
	if err != nil {
		return err
	}
	if _, err = kv.Create(ctx, name, b); errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}

func makeAuthority(now time.Time) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Gaitkeeper"}, CommonName: "Gaitkeeper CA " + hex.EncodeToString(randomBytes(4))},
		NotBefore:             validFrom,
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if cert, err = x509.CreateCertificate(rand.Reader, t, t, priv.Public(), priv); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(priv)
	return cert, key, err
}

func serial() *big.Int { return new(big.Int).SetBytes(randomBytes(16)) }

// Public implements [crypto.Signer].
func (a *authority) Public() crypto.PublicKey { return a.cert.PublicKey }

// Sign implements [crypto.Signer].
func (a *authority) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	a.key.Expose(func(b []byte) {
		var key any
		if key, err = x509.ParsePKCS8PrivateKey(b); err != nil {
			return
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			err = fmt.Errorf("the CA key is a %T and cannot sign", key)
			return
		}
		sig, err = signer.Sign(r, digest, opts)
	})
	return sig, err
}

// issue signs a certificate for role and id. Only servers have hosts.
func (a *authority) issue(role, id string, public crypto.PublicKey, hosts []string, now time.Time) ([]byte, error) {
	if err := checkIdentityKey(role, public); err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: commonName(role, id)},
		URIs:                  []*url.URL{{Scheme: "gaitkeeper", Opaque: role + "/" + id}},
		NotBefore:             validFrom,
		NotAfter:              now.Add(serviceLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	switch role {
	case roleDevice:
		t.NotAfter = now.Add(deviceLife)
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case roleTransport, roleProcessing:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case roleServer:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else {
				t.DNSNames = append(t.DNSNames, h)
			}
		}
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, t, a.cert, public, a)
}

// commonName is what brokers of others, which read no URIs, know a holder by. A
// colon cannot be part of a device's id, so no device is taken for a service.
func commonName(role, id string) string {
	if role == roleDevice {
		return id
	}
	return role + ":" + id
}

// checkIdentityKey: what signs protocol statements must be Ed25519; a server
// may also use ECDSA, for the clients that know nothing newer.
func checkIdentityKey(role string, public crypto.PublicKey) error {
	switch public.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if role == roleServer {
			return nil
		}
	}
	return fmt.Errorf("key of a %s is a %T: make an Ed25519 key", role, public)
}

// verify checks that der is a certificate of this CA for role, and returns the
// id that it stands for. Its extended key usage is not asked for: the URI says
// what the holder is.
func (a *authority) verify(der []byte, role string, now time.Time) (*x509.Certificate, string, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", bus.Refuse(bus.CodeUnauthorized, "certificate does not parse: %v", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, "", bus.Refuse(bus.CodeUnauthorized, "certificate of %q: %v", cert.Subject.CommonName, err)
	}
	if len(cert.URIs) != 1 {
		return nil, "", bus.Refuse(bus.CodeUnauthorized, "certificate of %q names %d roles, want one", cert.Subject.CommonName, len(cert.URIs))
	}
	id, ok := strings.CutPrefix(cert.URIs[0].String(), "gaitkeeper:"+role+"/")
	if !ok {
		return nil, "", bus.Refuse(bus.CodeUnauthorized, "certificate of %q is for %s, want a %s", cert.Subject.CommonName, cert.URIs[0], role)
	}
	return cert, id, nil
}
