package kms

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

const transitToken = "hvs.the-token"

// fakeTransit answers as the transit engine's documentation says, and to nothing else:
// encrypt and decrypt under one mount, JSON with exactly the fields that are used,
// base64, ciphertexts of the form vault:v1:….
type fakeTransit struct {
	t    *testing.T
	aead tink.AEAD
	old  bool // as before 1.12: associated_data is not known, and ignored
	deny string
	echo bool // an error repeats what was sent
}

func (f *fakeTransit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(code int, text string) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
	}
	op, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
	op, name, _ := strings.Cut(op, "/")
	var in map[string]string
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPut && r.Method != http.MethodPost || r.Header.Get("X-Vault-Request") != "true" {
		f.t.Errorf("%s %s: %v, headers %v", r.Method, r.URL, err, r.Header)
	}
	field := map[string]string{"encrypt": "plaintext", "decrypt": "ciphertext"}[op]
	if got := slices.Sorted(maps.Keys(in)); field != "" && !slices.Equal(got, []string{"associated_data", field}) {
		f.t.Errorf("%s with %q", op, got)
	}
	ad, err := base64.StdEncoding.DecodeString(in["associated_data"])
	if err != nil {
		f.t.Error(err)
	}
	if f.old {
		ad = nil
	}
	data := map[string]any{}
	switch {
	case !ok || field == "":
		fail(http.StatusNotFound, fmt.Sprintf("no handler for route %q", r.URL.Path))
		return
	case r.Header.Get("X-Vault-Token") != transitToken || op == f.deny:
		text := "permission denied"
		if f.echo {
			text += fmt.Sprint(r.Header, in)
		}
		fail(http.StatusForbidden, text)
		return
	case name != "gaitkeeper":
		fail(http.StatusBadRequest, "encryption key not found")
		return
	case op == "encrypt":
		plain, err := base64.StdEncoding.DecodeString(in["plaintext"])
		if err != nil {
			f.t.Error(err)
		}
		ct, _ := f.aead.Encrypt(plain, ad)
		data["ciphertext"], data["key_version"] = "vault:v1:"+base64.StdEncoding.EncodeToString(ct), 1
	default:
		text, ok := strings.CutPrefix(in["ciphertext"], "vault:v1:")
		ct, err := base64.StdEncoding.DecodeString(text)
		plain, bad := f.aead.Decrypt(ct, ad)
		if !ok || err != nil || bad != nil {
			fail(http.StatusBadRequest, "cipher: message authentication failed")
			return
		}
		data["plaintext"] = base64.StdEncoding.EncodeToString(plain)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "1", "data": data})
}

// serveTransit gives the key's URI.
func serveTransit(t *testing.T) (*fakeTransit, KEK) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "VAULT_") {
			t.Setenv(name, "")
		}
	}
	secret, _ := keyring.RandomSecret(nil, kekSize)
	aead, err := newKeyAEAD(secret)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeTransit{t: t, aead: aead}
	srv := httptest.NewTLSServer(f)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_CACERT", ca)
	t.Setenv("VAULT_MAX_RETRIES", "0")
	return f, KEK{URI: "vault:" + srv.URL + "/transit/keys/gaitkeeper", Token: keyring.NewSecret([]byte(transitToken))}
}

