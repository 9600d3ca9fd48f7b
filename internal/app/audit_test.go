package app

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/audit"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

func writeTrail(t *testing.T, path string, streams ...gk.StreamID) {
	t.Helper()
	a, err := openAudit(path, path+".heads", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if err := a.append(gk.Event{Kind: gk.EventRotationDone, Stream: s}); err != nil {
			t.Fatal(err)
		}
	}
	a.file.Close()
}

func verify(t *testing.T, path string) (lines uint64, err error) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c audit.Chain
	_, err = c.Replay(bytes.NewReader(b))
	return c.Lines, err
}

func TestAuditChainGoesOnAcrossRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	writeTrail(t, path, "a", "b")
	writeTrail(t, path, "c")
	if n, err := verify(t, path); n != 3 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append(b, `{"n":3,"prev":"ab`...), 0o600); err != nil {
		t.Fatal(err)
	}
	writeTrail(t, path, "d")
	if n, err := verify(t, path); n != 4 || err != nil {
		t.Errorf("after a line cut short: %d lines, %v", n, err)
	}
}

func TestAuditShowsEveryChange(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(lines []string) []string
	}{
		{"changed", func(l []string) []string { l[1] = strings.Replace(l[1], `"b"`, `"x"`, 1); return l }},
		{"removed", func(l []string) []string { return append(l[:1], l[2:]...) }},
		{"removed at the start", func(l []string) []string { return l[1:] }},
		{"swapped", func(l []string) []string { l[0], l[1] = l[1], l[0]; return l }},
		{"doubled", func(l []string) []string { return append(l[:2:2], l[1:]...) }},
		{"not JSON", func(l []string) []string { l[1] = "x\n"; return l }},
	} {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		writeTrail(t, path, "a", "b", "c")
		b, _ := os.ReadFile(path)
		lines := c.change(strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n"))
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, path); err == nil {
			t.Errorf("%s: the chain still holds", c.name)
		}
		writeTrail(t, path, "d")
		if n, err := verify(t, path); n != 2 || err != nil { // that it begins anew, and d
			t.Errorf("%s: new trail has %d lines, %v", c.name, n, err)
		}
		kept, _ := filepath.Glob(path + ".broken-*")
		if len(kept) != 1 {
			t.Errorf("%s: broken trail was not kept", c.name)
		}
	}
}

func TestAuditWritesWhatTheBusSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		a, err := openAudit(path, path+".heads", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		memory := bus.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		if err := a.Listen(ctx, memory.Conn()); err != nil {
			t.Fatal(err)
		}
		go func() { done <- a.Run(ctx, memory.Conn()) }()
		for _, s := range []gk.StreamID{"a", "b"} {
			if err := bus.Events.Tell(memory.Conn(), gk.Event{Kind: gk.EventGrantSent, Stream: s}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if n, err := verify(t, path); n != 2 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
}
