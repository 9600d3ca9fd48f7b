// Package keyring holds secrets in memory: media keys, wrapping keys, tokens
// and HPKE private keys.
//
// A secret is a type whose bytes sit behind a pointer, that prints, logs and
// marshals as "[redacted]" through every door Go has, and that can be wiped.
// The bytes can be reached only inside an Expose callback.
package keyring

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
)

// redacted is what every secret shows of itself.
const redacted = "[redacted]"

// material is wipeable memory. The bytes are kept in a closure, because fmt
// follows a pointer in an unexported field when the verb does not fit it: %s
// of a struct would print them. No printer looks into a function.
// The lock keeps Wipe from pulling the bytes away under a running Expose.
type material struct {
	mu    sync.RWMutex
	bytes func() []byte // nil once wiped
}

// newMaterial returns memory that fill has filled, and that is wiped at the
// latest when the garbage collector finds it dropped.
func newMaterial(n int, fill func(b []byte) error) (*material, error) {
	b := make([]byte, n)
	if err := fill(b); err != nil {
		clear(b)
		return nil, err
	}
	m := &material{bytes: func() []byte { return b }}
	runtime.AddCleanup(m, func(b []byte) { clear(b) }, b)
	return m, nil
}

func copiedMaterial(from []byte) *material {
	m, _ := newMaterial(len(from), func(b []byte) error { copy(b, from); return nil })
	return m
}

func randomMaterial(r io.Reader, n int) (*material, error) {
	if r == nil {
		r = rand.Reader
	}
	return newMaterial(n, func(b []byte) error {
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("no random bytes for a key: %w", err)
		}
		return nil
	})
}

func (m *material) expose(fn func(b []byte)) {
	if m == nil {
		fn(nil)
		return
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.bytes == nil {
		fn(nil)
		return
	}
	fn(m.bytes())
}

func (m *material) empty() bool {
	if m == nil {
		return true
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.bytes == nil
}

func (m *material) wipe() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes != nil {
		clear(m.bytes())
		m.bytes = nil
	}
}

// equal is false when either side holds nothing.
func (m *material) equal(o *material) (same bool) {
	if m == o {
		return !m.empty()
	}
	m.expose(func(a []byte) {
		o.expose(func(b []byte) { same = a != nil && b != nil && subtle.ConstantTimeCompare(a, b) == 1 })
	})
	return same
}

// hidden gives the type that embeds it every method through which fmt, slog
// and the encoders would otherwise look at its fields.
type hidden struct{}

func (hidden) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (hidden) String() string               { return redacted }
func (hidden) GoString() string             { return redacted }
func (hidden) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (hidden) MarshalCBOR() ([]byte, error) {
	return append([]byte{0x60 | byte(len(redacted))}, redacted...), nil
}
