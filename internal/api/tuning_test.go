package api

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// tunes has a processing service answer about tuning with what it was asked.
func (s *system) tunes(t *testing.T) *[]string {
	t.Helper()
	conn := s.bus.Conn()
	asked, note, keep := answers(t)
	keep(bus.ProcessingFeedback.Serve(conn, func(_ context.Context, r bus.FeedbackRequest) (bus.FeedbackReply, error) {
		note(r)
		if r.Alert == "a.2" {
			return bus.FeedbackReply{}, bus.Refuse(bus.CodeNotFound, "there is no alert a.2")
		}
		return bus.FeedbackReply{Stream: "a", Label: "a.1", Contested: r.Alert == "a.3", Sensitivity: 0.5}, nil
	}))
	keep(bus.ProcessingTuning.Serve(conn, func(_ context.Context, r bus.TuningRequest) (bus.TuningInfo, error) {
		note(r)
		if r.To == 77 {
			return bus.TuningInfo{}, bus.Refuse(bus.CodeConflict, "there is no earlier setting 77")
		}
		return bus.TuningInfo{Stream: r.Stream, Revision: 4}, nil
	}))
	keep(bus.ProcessingEpisode.Serve(conn, func(_ context.Context, r bus.EpisodeRequest) (bus.Episode, error) {
		note(r)
		return bus.Episode{Alert: r.Alert, Windows: []bus.EpisodeWindow{{Packets: 7}}}, nil
	}))
	keep(bus.ProcessingFleet.Serve(conn, func(_ context.Context, r bus.FleetRequest) (bus.FleetInfo, error) {
		note(r)
		return bus.FleetInfo{Streams: 3}, nil
	}))
	return asked
}

