package kms

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, err := openKEK(KEK{URI: "file:" + path}, false); !errors.Is(err, errNoKEK) {
		t.Fatalf("a missing file: %v", err)
	}
	kek, err := openKEK(KEK{URI: "file:" + path}, true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != kekSize {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".kek-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	ct, err := kek.Encrypt([]byte("x"), []byte("ad"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := openKEK(KEK{URI: "file://" + path}, true)
	if err != nil {
		t.Fatal(err)
	}
	if pt, err := again.Decrypt(ct, []byte("ad")); err != nil || string(pt) != "x" {
		t.Errorf("the key changed: %v", err)
	}
	if _, err := again.Decrypt(ct, []byte("other")); err == nil {
		t.Error("associated data is not bound")
	}
}

func TestKeyFileWithPassphrase(t *testing.T) {
	saved := argonDefaults
	argonDefaults.Time, argonDefaults.MemoryKiB = 1, 64
	defer func() { argonDefaults = saved }()
	uri := "file:" + filepath.Join(t.TempDir(), "kek")
	kek, err := openKEK(KEK{URI: uri, Passphrase: keyring.NewSecret([]byte("right"))}, true)
	if err != nil {
		t.Fatal(err)
	}
	ct, _ := kek.Encrypt([]byte("x"), nil)
	kek, err = openKEK(KEK{URI: uri, Passphrase: keyring.NewSecret([]byte("right"))}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kek.Decrypt(ct, nil); err != nil {
		t.Error(err)
	}
	if _, err := openKEK(KEK{URI: uri, Passphrase: keyring.NewSecret([]byte("wrong"))}, false); err == nil || !strings.Contains(err.Error(), "passphrase is wrong") {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := openKEK(KEK{URI: uri}, false); err == nil || !strings.Contains(err.Error(), "give it") {
		t.Errorf("no passphrase: %v", err)
	}
}

func TestKeyFileRefusals(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	for name, tc := range map[string]struct {
		uri  string
		pass string
		want string
	}{
		"group":      {write("group", make([]byte, 32), 0o640), "", "run chmod 600"},
		"world":      {write("world", make([]byte, 32), 0o604), "", "mode 0604"},
		"short":      {write("short", make([]byte, 31), 0o600), "", "damaged"},
		"empty":      {write("empty", nil, 0o600), "", "damaged"},
		"json":       {write("json", []byte(`{"gaitkeeper_kek":2}`), 0o600), "", "damaged"},
		"greedy":     {write("greedy", []byte(`{"gaitkeeper_kek":1,"kdf":"argon2id","time":1,"memory_kib":4294967295,"threads":1,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}`), 0o600), "x", "damaged"},
		"unneeded":   {write("unneeded", make([]byte, 32), 0o600), "x", "leave it out"},
		"directory":  {"file:" + dir, "", "not a regular file"},
		"nameless":   {"file:", "", "names no file"},
		"no scheme":  {"kek", "", "no client"},
		"other KMS":  {"hcvault://vault:8200/transit/keys/gaitkeeper", "", "no client"},
		"unwritable": {"file:" + filepath.Join(dir, "missing", "kek"), "", "cannot write"},
	} {
		var pass keyring.Secret
		if tc.pass != "" {
			pass = keyring.NewSecret([]byte(tc.pass))
		}
		if _, err := openKEK(KEK{URI: tc.uri, Passphrase: pass}, true); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// fakeKMS stands for a remote KMS that a build registered with Tink.
type fakeKMS struct{ tink.AEAD }

func (fakeKMS) Supported(uri string) bool           { return strings.HasPrefix(uri, "fake-kms://") }
func (f fakeKMS) GetAEAD(string) (tink.AEAD, error) { return f.AEAD, nil }

func TestRemoteKEK(t *testing.T) {
	secret, _ := keyring.RandomSecret(nil, kekSize)
	aead, err := newKeyAEAD(secret)
	if err != nil {
		t.Fatal(err)
	}
	registry.RegisterKMSClient(fakeKMS{aead})
	t.Cleanup(registry.ClearKMSClients)
	kv := store.NewMemory()
	for range 2 {
		if _, err := New(t.Context(), Config{KEK: KEK{URI: "fake-kms://site/key"}}, kv, bus.NewMemory().Conn()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVaultKeepsToContext(t *testing.T) {
	s := newSite(t, store.NewMemory())
	k, _ := keyring.NewMediaKey(nil)
	wrapped, err := s.vault.wrapMediaKey(k, boundToKey("cam-1", sid(1), 7, bus.KeyActive))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.vault.unwrapMediaKey(wrapped, boundToKey("cam-1", sid(1), 7, bus.KeyActive)); err != nil || !got.Equal(k) {
		t.Fatal(err)
	}
	for name, ad := range map[string][]byte{
		"stream":  boundToKey("cam-2", sid(1), 7, bus.KeyActive),
		"session": boundToKey("cam-1", sid(2), 7, bus.KeyActive),
		"epoch":   boundToKey("cam-1", sid(1), 8, bus.KeyActive),
		"state":   boundToKey("cam-1", sid(1), 7, bus.KeyDeactivated),
		"kind":    bound("record", "cam-1"),
	} {
		if _, err := s.vault.unwrapMediaKey(wrapped, ad); err == nil {
			t.Errorf("%s is not bound", name)
		}
	}
	k.Wipe()
	if _, err := s.vault.wrapMediaKey(k, nil); err == nil {
		t.Error("a wiped key was wrapped")
	}
	// A record that was moved to another place does not open there.
	b, _ := s.vault.seal("device.a", deviceRecord{})
	if err := s.vault.open(store.Entry{Key: "device.b", Value: b}, &deviceRecord{}); err == nil {
		t.Error("a record opened in another place")
	}
}

func TestBoundIsUnambiguous(t *testing.T) {
	if bytes.Equal(bound("k", "ab", "c"), bound("k", "a", "bc")) || bytes.Equal(bound("k", "a"), bound("k", "a", "")) {
		t.Error("two lists of parts give the same bytes")
	}
}

func TestWrongKEK(t *testing.T) {
	s := newSite(t, store.NewMemory())
	other := "file:" + filepath.Join(t.TempDir(), "other")
	if _, err := openKEK(KEK{URI: other}, true); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Config{KEK: KEK{URI: other}}, s.kv, s.mem.Conn())
	if err == nil || !strings.Contains(err.Error(), "does not open the key store") || !strings.Contains(err.Error(), s.kek) {
		t.Errorf("wrong key: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	_, err = New(t.Context(), Config{KEK: KEK{URI: "file:" + missing}}, s.kv, s.mem.Conn())
	if err == nil || !strings.Contains(err.Error(), "set kek to that") || !strings.Contains(err.Error(), s.kek) {
		t.Errorf("another key, which is missing: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a new key was made beside a store that needs the old one")
	}
	if err := os.Remove(strings.TrimPrefix(s.kek, "file:")); err != nil {
		t.Fatal(err)
	}
	if _, err = s.another(); err == nil || !strings.Contains(err.Error(), "restore that file") {
		t.Errorf("missing key: %v", err)
	}
}

func TestFirstStartsTogether(t *testing.T) {
	kv, mem := store.NewMemory(), bus.NewMemory()
	kek := KEK{URI: "file:" + filepath.Join(t.TempDir(), "kek")}
	var wg sync.WaitGroup
	services := make([]*Service, 4)
	for i := range services {
		wg.Go(func() {
			var err error
			if services[i], err = New(t.Context(), Config{KEK: kek}, kv, mem.Conn()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, s := range services[1:] {
		if !bytes.Equal(s.ca.cert.Raw, services[0].ca.cert.Raw) || !bytes.Equal(s.signer.public, services[0].signer.public) {
			t.Error("two instances have two identities")
		}
	}
}

func TestStoreHoldsNoKeyInTheClear(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	hash := tokenHash()
	if _, err := s.enroll(t.Context(), bus.EnrollRequest{Device: "cam-2", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	m := s.mustRelease(c, "cam-1", sid(1), epoch)
	s.settle()
	secrets := map[string][]byte{"hash of the token": hash}
	add := func(name string, b []byte) { secrets[name] = bytes.Clone(b) }
	m.Expose(func(key, salt []byte) { add("master key", key); add("master salt", salt) })
	s.ca.key.Expose(func(b []byte) { add("CA key", b) })
	s.signer.key.Expose(func(b []byte) { add("signing key", b[:32]) })
	st := s.stream("cam-1")
	for e, k := range st.session(sid(1)).keys {
		k.media.Expose(func(key, _ []byte) { add("key of epoch "+string(rune('0'+e)), key) })
	}
	kek, err := os.ReadFile(strings.TrimPrefix(s.kek, "file:"))
	if err != nil {
		t.Fatal(err)
	}
	add("KEK", kek)
	entries, err := s.kv.List(t.Context(), "")
	if err != nil || len(entries) < 8 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		for name, b := range secrets {
			if bytes.Contains(e.Value, b) {
				t.Errorf("%s is in %s", name, e.Key)
			}
		}
		if e.Key != rootKey && bytes.Contains(e.Value, []byte("cam-1")) {
			t.Errorf("%s is not encrypted", e.Key)
		}
	}
}

func TestDamagedStore(t *testing.T) {
	for _, key := range []string{rootKey, caKey, signingKey, "device.cam-1"} {
		s := newSite(t, store.NewMemory())
		s.enrolled("cam-1")
		e, err := s.kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		e.Value[len(e.Value)-1] ^= 1
		if _, err := s.kv.Put(t.Context(), key, e.Value); err != nil {
			t.Fatal(err)
		}
		if _, err := s.another(); err == nil {
			t.Errorf("a damaged %s went unnoticed", key)
		}
	}
}
