package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// problem is the body of every answer that is not a success.
type problem = bus.Refusal

var statusOf = map[bus.Code]int{
	bus.CodeBadRequest:   http.StatusBadRequest,
	bus.CodeNotFound:     http.StatusNotFound,
	bus.CodeConflict:     http.StatusConflict,
	bus.CodeRevoked:      http.StatusForbidden,
	bus.CodeUnauthorized: http.StatusForbidden,
	bus.CodeExpired:      http.StatusGone,
	bus.CodeUsed:         http.StatusGone,
	bus.CodeEpochJump:    http.StatusConflict,
	bus.CodeUnavailable:  http.StatusServiceUnavailable,
	bus.CodeBusy:         http.StatusServiceUnavailable,
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A peer that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(v)
}

// fail answers with a service's refusal, or with the reason why there is none.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *bus.Refusal
	switch {
	case errors.As(err, &refusal):
		status, ok := statusOf[refusal.Code]
		if !ok {
			status = http.StatusInternalServerError
		}
		reply(w, status, refusal)
	case errors.Is(err, bus.ErrNoResponder):
		reply(w, http.StatusServiceUnavailable, problem{Code: bus.CodeUnavailable, Text: "the service that answers this is not running: try again, or see /readyz"})
	case r.Context().Err() != nil:
		reply(w, http.StatusServiceUnavailable, problem{Code: bus.CodeUnavailable, Text: "the server is shutting down"})
	default:
		s.cfg.Log.Warn("request failed", "path", r.URL.Path, "error", err)
		reply(w, http.StatusGatewayTimeout, problem{Code: bus.CodeUnavailable, Text: "a service did not answer in time: try again, or see /readyz"})
	}
}

// read decodes a JSON body strictly; an empty body leaves v as it is.
func read(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && dec.Decode(&struct{}{}) != io.EOF {
		err = errors.New("more than one JSON value")
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &problem{Code: bus.CodeBadRequest, Text: fmt.Sprintf("body is larger than %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &problem{Code: bus.CodeBadRequest, Text: "body is not the JSON wanted: " + err.Error()}
	}
	return nil
}
