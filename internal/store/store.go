// Package store keeps the state that services decide by: a key-value store
// with compare-and-set, in NATS JetStream or in memory.
//
// Keys are tokens of letters, digits, '-' and '_' joined by dots. A prefix
// means whole tokens: "keys.cam-1" covers "keys.cam-1" and "keys.cam-1.7" but
// not "keys.cam-10"; the empty prefix covers everything.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Errors that callers branch on. Every other error means that the outcome of
// the operation is unknown.
var (
	ErrNotFound = errors.New("key not found")
	ErrExists   = errors.New("key exists already")
	ErrConflict = errors.New("key was changed by somebody else")
)

// Entry is one key's newest value.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // rises with every write to the store, never reused
}

// KV is a key-value store with compare-and-set. All methods are safe for
// concurrent use. Reads follow writes that were acknowledged before. A store that
// does not answer makes an error after some seconds, whatever ctx allows: what is
// asked of a cluster without a leader is never answered.
type KV interface {
	// Get reads the newest value; ErrNotFound if there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// Create writes a key that must not exist; ErrExists if it does.
	Create(ctx context.Context, key string, value []byte) (rev uint64, err error)
	// Update writes a key whose newest revision must be rev; ErrConflict if it is not.
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
	// Put writes whatever was there.
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	// Prune overwrites the bytes of every revision but the newest.
	Prune(ctx context.Context, key string) error
	// Erase removes the key and overwrites the bytes of every revision that is
	// kept. A missing key is no error; an erased one can be created again.
	Erase(ctx context.Context, key string) error
	// List returns the newest value of every key under prefix, sorted by key.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Watch calls fn for every key under prefix as it is now, then for every
	// change, one call at a time, until ctx ends (nil) or the store is lost.
	// Changes of one key arrive in order; those in between may be left out.
	// deleted tells that a key seen before is gone; Value is then empty.
	Watch(ctx context.Context, prefix string, fn func(e Entry, deleted bool)) error
}

// maxKeyLen keeps keys within a NATS subject.
const maxKeyLen = 255

func checkKey(key string) error {
	if key == "" || len(key) > maxKeyLen {
		return fmt.Errorf("store key %q has %d characters: use 1 to %d", key, len(key), maxKeyLen)
	}
	for token := range strings.SplitSeq(key, ".") {
		if token == "" {
			return fmt.Errorf("store key %q has an empty token", key)
		}
		for _, c := range []byte(token) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return fmt.Errorf("store key %q has %q: use letters, digits, '-', '_' and '.' between tokens", key, c)
			}
		}
	}
	return nil
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return checkKey(prefix)
}

func under(key, prefix string) bool {
	return prefix == "" || key == prefix || strings.HasPrefix(key, prefix+".")
}

func failed(op, key string, err error) error {
	return fmt.Errorf("%s %q: %w", op, key, err)
}
