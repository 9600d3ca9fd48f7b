package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestJoin(t *testing.T) {
	s := newSite(t, store.NewMemory())
	hash := tokenHash()
	rep, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: hash, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if ca := sha256.Sum256(s.ca.cert.Raw); !bytes.Equal(rep.CAFingerprint, ca[:]) || time.Until(rep.Expires) < 59*time.Minute {
		t.Errorf("%+v", rep)
	}
	c := newCamera(t, "cam-1")
	req := bus.JoinRequest{Device: "cam-1", Hash: hash, CSR: c.csr}
	joined, err := s.join(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	cert, id, err := s.ca.verify(joined.Certificate, roleDevice, time.Now())
	if err != nil || id != "cam-1" || cert.Subject.CommonName != "cam-1" || !cert.PublicKey.(ed25519.PublicKey).Equal(c.private.Public()) {
		t.Errorf("certificate: %q, %v", id, err)
	}
	if len(joined.Streams) != 1 || joined.Streams[0] != "cam-1" || !bytes.Equal(joined.KMSPublic, s.signer.public) || !bytes.Equal(joined.CA, s.ca.cert.Raw) {
		t.Errorf("reply %+v", joined)
	}
	// A device with a clock in the past, and one some years ahead.
	for _, at := range []time.Time{time.Now().AddDate(-1, 0, 0), time.Now().AddDate(2, 0, 0)} {
		if _, _, err := s.ca.verify(joined.Certificate, roleDevice, at); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
	before, _ := s.device(t.Context(), "cam-1")
	if _, err := s.join(t.Context(), req); err != nil {
		t.Errorf("the same join repeated: %v", err)
	}
	if after, _ := s.device(t.Context(), "cam-1"); !after.Enrolled.Equal(before.Enrolled) {
		t.Error("a repeated join changed the record")
	}
	req.CSR = newCamera(t, "cam-1").csr
	_, err = s.join(t.Context(), req)
	refused(t, err, bus.CodeUsed, "run gaitkeeper enroll cam-1 again", "revoke")
	s.restart()
	_, err = s.join(t.Context(), req)
	refused(t, err, bus.CodeUsed)
}

func TestTokenErrorsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, store.NewMemory())
		hash := tokenHash()
		if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: hash, TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
		c := newCamera(t, "cam-1")
		good := bus.JoinRequest{Device: "cam-1", Hash: hash, CSR: c.csr}
		ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ecdsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ec)
		if err != nil {
			t.Fatal(err)
		}
		bent := bytes.Clone(c.csr)
		bent[len(bent)-1] ^= 1
		for name, tc := range map[string]struct {
			change func(*bus.JoinRequest)
			code   bus.Code
			words  string
		}{
			"wrong secret":   {func(r *bus.JoinRequest) { r.Hash = make([]byte, 32) }, bus.CodeNotFound, "run gaitkeeper enroll cam-1 again"},
			"no secret":      {func(r *bus.JoinRequest) { r.Hash = nil }, bus.CodeNotFound, "not known"},
			"unknown device": {func(r *bus.JoinRequest) { r.Device = "cam-2" }, bus.CodeNotFound, "run gaitkeeper enroll cam-2 again"},
			"bad device":     {func(r *bus.JoinRequest) { r.Device = "*" }, bus.CodeBadRequest, "invalid id"},
			"no CSR":         {func(r *bus.JoinRequest) { r.CSR = nil }, bus.CodeBadRequest, "does not parse"},
			"bent CSR":       {func(r *bus.JoinRequest) { r.CSR = bent }, bus.CodeBadRequest, "not signed by its own key"},
			"ECDSA CSR":      {func(r *bus.JoinRequest) { r.CSR = ecdsaCSR }, bus.CodeBadRequest, "make an Ed25519 key"},
			"long CSR":       {func(r *bus.JoinRequest) { r.CSR = make([]byte, 9<<10) }, bus.CodeBadRequest, "limit"},
		} {
			req := good
			tc.change(&req)
			_, err := s.join(t.Context(), req)
			t.Log(name)
			refused(t, err, tc.code, tc.words)
		}
		time.Sleep(time.Minute)
		_, err = s.join(t.Context(), good)
		refused(t, err, bus.CodeExpired, "run gaitkeeper enroll cam-1 again")
		next := tokenHash()
		if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: next}); err != nil {
			t.Fatal(err)
		}
		_, err = s.join(t.Context(), good)
		refused(t, err, bus.CodeNotFound, "a newer one")
		good.Hash = next
		time.Sleep(defaultTokenTTL - 2*time.Second)
		if _, err := s.join(t.Context(), good); err != nil {
			t.Error(err)
		}
	})
}

