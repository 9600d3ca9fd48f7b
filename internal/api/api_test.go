package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const token = "the-operators-token"

// system is an API over stand-ins of the services.
type system struct {
	*httptest.Server
	bus    *bus.Memory
	api    *Server
	rotate []bus.RotateRequest

	enrolled []bus.EnrollRequest
}

func newSystem(t *testing.T, change func(*Config)) *system {
	t.Helper()
	cfg := Config{
		TokenHash: sha256.Sum256([]byte(token)), Local: true, JoinAddress: "join.example:8843", TokenLife: time.Hour,
		Version: "test", Log: slog.New(slog.DiscardHandler),
		Viewer: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "picture of "+r.URL.Path) }),
	}
	if change != nil {
		change(&cfg)
	}
	s := &system{bus: bus.NewMemory()}
	conn := s.bus.Conn()
	var err error
	if s.api, err = New(cfg, s.bus.Conn()); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(s.api.Handler())
	t.Cleanup(s.Close)

	serve := func(sub bus.Subscription, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sub.Close() })
	}
	serve(bus.KMSInfo.Serve(conn, func(context.Context, bus.Empty) (bus.KMSInfoReply, error) { return bus.KMSInfoReply{}, nil }))
	serve(bus.KMSKeys.Serve(conn, func(_ context.Context, r bus.KMSKeysRequest) (bus.KMSKeysReply, error) {
		return bus.KMSKeysReply{Keys: []bus.KeyInfo{{Stream: r.Stream, Epoch: 7, State: bus.KeyActive}}}, nil
	}))
	serve(bus.KMSEnroll.Serve(conn, func(_ context.Context, r bus.EnrollRequest) (bus.EnrollReply, error) {
		if r.Device == "taken" {
			return bus.EnrollReply{}, bus.Refuse(bus.CodeConflict, "device %s is enrolled already", r.Device)
		}
		s.enrolled = append(s.enrolled, r)
		return bus.EnrollReply{CAFingerprint: make([]byte, sha256.Size), Expires: time.Unix(1e9, 0).UTC()}, nil
	}))
	serve(bus.ProcessingStreams.Serve(conn, func(context.Context, bus.Empty) (bus.StreamsReply, error) {
		return bus.StreamsReply{Streams: []bus.StreamInfo{{Stream: "b", Epoch: 2}, {Stream: "a", Epoch: 1}}}, nil
	}))
	serve(bus.ProcessingRotate.Serve(conn, func(_ context.Context, r bus.RotateRequest) (bus.RotateReply, error) {
		if r.Stream != "a" {
			return bus.RotateReply{}, bus.Refuse(bus.CodeNotFound, "no stream %s", r.Stream)
		}
		s.rotate = append(s.rotate, r)
		return bus.RotateReply{Epoch: 8, Done: r.Wait}, nil
	}))
	return s
}

