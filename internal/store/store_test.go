package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// backends are the implementations that must all behave alike.
func backends(t *testing.T) map[string]KV {
	js, _ := jetStreamBucket(t)
	return map[string]KV{"memory": NewMemory(), "jetstream": js}
}

func each(t *testing.T, fn func(t *testing.T, kv KV)) {
	for name, kv := range backends(t) {
		t.Run(name, func(t *testing.T) { fn(t, kv) })
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestCompareAndSet(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		_, err := kv.Get(ctx, "a.b")
		wantErr(t, err, ErrNotFound)
		_, err = kv.Update(ctx, "a.b", []byte("x"), 1)
		wantErr(t, err, ErrConflict)

		r1 := must[uint64](t)(kv.Create(ctx, "a.b", []byte("one")))
		_, err = kv.Create(ctx, "a.b", []byte("two"))
		wantErr(t, err, ErrExists)
		r2 := must[uint64](t)(kv.Update(ctx, "a.b", []byte("two"), r1))
		if r2 <= r1 {
			t.Errorf("revision went from %d to %d", r1, r2)
		}
		_, err = kv.Update(ctx, "a.b", []byte("three"), r1)
		wantErr(t, err, ErrConflict)
		e := must[Entry](t)(kv.Get(ctx, "a.b"))
		if e.Key != "a.b" || string(e.Value) != "two" || e.Revision != r2 {
			t.Errorf("got %+v", e)
		}
		r3 := must[uint64](t)(kv.Put(ctx, "a.b", []byte("three")))
		r4 := must[uint64](t)(kv.Put(ctx, "new", nil))
		if r3 <= r2 || r4 <= r3 {
			t.Errorf("revisions %d %d %d do not rise", r2, r3, r4)
		}
		if e := must[Entry](t)(kv.Get(ctx, "new")); len(e.Value) != 0 {
			t.Errorf("empty value became %q", e.Value)
		}
	})
}

func TestErase(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		if err := kv.Erase(ctx, "k"); err != nil {
			t.Errorf("erase of nothing: %v", err)
		}
		rev := must[uint64](t)(kv.Create(ctx, "k", []byte("one")))
		rev = must[uint64](t)(kv.Update(ctx, "k", []byte("two"), rev))
		if err := kv.Prune(ctx, "k"); err != nil {
			t.Error(err)
		}
		if e := must[Entry](t)(kv.Get(ctx, "k")); string(e.Value) != "two" || e.Revision != rev {
			t.Errorf("prune left %+v", e)
		}
		for range 2 {
			if err := kv.Erase(ctx, "k"); err != nil {
				t.Fatal(err)
			}
			_, err := kv.Get(ctx, "k")
			wantErr(t, err, ErrNotFound)
			_, err = kv.Update(ctx, "k", []byte("x"), rev)
			wantErr(t, err, ErrConflict)
		}
		if l := must[[]Entry](t)(kv.List(ctx, "")); len(l) != 0 {
			t.Errorf("list after erase: %+v", l)
		}
		again := must[uint64](t)(kv.Create(ctx, "k", []byte("three")))
		if again <= rev {
			t.Errorf("revision %d after %d", again, rev)
		}
		_, err := kv.Create(ctx, "k", nil)
		wantErr(t, err, ErrExists)
		if err := kv.Erase(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		_, err = kv.Get(ctx, "k")
		wantErr(t, err, ErrNotFound)
	})
}

func TestListIsByToken(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		for _, key := range []string{"s.cam-1", "s.cam-1.2", "s.cam-1.10", "s.cam-10.1", "t", "s.cam-1.gone"} {
			must[uint64](t)(kv.Put(ctx, key, []byte("v "+key)))
		}
		if err := kv.Erase(ctx, "s.cam-1.gone"); err != nil {
			t.Fatal(err)
		}
		for prefix, want := range map[string]string{
			"s.cam-1": "s.cam-1 s.cam-1.10 s.cam-1.2",
			"s":       "s.cam-1 s.cam-1.10 s.cam-1.2 s.cam-10.1",
			"":        "s.cam-1 s.cam-1.10 s.cam-1.2 s.cam-10.1 t",
			"t":       "t",
			"u":       "",
		} {
			var got []string
			for _, e := range must[[]Entry](t)(kv.List(ctx, prefix)) {
				got = append(got, e.Key)
				if string(e.Value) != "v "+e.Key {
					t.Errorf("%s has value %q", e.Key, e.Value)
				}
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("list %q: got %q, want %q", prefix, s, want)
			}
		}
	})
}

