package processing

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// record gives a stage a record with a setting in the shadow.
func inShadow(now time.Time, cutoff float64, high float64) *tuningRecord {
	p := tune.DefaultParams()
	r := &tuningRecord{Guard: tune.NewGuard(now, p, "")}
	p.Sensitivity = episode.SensitivityAt(cutoff)
	s := tune.Setting{By: "operator", Params: p, Basis: tune.Basis{Hours: 1}, Expected: tune.Expected{High: high}}
	if err := r.Guard.Propose(now, 1, s); err != nil {
		panic(err)
	}
	return r
}

// TestShadowThenLive: a setting decides only after its shadow, and one that alarms too
// much there never does.
func TestShadowThenLive(t *testing.T) {
	for _, c := range []struct {
		cutoff float64
		want   settleDo
	}{{1.3, settlePromote}, {0.7, settlePromote}} {
		s := learned(t)
		s.b.adopt(s.now, inShadow(s.now, c.cutoff, 1))
		s.play(9 * time.Minute)
		if _, _, o := s.b.takeTuning(); o.do != settleNothing || s.b.tuned.params.Sensitivity != 0.5 {
			t.Fatalf("in its shadow: %+v, sensitivity %g", o, s.b.tuned.params.Sensitivity)
		}
		s.play(2 * time.Minute)
		if _, _, o := s.b.takeTuning(); o.do != c.want || o.revision != 2 {
			t.Errorf("cut-off %g: %+v", c.cutoff, o)
		}
	}
	s := learned(t)
	s.b.adopt(s.now, inShadow(s.now, 1, 1))
	s.b.tuned.shadow = shadow{Tally: tune.Tally{Revision: 2}, params: tune.DefaultParams()}
	// What decides is deaf meanwhile.
	for i := range 4 {
		s.e.style = foreign
		s.b.tuned.params.Sensitivity, s.b.tuned.params.Weights = 0.001, [tune.Groups]float64{}
		s.b.judge.Tune(0.001, 8)
		s.b.margins()
		s.play(10 * time.Second)
		s.e.style = own
		s.play(20 * time.Second)
		if i < 1 {
			if _, _, o := s.b.takeTuning(); o.do != settleNothing {
				t.Errorf("after %d alarms in the shadow: %+v", i+1, o)
			}
		}
	}
	if _, _, o := s.b.takeTuning(); o.do != settleReject {
		t.Errorf("after %d alarms in the shadow: %+v", s.b.tuned.shadow.Alarms, o)
	}
}

// TestNothingChangesDuringAnEpisode: settings that were written down wait for its end.
func TestNothingChangesDuringAnEpisode(t *testing.T) {
	s := learned(t)
	s.e.style = foreign
	s.play(5 * time.Second)
	if s.b.alerts.get(bus.ClassSource) == nil {
		t.Fatal("no alert")
	}
	r := inShadow(s.now, 1.5, 1)
	r.Guard.Promote(s.now, time.Hour, "")
	s.b.adopt(s.now, r)
	s.play(5 * time.Second)
	if s.b.tuned.params.Sensitivity != 0.5 {
		t.Error("the sensitivity changed while an episode runs")
	}
	s.e.style = own
	s.play(time.Minute)
	if got := tune.CutoffOf(s.b.tuned.params.Sensitivity); got < 1.4 || s.b.judge == nil {
		t.Errorf("after the episode the cut-off is %.2f", got)
	}
}

// TestYoungSettingIsTakenBack where it alarms more than was expected, but not where
// the alarms were real.
func TestYoungSettingIsTakenBack(t *testing.T) {
	for _, real := range []bool{false, true} {
		s := learned(t)
		r := inShadow(s.now, 0.9, 0)
		r.Guard.Promote(s.now, 24*time.Hour, "")
		s.b.adopt(s.now, r)
		for range 3 {
			s.e.style = foreign
			s.play(6 * time.Second)
			s.e.style = own
			s.play(40 * time.Second)
			if real {
				s.b.answered(s.now, s.b.alerts.all[len(s.b.alerts.all)-1].ID, true)
			}
		}
		_, _, o := s.b.takeTuning()
		if want := map[bool]settleDo{false: settleRevert, true: settleNothing}[real]; o.do != want {
			t.Errorf("three alarms, real %v: %+v", real, o)
		}
	}
}

