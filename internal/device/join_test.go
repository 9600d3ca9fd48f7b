package device

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// joinServer certifies whoever has the secret, once.
func (w *world) joinServer(t *testing.T, change func(*joinAnswer)) (token string, asked *int) {
	t.Helper()
	asked = new(int)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", func(rw http.ResponseWriter, r *http.Request) {
		refuse := func(status int, c bus.Code) {
			rw.WriteHeader(status)
			_ = json.NewEncoder(rw).Encode(bus.Refusal{Code: c, Text: "words of the service"})
		}
		*asked++
		var q joinRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Device != "cam-1" || string(q.Secret) != string(w.token.Secret) {
			refuse(http.StatusForbidden, bus.CodeUnauthorized)
			return
		}
		if *asked > 1 {
			refuse(http.StatusGone, bus.CodeUsed)
			return
		}
		csr, err := x509.ParseCertificateRequest(q.CSR)
		if err != nil || csr.CheckSignature() != nil {
			refuse(http.StatusBadRequest, bus.CodeBadRequest)
			return
		}
		a := w.answer(t, "cam-1")
		a.Certificate = w.deviceCert(t, "cam-1", csr.PublicKey).Raw
		if change != nil {
			change(&a)
		}
		_ = json.NewEncoder(rw).Encode(a)
	})
	s := httptest.NewUnstartedServer(mux)
	s.TLS = w.serverTLS(t)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	tok := w.token
	tok.Address = s.Listener.Addr().String()
	return tok.Text(), asked
}

