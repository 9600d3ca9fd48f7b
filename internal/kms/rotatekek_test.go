package kms

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestRotateKEK(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	before := s.mustRelease(c, "cam-1", sid(1), epoch)
	next := KEK{URI: "file:" + filepath.Join(t.TempDir(), "next")}
	if _, err := RotateKEK(t.Context(), s.kv, next, next); !errors.Is(err, errNoKEK) || !strings.Contains(err.Error(), s.kek) {
		t.Fatalf("rotation from a key that is not there: %v", err)
	}
	if _, err := RotateKEK(t.Context(), store.NewMemory(), KEK{URI: s.kek}, next); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("rotation of nothing: %v", err)
	}
	if _, err := os.Stat(strings.TrimPrefix(next.URI, "file:")); err == nil {
		t.Error("a refused rotation made a key")
	}
	if was, err := RotateKEK(t.Context(), s.kv, KEK{URI: s.kek}, next); err != nil || was != s.kek {
		t.Fatal(was, err)
	}
	if _, err := s.another(); err == nil || !strings.Contains(err.Error(), next.URI) {
		t.Errorf("the old key still opens the store, or the error does not name the new one: %v", err)
	}
	s.kek = next.URI
	s.restart()
	if !s.mustRelease(c, "cam-1", sid(1), epoch).Equal(before) {
		t.Error("the media key changed")
	}
}

// crashKV fails at one step, before or after the store has done it.
type crashKV struct {
	store.KV
	step  string
	after bool
}

var errCrash = errors.New("crash")

func (c crashKV) do(step string, f func() error) error {
	if c.step != step {
		return f()
	}
	if c.after {
		_ = f()
	}
	return errCrash
}

func (c crashKV) Update(ctx context.Context, key string, value []byte, rev uint64) (n uint64, err error) {
	err = c.do("update", func() (err error) { n, err = c.KV.Update(ctx, key, value, rev); return err })
	return n, err
}

func (c crashKV) Prune(ctx context.Context, key string) error {
	return c.do("prune", func() error { return c.KV.Prune(ctx, key) })
}

// Wherever a rotation is cut short, one of the two keys opens the store, the same
// call ends the work, and then the new key alone opens it.
func TestRotateKEKCutShort(t *testing.T) {
	for _, step := range []string{"update", "prune"} {
		for _, after := range []bool{false, true} {
			s := newSite(t, store.NewMemory())
			old, next := KEK{URI: s.kek}, KEK{URI: "file:" + filepath.Join(t.TempDir(), "next")}
			if _, err := RotateKEK(t.Context(), crashKV{s.kv, step, after}, old, next); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			e, err := s.kv.Get(t.Context(), rootKey)
			if err != nil {
				t.Fatal(err)
			}
			want := next
			if step == "update" && !after {
				want = old
			}
			if _, err := openRoot(e, want); err != nil {
				t.Errorf("crash at %s (done: %v): %v", step, after, err)
			}
			if _, err := RotateKEK(t.Context(), s.kv, old, next); err != nil {
				t.Errorf("crash at %s (done: %v), again: %v", step, after, err)
			}
			if _, err := s.another(); err == nil {
				t.Error("the old key opens the store")
			}
			s.kek = next.URI
			s.restart()
		}
	}
}

// A key that would lose the store is found out before anything is overwritten.
func TestUnfitKEKIsRefused(t *testing.T) {
	secret, _ := keyring.RandomSecret(nil, kekSize)
	sound, err := newKeyAEAD(secret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.ClearKMSClients)
	for want, unfit := range map[string]tink.AEAD{
		"does not unwrap":         encryptOnly{sound},
		"gives something else":    forgetful{sound},
		"ignores associated data": unbound{sound},
	} {
		registry.ClearKMSClients()
		registry.RegisterKMSClient(fakeKMS{unfit})
		s := newSite(t, store.NewMemory())
		if _, err := RotateKEK(t.Context(), s.kv, KEK{URI: s.kek}, KEK{URI: "fake-kms://site/key"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		s.restart()
		if _, err := makeRoot(t.Context(), store.NewMemory(), KEK{URI: "fake-kms://site/key"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("first start: got %v, want %q", err, want)
		}
	}
}

type encryptOnly struct{ tink.AEAD }

func (encryptOnly) Decrypt(_, _ []byte) ([]byte, error) { return nil, errors.New("forbidden") }

type forgetful struct{ tink.AEAD }

func (forgetful) Decrypt(_, _ []byte) ([]byte, error) { return make([]byte, kekSize), nil }

type unbound struct{ tink.AEAD }

func (u unbound) Encrypt(b, _ []byte) ([]byte, error) { return u.AEAD.Encrypt(b, nil) }
func (u unbound) Decrypt(b, _ []byte) ([]byte, error) { return u.AEAD.Decrypt(b, nil) }
