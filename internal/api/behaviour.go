package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// alerts lists alerts, the newest first: ?stream= and ?limit= narrow it down.
func (s *Server) alerts(w http.ResponseWriter, r *http.Request) {
	var req bus.AlertsRequest
	q := r.URL.Query()
	if name := q.Get("stream"); name != "" {
		id, err := gk.ParseStreamID(name)
		if err != nil {
			s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
			return
		}
		req.Stream = id
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "limit %q is not a number from 1", text))
			return
		}
		req.Limit = n
	}
	answer(s, w, r, bus.ProcessingAlerts, req)
}

// alert shows one alert.
func (s *Server) alert(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	rep, err := bus.ProcessingAlerts.Do(ctx, s.conn, bus.AlertsRequest{ID: r.PathValue("id")})
	if err == nil && len(rep.Alerts) == 0 {
		err = bus.Refuse(bus.CodeNotFound, "no alert %s", r.PathValue("id"))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, rep.Alerts[0])
}

// alertWindows shows what the stream did around an alert.
func (s *Server) alertWindows(w http.ResponseWriter, r *http.Request) {
	answer(s, w, r, bus.ProcessingEpisode, bus.EpisodeRequest{Alert: r.PathValue("id")})
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	if id, ok := s.streamID(w, r); ok {
		answer(s, w, r, bus.ProcessingExplain, bus.ExplainRequest{Stream: id})
	}
}

func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	if id, ok := s.streamID(w, r); ok {
		answer(s, w, r, bus.ProcessingProfile, bus.ProfileRequest{Stream: id})
	}
}

// changeProfile approves a profile or has it learned anew: {"do": "approve"} or
// {"do": "relearn"}.
func (s *Server) changeProfile(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	var body struct {
		Do string `json:"do"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Do == "" {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "do is missing: %s or %s", bus.ProfileApprove, bus.ProfileRelearn))
		return
	}
	answer(s, w, r, bus.ProcessingProfile, bus.ProfileRequest{Stream: id, Do: body.Do})
}

// plannedChange announces that a source will change: {"for": "5m"}; "0" takes it
// back.
func (s *Server) plannedChange(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	var body struct {
		For string `json:"for"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	long, err := time.ParseDuration(body.For)
	if err != nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "for: %q is not a duration: write for example 5m", body.For))
		return
	}
	answer(s, w, r, bus.ProcessingPlanned, bus.PlannedRequest{Stream: id, For: long})
}

// answer passes a question on to a service and its reply back.
func answer[Req, Rep any](s *Server, w http.ResponseWriter, r *http.Request, call bus.Question[Req, Rep], req Req) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	rep, err := call.Do(ctx, s.conn, req)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, rep)
}
