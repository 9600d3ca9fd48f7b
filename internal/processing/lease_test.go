package processing

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// live starts a world with one sending device.
func live(t *testing.T) (*world, *fakeDevice) {
	t.Helper()
	w, d := newCamera(t, testConfig())
	for w.count(gk.EventSessionStarted) == 0 {
		time.Sleep(100 * time.Millisecond)
	}
	return w, d
}

func (w *world) revoke(id gk.DeviceID) {
	w.kms.mu.Lock()
	defer w.kms.mu.Unlock()
	r := w.kms.devices[id]
	r.Revoked = true
	w.kms.devices[id] = r
}

func (f *fakeTransport) voids() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.void
}

func TestLeasesOutlastSlowAnswersAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		for range 5 {
			time.Sleep(time.Minute)
			w.crash()
			w.start()
		}
		w.kms.mu.Lock()
		w.kms.slow = 4 * time.Second
		w.kms.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.kms.mu.Lock()
		w.kms.slow, w.kms.mute = 0, true // shorter than a lease
		w.kms.mu.Unlock()
		time.Sleep(45 * time.Second)
		w.kms.mu.Lock()
		w.kms.mute = false
		w.kms.mu.Unlock()
		time.Sleep(time.Minute)
		if n := w.tr.voids(); n != 0 {
			t.Errorf("%d packets came after their lease", n)
		}
		d.kill()
		w.close()
		if n := w.count(gk.EventSessionStarted); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// Whatever is cut off from whatever, leases end a length after the key
// management service was last asked.
func TestLeasesEndWithoutTheKeyService(t *testing.T) {
	for _, cut := range []string{"key service", "transport"} {
		synctest.Test(t, func(t *testing.T) {
			w, d := live(t)
			time.Sleep(20 * time.Second)
			w.revoke("cam-1")
			revoked := time.Now()
			w.kms.mu.Lock()
			w.kms.mute = cut == "key service"
			w.kms.mu.Unlock()
			w.tr.mu.Lock()
			w.tr.off = cut == "transport"
			w.tr.mu.Unlock()
			time.Sleep(2 * time.Minute)
			w.tr.mu.Lock()
			end := w.tr.lease
			w.tr.mu.Unlock()
			if d := end.Sub(revoked); d > time.Minute || d < 40*time.Second {
				t.Errorf("%s cut off: the lease ran for %v after the revocation", cut, d)
			}
			d.kill()
			w.close()
		})
	}
}

// A revocation that nobody tells processing of is found out by the next renewal.
func TestRevocationIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		w.revoke("cam-1")
		time.Sleep(leaseEvery + time.Second)
		var overs []gkrp.Code
		d.look(func() { overs = slices.Clone(d.overs) })
		if !slices.Equal(overs, []gkrp.Code{gkrp.CodeRevoked}) {
			t.Errorf("the device's session ended with %q", overs)
		}
		w.tr.mu.Lock()
		armed := len(w.tr.armed)
		w.tr.mu.Unlock()
		if armed != 0 {
			t.Errorf("%d keys are armed", armed)
		}
		d.kill()
		w.close()
	})
}

func TestRevokedDeviceIsDisarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		conn := w.memory.Conn()
		ask := bus.DisarmDeviceRequest{Device: "cam-1", Streams: []gk.StreamID{"cam-1"}, Lease: time.Minute}
		w.revoke("cam-1")
		rep, err := bus.ProcessingDisarm.Do(t.Context(), conn, ask)
		if err != nil || rep.Sessions != 1 || !slices.Equal(rep.Confirmed, []gk.TransportID{"t1"}) || len(rep.Missing) != 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		w.tr.mu.Lock()
		armed := len(w.tr.armed)
		w.tr.mu.Unlock()
		if armed != 0 {
			t.Errorf("%d keys are armed", armed)
		}
		synctest.Wait()
		d.look(func() {
			if !slices.Equal(d.overs, []gkrp.Code{gkrp.CodeRevoked}) {
				t.Errorf("the device's session ended with %q", d.overs)
			}
		})
		d.kill()
		d.run() // it tries again
		time.Sleep(10 * time.Second)
		d.look(func() {
			if d.epoch != 0 || len(d.refusals)+len(d.overs) == 0 {
				t.Errorf("epoch %d, refusals %q, ends %q", d.epoch, d.refusals, d.overs)
			}
		})
		d.kill()

		// One that cannot be reached may hold keys until its lease has run out, and
		// is named; one that was not heard for so long cannot.
		w.tr.mu.Lock()
		w.tr.off = true
		w.tr.mu.Unlock()
		time.Sleep(10 * time.Second)
		if rep, err := bus.ProcessingDisarm.Do(t.Context(), conn, ask); err != nil || !slices.Equal(rep.Missing, []gk.TransportID{"t1"}) {
			t.Errorf("%+v, %v", rep, err)
		}
		time.Sleep(time.Minute)
		if rep, err := bus.ProcessingDisarm.Do(t.Context(), conn, ask); err != nil || len(rep.Missing)+len(rep.Confirmed) != 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		w.close()
	})
}
