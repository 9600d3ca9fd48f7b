package processing

import (
	"runtime"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// stage plays windows into a behaviour and collects what it wants done.
type stage struct {
	t       *testing.T
	b       *behaviour
	e       *encoder
	now     time.Time
	session gk.SessionID
	rotates int
	saves   int
	events  []gk.Event
}

func newStage(t *testing.T) *stage {
	cfg := DefaultBehaviour()
	cfg.Learn, cfg.Provisional, cfg.Probation = 40*time.Second, 12*time.Second, 10*time.Second
	s := &stage{t: t, b: newBehaviour(&cfg, "cam-1"), e: newEncoder(1, own), now: time.Unix(1000, 0), session: gk.SessionID{1}}
	s.b.loaded(s.now, profileRecord{}, "", alertsRecord{})
	s.collect()
	return s
}

func (s *stage) collect() {
	out := s.b.take()
	if out.rotate {
		s.rotates++
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDecided, Reason: gk.ReasonSource})
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonSource, Epoch: 2, Took: 20 * time.Millisecond})
	}
	if out.saveProfile {
		s.saves++
	}
	s.events = append(s.events, out.events...)
}

// play lets the encoder run for d.
func (s *stage) play(d time.Duration) {
	for range hops(d) {
		s.now = s.now.Add(feature.Hop)
		w := s.e.hop()
		s.b.window(s.now, s.session, 1, feature.H264, &w)
		s.collect()
	}
}

