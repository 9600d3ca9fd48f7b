package app

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
)

// steady is a source of a constant bit rate.
type steady struct {
	every time.Duration // between packets of 1316 bytes
	next  time.Time
	count uint32
}

func (s *steady) Probe(context.Context) (gkrp.Payload, error) {
	return gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90000, Encoding: "MP2T"}, nil
}

func (s *steady) Read(ctx context.Context, b *device.Batch) error {
	if s.next.IsZero() {
		s.next = time.Now()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(s.next)):
	}
	b.Units, b.Break = b.Units[:0], ""
	for now := time.Now(); !s.next.After(now) && len(b.Units) < 32; s.next = s.next.Add(s.every) {
		payload := make([]byte, 1316)
		for i := 0; i < len(payload); i += 188 {
			payload[i], payload[i+1], payload[i+2], payload[i+3] = 0x47, 0x1f, 0xff, 0x10
		}
		s.count++
		b.Units = append(b.Units, device.Unit{Payload: payload, Timestamp: uint32(s.count * 95), Type: 33})
	}
	return nil
}

func (s *steady) Dropped() uint64 { return 0 }
func (s *steady) Close() error    { return nil }

// breath lies between two rotations: without it the transport's slots for
// retiring epochs fill up, and a rotation that is not urgent waits for one.
const breath = 40 * time.Millisecond

// BenchmarkRotation changes the key of a 10 Mb/s stream again and again: real
// sockets, real broker, real store. Beside it stands the round trip of a message
// of the same size over the same broker, which no rotation can do without.
func BenchmarkRotation(b *testing.B) {
	cfg := testConfig(b)
	cfg.RotateEvery = time.Hour
	log := slog.New(slog.DiscardHandler)
	watch := stopwatch{decided: map[gk.Epoch]time.Time{}, ready: map[gk.Epoch]time.Time{}, first: map[gk.Epoch]time.Time{}}
	n, stop := startNode(b, cfg, log)
	if err := n.Hear(watch.service); err != nil {
		b.Fatal(err)
	}
	id, state := n.join(b, benchStream)
	courier, err := device.Connect(b.Context(), id, 10*time.Second, log)
	if err != nil {
		b.Fatal(err)
	}
	started := make(chan struct{})
	agent, err := device.New(device.Config{
		Identity: id, State: state, Log: log,
		Tell: func(e gk.Event) {
			watch.device(e)
			if e.Kind == gk.EventSessionStarted {
				close(started)
			}
		},
		Streams: []device.StreamConfig{{Source: &steady{every: 1316 * 8 * time.Second / 10_000_000}}},
	}, courier)
	if err != nil {
		b.Fatal(err)
	}
	sending, halt := context.WithCancel(b.Context())
	sent := make(chan error, 1)
	go func() { sent <- agent.Run(sending) }()
	<-started

	nc, err := n.connect(bus.RoleAPI)
	if err != nil {
		b.Fatal(err)
	}
	conn := bus.NewNATS(nc)
	trip := roundTrip(b, n)
	for b.Loop() {
		b.StopTimer()
		time.Sleep(breath)
		b.StartTimer()
		if _, err := bus.ProcessingRotate.Do(b.Context(), conn, bus.RotateRequest{Stream: benchStream, Reason: gk.ReasonOperator, Wait: true}); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	halt()
	err = errors.Join(err, <-sent)
	nc.Close()
	courier.Close()
	stop()
	if err != nil {
		b.Fatal(err)
	}
	ready, first := watch.since(watch.ready), watch.since(watch.first)
	b.ReportMetric(ms(quantile(ready, 0.5)), "ready-p50-ms")
	b.ReportMetric(ms(quantile(ready, 0.99)), "ready-p99-ms")
	b.ReportMetric(ms(quantile(first, 0.5)), "first-packet-p50-ms")
	b.ReportMetric(float64(quantile(ready, 0.5))/float64(trip), "x-mqtt-round-trip")
}

const benchStream = "bench"

// stopwatch takes the times of rotations from the events of device and services.
type stopwatch struct {
	mu                    sync.Mutex
	decided, ready, first map[gk.Epoch]time.Time
}

func (w *stopwatch) device(e gk.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == gk.EventRotationDone {
		w.ready[e.Epoch] = e.At
	}
}

func (w *stopwatch) service(e gk.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.Kind == gk.EventRotationDone && e.Reason != gk.ReasonStart:
		w.decided[e.Epoch] = e.At.Add(-e.Took)
	case e.Kind == gk.EventEpochFirstPacket:
		w.first[e.Epoch] = e.At
	}
}

// since gives, for every rotation, the time from its decision to then.
func (w *stopwatch) since(then map[gk.Epoch]time.Time) (all []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for epoch, at := range w.decided {
		if t, ok := then[epoch]; ok {
			all = append(all, t.Sub(at))
		}
	}
	return all
}

// quantile is nearest-rank; 0 where nothing was measured.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// roundTrip measures a message of a sealed key's size to a device and back.
func roundTrip(b *testing.B, n *Node) time.Duration {
	b.Helper()
	dial := func(role, clientID string) bus.Courier {
		creds, err := certify(b.Context(), n.certifier(b), role, "yardstick")
		if err != nil {
			b.Fatal(err)
		}
		c, err := bus.DialMQTT(b.Context(), bus.MQTTConfig{Address: n.mqtt, ServerName: "localhost", ClientID: clientID, Certificate: creds.chain(), CA: creds.pool()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		return c
	}
	service := dial("processing", controllerClientID("yardstick"))
	listener := n.yardstickDevice(b)
	down, up := gkrp.Topic("yardstick", "s", gkrp.Down), gkrp.Topic("yardstick", "s", gkrp.Up)
	back := make(chan struct{}, 1)
	if err := errors.Join(
		listener.Listen(down, func(_ string, p []byte) { _ = listener.Send(up, p) }),
		service.Listen(up, func(string, []byte) { back <- struct{}{} }),
	); err != nil {
		b.Fatal(err)
	}
	var all []time.Duration
	for range 200 {
		began := time.Now()
		if err := service.Send(down, make([]byte, 1300)); err != nil {
			b.Fatal(err)
		}
		<-back
		all = append(all, time.Since(began))
	}
	return quantile(all, 0.5)
}

// certifier is a connection that may ask for anybody's certificate.
func (n *Node) certifier(t testing.TB) bus.Conn {
	t.Helper()
	n.broker.gate.users["certifier"] = user{password: "certifier", permissions: allow([]string{"gk.kms.certify.>"}, []string{"_INBOX.certifier.>"})}
	nc, err := n.connect("certifier")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return bus.NewNATS(nc)
}

// join makes a device what an operator and a device make it.
func (n *Node) join(t testing.TB, name string) (device.Identity, *device.State) {
	t.Helper()
	client, err := NewClient(ClientConfig{Data: n.cfg.Data})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Token string }
	if err := client.Do(t.Context(), "POST", "/v1/enroll", map[string]string{"device": name}, &answer); err != nil {
		t.Fatal(err)
	}
	state, err := device.OpenState(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	id, err := device.Join(t.Context(), answer.Token, state)
	if err != nil {
		t.Fatal(err)
	}
	return id, state
}

// yardstickDevice joins a device of its own and connects it.
func (n *Node) yardstickDevice(b *testing.B) bus.Courier {
	b.Helper()
	id, _ := n.join(b, "yardstick")
	c, err := device.Connect(b.Context(), id, 10*time.Second, n.opts.Log)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}
