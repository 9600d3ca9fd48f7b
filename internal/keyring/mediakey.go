package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	gaitkeeper "github.com/gaitkeeper/gaitkeeper"
)

// Sizes of a media key's parts in bytes (RFC 7714 §12, AEAD_AES_256_GCM).
const (
	MasterKeySize  = 32
	MasterSaltSize = 12
	MediaKeySize   = MasterKeySize + MasterSaltSize
)

// MediaKey is the SRTP master key and master salt of one epoch. Copies share
// the same bytes, and wiping one wipes all. The zero value holds no key.
type MediaKey struct {
	hidden
	m *material
}

// NewMediaKey draws a key from r (crypto/rand when nil).
func NewMediaKey(r io.Reader) (MediaKey, error) {
	m, err := randomMaterial(r, MediaKeySize)
	return MediaKey{m: m}, err
}

// MediaKeyFromBytes copies key‖salt, exactly [MediaKeySize] bytes.
func MediaKeyFromBytes(b []byte) (MediaKey, error) {
	if len(b) != MediaKeySize {
		return MediaKey{}, fmt.Errorf("media key has %d bytes, want %d", len(b), MediaKeySize)
	}
	return MediaKey{m: copiedMaterial(b)}, nil
}

// Expose calls fn with the key's bytes, which are valid until fn returns and
// must not be changed. A wiped or zero key gives nil slices, which no cipher
// accepts. fn must not call Wipe or Expose of the same key.
func (k MediaKey) Expose(fn func(key, salt []byte)) {
	k.m.expose(func(b []byte) {
		if b == nil {
			fn(nil, nil)
			return
		}
		fn(b[:MasterKeySize:MasterKeySize], b[MasterKeySize:MediaKeySize:MediaKeySize])
	})
}

// IsZero reports whether k holds no key, or no longer holds one.
func (k MediaKey) IsZero() bool { return k.m.empty() }

// Wipe overwrites the key in memory, for every copy of k.
func (k MediaKey) Wipe() { k.m.wipe() }

// Equal compares in constant time. A wiped or zero key equals nothing.
func (k MediaKey) Equal(o MediaKey) bool { return k.m.equal(o.m) }

// Confirm is the proof that receiver holds k:
// HKDF-Expand-SHA256 (RFC 5869 §2.3) of key‖salt over the label
// "gkrp confirm" and the fields stream, session, epoch (4 bytes, big endian)
// and receiver, each after its length in 2 bytes, big endian.
// A wiped or zero key confirms as random bytes, so that it matches nothing.
func (k MediaKey) Confirm(stream gaitkeeper.StreamID, session gaitkeeper.SessionID, epoch gaitkeeper.Epoch, receiver string) [32]byte {
	info := []byte("gkrp confirm")
	for _, f := range [][]byte{
		[]byte(stream), session[:], binary.BigEndian.AppendUint32(nil, uint32(epoch)), []byte(receiver),
	} {
		info = binary.BigEndian.AppendUint16(info, uint16(len(f)))
		info = append(info, f...)
	}
	var out [32]byte
	k.m.expose(func(b []byte) {
		if b == nil {
			rand.Read(out[:])
			return
		}
		okm, err := hkdf.Expand(sha256.New, b, string(info), len(out))
		if err != nil {
			// Only a length above 255 hash blocks can fail here.
			panic(err)
		}
		copy(out[:], okm)
	})
	return out
}
