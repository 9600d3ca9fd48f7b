package processing

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// TestFleetWaitsForEvidence: where next to nothing is known, nothing is written down for
// new streams to begin with, and whoever asks is told why.
func TestFleetWaitsForEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, behaviourConfig())
		serveSeals(w)
		d := w.enroll("cam-1")
		d.run()
		f := w.film(d)
		time.Sleep(time.Minute)
		ctx, conn := context.Background(), w.memory.Conn()
		i, err := bus.ProcessingFleet.Do(ctx, conn, bus.FleetRequest{})
		if err != nil || i.Streams != 1 || i.Proposal == nil {
			t.Errorf("%+v, %v", i, err)
		}
		if _, err := bus.ProcessingFleet.Do(ctx, conn, bus.FleetRequest{Apply: true}); bus.CodeOf(err) != bus.CodeConflict {
			t.Errorf("applied: %v", err)
		}
		if _, err := w.records.Get(ctx, fleetKey); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("what new streams begin with: %v", err)
		}
		conn.Close()
		f.stop()
		d.kill()
		w.close()
	})
}
