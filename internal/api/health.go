package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// readyTimeout is how long a service may take to say that it is there.
const readyTimeout = 2 * time.Second

// health says that the process answers.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]bool{"ok": true})
}

// ready says whether the services behind the API answer, by name.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	parts := map[string]bool{}
	_, err := bus.KMSInfo.Do(ctx, s.conn, bus.Empty{})
	parts["kms"] = err == nil
	_, err = bus.ProcessingStreams.Do(ctx, s.conn, bus.Empty{})
	parts["processing"] = err == nil

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
