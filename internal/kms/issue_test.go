package kms

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestEpochsRiseAcrossSessions(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	if e := s.mustOpen(c, "cam-1", sid(1), 0); e != 1 {
		t.Errorf("the first epoch is %d", e)
	}
	var keys []keyring.MediaKey
	for e := gk.Epoch(1); e <= 5; e++ {
		k := s.mustRelease(c, "cam-1", sid(1), e)
		for _, other := range keys {
			if k.Equal(other) {
				t.Error("two epochs have one key")
			}
		}
		keys = append(keys, k)
	}
	s.settle()
	if e := s.mustOpen(c, "cam-1", sid(2), 0); e != 7 { // 6 was reserved for session 1
		t.Errorf("the second session starts at %d", e)
	}
	if e := s.mustOpen(c, "cam-1", sid(3), 100); e != 101 {
		t.Errorf("the third session starts at %d", e)
	}
	for range 2 {
		for id, want := range map[byte]gk.Epoch{1: 1, 2: 7, 3: 101} {
			if e := s.mustOpen(c, "cam-1", sid(id), 0); e != want {
				t.Errorf("session %d asked again starts at %d, not %d", id, e, want)
			}
		}
		s.restart()
	}
	s.mustRelease(c, "cam-1", sid(3), 101)
	s.mustRelease(c, "cam-1", sid(3), 102)
	s.mustRelease(c, "cam-1", sid(3), 103)
}

func TestOpenRefuses(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	s.enrolled("cam-2")
	s.mustOpen(c, "cam-1", sid(1), 0)
	good := bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(2), SSRC: 8}
	for name, tc := range map[string]struct {
		change func(*bus.KMSOpenRequest)
		code   bus.Code
		words  []string
	}{
		"no session":       {func(r *bus.KMSOpenRequest) { r.Session = gk.SessionID{} }, bus.CodeBadRequest, nil},
		"bad stream":       {func(r *bus.KMSOpenRequest) { r.Stream = "a.b" }, bus.CodeBadRequest, nil},
		"unknown device":   {func(r *bus.KMSOpenRequest) { r.Device = "cam-9" }, bus.CodeNotFound, nil},
		"another's stream": {func(r *bus.KMSOpenRequest) { r.Device = "cam-2" }, bus.CodeUnauthorized, nil},
		"another SSRC":     {func(r *bus.KMSOpenRequest) { r.Session = sid(1) }, bus.CodeConflict, []string{"SSRC"}},
		"epoch jump":       {func(r *bus.KMSOpenRequest) { r.HighWater = 2 + maxJump + 1 }, bus.CodeEpochJump, []string{"gaitkeeper enroll cam-1", "revoke"}},
		"epochs used up":   {func(r *bus.KMSOpenRequest) { r.HighWater = 1<<32 - 1 }, bus.CodeEpochJump, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := good
			tc.change(&req)
			_, err := s.open(t.Context(), req)
			refused(t, err, tc.code, tc.words...)
		})
	}
	good.HighWater = 2 + maxJump
	rep, err := s.open(t.Context(), good)
	if err != nil || rep.Epoch != 3+maxJump {
		t.Errorf("the longest jump: %d, %v", rep.Epoch, err)
	}
}

