package processing

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// film tells the windows of an encoder as the transport of a device's session, in
// step with time.
type film struct {
	w    *world
	d    *fakeDevice
	e    *encoder
	quit chan struct{}
	done chan struct{}
}

// filmed is a world in which cam-1 films, with the settings that behaviour is tested by.
func filmed(t *testing.T) (*world, *fakeDevice, *film) {
	w, d := newCamera(t, behaviourConfig())
	return w, d, w.film(d)
}

// end stops film, device and world.
func (f *film) end() {
	f.stop()
	f.d.kill()
	f.w.close()
}

func (w *world) film(d *fakeDevice) *film {
	f := &film{w: w, d: d, e: newEncoder(1, own), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		t := time.NewTicker(feature.Hop)
		defer t.Stop()
		for {
			select {
			case <-f.quit:
				return
			case <-t.C:
				var win feature.Window
				var session gk.SessionID
				var epoch gk.Epoch
				d.look(func() { win, session, epoch = f.e.hop(), d.session, d.epoch })
				_ = bus.TransportWindow.Tell(w.tr.conn, bus.StreamWindow{
					Transport: w.tr.id, Stream: d.scope.Stream, Session: session, Epoch: epoch,
					Form: uint8(feature.H264), Window: win.AppendTo(nil),
				})
			}
		}
	}()
	return f
}

func (f *film) stop() {
	close(f.quit)
	<-f.done
}

// style changes the encoder between two windows.
func (f *film) style(s style) { f.d.look(func() { f.e.style = s }) }

func (w *world) alerts() []bus.Alert {
	rep, err := bus.ProcessingAlerts.Do(context.Background(), w.memory.Conn(), bus.AlertsRequest{})
	if err != nil {
		w.t.Error(err)
	}
	return rep.Alerts
}

func (w *world) profile(do string) bus.ProfileInfo {
	i, err := bus.ProcessingProfile.Do(context.Background(), w.memory.Conn(), bus.ProfileRequest{Stream: "cam-1", Do: do})
	if err != nil {
		w.t.Error(err)
	}
	return i
}

func behaviourConfig() Config {
	c := testConfig()
	c.Behaviour.Learn, c.Behaviour.Provisional, c.Behaviour.Probation = 30*time.Second, 10*time.Second, 8*time.Second
	return c
}

func (w *world) reasons() map[gk.Reason]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := map[gk.Reason]int{}
	for _, e := range w.events {
		if e.Kind == gk.EventRotationDone {
			n[e.Reason]++
		}
	}
	return n
}

// TestSwappedSourceChangesTheKeyOnce, with everything between: the device confirms
// the new key, one alert tells of it, and a restart keeps profile and alert.
func TestSwappedSourceChangesTheKeyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, f := filmed(t)
		time.Sleep(40 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature || !i.Stored || i.Version != 2 {
			t.Errorf("after 40 s: %+v", i)
		}
		time.Sleep(time.Minute)
		if n := w.count(gk.EventAlertOpened); n != 0 || w.reasons()[gk.ReasonSource] != 0 {
			t.Errorf("clean: %d alerts, rotations %v", n, w.reasons())
		}
		f.style(foreign)
		time.Sleep(5 * time.Second)
		a := w.alerts()
		if len(a) != 1 || a[0].Class != bus.ClassSource || a[0].Done != bus.DoneRotated || a[0].Rotated == 0 {
			t.Errorf("after the swap: %+v", a)
		}
		e, err := bus.ProcessingExplain.Do(context.Background(), w.memory.Conn(), bus.ExplainRequest{Stream: "cam-1"})
		if err != nil || len(e.Open) != 1 || len(e.Detectors) < 10 || e.Responses[bus.ClassSource] != bus.RespondRotate {
			t.Errorf("explained: %+v, %v", e, err)
		}
		f.style(own)
		time.Sleep(time.Minute)
		if r := w.reasons(); r[gk.ReasonSource] != 1 {
			t.Errorf("rotations %v", r)
		}
		if a := w.alerts(); len(a) != 1 || a[0].Outcome != bus.OutcomeCalm {
			t.Errorf("calm again: %+v", a)
		}

		opened := a[0].Opened
		w.crash()
		time.Sleep(2 * time.Second)
		w.start()
		time.Sleep(20 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature || i.Version != 2 || i.Probation != 0 {
			t.Errorf("after a restart: %+v", i)
		}
		if a := w.alerts(); len(a) != 1 || a[0].ID != "cam-1.1" || a[0].Outcome != bus.OutcomeCalm || !a[0].Opened.Equal(opened) {
			t.Errorf("after a restart: %+v", a)
		}
		f.style(foreign)
		time.Sleep(5 * time.Second)
		if a := w.alerts(); len(a) != 2 || a[0].ID != "cam-1.2" || a[0].Done != bus.DoneRotated {
			t.Errorf("a second swap after a restart: %+v", a)
		}
		f.stop()
		if i := w.profile(bus.ProfileRelearn); i.Stage != bus.StageLearning {
			t.Errorf("relearn: %+v", i)
		}
		d.kill()
		w.close()
		if d.unopened != 0 {
			t.Errorf("%d packets could not be opened", d.unopened)
		}
	})
}

