package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/audit"
)

// The key store of a stopped server gets another key-encryption key; the server
// starts with that one only, with the devices and identity it had.
func TestRotateKEKOfAStoppedServer(t *testing.T) {
	cfg, quiet := testConfig(t), Options{Log: slog.New(slog.DiscardHandler)}
	secret := func(name, line string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	to := KEK{URI: "file:" + filepath.Join(t.TempDir(), "next"), PassphraseFile: secret("passphrase", "a long passphrase")}
	rotate := func(wants string) {
		t.Helper()
		_, _, err := RotateKEK(t.Context(), cfg, to, quiet)
		if err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("got %v, want %q", err, wants)
		}
	}
	rotate("no key store here")
	_, stop := startNode(t, cfg, quiet.Log)
	identity, err := os.ReadFile(filepath.Join(cfg.Data, kmsKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	rotate("is locked by another gaitkeeper")
	stop()

	was, is, err := RotateKEK(t.Context(), cfg, to, quiet)
	if err != nil || was != "file:"+filepath.Join(cfg.Data, kekFile) || is != to.URI {
		t.Fatal(was, is, err)
	}
	if _, err := Start(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), to.URI) || !strings.Contains(err.Error(), "set kek to that") {
		t.Errorf("start with the old key: %v", err)
	}
	if _, is, err = RotateKEK(t.Context(), cfg, to, quiet); err != nil || is != to.URI { // as after a crash
		t.Error(is, err)
	}
	cfg.KEK, cfg.KEKPassphrase = to.URI, to.PassphraseFile
	_, stop = startNode(t, cfg, quiet.Log)
	stop()
	if again, err := os.ReadFile(filepath.Join(cfg.Data, kmsKeyFile)); err != nil || string(again) != string(identity) {
		t.Errorf("the key management service has another identity: %v", err)
	}

	trail, err := os.ReadFile(filepath.Join(cfg.Data, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for line := range strings.Lines(string(trail)) {
		if strings.Contains(line, `"kek-rotated"`) {
			_, outcome, _ := strings.Cut(line, `"outcome":"`)
			outcomes = append(outcomes, outcome[:5])
		}
	}
	if got := strings.Join(outcomes, " "); got != `begun done" begun done"` || strings.Contains(string(trail), "a long passphrase") {
		t.Errorf("the audit trail has %q", got)
	}
	if end, err := new(audit.Chain).Replay(bytes.NewReader(trail)); err != nil || end != int64(len(trail)) {
		t.Errorf("the trail's chain holds for %d of %d bytes: %v", end, len(trail), err)
	}
	cfg.Roles, cfg.Bus = []string{"transport"}, "nats://127.0.0.1:1"
	rotate("no role kms")
}

func TestKEKFiles(t *testing.T) {
	open := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(open, []byte("hvs.secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	vault := "vault:https://vault.example:8200/transit/keys/gaitkeeper"
	if _, err := (KEK{URI: vault, TokenFile: open}).open("kek"); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("a token that others can read: %v", err)
	}
	if _, err := (KEK{URI: "file:kek", TokenFile: open}).open("kek"); err == nil || !strings.Contains(err.Error(), "leave it out") {
		t.Errorf("a token for a file: %v", err)
	}
	wd, _ := os.Getwd()
	if k, err := (KEK{URI: "file:kek"}).open("kek"); err != nil || k.URI != "file:"+filepath.Join(wd, "kek") {
		t.Errorf("a relative path becomes %s, %v", k.URI, err)
	}
	if err := os.Chmod(open, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_TOKEN", "hvs.other")
	for file, want := range map[string]string{open: "hvs.secret", "": "hvs.other"} {
		k, err := KEK{URI: vault, TokenFile: file}.open("kek")
		if err != nil {
			t.Fatal(err)
		}
		k.Token.Expose(func(b []byte) {
			if string(b) != want {
				t.Errorf("token from %q is not the one", file)
			}
		})
	}
}