// TestFalseRotationBudget: evidence about the source changes the key no more often
// than the budget says, whatever the thresholds are; what was real is not counted.
func TestFalseRotationBudget(t *testing.T) {
	for _, real := range []bool{false, true} {
		s := learned(t)
		s.b.cfg.Tuning.FalseEvery = time.Hour
		for i := range 6 {
			s.e.style = foreign
			s.play(6 * time.Second)
			s.e.style = own
			s.play(40 * time.Second)
			a := s.b.alerts.all[len(s.b.alerts.all)-1]
			if real {
				s.b.answered(s.now, a.ID, true)
			} else if i >= s.b.budget().Burst() && (a.Done != bus.DoneNoBudget || a.Ask == "") {
				t.Errorf("alert %d: %s, asks %q", i, a.Done, a.Ask)
			}
		}
		if want := map[bool]int{false: s.b.budget().Burst(), true: 6}[real]; s.rotates != want {
			t.Errorf("%d rotations for six alarms, real %v; want %d", s.rotates, real, want)
		}
		if real {
			continue
		}
		s.now = s.now.Add(time.Duration(s.b.budget().Burst()) * time.Hour)
		if left := s.b.rotationsLeft(s.now); left != s.b.budget().Burst() {
			t.Errorf("later, %d are left", left)
		}
	}
}

// TestKeptScoresReplayTheStream: what is kept of a stream that was disturbed raises,
// replayed with the settings that it had, the alarms that it raised.
func TestKeptScoresReplayTheStream(t *testing.T) {
	s := learned(t)
	s.b.breakScores()
	s.b.takeTuning()
	s.b.judge = detect.ResumeModes(s.b.profile.Modes, 0, s.b.settings())
	s.b.margins()
	start := len(s.b.alerts.all)
	for range 3 {
		s.play(time.Minute)
		s.e.style = foreign
		s.play(6 * time.Second)
		s.e.style = own
		s.play(time.Minute)
	}
	s.b.breakScores()
	chunks, _, _ := s.b.takeTuning()
	if len(chunks) < 2 || len(chunks) > 3 {
		t.Fatalf("%d stretches are kept of six minutes", len(chunks))
	}
	for _, c := range chunks[1:] {
		chunks[0].Join(c)
	}
	alarms := tune.NewReplayer(chunks[0].Layout, s.b.weight).Alarms(chunks[0], s.b.tuned.params)
	all := s.b.alerts.all[start:]
	if len(alarms) != len(all) || len(all) != 3 {
		t.Fatalf("%d alarms in the replay, %d alerts", len(alarms), len(all))
	}
	for i, a := range alarms {
		if at := chunks[0].At(a.Hop + 1); !at.Equal(all[i].Opened) {
			t.Errorf("alert at %v, in the replay at %v", all[i].Opened, at)
		}
	}
}

func TestRecordingReadsBack(t *testing.T) {
	s := learned(t)
	s.play(3 * time.Minute)
	_, windows, _ := s.b.takeTuning()
	if got, err := readWindows(windows, tune.StretchHops); err != nil || len(got) != tune.StretchHops {
		t.Fatalf("%d windows, %v", len(got), err)
	}
	if len(windows) > bus.MaxSealed {
		t.Errorf("a recording has %d bytes", len(windows))
	}
	s.play(3 * time.Minute)
	if _, again, _ := s.b.takeTuning(); again != nil {
		t.Error("another recording within the hour")
	}
}

func FuzzReadWindows(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := readWindows(b, tune.StretchHops); err == nil && len(w) > tune.StretchHops {
			t.Errorf("%d windows", len(w))
		}
	})
}