func openState(t *testing.T, dir string) *State {
	t.Helper()
	s, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestJoinOnceAndStartAgain(t *testing.T) {
	w := newWorld(t)
	token, asked := w.joinServer(t, nil)
	dir := filepath.Join(t.TempDir(), "state")
	s := openState(t, dir)
	if _, err := s.Identity(); !errors.Is(err, ErrNotJoined) {
		t.Errorf("identity before joining: %v", err)
	}
	one, err := Join(t.Context(), token, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.raise("cam-1", 41); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openState(t, dir)
	two, err := Join(t.Context(), token, s)
	if err != nil {
		t.Fatalf("the same command line once more: %v", err)
	}
	if *asked != 1 {
		t.Errorf("the token was used %d times", *asked)
	}
	if !one.Key.Equal(two.Key) || !one.Cert.Equal(two.Cert) || two.Device != "cam-1" || two.Broker != "127.0.0.1:8883" || !two.KMSPublic.Equal(w.kmsKey.Public()) {
		t.Error("the second start is not the first one's device")
	}
	if s.HighWater("cam-1") != 41 || s.HighWater("other") != 0 {
		t.Errorf("high-water marks %d and %d", s.HighWater("cam-1"), s.HighWater("other"))
	}
	st, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("identity file: %v, mode %v", err, st.Mode())
	}
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 {
		t.Errorf("state directory has mode %v", st.Mode())
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(form, two); strings.Contains(text, fmt.Sprintf("%x", []byte(two.Key)[:8])) || len(text) > 80 {
			t.Errorf("%s shows %q", form, text)
		}
	}
}

func TestJoinFailuresNameCauseAndMend(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	fails := func(name, token, dir string, wants ...string) {
		t.Helper()
		_, err := Join(t.Context(), token, openState(t, dir))
		if err == nil {
			t.Errorf("%s: joined", name)
			return
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not say %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), string(w.token.Secret)) {
			t.Errorf("%s: error %q has the secret", name, err)
		}
	}
	good, _ := w.joinServer(t, nil)
	parsed, err := gkrp.ParseJoinToken(good)
	if err != nil {
		t.Fatal(err)
	}

	wrong := parsed
	wrong.CAFingerprint = sha256.Sum256(other.ca.Raw)
	fails("wrong CA", wrong.Text(), t.TempDir(), "the server's CA fingerprint is "+fingerprint(parsed.CAFingerprint), "the token names "+fingerprint(wrong.CAFingerprint), "get a new token")

	unknown := parsed
	unknown.Secret = []byte("another  secret ")
	fails("unknown secret", unknown.Text(), t.TempDir(), "does not know the token", "gaitkeeper enroll cam-1")

	used, _ := w.joinServer(t, nil)
	first := t.TempDir()
	if _, err := Join(t.Context(), used, openState(t, first)); err != nil {
		t.Fatal(err)
	}
	fails("used", used, t.TempDir(), "used already", "state directory", "gaitkeeper enroll cam-1")

	stranger := parsed
	stranger.Device = "cam-2"
	s2 := t.TempDir()
	st := openState(t, s2)
	if err := st.keep(w.identity(t)); err != nil {
		t.Fatal(err)
	}
	_ = st.Close()
	fails("another device's directory", stranger.Text(), s2, "belongs to device cam-1", "--state")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := parsed
	nobody.Address = ln.Addr().String()
	_ = ln.Close()
	fails("nobody there", nobody.Text(), t.TempDir(), "cannot be reached", "connection refused", "gaitkeeper serve")
	fails("damaged", good[:len(good)-9], t.TempDir(), "damaged or cut short")
	fails("no token", "hello", t.TempDir(), "gkj1.")

	for name, c := range map[string]struct {
		change func(*joinAnswer)
		want   string
	}{
		"answer for another device": {func(a *joinAnswer) { a.Device = "cam-9" }, "it is for device cam-9"},
		"answer with another CA":    {func(a *joinAnswer) { a.CA = other.ca.Raw }, "not the one that the token names"},
		"answer for another key":    {func(a *joinAnswer) { a.Certificate = w.deviceCert(t, "cam-1", other.deviceKey.Public()).Raw }, "for another key"},
		"answer without KMS key":    {func(a *joinAnswer) { a.KMSPublic = nil }, "key has 0 bytes"},
		"answer without broker":     {func(a *joinAnswer) { a.Broker = "" }, "not host:port"},
	} {
		token, _ := w.joinServer(t, c.change)
		fails(name, token, t.TempDir(), c.want)
	}
	expired := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusGone)
		_ = json.NewEncoder(rw).Encode(bus.Refusal{Code: bus.CodeExpired, Text: "it was good until noon"})
	}))
	expired.TLS = w.serverTLS(t)
	expired.StartTLS()
	defer expired.Close()
	late := parsed
	late.Address = expired.Listener.Addr().String()
	fails("expired", late.Text(), t.TempDir(), "expired", "it was good until noon", "gaitkeeper enroll cam-1")

	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.TLS = w.serverTLS(t)
	web.StartTLS()
	defer web.Close()
	astray := parsed
	astray.Address = web.Listener.Addr().String()
	fails("something else there", astray.Text(), t.TempDir(), "HTTP 404", "check the address")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Join(ctx, good, openState(t, t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A certificate of the right CA that is not a server's proves nothing: every
// device has one.
func TestJoinRefusesADeviceAsServer(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = w.serverTLS(t)
	key := newKey(t)
	s.TLS.Certificates[0].Certificate[0] = w.deviceCert(t, "cam-7", key.Public()).Raw
	s.TLS.Certificates[0].PrivateKey = key
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	tok := w.token
	tok.Address = s.Listener.Addr().String()
	if _, err := Join(t.Context(), tok.Text(), openState(t, t.TempDir())); err == nil || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("joined at a device: %v", err)
	}
}

func TestStateDirectoryIsLockedAndChecked(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	s := openState(t, dir)
	if _, err := OpenState(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("second agent in one directory: %v", err)
	}
	if err := s.keep(w.identity(t)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Identity()
	if err != nil || !id.KMSPublic.Equal(w.kmsKey.Public().(ed25519.PublicKey)) {
		t.Fatalf("%v, %v", id, err)
	}
	for name, b := range map[string]string{
		"cut":         string(good[:len(good)/2]),
		"empty":       "",
		"strange key": strings.Replace(string(good), `"broker"`, `"brocker"`, 1),
		"other cert":  strings.Replace(string(good), "BEGIN CERTIFICATE", "BEGIN SOMETHING", 1),
	} {
		if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Identity(); err == nil || !strings.Contains(err.Error(), "join with a new token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.raise("a", 5); err != nil {
		t.Fatal(err)
	}
	if err := s.raise("a", 3); err != nil || s.HighWater("a") != 5 {
		t.Errorf("high-water mark fell to %d (%v)", s.HighWater("a"), err)
	}
}