// TestProfileOfAnotherVersionIsLearnedAnew: an upgrade of the program is nobody's attack.
func TestProfileOfAnotherVersionIsLearnedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, f := filmed(t)
		time.Sleep(40 * time.Second)
		before := w.profile("")
		w.crash()
		ctx := context.Background()
		e, err := w.records.Get(ctx, "profile.cam-1")
		if err != nil {
			t.Fatal(err)
		}
		var have envelope
		if err := cbor.Unmarshal(e.Value, &have); err != nil {
			t.Fatal(err)
		}
		conn, place := w.memory.Conn(), bus.SealPlace{Kind: bus.SealedProfile, Stream: "cam-1", Version: have.Version}
		opened, err := bus.KMSUnseal.Do(ctx, conn, bus.UnsealRequest{Place: place, Sealed: have.Content})
		if err != nil {
			t.Fatal(err)
		}
		p, err := unpackProfile(opened.Content)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Modes {
			p.Modes[i].Anchor.Version--
		}
		old, err := packProfile(p)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := bus.KMSSeal.Do(ctx, conn, bus.SealRequest{Place: place, Content: old})
		if err != nil {
			t.Fatal(err)
		}
		have.Content = sealed.Sealed
		value, err := keepMode.Marshal(have)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.records.Put(ctx, "profile.cam-1", value); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageLearning || !strings.Contains(i.Why, "another version") {
			t.Errorf("%+v", i)
		}
		time.Sleep(45 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature || i.Probation != 0 || i.Version <= before.Version || !i.Stored {
			t.Errorf("learned anew: %+v, before: %+v", i, before)
		}
		if a := w.alerts(); len(a) != 0 || w.count(gk.EventProfileRefused) != 0 {
			t.Errorf("an upgrade raises %+v", a)
		}
		w.crash()
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.profile(""); i.Stage != bus.StageMature {
			t.Errorf("after one more restart: %+v", i)
		}
		f.end()
	})
}

// TestTamperedProfileIsRefused, whatever was done to it.
func TestTamperedProfileIsRefused(t *testing.T) {
	for name, tamper := range map[string]func([]byte) []byte{
		"a bit":    func(b []byte) []byte { b[len(b)-9] ^= 1; return b },
		"cut":      func(b []byte) []byte { return b[:len(b)/2] },
		"nonsense": func([]byte) []byte { return []byte("nonsense") },
		"removed":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, f := filmed(t)
				time.Sleep(40 * time.Second)
				w.crash()
				ctx := context.Background()
				e, err := w.records.Get(ctx, "profile.cam-1")
				if err != nil {
					t.Fatal(err)
				}
				if tamper == nil {
					err = w.records.Erase(ctx, "profile.cam-1")
				} else {
					_, err = w.records.Put(ctx, "profile.cam-1", tamper(bytes.Clone(e.Value)))
				}
				if err != nil {
					t.Fatal(err)
				}
				w.start()
				time.Sleep(5 * time.Second)
				if i := w.profile(""); i.Stage != bus.StageLearning || !strings.Contains(i.Why, "refused") {
					t.Errorf("%+v", i)
				}
				if n := w.count(gk.EventProfileRefused); n != 1 {
					t.Errorf("told %d times", n)
				}
				time.Sleep(45 * time.Second)
				if i := w.profile(""); i.Stage != bus.StageMature || i.Probation == 0 || !i.Stored {
					t.Errorf("learned anew: %+v", i)
				}
				if a := w.alerts(); len(a) != 1 || a[0].Class != bus.ClassProfile || !a[0].Closed.IsZero() {
					t.Errorf("%+v", a)
				}
				if i := w.profile(bus.ProfileApprove); i.Probation != 0 || i.Approved.IsZero() {
					t.Errorf("approved: %+v", i)
				}
				f.end()
			})
		})
	}
}

func TestProofIsAnAlertAndRotatesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, behaviourConfig())
		time.Sleep(5 * time.Second)
		var session gk.SessionID
		var epoch gk.Epoch
		d.look(func() { session, epoch = d.session, d.epoch })
		start := time.Now()
		for range 100_000 { // a thief makes evidence as fast as packets
			_ = bus.TransportProof.Tell(w.tr.conn, bus.Proof{Transport: "t1", Stream: "cam-1", Session: session, Epoch: epoch, Index: 7, What: "two-writers"})
			if time.Since(start) > 0 {
				break
			}
		}
		time.Sleep(3 * time.Second)
		a := w.alerts()
		if len(a) != 1 || a[0].Class != bus.ClassProof || a[0].Severity != "critical" || a[0].Done != bus.DoneRotated || a[0].Epoch != epoch || a[0].Session != session {
			t.Errorf("%+v", a)
		}
		if r := w.reasons(); r[gk.ReasonProof] != 1 {
			t.Errorf("rotations %v", r)
		}
		d.kill()
		w.close()
	})
}

// TestTriggersStayWithinTheBudget: evidence that never ends rotates as often as the
// budget says, and an operator is told.
func TestTriggersStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, behaviourConfig())
		time.Sleep(3 * time.Second)
		for range 300 { // three seconds of a hundred thousand triggers a second
			var session gk.SessionID
			var epoch gk.Epoch
			d.look(func() { session, epoch = d.session, d.epoch })
			for range 1000 {
				_ = bus.TransportProof.Tell(w.tr.conn, bus.Proof{Transport: "t1", Stream: "cam-1", Session: session, Epoch: epoch, What: "two-writers"})
			}
			time.Sleep(10 * time.Millisecond)
		}
		if r := w.reasons(); r[gk.ReasonProof] < 1 || r[gk.ReasonProof] > w.cfg.Urgent.Burst {
			t.Errorf("rotations %v, the budget is %d", r, w.cfg.Urgent.Burst)
		}
		time.Sleep(time.Second)
		if a := w.alerts(); len(a) != 1 || a[0].Ask == "" {
			t.Errorf("%+v", a)
		}
		d.kill()
		w.close()
	})
}

// TestPlannedChangeIsStored, and that it was taken back as well.
func TestPlannedChangeIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, behaviourConfig())
		d := w.enroll("cam-1")
		d.run()
		f := w.film(d)
		time.Sleep(40 * time.Second)
		plan := func(long time.Duration) time.Time {
			i, err := bus.ProcessingPlanned.Do(context.Background(), w.memory.Conn(), bus.PlannedRequest{Stream: "cam-1", For: long})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
			w.crash()
			w.start()
			time.Sleep(3 * time.Second)
			return i.Planned
		}
		if until, now := plan(10*time.Minute), w.profile("").Planned; now.IsZero() || now.After(until) || until.Sub(now) > time.Second {
			t.Errorf("planned until %v, after a restart until %v", until, now)
		}
		if plan(0); !w.profile("").Planned.IsZero() {
			t.Error("what was taken back is planned again after a restart")
		}
		f.stop()
		d.kill()
		w.close()
	})
}

func TestAskingAboutBehaviour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, behaviourConfig())
		ctx, conn := context.Background(), w.memory.Conn()
		_, err := bus.ProcessingExplain.Do(ctx, conn, bus.ExplainRequest{Stream: "nobody"})
		if bus.CodeOf(err) != bus.CodeNotFound {
			t.Errorf("no stream: %v", err)
		}
		for _, id := range []string{"x", "cam-1.4"} {
			if _, err := bus.ProcessingAlerts.Do(ctx, conn, bus.AlertsRequest{ID: id}); err == nil {
				t.Errorf("alert %s is there", id)
			}
		}
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(3 * time.Second)
		if _, err := bus.ProcessingProfile.Do(ctx, conn, bus.ProfileRequest{Stream: "cam-1", Do: "paint"}); bus.CodeOf(err) != bus.CodeBadRequest {
			t.Errorf("unknown: %v", err)
		}
		if _, err := bus.ProcessingProfile.Do(ctx, conn, bus.ProfileRequest{Stream: "cam-1", Do: bus.ProfileApprove}); bus.CodeOf(err) != bus.CodeConflict {
			t.Errorf("approved what is not learned: %v", err)
		}
		i, err := bus.ProcessingPlanned.Do(ctx, conn, bus.PlannedRequest{Stream: "cam-1", For: time.Minute})
		if err != nil || !i.Planned.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("planned: %+v, %v", i, err)
		}
		d.kill()
		w.close()
	})
}