func (w *world) tuning(r bus.TuningRequest) bus.TuningInfo {
	r.Stream = "cam-1"
	i, err := bus.ProcessingTuning.Do(context.Background(), w.memory.Conn(), r)
	if err != nil {
		w.t.Errorf("%+v: %v", r, err)
	}
	return i
}

func (w *world) feedback(r bus.FeedbackRequest) (bus.FeedbackReply, error) {
	return bus.ProcessingFeedback.Do(context.Background(), w.memory.Conn(), r)
}

// flaky is a store whose writes of a kind of record fail at times: before they are
// done, or after.
type flaky struct {
	store.KV
	mu   sync.Mutex
	fail int // writes to go until one fails; 0: none does
	done bool
}

func (f *flaky) write(key string, do func() (uint64, error)) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == 0 || len(key) < 7 || key[:7] != tuningToken+"." {
		return do()
	}
	if f.fail--; f.fail > 0 {
		return do()
	}
	if f.done {
		_, _ = do() // the answer is lost
	}
	return 0, fmt.Errorf("the store is away")
}

func (f *flaky) Create(ctx context.Context, key string, v []byte) (uint64, error) {
	return f.write(key, func() (uint64, error) { return f.KV.Create(ctx, key, v) })
}

func (f *flaky) Update(ctx context.Context, key string, v []byte, rev uint64) (uint64, error) {
	return f.write(key, func() (uint64, error) { return f.KV.Update(ctx, key, v, rev) })
}

// TestNoLabelIsLost: operators answer at the same time while the store fails and the
// service is killed. Every label that was answered for is there afterwards, and the
// settings are those of some revision as a whole.
func TestNoLabelIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, behaviourConfig())
		f := &flaky{KV: w.records}
		w.crash()
		w.records = f
		w.start()
		d := w.enroll("cam-1")
		d.run()
		film := w.film(d)
		time.Sleep(2 * time.Minute)
		var mu sync.Mutex
		answered := map[string]bool{}
		for round := range 6 {
			f.mu.Lock()
			f.fail, f.done = 1+round%3, round%2 == 0
			f.mu.Unlock()
			now := time.Now()
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					rep, err := w.feedback(bus.FeedbackRequest{Stream: "cam-1", From: now.Add(-time.Duration(10*round+i+2) * time.Second), To: now, Kind: "swap"})
					if err == nil {
						mu.Lock()
						answered[rep.Label] = true
						mu.Unlock()
					}
				}()
			}
			if round == 3 {
				time.Sleep(time.Microsecond)
				w.crash()
				w.start()
			}
			wg.Wait()
			time.Sleep(5 * time.Second)
		}
		w.crash()
		w.start()
		time.Sleep(10 * time.Second)
		i := w.tuning(bus.TuningRequest{})
		if len(answered) < 12 || i.Labels.Missed < len(answered) {
			t.Errorf("%d labels were answered for, %d are there", len(answered), i.Labels.Missed)
		}
		e, err := bus.ProcessingExplain.Do(context.Background(), w.memory.Conn(), bus.ExplainRequest{Stream: "cam-1"})
		if err != nil || e.Sensitivity != i.Live.Sensitivity {
			t.Errorf("judged at %g, written down is %g (%v)", e.Sensitivity, i.Live.Sensitivity, err)
		}
		film.stop()
		d.kill()
		w.close()
	})
}

