package processing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestPriorIsSealed: what new streams start from is believed only as it was written:
// sealed, unchanged, the newest, and settings at all; even then it leads no further than
// two steps. What is refused is told of once.
func TestPriorIsSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		ctx, conn := context.Background(), w.memory.Conn()
		s := &Service{records: w.records, conn: conn, log: slog.New(slog.DiscardHandler)}
		s.cfg = testConfig()
		s.cfg.Host = host.Real{}
		s.ctx = ctx
		put := func(sensitivity float64) []byte {
			p := tune.DefaultParams()
			p.Sensitivity = sensitivity
			if err := s.keepPrior(ctx, p); err != nil {
				t.Fatal(err)
			}
			e, err := w.records.Get(ctx, fleetKey)
			if err != nil {
				t.Fatal(err)
			}
			return e.Value
		}
		is := func(what string, want float64) {
			t.Helper()
			if p, err := s.prior(ctx); err != nil || !p.Valid() || math.Abs(p.Sensitivity-want) > 1e-9 {
				t.Errorf("%s: new streams start at %g, %v; want %g", what, p.Sensitivity, err, want)
			}
		}
		is("nothing was found", 0.5)
		old := bytes.Clone(put(0.4))
		is("as it was written", 0.4)
		put(0.45)
		for i, bad := range []float64{math.NaN(), math.Inf(1), -1} {
			put(bad)
			is("no settings", 0.5)
			synctest.Wait()
			if n := w.count(gk.EventTuningRefused); n != i+1 {
				t.Errorf("told %d times of %d", n, i+1)
			}
		}
		put(0.001)
		if p, err := s.prior(ctx); err != nil || tune.CutoffOf(p.Sensitivity) > tune.MaxStep*tune.MaxStep*1.001 {
			t.Errorf("%+v, %v: more than two steps", p, err)
		}
		newest := bytes.Clone(put(0.45))
		is("as it was written again", 0.45)
		changed := bytes.Clone(newest)
		changed[len(changed)-1] ^= 1
		plain, err := cbor.Marshal(tune.Params{Sensitivity: 0.4, Persistence: 1, Weights: [tune.Groups]float64{1, 1, 1, 1}})
		if err != nil {
			t.Fatal(err)
		}
		for what, value := range map[string][]byte{"put back": old, "changed": changed, "in the clear": plain, "no record": {1, 2}} {
			before := w.count(gk.EventTuningRefused)
			if _, err := w.records.Put(ctx, fleetKey, value); err != nil {
				t.Fatal(err)
			}
			is(what, 0.5)
			is(what, 0.5)
			synctest.Wait()
			if n := w.count(gk.EventTuningRefused) - before; n != 1 {
				t.Errorf("%s: told %d times", what, n)
			}
		}
		put(0.42)
		is("found anew after it was refused", 0.42)
		if err := w.records.Erase(ctx, fleetKey); err != nil {
			t.Fatal(err)
		}
		told := w.count(gk.EventTuningRefused)
		is("removed", 0.5)
		is("removed", 0.5)
		synctest.Wait()
		if n := w.count(gk.EventTuningRefused) - told; n != 1 {
			t.Errorf("removed: told %d times", n)
		}
		conn.Close()
		w.close()
	})
}

// TestFleetWaitsForEvidence: where next to nothing is known, nothing is written down for
// new streams to begin with, and whoever asks is told why.
func TestFleetWaitsForEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, f := filmed(t)
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
		f.end()
	})
}
