package processing

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// said makes a stretch of scores.
func said(from time.Time, long time.Duration, level func() episode.Level) *tune.Trace {
	t := &tune.Trace{Layout: &tune.Layout{Kinds: accusing, Path: make([]bool, len(accusing))}, From: from}
	levels := make([]episode.Level, len(accusing))
	for range hops(long) {
		for i := range levels {
			levels[i] = level()
		}
		t.Add(levels, 0)
	}
	return t
}

func nothing() episode.Level { return 0 }

// quietWorld starts a world with one stream and no device that talks any more.
func quietWorld(t *testing.T) (*world, *stream) {
	w, d := newCamera(t, testConfig())
	time.Sleep(5 * time.Second)
	d.kill()
	return w, w.svc.find("cam-1")
}

// TestStoredScoresAreBounded: as they stand in the store, sealed, scores take 64 bytes a
// second of stream at most, whatever detectors say, and the shortest that is kept fits.
func TestStoredScoresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, st := quietWorld(t)
		rng := rand.New(rand.NewPCG(1, 1))
		from := time.Now().Truncate(chunkTime).Add(-2 * time.Hour)
		for _, long := range []time.Duration{leastHops / episode.HopsPerSecond * time.Second, 40 * time.Second, chunkTime} {
			for name, level := range map[string]func() episode.Level{
				"restless": func() episode.Level { return episode.Level(rng.IntN(128)) },
				"quiet":    nothing,
			} {
				from = from.Add(2 * chunkTime) // none goes on where another ends
				st.storeScores(said(from, long, level))
				e, err := w.records.Get(t.Context(), fmt.Sprintf("%s.cam-1.%d", scoresToken, from.Unix()/int64(chunkTime/time.Second)%int64(24*time.Hour/chunkTime)))
				if most := int(long/time.Second) * tune.MaxRate; err != nil || len(e.Value) > most {
					t.Errorf("%s, %v: %d bytes, at most %d: %v", name, long, len(e.Value), most, err)
				}
			}
		}
		all, err := st.history(t.Context())
		if err != nil || len(all) != 6 {
			t.Errorf("%d of 6 stretches read back: %v", len(all), err)
		}
		w.close()
	})
}

// TestRestartKeepsScores: stretches that begin within the same five minutes have places of
// their own, also where the service was restarted between them; those of the round before
// give way, and where there are too many, the last does.
func TestRestartKeepsScores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(5 * time.Second)
		d.kill()
		slot := time.Now().Truncate(chunkTime).Add(-2 * chunkTime)
		keep := func(from time.Time, long time.Duration) {
			st := w.svc.find("cam-1")
			st.post(func() {
				st.behaviour.tuned.chunks = append(st.behaviour.tuned.chunks, said(from, long, nothing))
				st.react()
			})
			synctest.Wait()
		}
		restart := func() {
			w.crash()
			w.start()
			time.Sleep(5 * time.Second)
		}
		have := func() (at []time.Duration) {
			t.Helper()
			all, err := w.svc.find("cam-1").history(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, tr := range all {
				at = append(at, tr.From.Sub(slot))
			}
			return at
		}
		keep(slot.Add(-24*time.Hour), time.Minute) // of the round before
		keep(slot, 20*time.Second)
		restart()
		keep(slot.Add(30*time.Second), 20*time.Second)
		restart()
		keep(slot.Add(time.Minute), 20*time.Second)
		if got := have(); !slices.Equal(got, []time.Duration{0, 30 * time.Second, time.Minute}) {
			t.Errorf("after two restarts: %v", got)
		}
		st := w.svc.find("cam-1")
		st.post(func() { // written at a time, in whatever order
			for i := range maxParts {
				st.behaviour.tuned.chunks = append(st.behaviour.tuned.chunks, said(slot.Add(time.Duration(90+20*i)*time.Second), 11*time.Second, nothing))
			}
			st.react()
		})
		synctest.Wait()
		if got := have(); len(got) != maxParts || !slices.Equal(got[:3], []time.Duration{0, 30 * time.Second, time.Minute}) {
			t.Errorf("of more than %d: %v", maxParts, got)
		}
		w.close()
	})
}