func (s *stage) count(kind gk.EventKind) (n int) {
	for _, e := range s.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// learned plays until the profile is mature.
func learned(t *testing.T) *stage {
	s := newStage(t)
	s.play(60 * time.Second)
	if s.b.stage != bus.StageMature {
		t.Fatalf("after a minute the profile is %s, %d windows learned, %d refused", s.b.stage, s.b.learned, s.b.refused)
	}
	return s
}

func TestStagesOfAProfile(t *testing.T) {
	s := newStage(t)
	s.play(10 * time.Second)
	if s.b.stage != bus.StageLearning {
		t.Errorf("after 10 s: %s", s.b.stage)
	}
	s.play(8 * time.Second)
	if s.b.stage != bus.StageProvisional || !s.b.margin.wide {
		t.Errorf("after 18 s: %s, wide margins %v", s.b.stage, s.b.margin.wide)
	}
	s.play(30 * time.Second)
	if s.b.stage != bus.StageMature || s.b.margin.wide || s.saves != 2 || s.b.profile.Version != 2 {
		t.Errorf("after 48 s: %s, wide margins %v, %d saves, version %d", s.b.stage, s.b.margin.wide, s.saves, s.b.profile.Version)
	}
	if i := s.b.info(s.now); i.Windows < hops(40*time.Second) || i.Words == 0 || !i.Stored || i.Form != "h264" {
		t.Errorf("%+v", i)
	}
}

// TestSparseSourceMatures: a source that pauses for longer than a hop between its
// pictures is learned as fast as others, and does not stay in probation.
func TestSparseSourceMatures(t *testing.T) {
	for _, every := range []int{1, 2} { // one of so many windows has a pause, and the last of every second
		s := newStage(t)
		play := func(d time.Duration) {
			for i := range hops(d) {
				s.now = s.now.Add(feature.Hop)
				w := s.e.hop()
				if i%every == 0 || i%4 == 3 {
					w.MaxGap = 400e6
				}
				s.b.window(s.now, s.session, 1, feature.H264, &w)
				s.collect()
			}
		}
		play(80 * time.Second)
		if s.b.stage != bus.StageMature {
			t.Errorf("one of %d: after 80 s the profile is %s: %d learned, %d refused", every, s.b.stage, s.b.learned, s.b.refused)
		}
		s.session = gk.SessionID{2}
		play(30 * time.Second)
		if s.b.probation != 0 || len(s.b.alerts.all) != 0 {
			t.Errorf("one of %d: half a minute of the next session, probation for %d windows more, alerts %+v", every, s.b.probation, s.b.alerts.all)
		}
	}
}

func TestCleanSourceRaisesNoAlert(t *testing.T) {
	s := learned(t)
	s.play(10 * time.Minute)
	s.session = gk.SessionID{2} // the device was restarted
	s.e = newEncoder(2, own)
	s.play(3 * time.Minute)
	if len(s.b.alerts.all) != 0 || s.rotates != 0 {
		t.Errorf("%d rotations, alerts %+v", s.rotates, s.b.alerts.all)
	}
	if s.b.stage != bus.StageMature || s.saves != 2 {
		t.Errorf("the new session is judged by a %s profile, %d saves", s.b.stage, s.saves)
	}
}

func TestSwapRotatesOnceAndAsks(t *testing.T) {
	s := learned(t)
	s.play(20 * time.Second)
	s.e.style = foreign
	onset := s.now
	s.play(20 * time.Second)
	if s.rotates != 1 || len(s.b.alerts.all) != 1 {
		t.Fatalf("%d rotations, alerts %+v", s.rotates, s.b.alerts.all)
	}
	a := s.b.alerts.all[0]
	if a.Class != bus.ClassSource || a.Done != bus.DoneRotated || a.Rotated != 2 || !a.Closed.IsZero() || len(a.Evidence) == 0 || a.ID != "cam-1.1" {
		t.Errorf("%+v", a)
	}
	if took := a.Opened.Sub(onset); took > 3*time.Second {
		t.Errorf("noticed after %v", took)
	}
	t.Logf("after %v: %s", a.Opened.Sub(onset), strings.Join(a.Evidence, "; "))
	refused := s.b.refused
	s.play(5 * time.Minute)
	if a := s.b.alerts.all[0]; s.rotates != 1 || len(s.b.alerts.all) != 1 || a.Outcome != bus.OutcomeUnresolved || a.Ask == "" {
		t.Errorf("what stays: %d rotations, %+v", s.rotates, a)
	}
	if s.b.refused-refused < 1000 || s.saves != 2 {
		t.Errorf("%d windows were refused, %d saves", s.b.refused-refused, s.saves)
	}
	if err := s.b.relearn(s.now); err != nil {
		t.Fatal(err)
	}
	s.play(3 * time.Minute)
	if a := s.b.alerts.all[0]; s.rotates != 1 || len(s.b.alerts.all) != 1 || a.Outcome != bus.OutcomeAccepted || s.b.stage != bus.StageMature || s.b.profile.Version != 4 || len(s.b.profile.Modes) != 1 {
		t.Errorf("after relearning: %d rotations, %s, version %d, %+v", s.rotates, s.b.stage, s.b.profile.Version, a)
	}
}

// TestRestartedEncoderIsExcused where the device says so, but not where it says
// something else afterwards.
func TestRestartedEncoderIsExcused(t *testing.T) {
	for _, style := range []style{own, foreign} {
		for _, told := range []bool{true, false} {
			s := learned(t)
			s.play(10 * time.Second)
			if told {
				s.b.event(s.now, gk.Event{Kind: gk.EventRotationDecided, Reason: gk.ReasonDiscontinuity})
			}
			s.e.restart(style)
			s.play(30 * time.Second)
			want := 1
			if told && style == own {
				want = 0
			}
			if len(s.b.alerts.all) != want || s.b.stage != bus.StageMature {
				t.Errorf("style %+v, told %v: %+v", style, told, s.b.alerts.all)
			}
		}
	}
}

func TestSwapBackIsCalm(t *testing.T) {
	s := learned(t)
	s.e.style = foreign
	s.play(8 * time.Second)
	s.e.style = own
	s.play(time.Minute)
	if s.rotates != 1 || len(s.b.alerts.all) != 1 || s.b.alerts.all[0].Outcome != bus.OutcomeCalm {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
	s.b.status(s.now, &bus.StreamStatus{Session: s.session, Dropped: map[string]uint64{}})
	s.b.status(s.now, &bus.StreamStatus{Session: s.session, Dropped: map[string]uint64{"stale-proven": 3}})
	if o := s.b.alerts.all[0].Outcome; o != bus.OutcomeStaleProven {
		t.Errorf("the old key was used after the switch: %s", o)
	}
}

func TestPathNeverRotates(t *testing.T) {
	s := learned(t)
	s.e.lose = 0.05
	s.play(30 * time.Second)
	s.e.lose = 0
	s.e.jitter = 30e6
	s.play(30 * time.Second)
	s.e.jitter = 2e6
	s.e.cut = true
	s.play(15 * time.Second)
	s.e.cut = false
	s.play(30 * time.Second)
	if s.rotates != 0 {
		t.Errorf("%d rotations", s.rotates)
	}
	var outage *bus.Alert
	for i := range s.b.alerts.all {
		switch a := &s.b.alerts.all[i]; {
		case a.Class != bus.ClassPath:
			t.Errorf("%+v", *a)
		case a.Kind == outageKind:
			outage = a
		}
	}
	if outage == nil || outage.Outcome != bus.OutcomeCalm {
		t.Errorf("the outage: %+v", outage)
	}
}

func TestPlannedChangeIsLearned(t *testing.T) {
	s := learned(t)
	if err := s.b.plan(s.now, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.e.style = foreign
	s.play(2 * time.Minute)
	if s.rotates != 0 || len(s.b.alerts.all) != 1 || s.b.alerts.all[0].Done != bus.DonePlanned || s.b.alerts.all[0].Outcome != bus.OutcomeAccepted {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
	if s.b.stage != bus.StageMature || s.saves != 4 || len(s.b.profile.Modes) != 2 || s.b.profile.Now != 1 {
		t.Errorf("%s, %d saves, %d modes", s.b.stage, s.saves, len(s.b.profile.Modes))
	}
	for _, long := range []time.Duration{-5 * time.Minute, -1, bus.MaxPlanned + 1} {
		if err := s.b.plan(s.now, long); err == nil || !strings.Contains(err.Error(), "more than 0, up to 24h") {
			t.Errorf("a planned change of %v: %v", long, err)
		}
	}
}

func TestResponseTable(t *testing.T) {
	for _, row := range []struct {
		response bus.Response
		rotates  int
		alerts   int
	}{{bus.RespondRotate, 1, 1}, {bus.RespondAlert, 0, 1}, {bus.RespondShow, 0, 0}} {
		s := learned(t)
		s.b.cfg.Responses = map[bus.Class]bus.Response{bus.ClassSource: row.response}
		s.e.style = foreign
		s.play(10 * time.Second)
		if s.rotates != row.rotates || len(s.b.alerts.all) != row.alerts {
			t.Errorf("%s: %d rotations, %d alerts", row.response, s.rotates, len(s.b.alerts.all))
		}
	}
}

func TestProofAlerts(t *testing.T) {
	s := learned(t)
	if !s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, Index: 5, What: "two-writers"}, 1) {
		t.Error("proof rotates nothing")
	}
	s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonProof, Epoch: 2})
	for range 10 {
		s.now = s.now.Add(time.Second)
		s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, Index: 9, What: "past-end"}, 2)
	}
	s.play(time.Minute)
	if len(s.b.alerts.all) != 1 {
		t.Fatalf("%+v", s.b.alerts.all)
	}
	a := s.b.alerts.all[0]
	if a.Class != bus.ClassProof || a.Severity != "critical" || a.Rotated != 2 || a.Count != 11 || a.Outcome != bus.OutcomeCalm || len(a.Evidence) < 2 {
		t.Errorf("%+v", a)
	}
}