func TestTuningRoutes(t *testing.T) {
	s := newSystem(t, nil)
	asked := s.tunes(t)
	const none = "0001-01-01 00:00:00 +0000 UTC"
	for _, row := range []struct {
		method, path, body string
		status             int
		asked, answer      string
	}{
		{"GET", "/v1/alerts/a.1/windows", "", 200, "{Alert:a.1}", `"packets":7`},
		{"POST", "/v1/alerts/a.1/feedback", `{"real":false,"note":"lens","by":"eve"}`, 200, "{Alert:a.1 Real:false Note:lens By:eve Stream: From:" + none + " To:" + none + " Kind:}", `"sensitivity":0.5`},
		{"POST", "/v1/alerts/a.3/feedback", `{"real":true}`, 200, "{Alert:a.3 Real:true Note: By: Stream: From:" + none + " To:" + none + " Kind:}", `"contested":true`},
		{"POST", "/v1/alerts/a.2/feedback", `{"real":true}`, 404, "{Alert:a.2 Real:true Note: By: Stream: From:" + none + " To:" + none + " Kind:}", "no alert"},
		// Without an answer nothing is taken for one.
		{"POST", "/v1/alerts/a.1/feedback", `{}`, 400, "", "real is missing"},
		{"POST", "/v1/alerts/a.1/feedback", "", 400, "", "real is missing"},
		{"POST", "/v1/alerts/a.1/feedback", `{"real":"no"}`, 400, "", "JSON"},
		{"POST", "/v1/alerts/a.1/feedback", `{"reel":true}`, 400, "", "JSON"},
		{"POST", "/v1/alerts/a.1/feedback", `{"real":true,"note":"` + strings.Repeat("x", maxBody) + `"}`, 400, "", "larger"},
		{"POST", "/v1/streams/a/missed", `{"from":"2026-01-02T14:02:00Z","to":"2026-01-02T14:05:00Z","kind":"swap"}`, 200, "{Alert: Real:true Note: By: Stream:a From:2026-01-02 14:02:00 +0000 UTC To:2026-01-02 14:05:00 +0000 UTC Kind:swap}", `"stream"`},
		{"POST", "/v1/streams/a/missed", `{"from":"14:02"}`, 400, "", "JSON"},
		{"POST", "/v1/streams/a%20b/missed", `{}`, 400, "", "stream"},
		{"GET", "/v1/streams/a/tuning", "", 200, "{Stream:a Do: Saw:0 To:0 Auto:false By:}", `"revision":4`},
		{"GET", "/v1/streams/a%20b/tuning", "", 400, "", "stream"},
		{"POST", "/v1/streams/a/tuning", `{"do":"propose"}`, 200, "{Stream:a Do:propose Saw:0 To:0 Auto:false By:}", `"revision":4`},
		{"POST", "/v1/streams/a/tuning", `{"do":"apply","saw":4,"by":"eve"}`, 200, "{Stream:a Do:apply Saw:4 To:0 Auto:false By:eve}", `"revision":4`},
		{"POST", "/v1/streams/a/tuning", `{"do":"revert","to":2}`, 200, "{Stream:a Do:revert Saw:0 To:2 Auto:false By:}", `"revision":4`},
		{"POST", "/v1/streams/a/tuning", `{"do":"revert","to":77}`, 409, "{Stream:a Do:revert Saw:0 To:77 Auto:false By:}", "no earlier setting"},
		{"POST", "/v1/streams/a/tuning", `{"do":"revert","to":-1}`, 400, "", "JSON"},
		{"POST", "/v1/streams/a/tuning", `{"do":"auto","auto":true}`, 200, "{Stream:a Do:auto Saw:0 To:0 Auto:true By:}", `"revision":4`},
		// Nobody passes for the system itself.
		{"POST", "/v1/streams/a/tuning", `{"do":"apply","by":"feedback"}`, 200, "{Stream:a Do:apply Saw:0 To:0 Auto:false By:operator feedback}", `"revision":4`},
		{"POST", "/v1/tuning", `{"apply":true,"by":"tuning"}`, 200, "{Apply:true By:operator tuning}", `"streams":3`},
		// What is left out does not turn it off.
		{"POST", "/v1/streams/a/tuning", `{"do":"auto"}`, 400, "", "auto is missing"},
		{"POST", "/v1/streams/a/tuning", `{}`, 400, "", "do is missing"},
		{"POST", "/v1/tuning", "", 200, "{Apply:false By:}", `"streams":3`},
		{"POST", "/v1/tuning", `{"apply":true,"by":"eve"}`, 200, "{Apply:true By:eve}", `"streams":3`},
		{"POST", "/v1/tuning", `{"apply":1}`, 400, "", "JSON"},
	} {
		*asked = nil
		status, body := s.do(t, row.method, row.path, row.body)
		if status != row.status || !strings.Contains(body, row.answer) || strings.Join(*asked, "") != row.asked {
			t.Errorf("%s %s %.80s: %d %s; asked %v", row.method, row.path, row.body, status, body, *asked)
		}
	}
}

// TestTuningIsTheOperators: nobody without his token has a say, on this machine
// neither, and nothing is asked of processing for him.
func TestTuningIsTheOperators(t *testing.T) {
	s := newSystem(t, nil)
	asked := s.tunes(t)
	for _, row := range []struct{ method, path, body string }{
		{"POST", "/v1/alerts/a.1/feedback", `{"real":false}`},
		{"POST", "/v1/streams/a/missed", `{"from":"2026-01-02T14:02:00Z","to":"2026-01-02T14:05:00Z"}`},
		{"GET", "/v1/alerts/a.1/windows", ""},
		{"GET", "/v1/streams/a/tuning", ""},
		{"POST", "/v1/streams/a/tuning", `{"do":"propose"}`},
		{"POST", "/v1/tuning", `{"apply":true}`},
	} {
		for name, change := range map[string]func(*http.Request){
			"no token":      func(r *http.Request) { r.Header.Del("Authorization") },
			"another token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer guessed") },
		} {
			if status, body := s.do(t, row.method, row.path, row.body, change); status != http.StatusUnauthorized || len(*asked) != 0 {
				t.Errorf("%s %s with %s: %d %s; asked %v", row.method, row.path, name, status, body, *asked)
			}
		}
		if status, body := s.do(t, row.method, row.path, row.body); status != http.StatusOK || len(*asked) != 1 {
			t.Errorf("%s %s: %d %s; asked %v", row.method, row.path, status, body, *asked)
		}
		*asked = nil
	}
}
