package api

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestReadinessIsAskedForSeldom: who asks without a token, as often as he likes, has
// the services asked four times a second; and the answer is never older than that.
func TestReadinessIsAskedForSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := bus.NewMemory()
		defer memory.Close()
		var asked atomic.Int64
		serve := func(sub bus.Subscription, err error) bus.Subscription {
			if err != nil {
				t.Fatal(err)
			}
			return sub
		}
		serve(bus.KMSInfo.Serve(memory.Conn(), func(context.Context, bus.Empty) (bus.KMSInfoReply, error) { return bus.KMSInfoReply{}, nil }))
		streams := serve(bus.ProcessingStreams.Serve(memory.Conn(), func(context.Context, bus.Empty) (bus.StreamsReply, error) {
			asked.Add(1)
			return bus.StreamsReply{}, nil
		}))
		api, err := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, memory.Conn())
		if err != nil {
			t.Fatal(err)
		}
		h := api.Handler()
		get := func() int {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
			return rec.Code
		}
		for range 1000 {
			if code := get(); code != 200 {
				t.Fatalf("%d", code)
			}
			time.Sleep(time.Millisecond)
		}
		if n := asked.Load(); n < 3 || n > 5 {
			t.Errorf("the services were asked %d times in a second", n)
		}
		_ = streams.Close()
		time.Sleep(readyFor)
		if code := get(); code != 503 {
			t.Errorf("without processing: %d", code)
		}
	})
}
