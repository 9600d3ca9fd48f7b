package kms

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Three levels at rest: the key-encryption key, outside the store, wraps one
// data-encryption key, the store's object "root"; that one lives in this
// process's memory and encrypts every other record, and inside the records once
// more each private or media key, with what it is for as associated data.

// rootKey is the store's only object that the data-encryption key does not cover.
const rootKey = "root"

// rootRecord is the wrapped data-encryption key.
type rootRecord struct {
	Version int    `cbor:"1,keyasint"` // 1
	KEK     string `cbor:"2,keyasint"` // URI of what wrapped it, to name it in errors
	Wrapped []byte `cbor:"3,keyasint"`
}

// bound builds associated data: each part after its length, so that no two
// lists of parts give the same bytes.
func bound(kind string, parts ...string) []byte {
	b := append([]byte("gaitkeeper/1 "), kind...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return b
}

func boundToKey(stream gk.StreamID, session gk.SessionID, epoch gk.Epoch, state bus.KeyState) []byte {
	return bound("media-key", string(stream), session.String(), strconv.FormatUint(uint64(epoch), 10), string(state))
}

// vault encrypts with the data-encryption key.
type vault struct{ aead tink.AEAD }

// openVault unwraps the store's data-encryption key, or makes one in an empty store.
func openVault(ctx context.Context, kv store.KV, kek KEK) (*vault, error) {
	e, err := kv.Get(ctx, rootKey)
	if errors.Is(err, store.ErrNotFound) {
		e, err = makeRoot(ctx, kv, kek)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the key store: %w", err)
	}
	dek, err := openRoot(e, kek)
	if err != nil {
		return nil, err
	}
	// A rotation that was cut short may have left the old key's wrapping behind.
	if err := kv.Prune(ctx, rootKey); err != nil {
		return nil, fmt.Errorf("cannot erase what the key store was wrapped with before: %w", err)
	}
	return newVault(dek)
}

// openRoot unwraps the data-encryption key. The error names the key that it wants.
func openRoot(e store.Entry, k KEK) (keyring.Secret, error) {
	var none keyring.Secret
	var root rootRecord
	if err := decMode.Unmarshal(e.Value, &root); err != nil || root.Version != 1 {
		return none, fmt.Errorf("the key store's root object is damaged (version %d): restore the data directory from a backup", root.Version)
	}
	kek, err := openKEK(k, false)
	switch {
	case errors.Is(err, errNoKEK) && root.KEK != k.URI:
		return none, fmt.Errorf("%w, and the key store was wrapped with %s: set kek to that", err, root.KEK)
	case errors.Is(err, errNoKEK):
		return none, fmt.Errorf("%w, but the key store was wrapped with %s: restore that file from a backup, or start with an empty data directory and enrol every device anew", err, root.KEK)
	case err != nil:
		return none, err
	}
	dek, err := unwrapRoot(kek, root.Wrapped)
	switch {
	case err != nil && root.KEK != k.URI:
		return none, fmt.Errorf("the key-encryption key %s does not open the key store, which was wrapped with %s: set kek to that: %w", k.URI, root.KEK, err)
	case err != nil && strings.HasPrefix(k.URI, fileScheme):
		return none, fmt.Errorf("the key-encryption key %s is not the one that the key store was wrapped with: restore that file from a backup: %w", k.URI, err)
	case err != nil:
		return none, fmt.Errorf("the key-encryption key %s does not open the key store: %w", k.URI, err)
	}
	return dek, nil
}

func newVault(dek keyring.Secret) (*vault, error) {
	aead, err := newKeyAEAD(dek)
	if err != nil {
		return nil, err
	}
	return &vault{aead}, nil
}

func makeRoot(ctx context.Context, kv store.KV, k KEK) (store.Entry, error) {
	kek, err := openKEK(k, true)
	if err != nil {
		return store.Entry{}, err
	}
	dek, err := keyring.RandomSecret(nil, kekSize)
	if err != nil {
		return store.Entry{}, err
	}
	defer dek.Wipe()
	b, err := wrapRoot(kek, k.URI, dek)
	if err != nil {
		return store.Entry{}, err
	}
	// Another instance may have been first; its root is the one that counts.
	if _, err := kv.Create(ctx, rootKey, b); err != nil && !errors.Is(err, store.ErrExists) {
		return store.Entry{}, err
	}
	return kv.Get(ctx, rootKey)
}

// wrapRoot wraps the data-encryption key and does not trust that it can be had back:
// a remote key may be allowed to encrypt only, or ignore the associated data.
func wrapRoot(kek tink.AEAD, uri string, dek keyring.Secret) ([]byte, error) {
	root := rootRecord{Version: 1, KEK: uri}
	var err error
	dek.Expose(func(b []byte) { root.Wrapped, err = kek.Encrypt(b, bound("root")) })
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key %s does not wrap: %w", uri, err)
	}
	back, err := unwrapRoot(kek, root.Wrapped)
	if err == nil && !back.Equal(dek) {
		err = errors.New("it gives something else back")
	}
	back.Wipe()
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key %s wraps but does not unwrap, nothing was stored: %w", uri, err)
	}
	if other, err := kek.Decrypt(root.Wrapped, bound("no root")); err == nil {
		clear(other)
		return nil, fmt.Errorf("the key-encryption key %s ignores associated data, nothing was stored: use an AEAD key (of Vault 1.12 or later: aes256-gcm96)", uri)
	}
	return encMode.Marshal(root)
}

