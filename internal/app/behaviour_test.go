package app

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
)

func TestBehaviourSettingsHaveTheServicesDefaults(t *testing.T) {
	cfg, err := DefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.behaviour(), processing.DefaultBehaviour(); !reflect.DeepEqual(got, want) {
		t.Errorf("settings give %+v, the service's defaults are %+v", got, want)
	}
}

// swapped is a clip whose encoder is replaced by another one in the middle.
type swapped struct {
	device.Source
	now atomic.Bool
}

func (s *swapped) Read(ctx context.Context, b *device.Batch) error {
	err := s.Source.Read(ctx, b)
	if s.now.Load() {
		for i := range b.Units {
			for ts := b.Units[i].Payload; len(ts) >= media.TSPacketSize; ts = ts[media.TSPacketSize:] {
				if media.PID(ts) > 0x1f {
					ts[2] ^= 0x20 // another multiplexer counts its PIDs otherwise
				}
			}
		}
	}
	return err
}

// TestSwappedEncoderOnRealSockets: learned, alarmed, rotated once and told, with
// nothing lost.
func TestSwappedEncoderOnRealSockets(t *testing.T) {
	if testing.Short() {
		t.Skip("takes twenty seconds")
	}
	s := newScene(t, func(c *Config) { c.LearnFor, c.ProvisionalAfter = 8*time.Second, 6*time.Second })
	source := &swapped{Source: device.NewClipSource(clip.Open(), true)}
	c := s.film("cam-1", source)
	client, err := NewClient(ClientConfig{Data: s.node.cfg.Data})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string, out any) {
		t.Helper()
		if err := client.Do(t.Context(), "GET", path, nil, out); err != nil {
			t.Fatal(err)
		}
	}
	var p bus.ProfileInfo
	s.until("a mature profile", func() bool {
		ask("/v1/streams/cam-1/profile", &p)
		return p.Stage == bus.StageMature
	})
	if n := s.told(gk.EventAlertOpened, c.id); len(n) != 0 {
		t.Errorf("before the swap: %+v", n)
	}
	onset := time.Now()
	source.now.Store(true)
	s.until("the new key", func() bool { return len(s.rotations(c.id)) > 0 })
	s.until("the alert", func() bool { return len(s.told(gk.EventAlertOpened, c.id)) > 0 })
	opened := s.told(gk.EventAlertOpened, c.id)[0].At
	at := len(c.sent())
	s.until("pictures under the new key", func() bool { return len(c.sent()) > at+100 })
	var list bus.AlertsReply
	ask("/v1/alerts?stream=cam-1", &list)
	if len(list.Alerts) != 1 || list.Alerts[0].Class != bus.ClassSource || list.Alerts[0].Done != bus.DoneRotated || len(list.Alerts[0].Evidence) == 0 {
		t.Errorf("%+v", list.Alerts)
	}
	var e bus.Explanation
	ask("/v1/streams/cam-1/explain", &e)
	if len(e.Open) != 1 || len(e.Detectors) == 0 {
		t.Errorf("%+v", e)
	}
	if e.Ingress == nil || e.Ingress.Rate == 0 || e.Ingress.Says == "" {
		t.Errorf("nothing is known of what came in at the device: %+v", e.Ingress)
	} else {
		t.Logf("at the device's ingress: %+v", *e.Ingress)
	}
	c.end()
	if n := s.rotations(c.id); len(n) != 1 || n[0].Reason != gk.ReasonSource {
		t.Errorf("rotations %+v", n)
	}
	if st, got := c.sent(), s.got(c.id); len(st) != len(got) {
		t.Errorf("%d packets sealed, %d delivered", len(st), len(got))
	}
	t.Logf("noticed %v after the swap: %v", opened.Sub(onset), list.Alerts[0].Evidence)
}
