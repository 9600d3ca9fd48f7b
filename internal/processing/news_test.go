package processing

import (
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestOtherTransportsHaveNoSay: a transport that does not carry a session neither
// changes its key nor keeps it alive.
func TestOtherTransportsHaveNoSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		look := func() (session gk.SessionID, epoch gk.Epoch) {
			d.look(func() { session, epoch = d.session, d.epoch })
			return session, epoch
		}
		conn := w.memory.Conn()
		accuse := func(by gk.TransportID) gk.Epoch {
			session, epoch := look()
			if err := bus.TransportProof.Tell(conn, bus.Proof{Transport: by, Stream: "cam-1", Session: session, Epoch: epoch, What: "two-writers"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			_, epoch = look()
			return epoch
		}
		_, before := look()
		if e := accuse("t2"); e != before {
			t.Errorf("a transport that does not carry the session changed its key: epoch %d", e)
		}
		if e := accuse("t1"); e != before+1 {
			t.Errorf("the transport that carries it: epoch %d", e)
		}

		session, epoch := look()
		d.kill()
		again := &fakeDevice{w: w, scope: d.scope, signer: d.signer, rng: d.rng, used: map[gk.Epoch]gk.SessionID{}, offer: d.offer, suites: d.suites, high: 1}
		again.run()
		for range 30 {
			_ = bus.TransportFirst.Tell(conn, bus.FirstPacket{Transport: "t2", Stream: "cam-1", Session: session, Epoch: epoch})
			_ = bus.TransportStatus.Tell(conn, bus.StreamStatus{Transport: "t2", Stream: "cam-1", Session: session, Epoch: epoch, Delivered: 1000})
			time.Sleep(100 * time.Millisecond)
		}
		again.look(func() {
			if again.epoch == 0 {
				t.Error("a transport that does not carry a session kept it alive")
			}
		})
		again.kill()
		conn.Close()
		w.close()
	})
}
