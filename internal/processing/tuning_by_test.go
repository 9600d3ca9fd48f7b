package processing

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestNamesOfOperatorsAreBounded: they stand in the record and in the audit trail.
func TestNamesOfOperatorsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, behaviourConfig())
		time.Sleep(5 * time.Second)
		ctx, conn := context.Background(), w.memory.Conn()
		for n, want := range map[int]bus.Code{bus.MaxNote: "", bus.MaxNote + 1: bus.CodeBadRequest} {
			by := strings.Repeat("x", n)
			_, err := bus.ProcessingTuning.Do(ctx, conn, bus.TuningRequest{Stream: "cam-1", Do: bus.TuningAuto, By: by})
			if err == nil != (want == "") || err != nil && bus.CodeOf(err) != want {
				t.Errorf("tuning by a name of %d: %v", n, err)
			}
			_, err = bus.ProcessingFleet.Do(ctx, conn, bus.FleetRequest{By: by})
			if err == nil != (want == "") || err != nil && bus.CodeOf(err) != want {
				t.Errorf("fleet tuning by a name of %d: %v", n, err)
			}
		}
		conn.Close()
		d.kill()
		w.close()
	})
}