func TestTokenServesOneKey(t *testing.T) {
	s := newSite(t, store.NewMemory())
	hash := tokenHash()
	if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		c := newCamera(t, "cam-1")
		wg.Go(func() {
			_, errs[i] = s.join(t.Context(), bus.JoinRequest{Device: "cam-1", Hash: hash, CSR: c.csr})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		refused(t, err, bus.CodeUsed)
	}
	if won != 1 {
		t.Errorf("%d keys joined with one token", won)
	}
}

func TestEnrollRefuses(t *testing.T) {
	s := newSite(t, store.NewMemory())
	s.enrolled("cam-1", "stage", "yard")
	for name, tc := range map[string]struct {
		req   bus.EnrollRequest
		code  bus.Code
		words string
	}{
		"bad device":       {bus.EnrollRequest{Device: "cam 1", Hash: tokenHash()}, bus.CodeBadRequest, "invalid id"},
		"bad stream":       {bus.EnrollRequest{Device: "cam-2", Hash: tokenHash(), Streams: []gk.StreamID{"#"}}, bus.CodeBadRequest, "invalid id"},
		"no hash":          {bus.EnrollRequest{Device: "cam-2"}, bus.CodeBadRequest, "0 bytes, want 32"},
		"long life":        {bus.EnrollRequest{Device: "cam-2", Hash: tokenHash(), TTL: 8 * 24 * time.Hour}, bus.CodeBadRequest, "may live"},
		"negative life":    {bus.EnrollRequest{Device: "cam-2", Hash: tokenHash(), TTL: -1}, bus.CodeBadRequest, "may live"},
		"another's stream": {bus.EnrollRequest{Device: "cam-2", Hash: tokenHash(), Streams: []gk.StreamID{"yard"}}, bus.CodeConflict, "belongs to device cam-1"},
		"many streams":     {bus.EnrollRequest{Device: "cam-2", Hash: tokenHash(), Streams: make([]gk.StreamID, 65)}, bus.CodeBadRequest, "at most"},
	} {
		t.Log(name)
		_, err := s.enroll(t.Context(), tc.req)
		refused(t, err, tc.code, tc.words)
	}
	if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: tokenHash(), Streams: []gk.StreamID{"yard"}}); err != nil {
		t.Errorf("a device's own stream again: %v", err)
	}
}