// do sends a request with the token and gives status and body.
func (s *system) do(t *testing.T, method, path, body string, change ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for _, c := range change {
		c(req)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestRoutes(t *testing.T) {
	s := newSystem(t, nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/healthz", "", 200, `"ok":true`},
		{"GET", "/readyz", "", 200, `"ready":true`},
		{"GET", "/v1/version", "", 200, `"version":"test"`},
		{"GET", "/v1/streams", "", 200, `{"streams":[{"stream":"a"`},
		{"GET", "/v1/streams/b", "", 200, `"epoch":2`},
		{"GET", "/v1/streams/c", "", 404, `"code":"not-found"`},
		{"GET", "/v1/streams/a%20b", "", 400, `"code":"bad-request"`},
		{"GET", "/v1/streams/a/keys", "", 200, `"state":"active"`},
		{"POST", "/v1/streams/a/rotate", "", 200, `"epoch":8,"done":false`},
		{"POST", "/v1/streams/a/rotate", `{"wait":true}`, 200, `"done":true`},
		{"POST", "/v1/streams/a/rotate", `{"wiat":true}`, 400, `unknown field`},
		{"POST", "/v1/streams/a/rotate", `{} {}`, 400, `more than one JSON value`},
		{"POST", "/v1/streams/z/rotate", "", 404, `no stream z`},
		{"GET", "/v1/streams/a/rotate", "", 405, ``},
		{"POST", "/v1/enroll", `{"device":"cam-1"}`, 200, `"token":"gkj1.`},
		{"POST", "/v1/enroll", `{"device":"cam-1","ttl":"5m"}`, 200, `"device":"cam-1"`},
		{"POST", "/v1/enroll", `{"device":"cam-1","ttl":"soon"}`, 400, `not a duration`},
		{"POST", "/v1/enroll", `{"device":"cam/1"}`, 400, `invalid id`},
		{"POST", "/v1/enroll", `{"device":"cam-1","streams":["#"]}`, 400, `invalid id`},
		{"POST", "/v1/enroll", `{"device":"taken"}`, 409, `enrolled already`},
		{"POST", "/v1/enroll", `{"device":"` + strings.Repeat("x", maxBody) + `"}`, 400, `larger than`},
		{"POST", "/v1/enroll", `nonsense`, 400, `not the JSON wanted`},
		{"GET", "/streams/a.ts", "", 200, `picture of /streams/a.ts`},
		{"GET", "/elsewhere", "", 404, `not found`},
	} {
		status, body := s.do(t, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.40s gives %d %s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}
	if len(s.enrolled) != 2 || s.enrolled[0].TTL != time.Hour || s.enrolled[1].TTL != 5*time.Minute {
		t.Errorf("tokens asked for: %+v", s.enrolled)
	}
	if len(s.rotate) != 2 || s.rotate[0].Reason != gk.ReasonOperator {
		t.Errorf("rotations asked for: %+v", s.rotate)
	}
}

func TestServiceAbsent(t *testing.T) {
	memory := bus.NewMemory()
	api, err := New(Config{Log: slog.New(slog.DiscardHandler), TokenHash: sha256.Sum256([]byte(token)), Local: true}, memory.Conn())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/readyz": 503, "/v1/streams": 503, "/healthz": 200} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1"+path, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		api.Handler().ServeHTTP(rec, req)
		if rec.Code != want {
			t.Errorf("%s gives %d %s, want %d", path, rec.Code, rec.Body, want)
		}
	}
}

func TestWhoMayAsk(t *testing.T) {
	s256 := sha256.Sum256([]byte(token))
	local := newSystem(t, nil)
	open := newSystem(t, func(c *Config) { c.Local = false })
	anonymous := func(r *http.Request) { r.Header.Del("Authorization") }
	bearer := func(v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+v) }
	}
	password := func(v string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth("vlc", v) } }
	host := func(v string) func(*http.Request) { return func(r *http.Request) { r.Host = v } }

	for _, c := range []struct {
		name   string
		on     *system
		path   string
		change func(*http.Request)
		status int
	}{
		{"anonymous operator", local, "/v1/streams", anonymous, 401},
		{"wrong token", local, "/v1/streams", bearer("guess"), 401},
		{"empty token", local, "/v1/streams", bearer(""), 401},
		{"hash as token", local, "/v1/streams", bearer(hex.EncodeToString(s256[:])), 401},
		{"anonymous local viewer", local, "/streams/a.ts", anonymous, 200},
		{"anonymous local metrics", local, "/metrics", anonymous, 200},
		{"anonymous health", open, "/healthz", anonymous, 200},
		{"anonymous remote viewer", open, "/streams/a.ts", anonymous, 401},
		{"anonymous remote metrics", open, "/metrics", anonymous, 401},
		{"remote viewer with token", open, "/streams/a.ts", bearer(token), 200},
		{"remote player with password", open, "/streams/a.ts", password(token), 200},
		{"remote player with wrong password", open, "/streams/a.ts", password("x"), 401},
		{"rebound name", local, "/streams/a.ts", host("evil.example"), 403},
		{"rebound name with port", local, "/v1/streams", host("evil.example:8080"), 403},
		{"localhost", local, "/v1/streams", host("localhost:8080"), 200},
		{"IPv6 loopback", local, "/v1/streams", host("[::1]:8080"), 200},
		{"any name beyond loopback", open, "/v1/streams", host("gaitkeeper.example"), 200},
	} {
		if status, body := c.on.do(t, "GET", c.path, "", c.change); status != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, status, body, c.status)
		}
	}
}