func TestWatch(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		must[uint64](t)(kv.Put(ctx, "w.a", []byte("1")))
		must[uint64](t)(kv.Put(ctx, "w.gone", []byte("1")))
		must[uint64](t)(kv.Put(ctx, "x.a", []byte("1")))
		if err := kv.Erase(ctx, "w.gone"); err != nil {
			t.Fatal(err)
		}
		changes := make(chan string, 100)
		ended := make(chan error, 1)
		go func() {
			ended <- kv.Watch(ctx, "w", func(e Entry, deleted bool) {
				changes <- fmt.Sprintf("%s=%s %v", e.Key, e.Value, deleted)
			})
		}()
		next := func(want string) {
			t.Helper()
			select {
			case got := <-changes:
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("no %q came", want)
			}
		}
		next("w.a=1 false")
		must[uint64](t)(kv.Put(ctx, "w.b", []byte("2")))
		next("w.b=2 false")
		must[uint64](t)(kv.Put(ctx, "x.b", []byte("2")))
		must[uint64](t)(kv.Put(ctx, "w.a", []byte("3")))
		next("w.a=3 false")
		if err := kv.Erase(ctx, "w.a"); err != nil {
			t.Fatal(err)
		}
		next("w.a= true")
		must[uint64](t)(kv.Create(ctx, "w.a", []byte("4")))
		next("w.a=4 false")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyOneWriterWins(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		var created, updated atomic.Int32
		rev := must[uint64](t)(kv.Create(ctx, "u", nil))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := kv.Create(ctx, "c", []byte{byte(i)}); err == nil {
					created.Add(1)
				} else {
					wantErr(t, err, ErrExists)
				}
				if _, err := kv.Update(ctx, "u", []byte{byte(i)}, rev); err == nil {
					updated.Add(1)
				} else {
					wantErr(t, err, ErrConflict)
				}
			})
		}
		wg.Wait()
		if created.Load() != 1 || updated.Load() != 1 {
			t.Errorf("%d created, %d updated", created.Load(), updated.Load())
		}
	})
}

func TestBadKeys(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a/b", "é", strings.Repeat("x", 256)} {
			if _, err := kv.Create(ctx, key, nil); err == nil {
				t.Errorf("create %q accepted", key)
			}
			if _, err := kv.Get(ctx, key); err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("get %q: %v", key, err)
			}
			if err := kv.Erase(ctx, key); err == nil {
				t.Errorf("erase %q accepted", key)
			}
			if _, err := kv.List(ctx, key); err == nil && key != "" {
				t.Errorf("list %q accepted", key)
			}
		}
	})
}

func TestValuesAreCopies(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx := t.Context()
		v := []byte("value")
		must[uint64](t)(kv.Put(ctx, "k", v))
		v[0] = 'X'
		must[Entry](t)(kv.Get(ctx, "k")).Value[0] = 'Y'
		must[[]Entry](t)(kv.List(ctx, "k"))[0].Value[0] = 'Z'
		if e := must[Entry](t)(kv.Get(ctx, "k")); string(e.Value) != "value" {
			t.Errorf("stored value became %q", e.Value)
		}
	})
}

func TestEndedContext(t *testing.T) {
	each(t, func(t *testing.T, kv KV) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := kv.Create(ctx, "k", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("create: %v", err)
		}
		if _, err := kv.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
			t.Errorf("get: %v", err)
		}
		if err := kv.Watch(ctx, "", func(Entry, bool) {}); err != nil {
			t.Errorf("watch: %v", err)
		}
	})
}
