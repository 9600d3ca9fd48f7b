package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/crypto/argon2"

	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

const (
	fileScheme = "file:"
	kekSize    = 32 // AES-256
)

// errNoKEK tells that the key file is not there.
var errNoKEK = errors.New("key file does not exist")

// KEK names a key-encryption key and what opens it.
type KEK struct {
	// URI is file:PATH, vault:https://HOST[:PORT]/MOUNT/keys/NAME, or of a KMS client
	// that the binary registered with Tink (aws-kms://, gcp-kms://, …; gaitkeeper
	// registers none). It stands in the store and in errors: no secret belongs in it.
	URI        string
	Passphrase keyring.Secret // of a key file; zero if it has none
	Token      keyring.Secret // for Vault
}

// openKEK finds the key-encryption key that k names. A key file that does not exist
// is made if create is set.
func openKEK(k KEK, create bool) (tink.AEAD, error) {
	if path, ok := strings.CutPrefix(k.URI, fileScheme); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return nil, fmt.Errorf("key-encryption key %q names no file: use %sPATH", k.URI, fileScheme)
		}
		kek, err := readKeyFile(path, k.Passphrase)
		if errors.Is(err, errNoKEK) && create {
			kek, err = makeKeyFile(path, k.Passphrase)
		}
		if err != nil {
			return nil, err
		}
		return newKeyAEAD(kek)
	}
	if strings.HasPrefix(k.URI, VaultScheme) {
		return openTransit(k)
	}
	client, err := registry.GetKMSClient(k.URI)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %q: this binary has no client for it: use %sPATH or %shttps://HOST/MOUNT/keys/NAME: %w", k.URI, fileScheme, VaultScheme, err)
	}
	kek, err := client.GetAEAD(k.URI)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %q: %w", k.URI, err)
	}
	return kek, nil
}

// protectedKey is a key file under a passphrase, as JSON. A file without one
// holds the bare 32 bytes.
type protectedKey struct {
	Version   int    `json:"gaitkeeper_kek"` // 1
	KDF       string `json:"kdf"`            // argon2id, RFC 9106
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`   // 16 bytes
	Sealed    []byte `json:"sealed"` // the key under AES-256-GCM, nonce in front
}

// argonDefaults is the second recommended option of RFC 9106 §4.
var argonDefaults = protectedKey{Version: 1, KDF: "argon2id", Time: 3, MemoryKiB: 64 << 10, Threads: 4}

func readKeyFile(path string, passphrase keyring.Secret) (keyring.Secret, error) {
	var none keyring.Secret
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return none, fmt.Errorf("%w: %s", errNoKEK, path)
	case err != nil:
		return none, fmt.Errorf("cannot read the key-encryption key: %w", err)
	case !info.Mode().IsRegular():
		return none, fmt.Errorf("key file %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return none, fmt.Errorf("key file %s can be read by others (mode %04o): run chmod 600 %s, and replace the key if they are not trusted", path, info.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return none, fmt.Errorf("cannot read the key-encryption key: %w", err)
	}
	defer clear(b)
	if len(b) == kekSize {
		if !passphrase.IsZero() {
			return none, fmt.Errorf("key file %s is not protected by a passphrase, but one was given: leave it out", path)
		}
		return keyring.NewSecret(b), nil
	}
	var p protectedKey
	if json.Unmarshal(b, &p) != nil || p.Version != 1 || p.KDF != argonDefaults.KDF || p.Time < 1 || p.Time > 64 ||
		p.MemoryKiB > 4<<20 || p.Threads < 1 || len(p.Salt) < 16 {
		return none, fmt.Errorf("key file %s is damaged: %d bytes where a key of %d or a passphrase-protected one should be: restore it from a backup", path, len(b), kekSize)
	}
	if passphrase.IsZero() {
		return none, fmt.Errorf("key file %s is protected by a passphrase: give it", path)
	}
	aead, err := p.aead(passphrase)
	if err != nil {
		return none, err
	}
	plain, err := aead.Decrypt(p.Sealed, []byte(p.KDF))
	defer clear(plain)
	if err != nil || len(plain) != kekSize {
		return none, fmt.Errorf("key file %s does not open: the passphrase is wrong, or the file is damaged", path)
	}
	return keyring.NewSecret(plain), nil
}

func (p protectedKey) aead(passphrase keyring.Secret) (tink.AEAD, error) {
	var derived []byte
	passphrase.Expose(func(pass []byte) {
		derived = argon2.IDKey(pass, p.Salt, p.Time, p.MemoryKiB, p.Threads, kekSize)
	})
	defer clear(derived)
	return newKeyAEAD(keyring.NewSecret(derived))
}

// makeKeyFile writes a new key so that the file is whole or not there, and two
// processes that start together end with the same one.
func makeKeyFile(path string, passphrase keyring.Secret) (keyring.Secret, error) {
	kek, err := keyring.RandomSecret(nil, kekSize)
	if err != nil {
		return kek, err
	}
	var content []byte
	kek.Expose(func(b []byte) { content = append(content, b...) })
	defer clear(content)
	if !passphrase.IsZero() {
		if content, err = protect(content, passphrase); err != nil {
			return kek, err
		}
	}
	if err := writeOnce(path, content); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return readKeyFile(path, passphrase)
		}
		return kek, fmt.Errorf("cannot write the key-encryption key: %w", err)
	}
	return kek, nil
}

func protect(key []byte, passphrase keyring.Secret) ([]byte, error) {
	p := argonDefaults
	p.Salt = randomBytes(16)
	aead, err := p.aead(passphrase)
	if err != nil {
		return nil, err
	}
	if p.Sealed, err = aead.Encrypt(key, []byte(p.KDF)); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func writeOnce(path string, content []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".kek-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keyAEAD is AES-256-GCM with a random nonce in front of the ciphertext, in the
// shape of Tink's AEAD.
type keyAEAD struct{ aead cipher.AEAD }

func newKeyAEAD(key keyring.Secret) (tink.AEAD, error) {
	var k keyAEAD
	var err error
	key.Expose(func(b []byte) {
		var block cipher.Block
		if block, err = aes.NewCipher(b); err == nil {
			k.aead, err = cipher.NewGCMWithRandomNonce(block)
		}
	})
	return k, err
}

func (k keyAEAD) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, plaintext, associatedData), nil
}

func (k keyAEAD) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	return k.aead.Open(nil, nil, ciphertext, associatedData)
}
