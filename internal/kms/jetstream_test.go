package kms

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func jetStreamStore(t testing.TB, dir string) store.KV {
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
	kv, err := store.OpenJetStream(js, bus.BucketKMS, History)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func onDisk(t *testing.T, dir string, want []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, want)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A key's whole life on a real store: its bytes are never on disk, its envelope
// is while it lives, and no state's envelope is after it was destroyed.
func TestKeyLeavesTheDisk(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, jetStreamStore(t, dir))
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	var envelopes [][]byte
	keep := func() {
		e, err := s.kv.Get(t.Context(), mediaKey("cam-1", sid(1), epoch))
		if err != nil {
			t.Fatal(err)
		}
		if !onDisk(t, dir, e.Value) {
			t.Fatal("the envelope is not on disk, so the search proves nothing")
		}
		envelopes = append(envelopes, e.Value)
	}
	keep()
	m := s.mustRelease(c, "cam-1", sid(1), epoch)
	s.settle()
	keep()
	set := func(state bus.KeyState) {
		if _, err := s.setState(t.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: epoch, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	set(bus.KeyDeactivated)
	keep()
	m.Expose(func(key, salt []byte) {
		if onDisk(t, dir, key) || onDisk(t, dir, salt) {
			t.Error("the key itself is on disk")
		}
	})
	set(bus.KeyDestroyed)
	for i, b := range envelopes {
		if onDisk(t, dir, b) {
			t.Errorf("envelope %d of a destroyed key is on disk", i)
		}
	}
	s.restart()
	s.mustRelease(c, "cam-1", sid(1), epoch+1)
}

func BenchmarkJetStreamRotation(b *testing.B) {
	s := &site{t: b, kek: "file:" + b.TempDir() + "/kek", kv: jetStreamStore(b, b.TempDir()), mem: bus.NewMemory()}
	s.restart()
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	for b.Loop() {
		s.mustRelease(c, "cam-1", sid(1), epoch)
		s.settle()
		if _, err := s.setState(b.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: epoch, State: bus.KeyDestroyed}); err != nil {
			b.Fatal(err)
		}
		epoch++
	}
}

func BenchmarkJetStreamStart(b *testing.B) {
	s := &site{t: b, kek: "file:" + b.TempDir() + "/kek", kv: jetStreamStore(b, b.TempDir()), mem: bus.NewMemory()}
	s.restart()
	for n := range 20 {
		var streams []gk.StreamID
		for m := range 50 {
			streams = append(streams, gk.StreamID("s-"+string(rune('a'+n))+"-"+string(rune('A'+m/10))+string(rune('0'+m%10))))
		}
		c := s.enrolled(gk.DeviceID("cam-"+string(rune('a'+n))), streams...)
		for _, id := range streams {
			s.mustOpen(c, id, sid(1), 0)
		}
	}
	for b.Loop() {
		s.restart()
	}
}
