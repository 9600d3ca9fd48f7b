package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// RotateKEK wraps the key store's one root object with another key-encryption key
// and erases the old wrapping. It tells what the object was wrapped with. to is made
// if it is a key file that does not exist; it is on the disk, and has been seen to
// unwrap, before the root object is replaced, in one write. So at every instant
// one of the two opens the store, and after a crash the same call ends the work.
//
// The data-encryption key stays. Running services go on with it; they need the new
// key at their next start.
func RotateKEK(ctx context.Context, kv store.KV, from, to KEK) (was string, err error) {
	e, err := kv.Get(ctx, rootKey)
	if errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("there is no key store here, so nothing to wrap anew: name the data directory, or the bus, of the key management service: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("cannot open the key store: %w", err)
	}
	var root rootRecord
	_ = decMode.Unmarshal(e.Value, &root) // openRoot tells of a damaged one
	dek, err := openRoot(e, from)
	if err != nil {
		done, again := openRoot(e, to)
		if again != nil {
			return root.KEK, err
		}
		done.Wipe() // an earlier call got as far as the write
		return root.KEK, prune(ctx, kv)
	}
	defer dek.Wipe()
	next, err := openKEK(to, true)
	if err != nil {
		return root.KEK, err
	}
	b, err := wrapRoot(next, to.URI, dek)
	if err != nil {
		return root.KEK, err
	}
	if _, err := kv.Update(ctx, rootKey, b, e.Revision); err != nil {
		return root.KEK, fmt.Errorf("it is not known whether the rewrapped root key was stored: keep both keys and do it again: %w", err)
	}
	return root.KEK, prune(ctx, kv)
}

func prune(ctx context.Context, kv store.KV) error {
	if err := kv.Prune(ctx, rootKey); err != nil {
		return fmt.Errorf("the new key opens the store, but the old wrapping is not erased: do it again: %w", err)
	}
	return nil
}
