package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// tuneTimeout is for a search for settings.
const tuneTimeout = 65 * time.Second

// feedback takes an operator's word on an alert: {"real": true, "note": "…"}.
func (s *Server) feedback(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Real *bool  `json:"real"`
		Note string `json:"note"`
		By   string `json:"by"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Real == nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "real is missing: true or false"))
		return
	}
	answer(s, w, r, bus.ProcessingFeedback, bus.FeedbackRequest{Alert: r.PathValue("id"), Real: *body.Real, Note: body.Note, By: named(body.By)})
}

// missed takes the report of what nothing noticed: {"from": "…", "to": "…", "kind": "…"}.
func (s *Server) missed(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	var body struct {
		From time.Time `json:"from"`
		To   time.Time `json:"to"`
		Kind string    `json:"kind"`
		Note string    `json:"note"`
		By   string    `json:"by"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	answer(s, w, r, bus.ProcessingFeedback, bus.FeedbackRequest{Stream: id, Real: true, From: body.From, To: body.To, Kind: body.Kind, Note: body.Note, By: named(body.By)})
}

func (s *Server) tuning(w http.ResponseWriter, r *http.Request) {
	if id, ok := s.streamID(w, r); ok {
		answer(s, w, r, bus.ProcessingTuning, bus.TuningRequest{Stream: id})
	}
}

// changeTuning proposes settings, or changes them: {"do": "propose"}, {"do": "apply",
// "saw": 7}, {"do": "revert", "to": 5}, {"do": "auto", "auto": false}. saw is the
// revision that was looked at.
func (s *Server) changeTuning(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	var body struct {
		Do   string `json:"do"`
		Saw  uint64 `json:"saw"`
		To   uint64 `json:"to"`
		Auto *bool  `json:"auto"`
		By   string `json:"by"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Do == "" {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "do is missing: %s, %s, %s or %s", bus.TuningPropose, bus.TuningApply, bus.TuningRevert, bus.TuningAuto))
		return
	}
	if body.Do == bus.TuningAuto && body.Auto == nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "auto is missing: true or false"))
		return
	}
	slowly(s, w, r, bus.ProcessingTuning, bus.TuningRequest{
		Stream: id, Do: body.Do, Saw: body.Saw, To: body.To, Auto: body.Auto != nil && *body.Auto, By: named(body.By),
	})
}

// fleetTuning proposes settings over all streams; {"apply": true} puts them in every
// stream's shadow.
func (s *Server) fleetTuning(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Apply bool   `json:"apply"`
		By    string `json:"by"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	slowly(s, w, r, bus.ProcessingFleet, bus.FleetRequest{Apply: body.Apply, By: named(body.By)})
}

// named keeps an operator apart from those who change settings by themselves: what
// these do is held to other rules, and the audit trail must not take one for the other.
func named(by string) string {
	switch by {
	case "feedback", "tuning", "fleet", "default":
		return "operator " + by
	}
	return by
}

// slowly is answer, for what takes a while.
func slowly[Req, Rep any](s *Server, w http.ResponseWriter, r *http.Request, call bus.Question[Req, Rep], req Req) {
	ctx, cancel := context.WithTimeout(r.Context(), tuneTimeout)
	defer cancel()
	rep, err := call.Do(ctx, s.conn, req)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, rep)
}
