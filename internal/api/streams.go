package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"version": s.cfg.Version})
}

func (s *Server) list(ctx context.Context) ([]bus.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rep, err := bus.ProcessingStreams.Do(ctx, s.conn, bus.Empty{})
	slices.SortFunc(rep.Streams, func(a, b bus.StreamInfo) int { return strings.Compare(string(a.Stream), string(b.Stream)) })
	return rep.Streams, err
}

func (s *Server) streams(w http.ResponseWriter, r *http.Request) {
	streams, err := s.list(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if streams == nil {
		streams = []bus.StreamInfo{}
	}
	reply(w, http.StatusOK, bus.StreamsReply{Streams: streams})
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	streams, err := s.list(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for _, info := range streams {
		if info.Stream == id {
			reply(w, http.StatusOK, info)
			return
		}
	}
	s.fail(w, r, bus.Refuse(bus.CodeNotFound, "no stream %s: gaitkeeper streams lists those that are there", id))
}

func (s *Server) keys(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	rep, err := bus.KMSKeys.Do(ctx, s.conn, bus.KMSKeysRequest{Stream: id})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if rep.Keys == nil {
		rep.Keys = []bus.KeyInfo{}
	}
	reply(w, http.StatusOK, rep)
}

// rotate orders a new key. With {"wait": true} the answer comes when the device
// has confirmed it.
func (s *Server) rotate(w http.ResponseWriter, r *http.Request) {
	id, ok := s.streamID(w, r)
	if !ok {
		return
	}
	var body struct {
		Wait bool `json:"wait"`
	}
	if err := read(r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), rotateTimeout)
	defer cancel()
	rep, err := bus.ProcessingRotate.Do(ctx, s.conn, bus.RotateRequest{Stream: id, Reason: gk.ReasonOperator, Wait: body.Wait})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, rep)
}

func (s *Server) streamID(w http.ResponseWriter, r *http.Request) (gk.StreamID, bool) {
	id, err := gk.ParseStreamID(r.PathValue("id"))
	if err != nil {
		s.fail(w, r, bus.Refuse(bus.CodeBadRequest, "%v", err))
	}
	return id, err == nil
}
