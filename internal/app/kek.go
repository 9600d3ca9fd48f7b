package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/kms"
)

const kekFile = "kek"

// KEK names a key-encryption key by its URI and the files that open it.
type KEK struct {
	URI            string
	PassphraseFile string // of a key file; empty: it has none
	TokenFile      string // for Vault; empty: the variable VAULT_TOKEN
}

// open reads the files; setting is the name of the URI's.
func (k KEK) open(setting string) (out kms.KEK, err error) {
	out.URI = k.URI
	if path, ok := strings.CutPrefix(k.URI, "file:"); ok && path != "" {
		if path, err = filepath.Abs(strings.TrimPrefix(path, "//")); err != nil {
			return out, fmt.Errorf("%s: %w", setting, err)
		}
		out.URI = "file:" + path // the store and errors name it for every directory
	}
	if k.PassphraseFile != "" {
		if out.Passphrase, err = readSecret(setting+"-passphrase-file", k.PassphraseFile); err != nil {
			return out, err
		}
	}
	switch {
	case !strings.HasPrefix(k.URI, kms.VaultScheme):
		if k.TokenFile != "" {
			return out, fmt.Errorf("%s-token-file: a token belongs to a key of Vault, not to %q: leave it out", setting, k.URI)
		}
	case k.TokenFile == "":
		out.Token = keyring.NewSecret([]byte(os.Getenv("VAULT_TOKEN")))
	default:
		st, err := os.Stat(k.TokenFile)
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			return out, fmt.Errorf("%s-token-file: %s can be read by others (mode %04o): run chmod 600 %s, and revoke the token if they are not trusted", setting, k.TokenFile, st.Mode().Perm(), k.TokenFile)
		}
		out.Token, err = readSecret(setting+"-token-file", k.TokenFile)
		return out, err
	}
	return out, nil
}

// readSecret reads the first line of the file.
func readSecret(setting, path string) (keyring.Secret, error) {
	line, err := bus.ReadSecretLine(setting, path)
	if err != nil {
		return keyring.Secret{}, err
	}
	return keyring.NewSecret([]byte(line)), nil
}

// kek is the key-encryption key of the settings.
func (n *Node) kek() (kms.KEK, error) {
	uri := cmp.Or(n.cfg.KEK, "file:"+n.dir.file(kekFile))
	return KEK{uri, n.cfg.KEKPassphrase, n.cfg.KEKToken}.open("kek")
}

// RotateKEK wraps the key store anew for to, and tells what it was and is wrapped with. It
// needs the data directory to itself: with the built-in bus that is a stopped
// server, with NATS servers only this machine's key management service is. The audit
// trail has a line before anything is changed and one with the outcome.
func RotateKEK(ctx context.Context, cfg Config, to KEK, opts Options) (was, is string, err error) {
	if err := cfg.Check(); err != nil {
		return "", "", err
	}
	if !cfg.runs(roleKMS) {
		return "", "", fmt.Errorf("roles: this process has no role %s, which alone holds the key store: do it where that runs", roleKMS)
	}
	place := cfg.Data
	if !cfg.external() {
		place = filepath.Join(cfg.Data, "nats")
	}
	if _, err := os.Stat(place); err != nil {
		return "", "", fmt.Errorf("there is no key store here, %s is missing: name the data directory of the key management service with --data", place)
	}
	n := &Node{cfg: cfg, opts: opts, stages: newStages(), starting: ctx}
	defer func() { err = errors.Join(err, n.stages.stop()) }()
	if err := n.openData(ctx); err != nil {
		return "", "", err
	}
	if !cfg.external() {
		if n.broker, err = startBroker(brokerConfig{Dir: n.dir.file("nats"), SyncAlways: true, Log: opts.Log}); err != nil {
			return "", "", err
		}
		n.stages.closer("bus", func() error { n.broker.stop(); return nil })
	}
	return n.rotateKEK(ctx, to)
}

func (n *Node) rotateKEK(ctx context.Context, to KEK) (was, is string, err error) {
	from, err := n.kek()
	if err != nil {
		return "", "", err
	}
	next, err := to.open("to")
	if err != nil {
		return "", "", err
	}
	nc, err := n.connect(bus.RoleKMS)
	if err != nil {
		return "", "", err
	}
	defer nc.Close()
	kv, err := n.openStore(nc, bus.BucketKMS, kms.History)
	if err != nil {
		return "", "", fmt.Errorf("key store: %w", err)
	}
	trail, err := openAudit(n.dir.file(auditFile), cmp.Or(n.cfg.AuditExport, n.dir.file(headsFile)), n.opts.Log)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, trail.file.Close()) }()
	note := func(outcome string) error {
		detail := map[string]string{"from": from.URI, "to": next.URI, "outcome": outcome}
		err := trail.append(gk.Event{At: time.Now(), Kind: gk.EventKEKRotated, Service: "kms", Detail: detail})
		if err = errors.Join(err, trail.file.Sync()); err != nil {
			return fmt.Errorf("audit trail: %w", err)
		}
		return nil
	}
	if err := note("begun"); err != nil {
		return "", "", err
	}
	was, err = kms.RotateKEK(ctx, kv, from, next)
	outcome := "done"
	if err != nil {
		outcome = err.Error()
	}
	return was, next.URI, errors.Join(err, note(outcome))
}