func TestEnrollingAnewAllowsAJump(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	s.mustOpen(c, "cam-1", sid(1), 0)
	const far = 1 << 30
	req := bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(2), HighWater: far}
	_, err := s.open(t.Context(), req)
	refused(t, err, bus.CodeEpochJump)
	c = s.enrolled("cam-1")
	if e := s.mustOpen(c, "cam-1", sid(3), far); e != far+1 {
		t.Errorf("got %d", e)
	}
	req.Session, req.HighWater = sid(4), 2*far
	_, err = s.open(t.Context(), req)
	refused(t, err, bus.CodeEpochJump)
	req.HighWater = 1<<32 - 1
	s.enrolled("cam-1")
	_, err = s.open(t.Context(), req)
	refused(t, err, bus.CodeEpochJump, "new stream name")
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	for n := range byte(maxSessions) {
		s.mustOpen(c, "cam-1", sid(n+1), 0)
	}
	req := bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(100), SSRC: ssrcOf("cam-1", sid(100))}
	_, err := s.open(t.Context(), req)
	refused(t, err, bus.CodeConflict, "revoke")
	s.mustOpen(c, "cam-1", sid(1), 0)

	// One that nobody has used for days gives way.
	st := s.stream("cam-1")
	old := st.session(sid(5))
	old.rec.Opened = time.Now().Add(-2 * idleAfter)
	for _, k := range old.keys {
		k.rec.Created = old.rec.Opened
	}
	if _, err := s.open(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if st.session(sid(5)) != nil || st.session(sid(1)) == nil {
		t.Error("the wrong session gave way")
	}
}

func TestOpenersAtOnceGetOneKey(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	services := []*Service{s.Service}
	for range 3 {
		svc, err := s.another()
		if err != nil {
			t.Fatal(err)
		}
		services = append(services, svc)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first []gk.Epoch
	var keys []keyring.MediaKey
	for _, svc := range services {
		for range 4 {
			wg.Go(func() {
				one := &site{t: t, kv: s.kv, mem: s.mem, Service: svc}
				e := one.mustOpen(c, "cam-1", sid(1), 0)
				k := one.mustRelease(c, "cam-1", sid(1), e)
				mu.Lock()
				defer mu.Unlock()
				first, keys = append(first, e), append(keys, k)
			})
		}
	}
	wg.Wait()
	for i := range keys {
		if first[i] != first[0] || !keys[i].Equal(keys[0]) {
			t.Errorf("opener %d has epoch %d and a key of its own", i, first[i])
		}
	}
}

func TestDestroy(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	s.mustOpen(c, "cam-1", sid(1), 0)
	set := func(epoch gk.Epoch, state bus.KeyState) error {
		_, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: epoch, State: state})
		return err
	}
	for e := gk.Epoch(1); e <= 3; e++ {
		s.mustRelease(c, "cam-1", sid(1), e)
	}
	s.settle()
	refused(t, set(1, bus.KeyPreActive), bus.CodeBadRequest)
	refused(t, set(1, ""), bus.CodeBadRequest)
	refused(t, set(0, bus.KeyActive), bus.CodeBadRequest)
	refused(t, set(4, bus.KeyDeactivated), bus.CodeConflict, "never active")
	refused(t, set(4, bus.KeyDestroyed), bus.CodeConflict, "goes with its session")
	refused(t, set(9, bus.KeyDestroyed), bus.CodeNotFound)

	media := s.stream("cam-1").session(sid(1)).keys[1].media
	for range 2 {
		if err := set(1, bus.KeyDeactivated); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, set(1, bus.KeyActive), bus.CodeConflict, "again")
	_, prekey := c.prekey("cam-1", sid(1))
	_, err := s.release(t.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: 1, Prekey: prekey})
	refused(t, err, bus.CodeExpired, "deactivated")
	for range 2 {
		if err := set(1, bus.KeyDestroyed); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, set(1, bus.KeyActive), bus.CodeConflict, "destroyed")
	if err := set(2, bus.KeyDestroyed); err != nil { // active to destroyed, both steps
		t.Fatal(err)
	}
	if !media.IsZero() {
		t.Error("the destroyed key is in memory")
	}
	for e, there := range map[gk.Epoch]bool{1: false, 2: false, 3: true, 4: true} {
		_, err := s.kv.Get(t.Context(), mediaKey("cam-1", sid(1), e))
		if errors.Is(err, store.ErrNotFound) == there {
			t.Errorf("envelope of epoch %d: %v", e, err)
		}
	}
	for range 2 {
		rep, err := s.keys(t.Context(), bus.KMSKeysRequest{Stream: "cam-1"})
		if err != nil {
			t.Fatal(err)
		}
		var got []bus.KeyState
		for _, k := range rep.Keys {
			got = append(got, k.State)
			if k.Created.IsZero() || k.Activated.IsZero() != (k.State == bus.KeyPreActive) || k.Destroyed.IsZero() == (k.State == bus.KeyDestroyed) {
				t.Errorf("times of %+v", k)
			}
		}
		if !slices.Equal(got, []bus.KeyState{bus.KeyPreActive, bus.KeyActive, bus.KeyDestroyed, bus.KeyDestroyed}) {
			t.Errorf("states: %v", got)
		}
		_, err = s.release(t.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: 1})
		if err == nil {
			t.Error("a destroyed key was released")
		}
		s.restart()
	}
	// The end of the session takes the reserved key with it.
	for range 2 {
		if err := set(0, bus.KeyDestroyed); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"key", "session"} {
		if l, err := s.kv.List(t.Context(), prefix); err != nil || len(l) > 0 {
			t.Errorf("%s records are left: %d, %v", prefix, len(l), err)
		}
	}
	if e := s.mustOpen(c, "cam-1", sid(2), 0); e != 5 {
		t.Errorf("the next session starts at %d", e)
	}
}