func unwrapRoot(kek tink.AEAD, wrapped []byte) (keyring.Secret, error) {
	b, err := kek.Decrypt(wrapped, bound("root"))
	defer clear(b)
	if err != nil {
		return keyring.Secret{}, err
	}
	if len(b) != kekSize {
		return keyring.Secret{}, fmt.Errorf("data-encryption key has %d bytes, want %d", len(b), kekSize)
	}
	return keyring.NewSecret(b), nil
}

// seal encrypts a record for its place in the store.
func (v *vault) seal(key string, record any) ([]byte, error) {
	b, err := encMode.Marshal(record)
	if err != nil {
		return nil, err
	}
	return v.aead.Encrypt(b, bound("record", key))
}

// open decrypts what seal made for the same place.
func (v *vault) open(e store.Entry, record any) error {
	b, err := v.aead.Decrypt(e.Value, bound("record", e.Key))
	if err == nil {
		err = decMode.Unmarshal(b, record)
	}
	if err != nil {
		return fmt.Errorf("record %q of the key store is damaged or of another store: %w", e.Key, err)
	}
	return nil
}

// wrapSecret encrypts key material for what ad says.
func (v *vault) wrapSecret(s keyring.Secret, ad []byte) (wrapped []byte, err error) {
	s.Expose(func(b []byte) { wrapped, err = v.aead.Encrypt(b, ad) })
	return wrapped, err
}

func (v *vault) unwrapSecret(wrapped, ad []byte) (keyring.Secret, error) {
	b, err := v.aead.Decrypt(wrapped, ad)
	defer clear(b)
	if err != nil {
		return keyring.Secret{}, err
	}
	return keyring.NewSecret(b), nil
}

func (v *vault) wrapMediaKey(k keyring.MediaKey, ad []byte) (wrapped []byte, err error) {
	if k.IsZero() {
		return nil, errors.New("the media key was wiped")
	}
	k.Expose(func(key, salt []byte) {
		b := append(append(make([]byte, 0, keyring.MediaKeySize), key...), salt...)
		defer clear(b)
		wrapped, err = v.aead.Encrypt(b, ad)
	})
	return wrapped, err
}

func (v *vault) unwrapMediaKey(wrapped, ad []byte) (keyring.MediaKey, error) {
	b, err := v.aead.Decrypt(wrapped, ad)
	defer clear(b)
	if err != nil {
		return keyring.MediaKey{}, err
	}
	return keyring.MediaKeyFromBytes(b)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