func TestTransitKEK(t *testing.T) {
	f, kek := serveTransit(t)
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	before := s.mustRelease(c, "cam-1", sid(1), epoch)
	if _, err := RotateKEK(t.Context(), s.kv, KEK{URI: s.kek}, kek); err != nil {
		t.Fatal(err)
	}
	if _, err := s.another(); err == nil || !strings.Contains(err.Error(), kek.URI) {
		t.Errorf("the key file still opens the store: %v", err)
	}
	var err error
	if s.Service, err = New(t.Context(), Config{KEK: kek, Suites: s.cfg.Suites}, s.kv, s.mem.Conn()); err != nil {
		t.Fatal(err)
	}
	if !s.mustRelease(c, "cam-1", sid(1), epoch).Equal(before) {
		t.Error("the media key changed")
	}
	// The same key again, as after a rotation inside Vault; and back.
	for _, step := range [][2]KEK{{kek, kek}, {kek, {URI: s.kek}}} {
		if was, err := RotateKEK(t.Context(), s.kv, step[0], step[1]); err != nil || was != kek.URI {
			t.Fatal(was, err)
		}
	}
	s.restart()
	f.old = true
	if _, err := RotateKEK(t.Context(), s.kv, KEK{URI: s.kek}, kek); err == nil || !strings.Contains(err.Error(), "ignores associated data") {
		t.Errorf("an old Vault: %v", err)
	}
	f.old, f.deny = false, "decrypt"
	if _, err := RotateKEK(t.Context(), s.kv, KEK{URI: s.kek}, kek); err == nil || !strings.Contains(err.Error(), "does not unwrap") {
		t.Errorf("a policy without decrypt: %v", err)
	}
	s.restart()
}

func TestTransitRefusals(t *testing.T) {
	f, kek := serveTransit(t)
	f.echo = true
	plain := make([]byte, kekSize)
	rand.Read(plain)
	host := strings.TrimSuffix(strings.TrimPrefix(kek.URI, "vault:https://"), "/transit/keys/gaitkeeper")
	for _, tc := range []struct{ name, uri, token, env, want string }{
		{"token", kek.URI, "hvs.wrong-token", "", "refuses the token"},
		{"no token", kek.URI, "", "", "VAULT_TOKEN"},
		{"key", "vault:https://" + host + "/transit/keys/other", transitToken, "", "encryption key not found"},
		{"mount", "vault:https://" + host + "/elsewhere/keys/gaitkeeper", transitToken, "", "no transit engine"},
		{"CA", kek.URI, transitToken, "VAULT_CACERT=", "VAULT_CACERT"},
		{"trusting", kek.URI, transitToken, "VAULT_SKIP_VERIFY=true", "unset it"},
		{"plain", "vault:http://vault.example:8200/transit/keys/gaitkeeper", transitToken, "", "without TLS"},
		{"user", "vault:https://me:hvs.the-token@" + host + "/transit/keys/gaitkeeper", transitToken, "", "is not of the form"},
		{"query", kek.URI + "?token=hvs.the-token", transitToken, "", "is not of the form"},
		{"no key", "vault:https://" + host + "/transit", transitToken, "", "names no key"},
		{"climbing", "vault:https://" + host + "/../sys/keys/x", transitToken, "", "names no key"},
		{"scheme", "vault:ftp://" + host + "/transit/keys/x", transitToken, "", "is not known"},
		{"nothing", "vault:", transitToken, "", "is not of the form"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if name, value, ok := strings.Cut(tc.env, "="); ok {
				t.Setenv(name, value)
			}
			aead, err := openKEK(KEK{URI: tc.uri, Token: keyring.NewSecret([]byte(tc.token))}, true)
			if err == nil {
				_, err = aead.Encrypt(plain, []byte("ad"))
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			for _, secret := range []string{"hvs.", base64.StdEncoding.EncodeToString(plain), string(plain)} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a secret is in the error %v", err)
				}
			}
		})
	}
	if _, err := openKEK(KEK{URI: kek.URI, Token: kek.Token, Passphrase: keyring.NewSecret([]byte("x"))}, true); err == nil || !strings.Contains(err.Error(), "leave kek-passphrase-file out") {
		t.Errorf("a passphrase: %v", err)
	}
}

// On this machine Vault's agent may be met without TLS.
func TestTransitOnLoopback(t *testing.T) {
	f, kek := serveTransit(t)
	srv := httptest.NewServer(f)
	defer srv.Close()
	kek.URI = "vault:" + srv.URL + "/transit/keys/gaitkeeper"
	if _, err := makeRoot(t.Context(), store.NewMemory(), kek); err != nil {
		t.Fatal(err)
	}
}
