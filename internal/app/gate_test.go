package app

import (
	"context"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"

	"github.com/nats-io/nats-server/v2/server"
)

func (ca *testCA) revoke(id gk.DeviceID) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	r := ca.records[id]
	r.Revoked = true
	ca.records[id] = r
}

func (b *testBroker) asks(f recordSource) { b.gate.records.Store(&f) }

func TestGateWantsThePresentEnrolment(t *testing.T) {
	b := newTestBroker(t)
	old := b.ca.issue(t, "gaitkeeper:device/cam-1")
	if _, err := b.dial(t, "cam-1", old); err != nil {
		t.Fatal(err)
	}
	present := b.ca.issue(t, "gaitkeeper:device/cam-1")
	if _, err := b.dial(t, "cam-1", old); err == nil {
		t.Error("the certificate of an earlier enrolment got in")
	}
	client, err := b.dial(t, "cam-1", present)
	if err != nil {
		t.Fatal(err)
	}

	b.ca.revoke("cam-1")
	// The connection that was taken over, and the refused one, are on their way out.
	for deadline := time.Now().Add(sceneWait); ; time.Sleep(time.Millisecond) {
		all, err := b.server.Connz(&server.ConnzOptions{MQTTClient: "cam-1", Account: accountDevices})
		if err != nil {
			t.Fatal(err)
		}
		if len(all.Conns) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections of one device", len(all.Conns))
		}
	}
	if n, err := b.disconnect("cam-1"); n != 1 || err != nil {
		t.Errorf("%d connections cut, %v", n, err)
	}
	for deadline := time.Now().Add(sceneWait); client.IsConnectionOpen(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a revoked device is still connected")
		}
	}
	if _, err := b.dial(t, "cam-1", present); err == nil {
		t.Error("a revoked device got in")
	}
	if _, err := b.dial(t, "cam-1", b.ca.issue(t, "gaitkeeper:device/cam-1")); err != nil {
		t.Errorf("enrolled anew: %v", err)
	}
	b.ca.mu.Lock()
	delete(b.ca.records, "cam-1")
	b.ca.mu.Unlock()
	if _, err := b.dial(t, "cam-1", present); err == nil {
		t.Error("a device without an enrolment got in")
	}
}

// While nobody can be asked, what was told last holds; whoever is not known
// stays outside.
func TestGateWithoutTheKeyService(t *testing.T) {
	b := newTestBroker(t)
	known, revoked, fresh := b.ca.issue(t, "gaitkeeper:device/cam-1"), b.ca.issue(t, "gaitkeeper:device/cam-2"), b.ca.issue(t, "gaitkeeper:device/cam-3")
	client, err := b.dial(t, "cam-1", known)
	if err != nil {
		t.Fatal(err)
	}
	b.ca.revoke("cam-2")
	_, _ = b.dial(t, "cam-2", revoked)
	for _, away := range []error{bus.ErrNoResponder, context.DeadlineExceeded, bus.Refuse(bus.CodeUnavailable, "the key store did not answer")} {
		b.asks(func(context.Context, gk.DeviceID) (bus.DeviceRecord, error) { return bus.DeviceRecord{}, away })
		client.Disconnect(0) // who takes over a session too often is held off by the server
		if client, err = b.dial(t, "cam-1", known); err != nil {
			t.Errorf("%v: a device that is known: %v", away, err)
		}
		if _, err := b.dial(t, "cam-2", revoked); err == nil {
			t.Errorf("%v: a device that is known to be revoked got in", away)
		}
		if _, err := b.dial(t, "cam-3", fresh); err == nil {
			t.Errorf("%v: a device that nobody knows got in", away)
		}
	}
	// A cut while nobody can be asked holds.
	if n, err := b.disconnect("cam-1"); n == 0 || err != nil {
		t.Errorf("%d connections cut, %v", n, err)
	}
	if _, err := b.dial(t, "cam-1", known); err == nil {
		t.Error("a device that was cut came back")
	}
}

// A device whose record was on its way when it was cut does not slip in.
func TestGateCutsWhoIsComingIn(t *testing.T) {
	b := newTestBroker(t)
	cert := b.ca.issue(t, "gaitkeeper:device/cam-1")
	b.asks(func(ctx context.Context, id gk.DeviceID) (bus.DeviceRecord, error) {
		r, err := b.ca.record(ctx, id)
		b.ca.revoke(id)
		_, _ = b.disconnect(id)
		return r, err
	})
	if _, err := b.dial(t, "cam-1", cert); err == nil {
		t.Error("connected on the record from before the cut")
	}
}