// TestProofAnswersForTheSource: a thief's packets are in the windows as well. The key
// was changed for them already; what comes long after is answered for itself.
func TestProofAnswersForTheSource(t *testing.T) {
	for _, c := range []struct {
		later   time.Duration
		rotates int
	}{{0, 0}, {proofShows, 1}} {
		s := learned(t)
		s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, Index: 5, What: "two-writers"}, 1)
		s.b.event(s.now, gk.Event{Kind: gk.EventRotationDone, Reason: gk.ReasonProof, Epoch: 2})
		s.play(c.later)
		s.e.style = foreign
		s.play(5 * time.Second)
		if len(s.b.alerts.all) != 2 || s.rotates != c.rotates {
			t.Fatalf("after %v: %d rotations, alerts %+v", c.later, s.rotates, s.b.alerts.all)
		}
		if a := s.b.alerts.all[1]; a.Class != bus.ClassSource || a.Done != bus.DoneRotated || a.Rotated != 2 {
			t.Errorf("after %v: %+v", c.later, a)
		}
	}
}

// TestOutsidersMakeOneAlert: an hour of a flood is one alert, and moves nothing else.
func TestOutsidersMakeOneAlert(t *testing.T) {
	s := learned(t)
	dropped := map[string]uint64{}
	delivered := uint64(0)
	status := func() {
		u := &bus.StreamStatus{Session: s.session, Delivered: delivered, Dropped: map[string]uint64{}}
		for k, v := range dropped {
			u.Dropped[k] = v
		}
		s.b.status(s.now, u)
		s.collect()
	}
	status()
	for i := range 600 {
		delivered += 200
		dropped["auth-failed"] += uint64(2000 + i)
		dropped["duplicate"] += 10 // the network's
		status()
		s.play(time.Second)
	}
	for range 120 {
		delivered += 200
		dropped["duplicate"] += 10
		status()
		s.play(time.Second)
	}
	if len(s.b.alerts.all) != 1 || s.b.alerts.all[0].Class != bus.ClassNoise || s.b.alerts.all[0].Outcome != bus.OutcomeCalm || s.rotates != 0 {
		t.Errorf("%d rotations, %+v", s.rotates, s.b.alerts.all)
	}
}

