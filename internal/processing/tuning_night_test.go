package processing

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// scored writes quiet scores for a stream, as if it had been judged for so long.
func (w *world) scored(from time.Time, long time.Duration) {
	trace := &tune.Trace{Layout: &tune.Layout{Kinds: accusing, Path: make([]bool, len(accusing))}, From: from}
	for range hops(long) {
		trace.Add(make([]episode.Level, len(accusing)), 0)
	}
	b, err := trace.Append(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.seal(bus.SealedScores, scoresToken+".cam-1.1", uint64(from.Unix()), b)
}

// seal writes a sealed record.
func (w *world) seal(kind, key string, version uint64, content []byte) {
	conn := w.memory.Conn()
	defer conn.Close()
	rep, err := bus.KMSSeal.Do(context.Background(), conn, bus.SealRequest{Place: bus.SealPlace{Kind: kind, Stream: "cam-1", Version: version}, Content: content})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := keepMode.Marshal(envelope{Version: version, Content: rep.Sealed})
	if err == nil {
		_, err = w.records.Put(context.Background(), key, b)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestNightsOutliveRestarts: a service that lives for minutes tunes its streams as often
// as one that lives for days: no more, and no less.
func TestNightsOutliveRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Behaviour.Tuning.Every = time.Hour
		w, d := newCamera(t, cfg)
		time.Sleep(5 * time.Second)
		d.kill()
		w.scored(time.Now().Add(-40*time.Minute), 35*time.Minute)
		var runs []time.Time
		look := func() {
			i := w.tuning(bus.TuningRequest{})
			if n := len(runs); !i.Searched.IsZero() && (n == 0 || !i.Searched.Equal(runs[n-1])) {
				runs = append(runs, i.Searched)
			}
			if i.Next.IsZero() || i.Next.After(time.Now().Add(time.Hour)) {
				t.Errorf("the next is at %v, now it is %v", i.Next, time.Now())
			}
		}
		time.Sleep(3 * time.Minute)
		look()
		// Three minutes of life in every quarter of the time between two runs.
		for range 16 {
			w.crash()
			time.Sleep(12 * time.Minute)
			w.scored(time.Now().Add(-40*time.Minute), 35*time.Minute)
			w.start()
			time.Sleep(3 * time.Minute)
			look()
		}
		if len(runs) < 3 || len(runs) > 5 {
			t.Errorf("in four hours, one run an hour, it was tuned at %v", runs)
		}
		w.tuning(bus.TuningRequest{Do: bus.TuningAuto, Auto: false})
		if i := w.tuning(bus.TuningRequest{}); !i.Next.IsZero() {
			t.Errorf("tuning by itself is off, and the next is at %v", i.Next)
		}
		had := len(runs)
		w.crash()
		time.Sleep(70 * time.Minute)
		w.start()
		time.Sleep(3 * time.Minute)
		if i := w.tuning(bus.TuningRequest{}); !i.Searched.Equal(runs[had-1]) {
			t.Errorf("tuned at %v although tuning by itself is off", i.Searched)
		}
		w.close()
	})
}

// TestEachStreamAtItsOwnHour: the hour is the stream's, whenever it is asked.
func TestEachStreamAtItsOwnHour(t *testing.T) {
	const every = 24 * time.Hour
	now := time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
	first := due("cam-1", now, every)
	for at := now; at.Before(now.Add(every)); at = at.Add(37 * time.Minute) {
		next := due("cam-1", at, every)
		if !next.After(at) || next.Sub(at) > every || next.Sub(first)%every != 0 {
			t.Fatalf("asked at %v, it is %v; first %v", at, next, first)
		}
	}
	if due("cam-2", now, every).Equal(first) {
		t.Error("all streams at the same hour")
	}
}
