package kms

import (
	"context"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// backed is a store of which a backup can be taken.
type backed struct {
	store.KV
	keys map[string]bool
}

func (b *backed) Create(ctx context.Context, key string, v []byte) (uint64, error) {
	b.keys[key] = true
	return b.KV.Create(ctx, key, v)
}

func (b *backed) Put(ctx context.Context, key string, v []byte) (uint64, error) {
	b.keys[key] = true
	return b.KV.Put(ctx, key, v)
}

func (b *backed) backup(t *testing.T) store.KV {
	t.Helper()
	to := store.NewMemory()
	for key := range b.keys {
		e, err := b.Get(context.Background(), key)
		if err != nil {
			continue // erased
		}
		if _, err := to.Put(context.Background(), key, e.Value); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestStoreRestoredFromYesterday: the key store is set back to a backup that knows
// nothing of the last epochs. It does not make new keys for them when it is asked
// for what a device uses, and the device's own high-water mark brings the count of
// the next session above all of them.
func TestStoreRestoredFromYesterday(t *testing.T) {
	kv := &backed{KV: store.NewMemory(), keys: map[string]bool{}}
	s := newSite(t, kv)
	cam := s.enrolled("cam-1")
	ctx := context.Background()
	used := map[gk.Epoch]keyring.MediaKey{}
	rotate := func(from, to gk.Epoch) {
		for e := from; e <= to; e++ {
			used[e] = s.mustRelease(cam, "cam-1", sid(1), e)
			if _, err := s.setState(ctx, bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: e, State: bus.KeyActive}); err != nil {
				t.Fatal(err)
			}
			s.settle()
		}
	}
	first := s.mustOpen(cam, "cam-1", sid(1), 0)
	rotate(first, first+2)
	yesterday := kv.backup(t)
	rotate(first+3, first+9)
	high := first + 9

	s.kv = yesterday
	s.restart()
	for e := high; e >= first+2; e-- {
		key, prekey := cam.prekey("cam-1", sid(1))
		rep, err := s.release(ctx, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: e, Prekey: prekey})
		if e > first+3 { // one was in reserve
			refused(t, err, bus.CodeNotFound)
			continue
		}
		if err != nil {
			t.Fatalf("epoch %d: %v", e, err)
		}
		if _, m := opened(t, cam.kms, key, rep.Device); !used[e].Equal(m) {
			t.Errorf("epoch %d has another key than before the store was set back", e)
		}
	}
	if e := s.mustOpen(cam, "cam-1", sid(2), high); e <= high {
		t.Errorf("the next session begins at epoch %d; the device used %d", e, high)
	}
}
