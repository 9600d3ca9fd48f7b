package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// site plays the services behind a revocation, and notes in which order they are
// asked.
type site struct {
	t      *testing.T
	memory *bus.Memory
	mu     sync.Mutex
	asked  []string
	api    *Server
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, memory: bus.NewMemory()}
	t.Cleanup(s.memory.Close)
	var err error
	if s.api, err = New(Config{Log: slog.New(slog.DiscardHandler), TokenHash: sha256.Sum256([]byte(token)), Local: true}, s.memory.Conn()); err != nil {
		t.Fatal(err)
	}
	play(s, bus.KMSRevoke, "kms", func(r bus.RevokeRequest) (bus.RevokeReply, error) {
		if r.Device != "cam-1" {
			return bus.RevokeReply{}, bus.Refuse(bus.CodeNotFound, "device %s is not enrolled", r.Device)
		}
		return bus.RevokeReply{Lease: time.Minute, Device: bus.DeviceRecord{Device: r.Device, Streams: []gk.StreamID{"front"}}}, nil
	})
	return s
}

func play[Req, Rep any](s *site, c bus.Question[Req, Rep], name string, f func(Req) (Rep, error)) {
	if _, err := c.Serve(s.memory.Conn(), func(_ context.Context, r Req) (Rep, error) {
		s.mu.Lock()
		s.asked = append(s.asked, name)
		s.mu.Unlock()
		return f(r)
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) disarming(rep bus.DisarmDeviceReply) {
	play(s, bus.ProcessingDisarm, "processing", func(r bus.DisarmDeviceRequest) (bus.DisarmDeviceReply, error) {
		if r.Device != "cam-1" || !slices.Equal(r.Streams, []gk.StreamID{"front"}) || r.Lease != time.Minute {
			s.t.Errorf("asked to disarm %+v", r)
		}
		return rep, nil
	})
}

func (s *site) cutting() {
	play(s, bus.BrokerCut, "broker", func(bus.CutRequest) (bus.CutReply, error) { return bus.CutReply{Connections: 1}, nil })
}

func (s *site) revoke(device string) (int, bus.Revocation, time.Duration) {
	req := httptest.NewRequestWithContext(s.t.Context(), "POST", "http://127.0.0.1/v1/devices/"+device+"/revoke", strings.NewReader(""))
	req.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	began := time.Now()
	s.api.Handler().ServeHTTP(rec, req)
	var out bus.Revocation
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
		s.t.Error(err, rec.Body)
	}
	return rec.Code, out, time.Since(began)
}

func TestRevokeReturnsWhenAllConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.disarming(bus.DisarmDeviceReply{Confirmed: []gk.TransportID{"t1", "t2"}, Sessions: 1})
		s.cutting()
		code, out, took := s.revoke("cam-1")
		if code != 200 || out.How != bus.RevokedByDisarming || !out.Cut || out.Sessions != 1 || len(out.Confirmed) != 2 || took > time.Second {
			t.Errorf("%d %+v after %v", code, out, took)
		}
		if !slices.Equal(s.asked, []string{"kms", "processing", "broker"}) {
			t.Errorf("asked in the order %v", s.asked)
		}
	})
}

func TestRevokeWaitsTheLeaseOut(t *testing.T) {
	for name, prepare := range map[string]func(*site){
		"processing is away": func(s *site) { s.cutting() },
		"a transport is missing": func(s *site) {
			s.disarming(bus.DisarmDeviceReply{Confirmed: []gk.TransportID{"t1"}, Missing: []gk.TransportID{"t2"}})
			s.cutting()
		},
		"no transport is known": func(s *site) { s.disarming(bus.DisarmDeviceReply{}); s.cutting() },
		"processing hangs": func(s *site) {
			play(s, bus.ProcessingDisarm, "processing", func(bus.DisarmDeviceRequest) (bus.DisarmDeviceReply, error) {
				time.Sleep(time.Hour)
				return bus.DisarmDeviceReply{}, nil
			})
			s.cutting()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			prepare(s)
			code, out, took := s.revoke("cam-1")
			if code != 200 || out.How != bus.RevokedByLease || !out.Cut || took != time.Minute {
				t.Errorf("%s: %d %+v after %v", name, code, out, took)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

func TestRevokeTellsWhatItCouldNotDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.disarming(bus.DisarmDeviceReply{Confirmed: []gk.TransportID{"t1"}})
		if code, out, _ := s.revoke("cam-1"); code != 200 || out.Cut {
			t.Errorf("without a broker of ours: %d %+v", code, out)
		}
		if code, _, _ := s.revoke("cam-9"); code != 404 {
			t.Errorf("an unknown device: %d", code)
		}
		if code, _, _ := s.revoke("cam%2F1"); code != 400 {
			t.Errorf("no device's name: %d", code)
		}
		if n := len(s.asked); n != 3 {
			t.Errorf("asked %v", s.asked)
		}
	})
}
