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

// TestScoresAroundAnAlertAreKept from before it to after it, once early and then as a
// whole, and not without end.
func TestScoresAroundAnAlertAreKept(t *testing.T) {
	s := learned(t)
	s.play(2 * time.Minute)
	s.b.takeContexts()
	s.e.style = foreign
	s.play(12 * time.Second)
	a := s.b.alerts.all[0]
	early := s.b.takeContexts()
	if len(early) != 1 || early[0].number != 1 || early[0].trace.From.After(a.Opened.Add(-contextLead+time.Second)) || early[0].trace.At(early[0].trace.Len()).Before(a.Opened.Add(contextSoon)) {
		t.Fatalf("while the alert of %v is open: %+v", a.Opened, early)
	}
	s.e.style = own
	s.play(2 * time.Minute)
	whole := s.b.takeContexts()
	closed := s.b.alerts.all[0].Closed
	if len(whole) != 1 || closed.IsZero() || !whole[0].trace.From.Equal(early[0].trace.From) {
		t.Fatalf("after it closed at %v: %+v", closed, whole)
	}
	if end := whole[0].trace.At(whole[0].trace.Len()); end.Sub(closed.Add(contextTail)).Abs() > time.Second {
		t.Errorf("closed at %v, scores are kept until %v", closed, end)
	}
	alarms := tune.NewReplayer(whole[0].trace.Layout, s.b.weight).Alarms(whole[0].trace, s.b.tuned.params)
	if len(alarms) != 1 || whole[0].trace.At(alarms[0].Hop+1).Sub(a.Opened).Abs() > time.Second {
		t.Errorf("opened at %v; in what is kept: %+v", a.Opened, alarms)
	}
	// One that stays is cut, and not begun again.
	s.e.style = foreign
	s.play(20 * time.Minute)
	for i, k := range s.b.takeContexts() {
		if long := k.trace.At(k.trace.Len()).Sub(k.trace.From); i > 1 || long > contextMost {
			t.Errorf("of an alert that stays, %v are kept as number %d", long, i)
		}
	}
}

// TestScoresOutliveTheService: an answer that comes when the service was restarted and
// nothing of the history is left still finds the scores.
func TestScoresOutliveTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(5 * time.Second)
		d.kill()
		w.crash()
		opened := time.Now().Add(-50 * time.Hour)
		b, err := pack(alertsRecord{Number: 7, Alerts: []bus.Alert{{ID: "cam-1.7", Stream: "cam-1", Class: bus.ClassSource, Kind: accusing[0], Opened: opened, Closed: opened.Add(10 * time.Second)}}})
		if err != nil {
			t.Fatal(err)
		}
		w.seal(bus.SealedAlerts, alertsToken+".cam-1", 8, b)
		levels := make([]episode.Level, len(accusing))
		around := &tune.Trace{Layout: &tune.Layout{Kinds: accusing, Path: make([]bool, len(accusing))}, From: opened.Add(-contextLead)}
		for i := range hops(contextLead + 10*time.Second + contextTail) {
			levels[0] = 0
			if i >= hops(contextLead) && i < hops(contextLead+5*time.Second) {
				levels[0] = episode.LevelOf(1.2)
			}
			around.Add(levels, 0)
		}
		if b, err = around.Append(nil); err != nil {
			t.Fatal(err)
		}
		w.seal(bus.SealedContext, contextToken+".cam-1.7", 7, b)
		w.scored(time.Now().Add(-40*time.Minute), 35*time.Minute)
		w.start()
		time.Sleep(5 * time.Second)
		if i := w.tuning(bus.TuningRequest{Do: bus.TuningPropose}); i.Proposal.Now.FalsePerDay != 0 {
			t.Errorf("before anybody said anything: %+v", i.Proposal.Now)
		}
		if _, err := w.feedback(bus.FeedbackRequest{Alert: "cam-1.7"}); err != nil {
			t.Fatal(err)
		}
		// From the context of the alert, and from then on from that of the label.
		for _, gone := range []bool{false, true} {
			if gone {
				if _, err := w.records.Put(context.Background(), contextToken+".cam-1.7", []byte{0}); err != nil {
					t.Fatal(err)
				}
			}
			if p := w.tuning(bus.TuningRequest{Do: bus.TuningPropose}).Proposal; p == nil || p.Now.FalsePerDay == 0 {
				t.Errorf("the alert that was called false is not among what is tuned by: %+v", p)
			}
		}
		w.close()
	})
}
