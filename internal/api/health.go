package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// readyTimeout is how long a service may take to say that it is there.
const readyTimeout = 2 * time.Second

// health says that the process answers.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]bool{"ok": true})
}

// readyFor is how long an answer about readiness holds. Everybody may ask, and each
// time would cost every stream a moment.
const readyFor = 250 * time.Millisecond

// readiness is what the services answered last.
type readiness struct {
	mu    sync.Mutex
	at    time.Time
	parts map[string]bool // not changed once it is here
}

// ask gives which services answer, by name, from now or from a moment ago.
func (p *readiness) ask(conn bus.Conn) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts != nil && time.Since(p.at) < readyFor {
		return p.parts
	}
	// Not the context of whoever asks: the answer is for others too.
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	_, kms := bus.KMSInfo.Do(ctx, conn, bus.Empty{})
	_, processing := bus.ProcessingStreams.Do(ctx, conn, bus.Empty{})
	p.at, p.parts = time.Now(), map[string]bool{"kms": kms == nil, "processing": processing == nil}
	return p.parts
}

// ready says whether the services behind the API answer, by name.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	parts := s.readiness.ask(s.conn)
	status := http.StatusOK
	for _, ok := range parts {
		if !ok {
			status = http.StatusServiceUnavailable
		}
	}
	reply(w, status, struct {
		Ready bool            `json:"ready"`
		Parts map[string]bool `json:"parts"`
	}{status == http.StatusOK, parts})
}