// TestFirstDropsCount: of a stream of which nothing was dropped before, the first second
// of a flood and the first packets under an old key are told as any later ones.
func TestFirstDropsCount(t *testing.T) {
	s := learned(t)
	s.b.status(s.now, &bus.StreamStatus{Session: s.session, Delivered: 100})
	s.e.style = foreign
	s.play(10 * time.Second)
	s.b.status(s.now, &bus.StreamStatus{Session: s.session, Delivered: 200, Dropped: map[string]uint64{"auth-failed": 5000, "stale-proven": 30}})
	if a := s.b.alerts.all; len(a) != 2 || a[0].Outcome != bus.OutcomeStaleProven || a[1].Class != bus.ClassNoise {
		t.Errorf("%+v", a)
	}
}

func TestIdentityIsHeldAndTold(t *testing.T) {
	s := learned(t)
	for range 3 {
		s.b.event(s.now, gk.Event{Kind: gk.EventIdentity, Detail: map[string]string{"newcomer": "abc"}})
		s.play(time.Minute)
	}
	s.play(2 * time.Minute)
	if a := s.b.alerts.all; len(a) != 1 || a[0].Class != bus.ClassIdentity || a[0].Done != bus.DoneHeld || a[0].Count != 3 || a[0].Closed.IsZero() {
		t.Errorf("%+v", a)
	}
}

func TestBudgetSpentIsTold(t *testing.T) {
	s := learned(t)
	s.b.proof(s.now, bus.Proof{Session: s.session, Epoch: 1, What: "two-writers"}, 1)
	s.b.event(s.now, gk.Event{Kind: gk.EventBudgetSpent, Reason: gk.ReasonProof})
	if a := s.b.alerts.all[0]; a.Done != bus.DoneNoBudget || a.Ask == "" {
		t.Errorf("%+v", a)
	}
}

func TestRefusedProfileIsSaidAndRelearned(t *testing.T) {
	s := newStage(t)
	b := newBehaviour(s.b.cfg, "cam-1")
	b.loaded(s.now, profileRecord{Version: 4}, "it was changed", alertsRecord{Number: 9})
	s.b, s.events = b, nil
	s.collect()
	if s.count(gk.EventProfileRefused) != 1 || s.count(gk.EventAlertOpened) != 1 {
		t.Errorf("told: %+v", s.events)
	}
	s.play(time.Minute)
	if b.stage != bus.StageMature || b.profile.Version != 2 || !b.margin.wide || b.alerts.get(bus.ClassProfile) == nil {
		t.Errorf("%s, version %d, wide margins %v", b.stage, b.profile.Version, b.margin.wide)
	}
	if err := b.approve(s.now); err != nil {
		t.Fatal(err)
	}
	if b.margin.wide || b.alerts.get(bus.ClassProfile) != nil || b.alerts.all[0].ID != "cam-1.10" {
		t.Errorf("after approval: wide margins %v, %+v", b.margin.wide, b.alerts.all)
	}
}

// TestUnsettledBaselineIsBegunAnew: what a source did while it started is not its
// behaviour.
func TestUnsettledBaselineIsBegunAnew(t *testing.T) {
	s := newStage(t)
	s.e.style.predicted = 2
	s.e.style.fragment = 300
	s.play(8 * time.Second)
	s.e.style = own
	s.play(6 * time.Second)
	if s.b.restarts != 1 || s.b.stage != bus.StageLearning {
		t.Errorf("%d restarts, %s", s.b.restarts, s.b.stage)
	}
	s.play(time.Minute)
	if s.b.stage != bus.StageMature || len(s.b.alerts.all) != 0 {
		t.Errorf("%s, %+v", s.b.stage, s.b.alerts.all)
	}
}

