package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stallingKV answers nothing while it is stalled, as a cluster without a leader.
type stallingKV struct {
	KV
	stalled atomic.Bool
}

func (s *stallingKV) Get(ctx context.Context, key string) (Entry, error) {
	if s.stalled.Load() {
		<-ctx.Done()
		return Entry{}, ctx.Err()
	}
	return s.KV.Get(ctx, key)
}

func (s *stallingKV) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	if s.stalled.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.KV.Update(ctx, key, value, rev)
}

// instance is one that serves while it holds the lease.
type instance struct {
	serves atomic.Bool
	why    error
	kill   context.CancelFunc // without giving the lease back
	stop   context.CancelFunc
	ended  chan struct{}
}

// cutKV is one instance's connection to the store.
type cutKV struct {
	KV
	ctx context.Context
}

func (c cutKV) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	if c.ctx.Err() != nil {
		return 0, c.ctx.Err()
	}
	return c.KV.Update(ctx, key, value, rev)
}

func serve(t *testing.T, kv KV, name string) *instance {
	i := &instance{ended: make(chan struct{})}
	alive, kill := context.WithCancel(t.Context())
	ctx, stop := context.WithCancel(alive)
	i.kill, i.stop = kill, stop
	go func() {
		defer close(i.ended)
		l := NewLease(cutKV{kv, alive}, "owner", name)
		if l.Acquire(ctx, nil) != nil {
			return
		}
		i.serves.Store(true)
		i.why = l.Hold(ctx)
		i.serves.Store(false)
	}()
	return i
}

func TestLeaseIsHeldByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &stallingKV{KV: NewMemory()}
		one := serve(t, kv, "one")
		time.Sleep(10 * time.Second)
		two := serve(t, kv, "two")
		is := func(when string, first, second bool) {
			t.Helper()
			synctest.Wait()
			if one.serves.Load() != first || two.serves.Load() != second {
				t.Fatalf("%s: one serves %v, two serves %v", when, one.serves.Load(), two.serves.Load())
			}
		}
		time.Sleep(time.Minute)
		is("with both alive", true, false)
		kv.stalled.Store(true)
		time.Sleep(30 * time.Second)
		kv.stalled.Store(false)
		time.Sleep(30 * time.Second)
		is("after the store stalled for 30 s", true, false)
		one.kill()
		time.Sleep(10 * time.Second)
		is("after the first was killed", false, true)

		one = serve(t, kv, "one")
		time.Sleep(10 * time.Second)
		is("with the first back", false, true)
		two.stop()
		time.Sleep(2 * LeaseBeat)
		is("after the second gave it back", true, false)
		if two.why != nil {
			t.Errorf("the second ended with %v", two.why)
		}
		one.stop()
		<-one.ended
	})
}

// TestLeaseTakenFromASleeper: whoever was stopped for long learns that it was
// replaced.
func TestLeaseTakenFromASleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := NewMemory()
		asleep := &stallingKV{KV: kv}
		one := serve(t, asleep, "one")
		time.Sleep(5 * time.Second)
		asleep.stalled.Store(true)
		two := serve(t, kv, "two")
		time.Sleep(10 * time.Second)
		if !two.serves.Load() {
			t.Fatal("nobody took over")
		}
		asleep.stalled.Store(false)
		<-one.ended
		if !errors.Is(one.why, ErrLeaseLost) {
			t.Errorf("ended with %v, want ErrLeaseLost", one.why)
		}
		two.stop()
		<-two.ended
	})
}

// TestUnsureGrowsWhileTheStoreIsSilent: it counts from the last write that was
// certainly there, and is small again when the store answers.
func TestUnsureGrowsWhileTheStoreIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &stallingKV{KV: NewMemory()}
		l := NewLease(kv, "owner", "one")
		if got := l.Unsure(); got < 24*time.Hour {
			t.Errorf("unsure for %v before it was ever held", got)
		}
		if err := l.Acquire(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Hold(ctx) }()
		time.Sleep(time.Minute + LeaseBeat/2)
		if got := l.Unsure(); got > LeaseBeat {
			t.Errorf("unsure for %v while the store answers", got)
		}
		kv.stalled.Store(true)
		time.Sleep(30 * time.Second)
		if got := l.Unsure(); got < 30*time.Second || got > 30*time.Second+LeaseBeat {
			t.Errorf("unsure for %v after 30 s of silence", got)
		}
		kv.stalled.Store(false)
		time.Sleep(leaseTimeout + 2*LeaseBeat)
		if got := l.Unsure(); got > LeaseBeat {
			t.Errorf("unsure for %v after the store came back", got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestLeaseAfterARestart: an instance that was killed goes on soon; a second process
// of its name waits while it lives.
func TestLeaseAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := NewMemory()
		one := serve(t, kv, "one")
		time.Sleep(5 * time.Second)
		one.kill()
		<-one.ended
		again := serve(t, kv, "one")
		time.Sleep(3 * LeaseBeat)
		synctest.Wait()
		if !again.serves.Load() {
			t.Error("it waits for itself")
		}
		twin := serve(t, kv, "one")
		time.Sleep(time.Minute)
		synctest.Wait()
		if twin.serves.Load() || !again.serves.Load() {
			t.Error("two processes of one name take the lease from one another")
		}
		twin.stop()
		<-twin.ended
		again.stop()
		<-again.ended
	})
}
