package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// pipes is a listener whose connections are pipes, so that their deadlines run on
// virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// A feed outlives every limit that requests have, for as long as it is read.
func TestFeedHasNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := bus.NewMemory()
		api, err := New(Config{Log: slog.New(slog.DiscardHandler), TokenHash: sha256.Sum256([]byte(token)), Local: true}, memory.Conn())
		if err != nil {
			t.Fatal(err)
		}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- api.Run(ctx, ln) }()

		client := &http.Client{Transport: &http.Transport{DialContext: ln.dial, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := make(chan string, 1024)
		go func() {
			defer close(lines)
			for s := bufio.NewScanner(resp.Body); s.Scan(); {
				lines <- s.Text()
			}
		}()
		time.Sleep(time.Hour)
		if err := bus.Events.Tell(memory.Conn(), gk.Event{Kind: gk.EventRotationDone}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		beats, event := 0, false
		for l := range lines {
			if l == ": still here" {
				beats++
			}
			event = event || strings.HasPrefix(l, "event: rotation-done")
		}
		if want := int(time.Hour / feedHeartbeat); beats < want-1 || !event {
			t.Errorf("%d heartbeats in an hour, want %d; event seen: %v", beats, want, event)
		}
	})
}
