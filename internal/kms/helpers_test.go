package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// fataler is what the property test's T and the usual one have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// site is a service with what stands around it, kept over restarts.
type site struct {
	t   fataler
	kek string
	kv  store.KV
	mem *bus.Memory
	*Service
}

func newSite(t *testing.T, kv store.KV) *site {
	t.Helper()
	s := &site{t: t, kek: "file:" + filepath.Join(t.TempDir(), "kek"), kv: kv, mem: bus.NewMemory()}
	s.restart()
	return s
}

// restart forgets memory, as a crash does.
func (s *site) restart() {
	s.t.Helper()
	svc, err := s.another()
	if err != nil {
		s.t.Fatalf("start: %v", err)
	}
	s.Service = svc
}

func (s *site) another() (*Service, error) {
	return New(context.Background(), Config{
		KEK: KEK{URI: s.kek}, Suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519, gkrp.SuiteX25519},
	}, s.kv, s.mem.Conn())
}

// settle does what Run does behind the answers.
func (s *site) settle() {
	s.t.Helper()
	if !s.savePending(context.Background()) {
		s.t.Fatalf("not everything was saved")
	}
}

// camera is a device that plays its part by hand.
type camera struct {
	t       fataler
	id      gk.DeviceID
	private ed25519.PrivateKey
	ca      *x509.Certificate
	kms     gkrp.Verifier
	csr     []byte
}

func newCamera(t fataler, id gk.DeviceID) *camera {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{PublicKey: public}, private)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &camera{t: t, id: id, private: private, csr: csr}
}

// enrolled joins a new camera, by a token like any other.
func (s *site) enrolled(id gk.DeviceID, streams ...gk.StreamID) *camera {
	s.t.Helper()
	c := newCamera(s.t, id)
	hash := tokenHash()
	if _, err := s.enroll(context.Background(), bus.EnrollRequest{Device: id, Streams: streams, Hash: hash}); err != nil {
		s.t.Fatalf("enroll: %v", err)
	}
	c.join(s.Service, hash)
	return c
}

// tokenHash is the hash of the secret of some token.
func tokenHash() []byte { return randomBytes(sha256.Size) }

func (c *camera) join(s *Service, hash []byte) {
	c.t.Helper()
	rep, err := s.join(context.Background(), bus.JoinRequest{Device: c.id, Hash: hash, CSR: c.csr})
	if err != nil {
		c.t.Fatalf("join: %v", err)
	}
	c.ca, _ = x509.ParseCertificate(rep.CA)
	c.kms, err = gkrp.NewVerifier(rep.KMSPublic)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
}

// prekey makes a one-time key and its statement. X25519 keeps tests quick.
func (c *camera) prekey(stream gk.StreamID, session gk.SessionID) (keyring.ReceiverKey, []byte) {
	c.t.Helper()
	key, err := keyring.GenerateReceiverKey(keyring.SuiteX25519)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return key, c.sign(&gkrp.Prekey{Device: c.id, Stream: stream, Session: session, Suite: gkrp.SuiteX25519, Public: key.Public()})
}

func (c *camera) sign(p *gkrp.Prekey) []byte {
	c.t.Helper()
	signer, err := gkrp.NewSigner(c.private)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	wire, err := gkrp.SignPrekey(signer, []byte(c.id), p)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return wire
}

// opened checks an envelope as a receiver does and gives its key.
func opened(t fataler, kms gkrp.Verifier, key keyring.ReceiverKey, wire []byte) (*gkrp.KeyEnvelope, keyring.MediaKey) {
	t.Helper()
	e, err := gkrp.OpenKeyEnvelope(kms, wire)
	if err != nil {
		t.Fatalf("envelope: %v", err)
	}
	m, err := key.OpenMediaKey(e.Info(), e.Sealed)
	if err != nil {
		t.Fatalf("sealed key: %v", err)
	}
	return e, m
}

// relay is a transport with its certificate and HPKE key.
type relay struct {
	id   gk.TransportID
	key  keyring.ReceiverKey
	word bus.TransportReceiver
}

func (s *site) newRelay(id gk.TransportID) *relay {
	s.t.Helper()
	private, cert := s.certified(roleTransport, string(id))
	key, err := keyring.GenerateReceiverKey(keyring.SuiteX25519)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return &relay{id: id, key: key, word: bus.TransportReceiver{
		Transport: id, Certificate: cert,
		Key: receiverWord(s.t, private, &gkrp.ReceiverKey{Transport: id, Suite: gkrp.SuiteX25519, Public: key.Public()}),
	}}
}

func (s *site) certified(role, id string) (ed25519.PrivateKey, []byte) {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	rep, err := s.certify(context.Background(), bus.As(role, id), bus.CertifyRequest{Role: role, ID: id, Key: spki})
	if err != nil {
		s.t.Fatalf("certify: %v", err)
	}
	return private, rep.Certificate
}

func receiverWord(t fataler, private ed25519.PrivateKey, r *gkrp.ReceiverKey) []byte {
	t.Helper()
	signer, err := gkrp.NewSigner(private)
	if err != nil {
		t.Fatalf("%v", err)
	}
	wire, err := gkrp.SignReceiverKey(signer, []byte(r.Transport), r)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return wire
}

func sid(n byte) gk.SessionID { return gk.SessionID{n, 0xAA} }

// ssrcOf is the SSRC of a test's session; that of cam-1's session sid(1) is 7.
func ssrcOf(stream gk.StreamID, id gk.SessionID) uint32 {
	if stream != "cam-1" {
		return crc32.ChecksumIEEE(fmt.Append(nil, stream, id))
	}
	return uint32(id[0]) + 6 + uint32(id[2])<<8
}

func (s *site) mustOpen(c *camera, stream gk.StreamID, id gk.SessionID, high gk.Epoch) gk.Epoch {
	s.t.Helper()
	rep, err := s.open(context.Background(), bus.KMSOpenRequest{Device: c.id, Stream: stream, Session: id, HighWater: high, SSRC: ssrcOf(stream, id)})
	if err != nil {
		s.t.Fatalf("open: %v", err)
	}
	return rep.Epoch
}

// mustRelease releases an epoch to the camera with a fresh prekey.
func (s *site) mustRelease(c *camera, stream gk.StreamID, id gk.SessionID, epoch gk.Epoch) keyring.MediaKey {
	s.t.Helper()
	key, prekey := c.prekey(stream, id)
	rep, err := s.release(context.Background(), bus.KMSReleaseRequest{Device: c.id, Stream: stream, Session: id, Epoch: epoch, Prekey: prekey})
	if err != nil {
		s.t.Fatalf("release of epoch %d: %v", epoch, err)
	}
	_, m := opened(s.t, c.kms, key, rep.Device)
	return m
}

// refused checks a refusal's class and that its words hold what helps.
func refused(t *testing.T, err error, code bus.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want %s", code)
	}
	if bus.CodeOf(err) != code {
		t.Errorf("code %s, want %s: %v", bus.CodeOf(err), code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// events collects what a service tells.
type events struct {
	mu   sync.Mutex
	list []gk.Event
}

func (s *site) listen(t *testing.T) *events {
	e := &events{}
	sub, err := bus.Events.Hear(s.mem.Conn(), func(ev gk.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, ev)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return e
}

// until waits for n events.
func (e *events) until(t *testing.T, n int) []gk.Event {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		list := e.list
		e.mu.Unlock()
		if len(list) >= n {
			return list
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events came, want %d: %+v", len(list), n, list)
		}
	}
}
