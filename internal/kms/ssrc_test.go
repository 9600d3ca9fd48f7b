package kms

import (
	"context"
	"sync"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Two owners of processing, and two instances of key management over one store, draw
// the same SSRC: one session gets it, whoever asks where, and keeps it to its end.
func TestSSRCIsOneSessions(t *testing.T) {
	s := newSite(t, store.NewMemory())
	other, err := s.another()
	if err != nil {
		t.Fatal(err)
	}
	c := s.enrolled("cam-1")
	s.enrolled("cam-2")
	open := func(svc *Service, cam string, n byte, ssrc uint32) error {
		_, err := svc.open(context.Background(), bus.KMSOpenRequest{Device: gk.DeviceID(cam), Stream: gk.StreamID(cam), Session: sid(n), SSRC: ssrc})
		return err
	}
	const ssrc = 0xdecafbad
	if err := open(s.Service, "cam-1", 1, ssrc); err != nil {
		t.Fatal(err)
	}
	for _, again := range []*Service{s.Service, other} {
		if err := open(again, "cam-1", 1, ssrc); err != nil {
			t.Errorf("asked for again: %v", err)
		}
		refused(t, open(again, "cam-2", 2, ssrc), bus.CodeConflict, "decafbad", "cam-1", "another")
		refused(t, open(again, "cam-1", 3, ssrc), bus.CodeConflict, "decafbad")
	}
	if err := open(other, "cam-2", 2, ssrc+1); err != nil {
		t.Errorf("the refused session with another SSRC: %v", err)
	}
	s.restart()
	refused(t, open(s.Service, "cam-2", 4, ssrc), bus.CodeConflict, "decafbad")

	// A session that has ended but whose keys are there keeps it; then it is free.
	end := func(state bus.KeyState) {
		if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), State: state}); err != nil {
			t.Fatal(err)
		}
	}
	s.mustRelease(c, "cam-1", sid(1), 1)
	end(bus.KeyDeactivated)
	refused(t, open(other, "cam-2", 4, ssrc), bus.CodeConflict, "decafbad")
	end(bus.KeyDestroyed)
	if err := open(other, "cam-2", 4, ssrc); err != nil {
		t.Errorf("after the session's end: %v", err)
	}
	// Said again, or by a session from before there were such records: it is another one's now.
	end(bus.KeyDestroyed)
	if err := s.freeSSRC(t.Context(), ssrc, ssrcRecord{"cam-1", sid(1)}); err != nil {
		t.Error(err)
	}
	refused(t, open(s.Service, "cam-1", 5, ssrc), bus.CodeConflict, "cam-2")
}

// At the same time, too, only one gets it.
func TestSSRCIsClaimedByOne(t *testing.T) {
	s := newSite(t, store.NewMemory())
	other, err := s.another()
	if err != nil {
		t.Fatal(err)
	}
	s.enrolled("cam-1")
	s.enrolled("cam-2")
	for ssrc := uint32(1); ssrc <= 20; ssrc++ {
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i, svc := range []*Service{s.Service, other} {
			cam := []string{"cam-1", "cam-2"}[i]
			wg.Go(func() {
				_, errs[i] = svc.open(context.Background(), bus.KMSOpenRequest{Device: gk.DeviceID(cam), Stream: gk.StreamID(cam), Session: sid(byte(ssrc)), SSRC: ssrc})
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("ssrc %d: %v, %v", ssrc, errs[0], errs[1])
		}
		for i, svc := range []*Service{s.Service, other} {
			if _, err := svc.setState(t.Context(), bus.KMSStateRequest{Stream: gk.StreamID([]string{"cam-1", "cam-2"}[i]), Session: sid(byte(ssrc)), State: bus.KeyDestroyed}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A store that does not answer makes nobody an owner, and asking again goes on.
func TestSSRCWhileTheStoreIsAway(t *testing.T) {
	mem := store.NewMemory()
	s := newSite(t, mem)
	c := s.enrolled("cam-1")
	s.kv = deaf{mem, ssrcKey(7)}
	s.restart()
	_, err := s.open(t.Context(), bus.KMSOpenRequest{Device: c.id, Stream: "cam-1", Session: sid(1), SSRC: 7})
	refused(t, err, bus.CodeUnavailable)
	s.kv = mem
	s.restart()
	s.mustOpen(c, "cam-1", sid(1), 0)
}

// deaf is a store that fails on one key.
type deaf struct {
	store.KV
	key string
}

func (d deaf) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if key == d.key {
		return 0, context.DeadlineExceeded
	}
	return d.KV.Create(ctx, key, value)
}
