package device

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

const (
	joinTimeout   = 15 * time.Second
	maxJoinAnswer = 64 << 10
	joinPath      = "/v1/join"
)

// joinRequest is the body of POST /v1/join.
type joinRequest struct {
	Device string `json:"device"`
	Secret []byte `json:"secret"`
	CSR    []byte `json:"csr"` // PKCS #10, DER
}

// joinAnswer is the answer to it.
type joinAnswer struct {
	bus.JoinReply
	Broker   string   `json:"broker"`              // as [bus.ParseBroker] reads it
	BrokerCA [][]byte `json:"broker_ca,omitempty"` // DER
}

// Join makes the device that token names out of this state directory: it makes
// a key, has it certified over TLS pinned to the token's CA, and stores what
// comes back. A directory that has joined as the same device of the same CA
// keeps its identity, so that one command line serves the first start and every
// later one, though a token works once.
//
// Errors name cause and mend: a token that is damaged, expired or used; another
// CA than the token names; a service that cannot be reached; a directory that
// belongs to another device.
func Join(ctx context.Context, token string, s *State) (Identity, error) {
	t, err := gkrp.ParseJoinToken(token)
	if err != nil {
		return Identity{}, err
	}
	switch i, err := s.Identity(); {
	case err == nil && i.Device == t.Device && sha256.Sum256(i.CA.Raw) == t.CAFingerprint:
		return i, nil
	case err == nil:
		return Identity{}, fmt.Errorf("state directory %s belongs to device %s of the service at %s, the token is for %s at %s: choose another directory with --state", s.dir, i.Device, i.Broker, t.Device, t.Address)
	case !errors.Is(err, ErrNotJoined):
		return Identity{}, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Identity{}, err
	}
	csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(t.Device)}}, key)
	if err != nil {
		return Identity{}, err
	}
	a, err := askToJoin(ctx, t, csr)
	if err != nil {
		return Identity{}, fmt.Errorf("device %s cannot join: %w", t.Device, err)
	}
	i := Identity{Device: a.Device, Streams: a.Streams, Key: key, KMSPublic: a.KMSPublic, Broker: a.Broker}
	if err := i.complete(a, t); err != nil {
		return Identity{}, fmt.Errorf("device %s cannot join: the answer of %s is not usable: %w", t.Device, t.Address, err)
	}
	if err := s.keep(i); err != nil {
		return Identity{}, fmt.Errorf("device %s has joined, but its identity cannot be stored: %w: mend the directory %s and join with a new token", t.Device, err, s.dir)
	}
	return i, nil
}

// complete takes over what the answer says, if it is what the token promised.
func (i *Identity) complete(a joinAnswer, t gkrp.JoinToken) (err error) {
	if a.Device != t.Device {
		return fmt.Errorf("it is for device %s", a.Device)
	}
	if len(a.KMSPublic) != ed25519.PublicKeySize {
		return fmt.Errorf("the key management service's key has %d bytes", len(a.KMSPublic))
	}
	if _, err := bus.ParseBroker(a.Broker); err != nil {
		return err
	}
	for _, der := range a.BrokerCA {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("CA of the broker: %w", err)
		}
		i.BrokerCA = append(i.BrokerCA, c)
	}
	if sha256.Sum256(a.CA) != t.CAFingerprint {
		return errors.New("its CA is not the one that the token names")
	}
	if i.CA, err = x509.ParseCertificate(a.CA); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	if i.Cert, err = x509.ParseCertificate(a.Certificate); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return i.check()
}

func askToJoin(ctx context.Context, t gkrp.JoinToken, csr []byte) (joinAnswer, error) {
	var a joinAnswer
	body, err := json.Marshal(joinRequest{Device: string(t.Device), Secret: t.Secret, CSR: csr})
	if err != nil {
		return a, err
	}
	defer clear(body)
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+t.Address+joinPath, bytes.NewReader(body))
	if err != nil {
		return a, fmt.Errorf("the token's address %q is not usable: %w", t.Address, err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: pinned(t), DisableKeepAlives: true},
		// The secret goes to the token's address and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, joinFailure(t, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxJoinAnswer))
	if err != nil {
		return a, joinFailure(t, err)
	}
	if resp.StatusCode != http.StatusOK {
		return a, joinRefusal(t, resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return a, fmt.Errorf("%s does not answer as a gaitkeeper join endpoint does: %w: check the address in the token", t.Address, err)
	}
	return a, nil
}

// wrongCA is a TLS peer that the token does not name.
type wrongCA struct{ err error }

func (w wrongCA) Error() string { return w.err.Error() }

// pinned trusts no CA of this machine, only the one whose fingerprint the token
// has. The server must send that CA's certificate along with its own.
func pinned(t gkrp.JoinToken) *tls.Config {
	name, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		name = t.Address
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The verification below stands in for the one by the machine's CAs.
		InsecureSkipVerify: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			chain := c.PeerCertificates
			if len(chain) == 0 {
				return wrongCA{errors.New("the server shows no certificate")}
			}
			roots := x509.NewCertPool()
			found := false
			for _, cert := range chain {
				if sha256.Sum256(cert.Raw) == t.CAFingerprint {
					roots.AddCert(cert)
					found = true
				}
			}
			if !found {
				last := sha256.Sum256(chain[len(chain)-1].Raw)
				return wrongCA{fmt.Errorf("the server's CA fingerprint is %s, the token names %s", fingerprint(last), fingerprint(t.CAFingerprint))}
			}
			if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: host.CertTime()}); err != nil {
				return wrongCA{fmt.Errorf("the server's certificate does not hold: %w", err)}
			}
			return nil
		},
	}
}

func fingerprint(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:8]) + "…" }

func joinFailure(t gkrp.JoinToken, err error) error {
	var other wrongCA
	switch {
	case errors.As(err, &other):
		return fmt.Errorf("%w: another service answers at %s, or somebody is in between: get a new token from the service that you mean", other, t.Address)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer: is gaitkeeper serve running there, and the port open to this machine?", t.Address)
	case errors.Is(err, context.Canceled):
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op
	}
	return fmt.Errorf("%s cannot be reached: %w: is gaitkeeper serve running there, and the port open to this machine?", t.Address, err)
}

func joinRefusal(t gkrp.JoinToken, status int, answer []byte) error {
	var r bus.Refusal
	if json.Unmarshal(answer, &r) != nil || r.Code == "" {
		return fmt.Errorf("%s does not answer as a gaitkeeper join endpoint does (HTTP %d): check the address in the token", t.Address, status)
	}
	again := fmt.Sprintf("print a new token with: gaitkeeper enroll %s", t.Device)
	switch r.Code {
	case bus.CodeExpired:
		return fmt.Errorf("the token has expired (%w): %s", &r, again)
	case bus.CodeUsed:
		return fmt.Errorf("the token was used already (%w): start with the state directory that it was used with, or %s", &r, again)
	case bus.CodeNotFound, bus.CodeUnauthorized:
		return fmt.Errorf("the service does not know the token (%w): %s", &r, again)
	case bus.CodeRevoked:
		return fmt.Errorf("the device is revoked (%w): enrol it anew", &r)
	case bus.CodeUnavailable:
		return fmt.Errorf("the service cannot answer now (%w): try again", &r)
	}
	return &r
}
