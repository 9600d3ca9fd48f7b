package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// answers helps a service of a test: note takes down what it was asked, keep holds its
// subscriptions until the test ends.
func answers(t *testing.T) (asked *[]string, note func(any), keep func(bus.Subscription, error)) {
	asked = new([]string)
	note = func(v any) { *asked = append(*asked, fmt.Sprintf("%+v", v)) }
	keep = func(sub bus.Subscription, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sub.Close() })
	}
	return asked, note, keep
}

// behave has a processing service answer about behaviour with what it was asked.
func (s *system) behave(t *testing.T) *[]string {
	t.Helper()
	conn := s.bus.Conn()
	asked, note, keep := answers(t)
	keep(bus.ProcessingAlerts.Serve(conn, func(_ context.Context, r bus.AlertsRequest) (bus.AlertsReply, error) {
		note(r)
		if r.ID == "a.2" {
			return bus.AlertsReply{}, bus.Refuse(bus.CodeNotFound, "there is no alert a.2")
		}
		return bus.AlertsReply{Alerts: []bus.Alert{{ID: "a.1", Stream: "a", Class: bus.ClassSource}}}, nil
	}))
	keep(bus.ProcessingExplain.Serve(conn, func(_ context.Context, r bus.ExplainRequest) (bus.Explanation, error) {
		note(r)
		return bus.Explanation{Stream: r.Stream}, nil
	}))
	keep(bus.ProcessingProfile.Serve(conn, func(_ context.Context, r bus.ProfileRequest) (bus.ProfileInfo, error) {
		note(r)
		return bus.ProfileInfo{Stream: r.Stream, Stage: bus.StageMature}, nil
	}))
	keep(bus.ProcessingPlanned.Serve(conn, func(_ context.Context, r bus.PlannedRequest) (bus.ProfileInfo, error) {
		note(r)
		return bus.ProfileInfo{Stream: r.Stream}, nil
	}))
	return asked
}

func TestBehaviourRoutes(t *testing.T) {
	s := newSystem(t, nil)
	asked := s.behave(t)
	for _, row := range []struct {
		method, path, body string
		status             int
		asked, answer      string
	}{
		{"GET", "/v1/alerts", "", 200, "{Stream: ID: Limit:0}", `"id":"a.1"`},
		{"GET", "/v1/alerts?stream=a&limit=3", "", 200, "{Stream:a ID: Limit:3}", `"alerts":[`},
		{"GET", "/v1/alerts?limit=no", "", 400, "", "limit"},
		{"GET", "/v1/alerts?stream=a/b", "", 400, "", "stream"},
		{"GET", "/v1/alerts/a.1", "", 200, "{Stream: ID:a.1 Limit:0}", `"class":"source"`},
		{"GET", "/v1/alerts/a.2", "", 404, "{Stream: ID:a.2 Limit:0}", "no alert"},
		{"GET", "/v1/streams/a/explain", "", 200, "{Stream:a}", `"stream":"a"`},
		{"GET", "/v1/streams/a/profile", "", 200, "{Stream:a Do:}", `"stage":"mature"`},
		{"POST", "/v1/streams/a/profile", `{"do":"approve"}`, 200, "{Stream:a Do:approve}", `"stage"`},
		{"POST", "/v1/streams/a/profile", `{}`, 400, "", "do is missing"},
		{"POST", "/v1/streams/a/planned-change", `{"for":"5m"}`, 200, "{Stream:a For:5m0s}", `"stream"`},
		{"POST", "/v1/streams/a/planned-change", `{"for":"soon"}`, 400, "", "duration"},
	} {
		*asked = nil
		status, body := s.do(t, row.method, row.path, row.body)
		if status != row.status || !strings.Contains(body, row.answer) || strings.Join(*asked, "") != row.asked {
			t.Errorf("%s %s: %d %s; asked %v", row.method, row.path, status, body, *asked)
		}
	}
}

// TestScoresAsMetrics: labels stay within their sets whatever is told.
func TestScoresAsMetrics(t *testing.T) {
	s := newSystem(t, nil)
	u := bus.StreamScores{Stream: "cam-1", Stage: bus.StageMature, Score: 0.25, Open: 1, Detectors: map[string]float64{"grammar": 0.5}}
	s.api.metrics.scores.hear(u)
	for i := range 500 {
		u.Stage, u.Detectors = bus.Stage(fmt.Sprint("stage", i)), map[string]float64{fmt.Sprint("made-up-", i): 1}
		u.Stream = gk.StreamID(fmt.Sprint("cam-", i+2))
		s.api.metrics.scores.hear(u)
		s.api.hear(gk.Event{Kind: gk.EventAlertOpened, Detail: map[string]string{"class": fmt.Sprint("class", i)}})
	}
	s.api.hear(gk.Event{Kind: gk.EventAlertOpened, Detail: map[string]string{"class": "source"}, At: time.Now()})
	_, body := s.do(t, "GET", "/metrics", "")
	for _, want := range []string{
		`gaitkeeper_stream_anomaly_score{stream="cam-1"} 0.25`, `gaitkeeper_stream_alerts_open{stream="cam-1"} 1`,
		`gaitkeeper_stream_profile_stage{stage="mature",stream="cam-1"} 1`,
		`gaitkeeper_alerts_total{class="source"} 1`, `gaitkeeper_alerts_total{class="other"} 500`,
		`gaitkeeper_events_total{kind="alert-opened"} 501`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if n := strings.Count(body, "gaitkeeper_stream_detector_score{"); n > maxDetectors {
		t.Errorf("%d series of detectors", n)
	}
}