// TestOperatorTunes goes the whole way: an alert is called false, the sensitivity
// falls by a step after its shadow, a miss raises it, both are in the history, and it
// goes back when asked.
func TestOperatorTunes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := behaviourConfig()
		cfg.Behaviour.Tuning.Shadow = time.Minute
		w, d := newCamera(t, cfg)
		f := w.film(d)
		time.Sleep(3 * time.Minute)
		f.style(foreign)
		time.Sleep(5 * time.Second)
		f.style(own)
		time.Sleep(30 * time.Second)
		at := func() bus.Alert {
			all := w.alerts()
			return all[slices.IndexFunc(all, func(a bus.Alert) bool { return a.Class == bus.ClassSource })]
		}
		rep, err := w.feedback(bus.FeedbackRequest{Alert: at().ID, Note: "the lens was changed"})
		if err != nil || rep.Contested || rep.Proposed >= rep.Sensitivity || rep.Proposed == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if a := at(); a.Answer != bus.AnswerFalse {
			t.Errorf("at the alert: %+v", a)
		}
		time.Sleep(90 * time.Second)
		i := w.tuning(bus.TuningRequest{})
		if i.Live.Sensitivity >= 0.5 || i.Shadow != nil || i.Labels.False != 1 || w.count(gk.EventSettingProposed) != 1 || w.count(gk.EventSettingLive) != 1 {
			t.Errorf("after the shadow: %+v", i)
		}
		low := i.Live.Sensitivity
		if _, err := w.feedback(bus.FeedbackRequest{Stream: "cam-1", From: time.Now().Add(-time.Minute), To: time.Now().Add(-30 * time.Second), Kind: "swap"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Second)
		if i = w.tuning(bus.TuningRequest{}); i.Live.Sensitivity <= low || i.Labels.Missed != 1 {
			t.Errorf("after a miss: %+v", i)
		}
		p := w.tuning(bus.TuningRequest{Do: bus.TuningPropose})
		if p.Proposal == nil || p.Proposal.Why == "" || p.Proposal.Data == "" || p.Proposal.Then.Cutoff < tune.Floor || p.Proposal.Then.Cutoff > tune.Ceiling {
			t.Errorf("proposal: %+v", p.Proposal)
		} else {
			t.Logf("%+v", *p.Proposal)
		}
		if _, err := bus.ProcessingTuning.Do(context.Background(), w.memory.Conn(), bus.TuningRequest{Stream: "cam-1", Do: bus.TuningRevert, Saw: 1}); bus.CodeOf(err) != bus.CodeConflict {
			t.Errorf("a revert that saw an old revision: %v", err)
		}
		if i = w.tuning(bus.TuningRequest{Do: bus.TuningRevert, To: 1}); i.Live.Sensitivity != 0.5 || w.count(gk.EventSettingReverted) == 0 {
			t.Errorf("reverted to %+v", i.Live)
		}
		if i = w.tuning(bus.TuningRequest{Do: bus.TuningAuto}); i.Auto {
			t.Error("automatic tuning is still on")
		}
		f.end()
	})
}

// TestFalseOfWhatIsProven is kept, flagged, and moves nothing.
func TestFalseOfWhatIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, f := filmed(t)
		time.Sleep(time.Minute)
		var session gk.SessionID
		var epoch gk.Epoch
		d.look(func() { session, epoch = d.session, d.epoch })
		_ = bus.TransportProof.Tell(w.tr.conn, bus.Proof{Transport: w.tr.id, Stream: "cam-1", Session: session, Epoch: epoch, What: "two-writers"})
		time.Sleep(20 * time.Second)
		for range 5 {
			rep, err := w.feedback(bus.FeedbackRequest{Alert: "cam-1.1"})
			if err != nil || !rep.Contested || rep.Proposed != 0 || rep.Sensitivity != 0.5 {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		time.Sleep(time.Second)
		if w.count(gk.EventLabelContested) != 5 || w.tuning(bus.TuningRequest{}).Labels.Contested != 1 {
			t.Errorf("%d flagged, %+v", w.count(gk.EventLabelContested), w.tuning(bus.TuningRequest{}).Labels)
		}
		// Nobody was blinded: the next change of the source is noticed as ever, in the theft's
		// own session.
		time.Sleep(2 * time.Minute)
		f.style(foreign)
		time.Sleep(6 * time.Second)
		f.style(own)
		if all := w.alerts(); !slices.ContainsFunc(all, func(a bus.Alert) bool { return a.Class == bus.ClassSource && a.Done == bus.DoneRotated }) {
			t.Errorf("after five false answers to a proven theft nothing noticed another source: %+v", all)
		}
		f.end()
	})
}
