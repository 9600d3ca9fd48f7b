package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

func joinServer(t *testing.T) http.Handler {
	t.Helper()
	memory := bus.NewMemory()
	sub, err := bus.KMSJoin.Serve(memory.Conn(), func(_ context.Context, r bus.JoinRequest) (bus.JoinReply, error) {
		switch [sha256.Size]byte(r.Hash) {
		case sha256.Sum256([]byte("used")):
			return bus.JoinReply{}, bus.Refuse(bus.CodeUsed, "this token was used already: ask for a new one with gaitkeeper enroll %s", r.Device)
		case sha256.Sum256([]byte("good")):
			return bus.JoinReply{Device: r.Device, Certificate: []byte("cert"), CA: []byte("ca"), KMSPublic: []byte("kms")}, nil
		}
		return bus.JoinReply{}, bus.Refuse(bus.CodeUnauthorized, "this token is not known")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Close() })
	return joinHandler(JoinConfig{Broker: "broker.example:8883", Log: slog.New(slog.DiscardHandler)}, memory.Conn())
}

func join(h http.Handler, from, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/v1/join", strings.NewReader(body))
	req.RemoteAddr = from
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

func joinBody(t *testing.T, device, secret string) string {
	t.Helper()
	b, err := json.Marshal(joinRequest{Device: device, Secret: []byte(secret), CSR: []byte("csr")})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJoin(t *testing.T) {
	h := joinServer(t)
	rec := join(h, "192.0.2.1:1", joinBody(t, "cam-1", "good"))
	var answer joinAnswer
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 200 || answer.Broker != "broker.example:8883" || string(answer.Certificate) != "cert" || string(answer.KMSPublic) != "kms" || answer.Device != "cam-1" {
		t.Errorf("%d %+v", rec.Code, answer)
	}
	for i, c := range []struct {
		body   string
		status int
		want   string
	}{
		{joinBody(t, "cam-1", "used"), 410, "ask for a new one"},
		{joinBody(t, "cam-1", "other"), 403, "not known"},
		{joinBody(t, "cam/1", "good"), 400, "invalid id"},
		{`{"device":"cam-1","more":1}`, 400, "unknown field"},
		{`{`, 400, "not the JSON wanted"},
		{`{"device":"cam-1","csr":"` + strings.Repeat("A", maxBody) + `"}`, 400, "larger than"},
	} {
		rec := join(h, fmt.Sprintf("192.0.2.%d:1", i+10), c.body)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%.60s gives %d %s", c.body, rec.Code, rec.Body)
		}
	}
	for _, path := range []string{"/v1/streams", "/metrics", "/v1/enroll"} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Code != 404 {
			t.Errorf("the join endpoint answers %s with %d", path, rec.Code)
		}
	}
}

func TestJoinIsLimited(t *testing.T) {
	h := joinServer(t)
	body := joinBody(t, "cam-1", "other")
	refused := 0
	for range joinBurstHost * 4 {
		if join(h, "192.0.2.1:1", body).Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("one host may ask without end")
	}
	if join(h, "192.0.2.2:1", body).Code == http.StatusTooManyRequests {
		t.Error("one host spent another's budget")
	}
	l := newLimiter()
	for i := range 3 * maxJoinHosts {
		l.allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if len(l.hosts) > maxJoinHosts {
		t.Errorf("%d hosts are remembered", len(l.hosts))
	}
}
