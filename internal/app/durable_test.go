package app

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A key is released only after the store has answered, so the answer must mean
// that the disk has it: each write is synced, and no bucket lives in memory.
func TestStoredKeysOutlastAPowerCut(t *testing.T) {
	n, _ := startNode(t, testConfig(t), slog.New(slog.DiscardHandler))
	if cfg := n.broker.server.JetStreamConfig(); cfg == nil || !cfg.SyncAlways {
		t.Errorf("JetStream does not sync what it answers: %+v", cfg)
	}
	for role, bucket := range map[bus.Role]string{bus.RoleKMS: bus.BucketKMS, bus.RoleProcessing: bus.BucketProcessing} {
		nc, err := n.connect(role)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		if cfg := stream.CachedInfo().Config; cfg.Storage != jetstream.FileStorage || cfg.Replicas > 1 {
			t.Errorf("%s: %+v", bucket, cfg)
		}
	}
}
