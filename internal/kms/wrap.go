package kms

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

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
func openVault(ctx context.Context, kv store.KV, uri string, passphrase keyring.Secret) (*vault, error) {
	e, err := kv.Get(ctx, rootKey)
	if errors.Is(err, store.ErrNotFound) {
		e, err = makeRoot(ctx, kv, uri, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the key store: %w", err)
	}
	var root rootRecord
	if err := decMode.Unmarshal(e.Value, &root); err != nil || root.Version != 1 {
		return nil, fmt.Errorf("the key store's root object is damaged (version %d): restore the data directory from a backup", root.Version)
	}
	kek, err := openKEK(uri, passphrase, false)
	if errors.Is(err, errNoKEK) {
		return nil, fmt.Errorf("%w, but the key store was wrapped with %s: restore that file from a backup, or start with an empty data directory and enrol every device anew", err, root.KEK)
	}
	if err != nil {
		return nil, err
	}
	dek, err := unwrapRoot(kek, root.Wrapped)
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key %s does not open the key store, which was wrapped with %s: give that key: %w", uri, root.KEK, err)
	}
	return newVault(dek)
}

func newVault(dek keyring.Secret) (*vault, error) {
	aead, err := newKeyAEAD(dek)
	if err != nil {
		return nil, err
	}
	return &vault{aead}, nil
}

func makeRoot(ctx context.Context, kv store.KV, uri string, passphrase keyring.Secret) (store.Entry, error) {
	kek, err := openKEK(uri, passphrase, true)
	if err != nil {
		return store.Entry{}, err
	}
	dek, err := keyring.RandomSecret(nil, kekSize)
	if err != nil {
		return store.Entry{}, err
	}
	defer dek.Wipe()
	b, err := wrapRoot(kek, uri, dek)
	if err != nil {
		return store.Entry{}, err
	}
	// Another instance may have been first; its root is the one that counts.
	if _, err := kv.Create(ctx, rootKey, b); err != nil && !errors.Is(err, store.ErrExists) {
		return store.Entry{}, err
	}
	return kv.Get(ctx, rootKey)
}

func wrapRoot(kek tink.AEAD, uri string, dek keyring.Secret) ([]byte, error) {
	root := rootRecord{Version: 1, KEK: uri}
	var err error
	dek.Expose(func(b []byte) { root.Wrapped, err = kek.Encrypt(b, bound("root")) })
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key %s does not wrap: %w", uri, err)
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

// KEK names a key-encryption key.
type KEK struct {
	URI        string         // file:PATH, or of a KMS client registered with Tink
	Passphrase keyring.Secret // of the key file; zero if it has none
}

// RotateKEK wraps the key store's one root object with another key-encryption
// key and overwrites the old wrapping. to is made if it is a key file that does
// not exist. Running services go on; they need the new key at their next start.
func RotateKEK(ctx context.Context, kv store.KV, from, to KEK) error {
	e, err := kv.Get(ctx, rootKey)
	if err != nil {
		return fmt.Errorf("cannot open the key store: %w", err)
	}
	var root rootRecord
	if err := decMode.Unmarshal(e.Value, &root); err != nil {
		return fmt.Errorf("the key store's root object is damaged: %w", err)
	}
	oldKEK, err := openKEK(from.URI, from.Passphrase, false)
	if err != nil {
		return err
	}
	dek, err := unwrapRoot(oldKEK, root.Wrapped)
	if err != nil {
		return fmt.Errorf("the key-encryption key %s does not open the key store, which was wrapped with %s: give that key: %w", from.URI, root.KEK, err)
	}
	defer dek.Wipe()
	newKEK, err := openKEK(to.URI, to.Passphrase, true)
	if err != nil {
		return err
	}
	b, err := wrapRoot(newKEK, to.URI, dek)
	if err != nil {
		return err
	}
	if _, err := kv.Update(ctx, rootKey, b, e.Revision); err != nil {
		return fmt.Errorf("cannot store the rewrapped root key: %w", err)
	}
	return kv.Prune(ctx, rootKey)
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