func TestEventFeed(t *testing.T) {
	s := newSystem(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/events?stream=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		return "end"
	}
	if got := next(); got != ": events follow" {
		t.Fatalf("feed begins with %q", got)
	}
	for _, e := range []gk.Event{{Kind: gk.EventGrantSent, Stream: "b"}, {Kind: gk.EventRotationDone, Stream: "a", Epoch: 3, Reason: gk.ReasonSchedule, Took: 2 * time.Millisecond}} {
		if err := bus.Events.Tell(s.bus.Conn(), e); err != nil {
			t.Fatal(err)
		}
	}
	if got := next(); got != "event: rotation-done" {
		t.Errorf("got %q", got)
	}
	var e gk.Event
	if data, ok := strings.CutPrefix(next(), "data: "); !ok || json.Unmarshal([]byte(data), &e) != nil || e.Epoch != 3 || e.Stream != "a" {
		t.Errorf("got %+v", e)
	}
}

func TestFeedDropsSlowListeners(t *testing.T) {
	f := newFanout()
	slow, _ := f.add()
	for range feedBuffer + 1 {
		f.send(gk.Event{})
	}
	n := 0
	for range slow {
		n++
	}
	if n != feedBuffer || len(f.listeners) != 0 {
		t.Errorf("slow listener got %d events, %d listeners remain", n, len(f.listeners))
	}
	f.remove(slow)
	for range feedListeners {
		if _, ok := f.add(); !ok {
			t.Fatal("too few listeners admitted")
		}
	}
	if _, ok := f.add(); ok {
		t.Error("no limit on listeners")
	}
}

func TestMetrics(t *testing.T) {
	m := newMetrics("v1")
	for _, e := range []gk.Event{
		{Kind: gk.EventRotationDone, Reason: gk.ReasonSchedule, Took: 2 * time.Millisecond},
		{Kind: gk.EventRotationDone, Reason: "made-up"},
		{Kind: "made-up"},
	} {
		m.event(e)
	}
	dropped := map[string]uint64{"auth-failed": 3}
	for i := range 2 * maxCauses {
		dropped["cause-"+string(rune('A'+i))] = 1
	}
	m.status(bus.StreamStatus{Transport: "main", Stream: "cam-1", Delivered: 42, Lost: 1, Epoch: 9, Dropped: dropped})
	for i := range maxStreamSeries + 10 {
		m.status(bus.StreamStatus{Transport: gk.TransportID(string(rune('a'+i%26)) + strings.Repeat("x", i/26%40) + strings.Repeat("y", i/1040)), Stream: "s"})
	}
	if len(m.last) > maxStreamSeries {
		t.Errorf("%d series", len(m.last))
	}
	rec := httptest.NewRecorder()
	m.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := rec.Body.String()
	for _, want := range []string{
		`gaitkeeper_rotations_total{reason="schedule"} 1`,
		`gaitkeeper_rotations_total{reason="other"} 1`,
		`gaitkeeper_events_total{kind="other"} 1`,
		`gaitkeeper_rotation_seconds_count 1`,
		`gaitkeeper_stream_packets_delivered_total{stream="cam-1",transport="main"} 42`,
		`gaitkeeper_stream_epoch{stream="cam-1",transport="main"} 9`,
		`gaitkeeper_build_info{go="go`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if n := strings.Count(text, `cause="`); n > maxCauses+1 {
		t.Errorf("%d causes", n)
	}

	m.event(gk.Event{Kind: gk.EventSessionEnded, Stream: "cam-1"})
	rec = httptest.NewRecorder()
	m.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if strings.Contains(rec.Body.String(), `stream="cam-1"`) {
		t.Error("an ended session is still shown")
	}
}

// TestStatusOfADeadTransport: what nobody tells any more is not shown as if it were so.
func TestStatusOfADeadTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics("v1")
		shown := func() bool {
			rec := httptest.NewRecorder()
			m.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
			return strings.Contains(rec.Body.String(), "gaitkeeper_stream_silent_seconds{")
		}
		m.status(bus.StreamStatus{Transport: "main", Stream: "cam-1"})
		time.Sleep(statusFor)
		m.status(bus.StreamStatus{Transport: "main", Stream: "cam-1"})
		time.Sleep(statusFor)
		if !shown() {
			t.Error("a status is gone too early")
		}
		time.Sleep(time.Second)
		if shown() || len(m.last) != 0 {
			t.Error("the status of a transport that is gone is still shown")
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	api, err := New(Config{Log: slog.New(slog.DiscardHandler), TokenHash: sha256.Sum256([]byte(token)), Local: true}, bus.NewMemory().Conn())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Run(ctx, ln) }()

	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the feed did not end cleanly: %v", err)
	}
}