// TestContextsAreARing of as many as there are alerts: the newest takes the place of the
// eldest, and one that was changed or put in another's place is nobody's.
func TestContextsAreARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, st := quietWorld(t)
		at := time.Now().Add(-time.Hour)
		store := func(number uint64) {
			st.storeContext(kept{number, said(at.Add(time.Duration(number)*time.Second), time.Minute, nothing)})
		}
		have := func() []string {
			all, err := st.contexts(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for id, b := range all {
				tr, err := tune.ReadTrace(b)
				if err != nil || !tr.From.Equal(at.Add(time.Duration(numberOf(id))*time.Second)) {
					t.Errorf("%s: %v, %v", id, tr, err)
				}
			}
			return slices.Sorted(maps.Keys(all))
		}
		store(3)
		store(4)
		store(3) // the same alert, as a whole
		if got := have(); !slices.Equal(got, []string{"cam-1.3", "cam-1.4"}) {
			t.Errorf("kept: %v", got)
		}
		store(3 + maxAlerts)
		if got := have(); !slices.Equal(got, []string{"cam-1.4", fmt.Sprintf("cam-1.%d", 3+maxAlerts)}) {
			t.Errorf("a round later: %v", got)
		}
		e, err := w.records.Get(t.Context(), contextToken+".cam-1.4")
		if err != nil {
			t.Fatal(err)
		}
		e.Value[len(e.Value)-1] ^= 1
		if _, err := w.records.Put(t.Context(), contextToken+".cam-1.4", e.Value); err != nil {
			t.Fatal(err)
		}
		if got := have(); !slices.Equal(got, []string{fmt.Sprintf("cam-1.%d", 3+maxAlerts)}) {
			t.Errorf("after one was changed: %v", got)
		}
		w.close()
	})
}

// TestLateContext: the scores around what an operator reports are in the history only
// when their stretch is full. Then they are kept with the label, in time and no wider
// than it asks for; those of an alert are the alert's own.
func TestLateContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, st := quietWorld(t)
		begin := time.Now()
		answer := func(l tune.Label) {
			t.Helper()
			l.At, l.Origin = time.Now(), tune.FromOperator
			if _, err := w.svc.labelled(t.Context(), "cam-1", label{Label: l}); err != nil {
				t.Fatal(err)
			}
		}
		turn := func() map[string]*tune.Trace {
			t.Helper()
			if err := st.turn(time.Now(), 0); err != nil {
				t.Fatal(err)
			}
			rec, err := st.tuner.view(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]*tune.Trace{}
			for i := range rec.Labels {
				if b := rec.Labels[i].Context; b != nil {
					if got[rec.Labels[i].ID], err = tune.ReadTrace(b); err != nil {
						t.Error(err)
					}
				}
			}
			return got
		}
		missed := fmt.Sprintf("%s%d", missedPrefix, begin.Add(time.Minute).UnixMilli())
		answer(tune.Label{ID: missed, Real: true, From: begin.Add(time.Minute), To: begin.Add(70 * time.Second)})
		answer(tune.Label{ID: "cam-1.1", From: begin.Add(time.Minute), To: begin.Add(20 * time.Minute)}) // was there all the time
		answer(tune.Label{ID: "cam-1.2", From: begin.Add(2 * time.Minute), To: begin.Add(3 * time.Minute)})
		answer(tune.Label{ID: "cam-1.3", From: begin.Add(-time.Hour), To: begin.Add(-50 * time.Minute)}) // nothing is left of that
		st.storeScores(said(begin, 15*time.Minute, nothing))
		own := said(begin.Add(100*time.Second), 2*time.Minute, nothing)
		st.storeContext(kept{2, own})
		if got := turn(); len(got) != 0 {
			t.Errorf("before their stretch of the history is full: %v", got)
		}
		time.Sleep(contextLate + time.Second)
		got := turn()
		if len(got) != 3 {
			t.Fatalf("kept: %v", got)
		}
		for id, want := range map[string]struct {
			from time.Time
			long time.Duration
		}{
			missed:    {begin.Add(time.Minute - contextBefore), 10*time.Second + 2*contextBefore},
			"cam-1.1": {begin.Add(time.Minute - contextBefore), contextMost + 2*contextBefore},
			"cam-1.2": {own.From, 2 * time.Minute},
		} {
			if tr := got[id]; tr == nil || tr.From.Sub(want.from).Abs() > time.Second || (tr.At(tr.Len()).Sub(tr.From)-want.long).Abs() > time.Second {
				t.Errorf("%s: %+v, want %v from %v on", id, tr, want.long, want.from)
			}
		}
		// The service looks by itself, now and then; after an hour it does not any more.
		report := func(after time.Duration) string {
			id := fmt.Sprintf("%s%d", missedPrefix, begin.Add(after).UnixMilli())
			answer(tune.Label{ID: id, Real: true, From: begin.Add(after), To: begin.Add(after + time.Minute)})
			return id
		}
		soon := report(4 * time.Minute)
		time.Sleep(contextLate + lookEvery)
		if got := turn(); len(got) != 4 || got[soon] == nil {
			t.Errorf("a while later: %v", got)
		}
		late := report(6 * time.Minute)
		w.crash()
		time.Sleep(contextGone)
		w.start()
		time.Sleep(2 * firstLook)
		st = w.svc.find("cam-1")
		if got := turn(); len(got) != 4 || got[late] != nil {
			t.Errorf("an hour later: %v", got)
		}
		w.close()
	})
}
