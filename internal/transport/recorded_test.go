package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestRecordedCommandsDoNothing: every command of a session's life, held and freed,
// disarmed and released, comes again, as from a bus that kept it, while the stream's
// next session runs under the same term. Nothing of the next one changes, and nothing
// of the first comes back.
func TestRecordedCommandsDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t, time.Minute)
		ctx, me := context.Background(), string(l.here.Transport)
		type command struct {
			name  string
			again func() error
		}
		var recorded []command
		do := func(name string, f func() error) {
			t.Helper()
			if err := f(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			recorded = append(recorded, command{name, f})
			if !l.second() && name != "disarm" && name != "release" {
				t.Fatalf("nothing is delivered after %s", name)
			}
		}
		assign := bus.AssignRequest{Stream: testStream, Session: l.session, SSRC: l.ssrc, Payload: mp2t, Term: 1}
		arm := l.armRequest(1)
		hold := func(held bool, beat time.Duration) func() error {
			req := bus.HoldRequest{Stream: testStream, Held: held, Term: 1, Beat: beat}
			return func() error {
				_, err := bus.TransportHold.Do(ctx, l.conn, me, req)
				return err
			}
		}
		disarm := bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: 1, Beat: 3}
		release := bus.ReleaseStream{Stream: testStream, Session: l.session, Term: 1}
		begin := bus.SwitchRequest{Stream: testStream, Session: l.session, Epoch: 1, First: 1, Term: 1}
		report := bus.ReportRequest{Term: 1, Report: bus.DeviceReport{Stream: testStream, Session: l.session, Number: 1, Epoch: 1, From: 1, To: 3}}
		do("assign", func() error { _, err := bus.TransportAssign.Do(ctx, l.conn, me, assign); return err })
		do("arm", func() error { _, err := bus.TransportArm.Do(ctx, l.conn, me, arm); return err })
		do("switch", func() error { _, err := bus.TransportSwitch.Do(ctx, l.conn, me, begin); return err })
		do("report", func() error { _, err := bus.TransportReport.Do(ctx, l.conn, me, report); return err })
		do("hold", hold(true, 1))
		do("free", hold(false, 2))
		do("disarm", func() error { _, err := bus.TransportDisarm.Do(ctx, l.conn, me, disarm); return err })
		l.assign(mp2t) // so that there is something to release
		do("release", func() error { _, err := bus.TransportRelease.Do(ctx, l.conn, me, release); return err })

		first := l.session
		l.session, l.ssrc = gk.SessionID{2}, l.ssrc+1
		l.assign(mp2t)
		if err := l.armOn(2, l.lease(time.Hour)); err != nil {
			t.Fatal(err)
		}
		l.seal = l.sealer(2)
		l.begin(2, l.index+1)
		held, disarmed := len(l.seen(gk.EventStreamHeld)), len(l.seen(gk.EventStreamDisarmed))
		for range 2 {
			for _, c := range recorded {
				_ = c.again() // what it is answered does not matter
				if !l.second() {
					t.Errorf("the next session is not delivered after a recorded %s", c.name)
				}
				st := l.svc.streams[testStream]
				if st.session(first) != nil || len(l.svc.routes) != 1 {
					t.Errorf("a recorded %s brings the first session back", c.name)
				}
				if st.held != nil || len(l.seen(gk.EventStreamHeld)) != held || len(l.seen(gk.EventStreamDisarmed)) != disarmed {
					t.Errorf("a recorded %s holds or disarms the stream", c.name)
				}
			}
		}

		// What is ordered now, or by the next in command, is done.
		if err := hold(true, time.Hour)(); err != nil || l.svc.streams[testStream].held == nil {
			t.Errorf("a later order to hold: %v", err)
		}
		if _, err := bus.TransportHold.Do(ctx, l.conn, me, bus.HoldRequest{Stream: testStream, Term: 2, Beat: 1}); err != nil || l.svc.streams[testStream].held != nil {
			t.Errorf("an order under the next term: %v", err)
		}
		if _, err := bus.TransportDisarm.Do(ctx, l.conn, me, bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: 2, Beat: 1}); err != nil || l.second() {
			t.Errorf("disarming under the next term: %v", err)
		}
	})
}

// A transport that started anew does not know what it obeyed before: orders that name
// its start before are refused.
func TestOrdersForAnotherStartAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		l := newLeased(t, time.Minute)
		me := string(l.here.Transport)
		before := l.here.Started.Add(-time.Minute)
		_, err := bus.TransportDisarm.Do(ctx, l.conn, me, bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: 1, Beat: 1, Started: before})
		if bus.CodeOf(err) != bus.CodeConflict || !l.second() {
			t.Errorf("disarmed by an order from before: %v", err)
		}
		_, err = bus.TransportHold.Do(ctx, l.conn, me, bus.HoldRequest{Stream: testStream, Held: true, Term: 1, Beat: 1, Started: before})
		if bus.CodeOf(err) != bus.CodeConflict || l.svc.streams[testStream].held != nil {
			t.Errorf("held by an order from before: %v", err)
		}
		if _, err := bus.TransportDisarm.Do(ctx, l.conn, me, bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: 1, Beat: 1, Started: l.here.Started}); err != nil || l.second() {
			t.Errorf("not disarmed: %v", err)
		}
	})
}

// A session that is asked for again with another SSRC is not there twice.
func TestSessionKeepsItsSSRC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t, time.Minute)
		_, err := bus.TransportAssign.Do(context.Background(), l.conn, string(l.here.Transport), bus.AssignRequest{Stream: testStream, Session: l.session, SSRC: l.ssrc + 1, Payload: mp2t, Term: 1})
		if bus.CodeOf(err) != bus.CodeConflict || len(l.svc.routes) != 1 {
			t.Errorf("%d routes, %v", len(l.svc.routes), err)
		}
	})
}

// What is remembered of sessions that are over is bounded.
func TestSessionsThatAreOverAreForgotten(t *testing.T) {
	st := &stream{}
	for n := range byte(keptOver + 2) {
		st.end(gk.SessionID{n})
	}
	if len(st.over) != keptOver || st.over[keptOver-1] != (gk.SessionID{keptOver + 1}) {
		t.Errorf("%v", st.over)
	}
}
