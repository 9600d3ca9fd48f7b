package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStreamBucket starts a server and returns a bucket in it with a history of
// eight, and the server's data directory.
func jetStreamBucket(t *testing.T) (KV, string) {
	dir := t.TempDir()
	js := startServer(t, dir)
	kv, err := OpenJetStream(js, "test", 8)
	if err != nil {
		t.Fatal(err)
	}
	return kv, dir
}

func startServer(t *testing.T, dir string) jetstream.JetStream {
	t.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// holding counts the files under dir that contain want.
func holding(t *testing.T, dir string, want []byte) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, want) {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func secretBytes() []byte {
	raw := make([]byte, 48)
	rand.Read(raw)
	return []byte(base64.StdEncoding.EncodeToString(raw))
}

func TestErasedBytesLeaveTheDisk(t *testing.T) {
	kv, dir := jetStreamBucket(t)
	ctx := t.Context()
	var values [][]byte
	rev := must[uint64](t)(kv.Create(ctx, "before", []byte("neighbour")))
	rev = 0
	for i := range 5 {
		v := secretBytes()
		values = append(values, v)
		if i == 0 {
			rev = must[uint64](t)(kv.Create(ctx, "k", v))
		} else {
			rev = must[uint64](t)(kv.Update(ctx, "k", v, rev))
		}
	}
	must[uint64](t)(kv.Create(ctx, "after", []byte("neighbour")))
	for i, v := range values {
		if holding(t, dir, v) == 0 {
			t.Fatalf("revision %d is not on disk, so the search proves nothing", i)
		}
	}
	if err := kv.Prune(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if n, newest := holding(t, dir, v), i == len(values)-1; (n > 0) != newest {
			t.Errorf("after prune, revision %d is in %d files", i, n)
		}
	}
	if err := kv.Erase(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if n := holding(t, dir, v); n > 0 {
			t.Errorf("after erase, revision %d is in %d files", i, n)
		}
	}
	for _, key := range []string{"before", "after"} {
		if e, err := kv.Get(ctx, key); err != nil || string(e.Value) != "neighbour" {
			t.Errorf("%s: %q, %v", key, e.Value, err)
		}
	}
}

// An Erase that was cut off after its marker still has bytes to overwrite.
func TestEraseFinishesWhatACrashLeft(t *testing.T) {
	kv, dir := jetStreamBucket(t)
	ctx := t.Context()
	v := secretBytes()
	rev := must[uint64](t)(kv.Create(ctx, "k", v))
	if err := kv.(*jetStream).mark(ctx, "k", rev); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Get(ctx, "k"); err == nil || holding(t, dir, v) == 0 {
		t.Fatal("this is not the state after a crash")
	}
	if err := kv.Erase(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if holding(t, dir, v) > 0 {
		t.Error("the bytes are still on disk")
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var rev uint64
	t.Run("first", func(t *testing.T) {
		kv, err := OpenJetStream(startServer(t, dir), "b", 1)
		if err != nil {
			t.Fatal(err)
		}
		rev = must[uint64](t)(kv.Create(t.Context(), "k", []byte("kept")))
		must[uint64](t)(kv.Create(t.Context(), "gone", []byte("x")))
		if err := kv.Erase(t.Context(), "gone"); err != nil {
			t.Fatal(err)
		}
	})
	kv, err := OpenJetStream(startServer(t, dir), "b", 4)
	if err != nil {
		t.Fatal(err)
	}
	e := must[Entry](t)(kv.Get(t.Context(), "k"))
	if string(e.Value) != "kept" || e.Revision != rev {
		t.Errorf("got %+v", e)
	}
	_, err = kv.Get(t.Context(), "gone")
	wantErr(t, err, ErrNotFound)
}

func TestOpenRefuses(t *testing.T) {
	js := startServer(t, t.TempDir())
	for _, history := range []int{0, 65} {
		if _, err := OpenJetStream(js, "b", history); err == nil {
			t.Errorf("history %d accepted", history)
		}
	}
	if _, err := OpenJetStream(js, "bad name", 1); err == nil {
		t.Error("a bucket with a space was made")
	}
}

func BenchmarkJetStream(b *testing.B) {
	dir := b.TempDir()
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	kv, err := OpenJetStream(js, "bench", 4)
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 300)
	for b.Loop() {
		rev, err := kv.Create(b.Context(), "k", value)
		if err == nil {
			_, err = kv.Update(b.Context(), "k", value, rev)
		}
		if err == nil {
			err = kv.Erase(b.Context(), "k")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