func TestEndedSessionGetsNoKey(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	s.mustOpen(c, "cam-1", sid(1), 0)
	s.mustRelease(c, "cam-1", sid(1), 1)
	if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), State: bus.KeyDeactivated}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.open(t.Context(), bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), SSRC: 7})
		refused(t, err, bus.CodeConflict, "has ended")
		for e := gk.Epoch(1); e <= 3; e++ {
			_, err = s.release(t.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: e})
			refused(t, err, bus.CodeConflict)
		}
		s.restart()
	}
}

func TestListingIsBounded(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	s.mustOpen(c, "cam-1", sid(1), 0)
	const n = keptGone + 10
	for e := gk.Epoch(1); e <= n; e++ {
		s.mustRelease(c, "cam-1", sid(1), e)
		if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: e, State: bus.KeyDestroyed}); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := s.keys(t.Context(), bus.KMSKeysRequest{Stream: "cam-1"})
	if err != nil || len(rep.Keys) != keptGone+1 || rep.Keys[0].Epoch != n+1 || rep.Keys[1].Epoch != n {
		t.Errorf("%d keys, %v", len(rep.Keys), err)
	}
	_, err = s.keys(t.Context(), bus.KMSKeysRequest{Stream: "a.b"})
	refused(t, err, bus.CodeBadRequest)
}

func BenchmarkOpen(b *testing.B) {
	s := &site{t: b, kek: "file:" + b.TempDir() + "/kek", kv: store.NewMemory(), mem: bus.NewMemory()}
	s.restart()
	c := s.enrolled("cam-1")
	var n uint32
	for b.Loop() {
		n++
		id := gk.SessionID{byte(n), byte(n >> 8), byte(n >> 16), 1}
		if _, err := s.open(b.Context(), bus.KMSOpenRequest{Device: c.id, Stream: "cam-1", Session: id, SSRC: n}); err != nil {
			b.Fatal(err)
		}
		if _, err := s.setState(b.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: id, State: bus.KeyDestroyed}); err != nil {
			b.Fatal(err)
		}
	}
}

// A session that nobody remembers must not count for ever: it ends when one that
// was opened after it is in use.
func TestSessionInUseEndsThoseBefore(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	for n := range byte(3 * maxSessions) {
		id := sid(n + 1)
		first := s.mustOpen(c, "cam-1", id, 0)
		s.mustRelease(c, "cam-1", id, first)
		if n%4 != 0 {
			continue // its opener crashed
		}
		if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: id, Epoch: first, State: bus.KeyActive}); err != nil {
			t.Fatal(err)
		}
		s.settle()
		if open := len(s.stream("cam-1").sessions); open != 1 {
			t.Errorf("%d sessions beside the one in use", open-1)
		}
	}
}