func TestAlertRingKeepsWhatMatters(t *testing.T) {
	k := newAlertBook("cam-1")
	now := time.Unix(1, 0)
	for i := range 3 * maxAlerts {
		c := bus.ClassNoise
		if i%10 == 0 {
			c = bus.ClassProof
		}
		k.raise(now, bus.Alert{Class: c, Kind: "x"})
		k.close(now, c, bus.OutcomeCalm)
	}
	proofs := 0
	for _, a := range k.all {
		if a.Class == bus.ClassProof {
			proofs++
		}
	}
	if len(k.all) != maxAlerts || proofs != 20 || k.number != 3*maxAlerts {
		t.Errorf("%d alerts, %d of proof, number %d", len(k.all), proofs, k.number)
	}
}

func TestProfileSurvivesPacking(t *testing.T) {
	s := learned(t)
	packed, err := packProfile(s.b.profile)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes packed", len(packed))
	if len(packed) > bus.MaxSealed {
		t.Errorf("%d bytes are too many to seal", len(packed))
	}
	got, err := unpackProfile(packed)
	if err != nil {
		t.Fatal(err)
	}
	// Both engines must say the same of the same windows.
	a, b := detect.ResumeModes(s.b.profile.Modes, 0, s.b.settings()), detect.ResumeModes(got.Modes, 0, s.b.settings())
	s.e.style = foreign
	for range 200 {
		w := s.e.hop()
		x, y := a.Observe(&w), b.Observe(&w)
		if x.Score != y.Score || x.Kind != y.Kind || x.Text != y.Text {
			t.Fatalf("%+v against %+v", x, y)
		}
	}
	for _, bad := range [][]byte{nil, {1}, packed[:len(packed)/2]} {
		if _, err := unpackProfile(bad); err == nil {
			t.Errorf("%d bytes unpack", len(bad))
		}
	}
}

func FuzzUnpackProfile(f *testing.F) {
	b, err := packProfile(profileRecord{Version: 3, Early: &detect.Profile{Version: detect.ProfileVersion}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := unpackProfile(b); err == nil && p.Early == nil && len(p.Modes) == 0 {
			t.Error("no profile and no error")
		}
	})
}

// BenchmarkBehaviour is a window of a stream with a mature profile, from bytes on
// the bus to the decision.
func BenchmarkBehaviour(b *testing.B) {
	s := learned(&testing.T{})
	var windows [][]byte
	for range 400 {
		w := s.e.hop()
		windows = append(windows, w.AppendTo(nil))
	}
	var w feature.Window
	size, i := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		raw := windows[i%len(windows)]
		i++
		size += len(raw)
		if err := w.Decode(raw); err != nil {
			b.Fatal(err)
		}
		s.now = s.now.Add(feature.Hop)
		s.b.window(s.now, s.session, 1, feature.H264, &w)
		s.b.take()
	}
	perWindow := b.Elapsed().Seconds() / float64(i)
	b.ReportMetric(100*4*perWindow*100, "%core/100streams")
	b.ReportMetric(float64(size)/float64(i), "B/window")
}

// BenchmarkBehaviourMemory prints what one stream takes, mature after ten minutes,
// and at the end of learning.
func BenchmarkBehaviourMemory(b *testing.B) {
	const streams = 50
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	grown := func(play func(s *stage)) float64 {
		before := heap()
		all := make([]*behaviour, 0, streams)
		for i := range streams {
			s := newStage(&testing.T{})
			s.e = newEncoder(uint64(i), own)
			play(s)
			all = append(all, s.b)
		}
		after := heap()
		runtime.KeepAlive(all)
		return (after - before) / streams
	}
	for b.Loop() {
		b.ReportMetric(grown(func(s *stage) { s.play(60 * time.Second) })/1024, "KiB/mature")
		b.ReportMetric(grown(func(s *stage) { s.play(38 * time.Second) })/1024, "KiB/learning-38s")
	}
}