func TestCertify(t *testing.T) {
	s := newSite(t, store.NewMemory())
	kms, err := gkrp.NewVerifier(s.signer.public)
	if err != nil {
		t.Fatal(err)
	}
	public, _, _ := ed25519.GenerateKey(rand.Reader)
	spki, _ := x509.MarshalPKIXPublicKey(public)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ecSPKI, _ := x509.MarshalPKIXPublicKey(ec.Public())

	rep, err := s.certify(t.Context(), "processing.p-1", bus.CertifyRequest{Role: roleProcessing, ID: "p-1", Key: spki})
	if err != nil {
		t.Fatal(err)
	}
	ctl, _, err := gkrp.OpenController(kms, rep.Controller)
	if err != nil || ctl.ID != "p-1" || !public.Equal(ed25519.PublicKey(ctl.Public)) {
		t.Errorf("controller %+v, %v", ctl, err)
	}
	rep, err = s.certify(t.Context(), "transport.tr-1", bus.CertifyRequest{Role: roleTransport, ID: "tr-1", Key: spki})
	if err != nil || rep.Controller != nil {
		t.Errorf("a transport got a controller statement, %v", err)
	}
	_, err = s.vouch(rep.Certificate, time.Now())
	refused(t, err, bus.CodeUnauthorized, "want a processing")
	_, err = s.certify(t.Context(), "transport.tr-2", bus.CertifyRequest{Role: roleTransport, ID: "tr-1", Key: spki})
	refused(t, err, bus.CodeUnauthorized, "is not given to transport.tr-2")

	for name, req := range map[string]bus.CertifyRequest{
		"device":          {Role: roleDevice, ID: "cam-1", Key: spki},
		"no role":         {ID: "x", Key: spki},
		"bad id":          {Role: roleTransport, ID: "a/b", Key: spki},
		"no key":          {Role: roleTransport, ID: "tr-1"},
		"ECDSA transport": {Role: roleTransport, ID: "tr-1", Key: ecSPKI},
	} {
		t.Log(name)
		_, err := s.certify(t.Context(), bus.As(req.Role, req.ID), req)
		refused(t, err, bus.CodeBadRequest)
	}
}

// A device's Ed25519 certificate and a server's ECDSA one must do for a real
// handshake, each way checked.
func TestMutualTLS(t *testing.T) {
	s := newSite(t, store.NewMemory())
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ecSPKI, _ := x509.MarshalPKIXPublicKey(ec.Public())
	srv, err := s.certify(t.Context(), "server.join", bus.CertifyRequest{Role: roleServer, ID: "join", Key: ecSPKI, Hosts: []string{"gk.example", "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	hash := tokenHash()
	if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-1", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	c := newCamera(t, "cam-1")
	joined, err := s.join(t.Context(), bus.JoinRequest{Device: "cam-1", Hash: hash, CSR: c.csr})
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(name string, client tls.Certificate) error {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		server := tls.Server(a, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{srv.Certificate}, PrivateKey: ec}},
			ClientCAs:    s.ca.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		})
		done := make(chan error, 1)
		go func() {
			_, err := io.WriteString(server, "x")
			done <- err
			a.Close()
		}()
		conn := tls.Client(b, &tls.Config{RootCAs: s.ca.pool, ServerName: name, Certificates: []tls.Certificate{client}})
		_, err := io.ReadFull(conn, make([]byte, 1))
		b.Close()
		return errors.Join(err, <-done)
	}
	client := tls.Certificate{Certificate: [][]byte{joined.Certificate}, PrivateKey: c.private}
	for _, name := range []string{"gk.example", "127.0.0.1"} {
		if err := handshake(name, client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := handshake("other.example", client); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("another name: %v", err)
	}
	serverAsClient := tls.Certificate{Certificate: [][]byte{srv.Certificate}, PrivateKey: ec}
	if err := handshake("gk.example", serverAsClient); err == nil {
		t.Error("a server's certificate passed for a client's")
	}
}

func FuzzJoin(f *testing.F) {
	s := &site{t: f, kek: "file:" + f.TempDir() + "/kek", kv: store.NewMemory(), mem: bus.NewMemory()}
	s.restart()
	hash := tokenHash()
	if _, err := s.enroll(context.Background(), bus.EnrollRequest{Device: "cam-1", Hash: hash}); err != nil {
		f.Fatal(err)
	}
	f.Add("cam-1", []byte{}, newCamera(f, "cam-1").csr)
	f.Fuzz(func(t *testing.T, device string, secret, csr []byte) {
		_, err := s.join(t.Context(), bus.JoinRequest{Device: gk.DeviceID(device), Hash: secret, CSR: csr})
		if err == nil && !bytes.Equal(secret, hash) {
			t.Error("joined without the secret")
		}
		var r *bus.Refusal
		if err != nil && !errors.As(err, &r) {
			t.Errorf("not a refusal: %v", err)
		}
	})
}
