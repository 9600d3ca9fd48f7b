package app

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
)

// onAir is the assembled product with one camera that sends for as long as it may.
type onAir struct {
	t         *testing.T
	node      *Node
	client    *Client
	delivered atomic.Int64
	ended     chan error // of the camera's agent

	mu     sync.Mutex
	events []gk.Event
}

const testLease = 5 * time.Second

func newOnAir(t *testing.T) *onAir {
	t.Helper()
	cfg, err := DefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data = t.TempDir()
	cfg.Listen, cfg.JoinListen, cfg.MQTTListen, cfg.MediaListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Lease = testLease
	o := &onAir{t: t}
	o.node, err = Start(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler), Version: "test", Tap: func(gk.StreamID, gk.Index, []byte) { o.delivered.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.node.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	if err := o.node.Hear(func(e gk.Event) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.events = append(o.events, e)
	}); err != nil {
		t.Fatal(err)
	}
	if o.client, err = NewClient(ClientConfig{Data: cfg.Data, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *onAir) join() device.Identity {
	o.t.Helper()
	var enrolled struct{ Token string }
	if err := o.client.Do(o.t.Context(), "POST", "/v1/enroll", map[string]string{"device": "cam-1"}, &enrolled); err != nil {
		o.t.Fatal(err)
	}
	state, err := device.OpenState(o.t.TempDir())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { state.Close() })
	id, err := device.Join(o.t.Context(), enrolled.Token, state)
	if err != nil {
		o.t.Fatal(err)
	}
	o.send(id, state)
	return id
}

// send starts the camera, and returns when its picture arrives.
func (o *onAir) send(id device.Identity, state *device.State) {
	o.t.Helper()
	log := slog.New(slog.DiscardHandler)
	courier, err := device.Connect(o.t.Context(), id, 10*time.Second, log)
	if err != nil {
		o.t.Fatal(err)
	}
	source, err := device.OpenSource("-", device.SourceOptions{Stdin: clip.Open()})
	if err != nil {
		o.t.Fatal(err)
	}
	agent, err := device.New(device.Config{Identity: id, State: state, Log: log, Streams: []device.StreamConfig{{Source: source}}}, courier)
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	o.ended = make(chan error, 1)
	ended := o.ended
	go func() {
		err := agent.Run(ctx)
		courier.Close()
		ended <- err
	}()
	o.t.Cleanup(stop)
	o.until("the picture", func(before int64) bool { return o.delivered.Load() > before+50 })
}

func (o *onAir) until(what string, ok func(before int64) bool) {
	o.t.Helper()
	before := o.delivered.Load()
	for deadline := time.Now().Add(sceneWait); !ok(before); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (o *onAir) revoke() bus.Revocation {
	o.t.Helper()
	var out bus.Revocation
	if err := o.client.Do(o.t.Context(), "POST", "/v1/devices/cam-1/revoke", nil, &out); err != nil {
		o.t.Fatal(err)
	}
	return out
}

// dark checks that nothing is delivered from a second after now on.
func (o *onAir) dark() {
	o.t.Helper()
	time.Sleep(time.Second)
	n := o.delivered.Load()
	time.Sleep(2 * time.Second)
	if more := o.delivered.Load() - n; more != 0 {
		o.t.Errorf("%d packets were delivered after the revocation", more)
	}
}

func TestRevokedCameraGoesDark(t *testing.T) {
	t.Parallel()
	o := newOnAir(t)
	id := o.join()
	out := o.revoke()
	if out.How != bus.RevokedByDisarming || !out.Cut || out.Sessions != 1 || len(out.Confirmed) != 1 || len(out.Missing) != 0 {
		t.Errorf("%+v", out)
	}
	o.dark()
	select {
	case err := <-o.ended:
		if err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(sceneWait):
		t.Error("the agent was not told")
	}
	if c, err := device.Connect(t.Context(), id, time.Second, slog.New(slog.DiscardHandler)); err == nil {
		c.Close()
		t.Error("a revoked device got in at the broker")
	}
	var list struct{ Devices []bus.DeviceRecord }
	if err := o.client.Do(t.Context(), "GET", "/v1/devices", nil, &list); err != nil || len(list.Devices) != 1 || !list.Devices[0].Revoked {
		t.Errorf("%+v, %v", list, err)
	}
	if again := o.revoke(); again.How != bus.RevokedByDisarming {
		t.Errorf("revoked again: %+v", again)
	}

	// Enrolled anew it is on the air again, and its old identity still is not.
	o.join()
	if c, err := device.Connect(t.Context(), id, time.Second, slog.New(slog.DiscardHandler)); err == nil {
		c.Close()
		t.Error("the identity that was revoked got in at the broker")
	}
}

// A transport that the order cannot reach goes dark by itself, and the answer
// waits for that.
func TestRevocationReachesWhoIsCutOff(t *testing.T) {
	t.Parallel()
	o := newOnAir(t)
	o.join()
	conns, err := o.node.broker.server.Connz(&server.ConnzOptions{Username: true})
	if err != nil {
		t.Fatal(err)
	}
	gate := o.node.broker.gate
	cut := false
	for _, c := range conns.Conns {
		if c.AuthorizedUser == string(bus.RoleTransport) {
			// No password opens its door again.
			gate.users[string(bus.RoleTransport)] = user{password: rand.Text()}
			cut = o.node.broker.server.DisconnectClientByID(c.Cid) == nil
		}
	}
	if !cut {
		t.Fatal("the transport's connection was not found")
	}
	o.until("more of the picture", func(before int64) bool { return o.delivered.Load() > before+50 })
	out := o.revoke()
	if out.How != bus.RevokedByLease || len(out.Missing) != 1 || out.Waited < testLease-100*time.Millisecond || out.Waited > testLease+5*time.Second {
		t.Errorf("%+v", out)
	}
	o.dark()
}

// With the bus gone nobody can vouch for anybody: media ends with its lease.
func TestMediaEndsWithoutTheBus(t *testing.T) {
	t.Parallel()
	o := newOnAir(t)
	o.join()
	down := time.Now()
	o.node.broker.stop()
	o.until("more of the picture", func(before int64) bool { return o.delivered.Load() > before+50 })
	time.Sleep(time.Until(down.Add(testLease)))
	o.dark()
}

// Leases are renewed: media goes on after the first would have run out. That none runs
// out for a moment is seen where no machine can stall: sim: TestLeasesAreRenewed.
func TestMediaOutlivesItsFirstLease(t *testing.T) {
	t.Parallel()
	o := newOnAir(t)
	o.join()
	time.Sleep(2 * testLease)
	o.until("more of the picture", func(before int64) bool { return o.delivered.Load() > before+50 })
}
