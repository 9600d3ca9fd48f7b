package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// testConfig is a node on free ports in a directory of its own.
func testConfig(t testing.TB) Config {
	t.Helper()
	cfg, err := DefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data = t.TempDir()
	cfg.Listen, cfg.JoinListen, cfg.MQTTListen, cfg.MediaListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

// startNode runs a node until stop is called.
func startNode(t testing.TB, cfg Config, log *slog.Logger) (n *Node, stop func()) {
	t.Helper()
	n, err := Start(t.Context(), cfg, Options{Log: log, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

func TestBeyondLoopbackNeedsTLSAndToken(t *testing.T) {
	cfg := testConfig(t)
	cfg.Listen = "0.0.0.0:0"
	n, _ := startNode(t, cfg, slog.New(slog.DiscardHandler))
	if !strings.HasPrefix(n.APIURL(), "https://127.0.0.1:") {
		t.Fatalf("API is at %s", n.APIURL())
	}
	client, err := NewClient(ClientConfig{Data: cfg.Data})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Do(t.Context(), "GET", "/v1/streams", nil, &struct{}{}); err != nil {
		t.Errorf("operator with CA and token: %v", err)
	}
	get := func(c *http.Client, url string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := get(client.http, n.APIURL()+"/streams/cam-1.ts"); got != http.StatusUnauthorized {
		t.Errorf("a viewer without token gets %d", got)
	}
	if got := get(http.DefaultClient, n.APIURL()+"/healthz"); got != 0 {
		t.Errorf("a client that does not know the CA gets %d", got)
	}
	if got := get(http.DefaultClient, strings.Replace(n.APIURL(), "https", "http", 1)+"/healthz"); got == http.StatusOK {
		t.Error("plain HTTP is answered")
	}
}

func TestNodeStartsAgainOnItsData(t *testing.T) {
	cfg := testConfig(t)
	var before string
	for i := range 2 {
		n, stop := startNode(t, cfg, slog.New(slog.DiscardHandler))
		if _, err := Start(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "is locked by another gaitkeeper") {
			t.Errorf("a second node on the same data gives %v", err)
		}
		ca, err := os.ReadFile(filepath.Join(cfg.Data, caFile))
		if err != nil {
			t.Fatal(err)
		}
		token, err := ReadAPIToken(cfg.Data)
		if err != nil {
			t.Fatal(err)
		}
		if now := string(ca) + token; i > 0 && now != before {
			t.Error("CA or token is another after a restart")
		} else {
			before = now
		}
		if n.MQTTAddress() == "" || n.MediaAddress() == "" || n.JoinAddress() == "" {
			t.Error("an address is missing")
		}
		stop()
	}
	for _, name := range []string{"kek", tokenFile, "audit.jsonl"} {
		st, err := os.Stat(filepath.Join(cfg.Data, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

// TestComingClusterIsWaitedFor: what a NATS cluster answers while its servers come up
// does not end a process that was started with them.
func TestComingClusterIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		err  error
		wait bool
	}{
		{context.DeadlineExceeded, true},
		{jetstream.ErrNoStreamResponse, true},
		{nats.ErrNoResponders, true},
		{&jetstream.APIError{Code: http.StatusServiceUnavailable}, true},
		{&jetstream.APIError{Code: http.StatusBadRequest}, false},
		{jetstream.ErrStreamNotFound, false},
		{nil, false},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("cannot open bucket: %w", err)
		}
		if got := stillComing(err); got != c.wait {
			t.Errorf("%v: waits %v", err, got)
		}
	}
}
