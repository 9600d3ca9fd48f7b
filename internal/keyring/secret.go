package keyring

import "io"

// Secret holds secret bytes of any length: a wrapping key, a private key in
// its encoded form, a token. Copies share the same bytes. The zero value holds
// nothing.
type Secret struct {
	hidden
	m *material
}

// NewSecret copies b; the caller should clear its own copy.
func NewSecret(b []byte) Secret {
	return Secret{m: copiedMaterial(b)}
}

// RandomSecret draws n bytes from r (crypto/rand when nil).
func RandomSecret(r io.Reader, n int) (Secret, error) {
	m, err := randomMaterial(r, n)
	return Secret{m: m}, err
}

// Expose calls fn with the bytes, which are valid until fn returns and must
// not be changed; nil when s is wiped or zero. fn must not call Wipe or Expose
// of the same secret.
func (s Secret) Expose(fn func(b []byte)) { s.m.expose(fn) }

// IsZero reports whether s holds nothing, or no longer holds anything.
func (s Secret) IsZero() bool { return s.m.empty() }

// Wipe overwrites the bytes in memory, for every copy of s.
func (s Secret) Wipe() { s.m.wipe() }

// Equal compares in constant time. A wiped or zero secret equals nothing.
func (s Secret) Equal(o Secret) bool { return s.m.equal(o.m) }
