package processing

import (
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// loaded takes up what was stored. refused says why the stored profile is not
// believed; a stream without one begins to learn.
func (b *behaviour) loaded(now time.Time, p profileRecord, refused string, alerts alertsRecord) {
	if b.stage != bus.StageLoading {
		return
	}
	b.takeUp(now, alerts.Pending)
	b.alerts.restore(now, alerts.Number, alerts.Alerts, now.Before(b.planned))
	b.restoreReels(alerts.Reels)
	b.rotationsLeft(now) // counts from now what the clock was set back behind
	if a := b.alerts.get(bus.ClassSource); a != nil {
		// The scores from its beginning are stored: those of now must not replace them.
		b.tuned.around = append(b.tuned.around, around{number: numberOf(a.ID), id: a.ID})
	}
	b.profile = p
	switch {
	case refused != "":
		b.profile = profileRecord{Why: refused}
		b.tell(now, gk.EventProfileRefused, map[string]string{"why": refused})
		b.raise(now, bus.Alert{Class: bus.ClassProfile, Kind: refusedKind, Evidence: []string{refused}, Score: 1,
			Ask: "look who can write the store; the profile is learned anew, in probation: gaitkeeper profile approve " + string(b.alerts.stream) + " when it is right"})
		b.startLearning(now)
	case p.Early != nil:
		b.setStage(now, bus.StageProvisional)
	case len(p.Modes) > 0:
		b.setStage(now, bus.StageMature)
		// It was stored, and recordings made, until the service ended.
		b.saved = now.Add(-phase(b.alerts.stream, saveEvery))
		b.tuned.recordedAt = now.Add(-phase(b.alerts.stream, recordEvery))
	default:
		b.startLearning(now)
	}
	if b.stage == bus.StageLearning {
		b.alerts.close(now, bus.ClassSource, bus.OutcomeEnded) // nothing judges it any more
	}
}

func (b *behaviour) setStage(now time.Time, s bus.Stage) {
	b.stage = s
	detail := map[string]string{"stage": string(s), "version": fmt.Sprint(b.profile.Version), "windows": fmt.Sprint(b.learned)}
	if s == bus.StageLearning && b.profile.Why != "" {
		detail["why"] = b.profile.Why
	}
	b.tell(now, gk.EventProfileStage, detail)
}

// startLearning forgets what was learned and begins anew. What was there before can
// be brought back as a whole.
func (b *behaviour) startLearning(now time.Time) {
	if len(b.profile.Modes) > 0 {
		b.profile.replaces(b.kept())
	}
	b.profile.Modes, b.profile.Early, b.profile.Now = nil, nil, 0
	b.back = nil
	b.begins(now)
}

// learnMode learns what the source does now beside what it did before: somebody
// announced or approved it.
func (b *behaviour) learnMode(now time.Time, why string) {
	b.profile = b.kept()
	b.profile.Why = why
	b.back, b.backFor = b.judge, 0
	b.begins(now)
}

func (b *behaviour) begins(now time.Time) {
	b.judge, b.find = nil, finder{}
	b.breakScores()
	b.restarts, b.refused = 0, 0
	b.fresh()
	b.setStage(now, bus.StageLearning)
}

// resume judges a session by what is known of the stream, or begins to learn.
func (b *behaviour) resume(now time.Time) {
	b.find = finder{}
	switch {
	case b.stage == bus.StageMature:
		b.profile = b.kept()
		b.judge = detect.ResumeModes(b.profile.Modes, b.profile.Now, b.settings())
	case b.stage == bus.StageProvisional:
		// Judged by what is there, and learned from the beginning: the windows that
		// were learned from are gone.
		b.judge = detect.Resume(b.profile.Early, b.settings())
		b.fresh()
		b.early = nil
	case b.learned > 0:
		b.begins(now)
		return
	default:
		b.fresh()
		return
	}
	if b.stage == bus.StageProvisional && len(b.profile.Modes) > 0 {
		b.back, b.backFor = detect.ResumeModes(b.profile.Modes, b.profile.Now, b.settings()), 0
	}
	b.probation, b.settling = max(b.probation, hops(b.cfg.Probation)), settleHops
	b.margins()
}

// watchReturn ends the learning of a further regime where the source is again what it
// was before.
func (b *behaviour) watchReturn(now time.Time, w *feature.Window) {
	if b.back == nil {
		return
	}
	b.back.Observe(w)
	if !b.back.Normal() {
		b.backFor = 0
		return
	}
	if b.backFor++; b.backFor < returnHops {
		return
	}
	b.judge, b.back, b.early, b.learner, b.rates = b.back, nil, nil, nil, nil
	if b.profile.Early != nil {
		b.profile.Early = nil
		b.store()
	}
	b.setStage(now, bus.StageMature)
	b.margins()
}

// fresh begins a baseline.
func (b *behaviour) fresh() {
	b.early, b.learner = b.engine(), b.engine()
	b.settling, b.learned, b.paused, b.rates = settleHops, 0, 0, b.rates[:0]
}

func (b *behaviour) settings() detect.Settings {
	return detect.Settings{Sensitivity: b.tuned.params.Sensitivity, Persistence: b.tuned.params.Persistence, Weights: b.cfg.Weights}
}

func (b *behaviour) engine() *detect.Engine { return detect.NewEngine(b.form, b.settings()) }

// steady reports whether a window is fit to learn from as far as the path goes.
func steady(w *feature.Window) bool {
	return w.Packets > 0 && w.Jumps == 0 && w.MaxGap < feature.Hop && w.Lost <= w.Packets/10
}

// usual reports whether a window is as steady as the path was when the profile in force
// was learned: some sources pause for longer than a hop between their pictures.
func (b *behaviour) usual(w *feature.Window) bool {
	if steady(w) || b.judge == nil || w.Packets == 0 || w.Jumps > 0 {
		return steady(w)
	}
	p := b.judge.Profile()
	return float64(w.MaxGap) <= p.MaxGap && float64(w.Lost) <= max(p.MaxLost, float64(w.Packets)/10)
}

// pauses reports whether windows whose only fault is a pause are the source's rhythm:
// they are more than the others, and were for 10 s.
func (b *behaviour) pauses(w *feature.Window) bool {
	if w.Packets == 0 || w.Jumps > 0 || w.Lost > w.Packets/10 {
		return false
	}
	b.paused++
	return b.paused > max(pausedHops, b.learned)
}

// learn gathers the baseline while nothing can be judged yet.
func (b *behaviour) learn(now time.Time, w *feature.Window) {
	if b.alerts.get(bus.ClassProof) != nil {
		b.refused++
		return
	}
	// A path that is never steady is the stream's own.
	if !steady(w) && !b.pauses(w) && (w.Packets == 0 || b.refused < uint64(2*hops(b.cfg.Learn))) {
		b.refused++
		return
	}
	b.early.Observe(w)
	b.observe(w)
	mature := hops(b.cfg.Learn)
	if b.learned < min(mature, hops(b.cfg.Provisional)) {
		return
	}
	if !b.settled() && b.restarts < maxRestarts {
		b.restarts++
		b.refused += uint64(b.learned)
		b.fresh()
		b.settling = 0
		return
	}
	if b.learned >= mature {
		b.mature(now)
		return
	}
	b.profile.Early = b.early.Settle()
	b.judge, b.early = b.early, nil
	b.store()
	b.setStage(now, bus.StageProvisional)
	b.margins()
}

func (b *behaviour) observe(w *feature.Window) {
	b.learner.Observe(w)
	b.learned++
	if len(b.rates) < 1<<12 {
		b.rates = append(b.rates, float64(w.Bytes))
	}
}

// settled compares the rates of the halves of the baseline.
func (b *behaviour) settled() bool {
	mean := func(x []float64) (m float64) {
		for _, v := range x {
			m += v / float64(len(x))
		}
		return max(m, 1)
	}
	half := len(b.rates) / 2
	if half == 0 {
		return false
	}
	r := mean(b.rates[:half]) / mean(b.rates[half:])
	return r < settleFactor && 1/r < settleFactor
}

// mature makes the profile of everything learned the one that is judged by, and
// has it stored.
func (b *behaviour) mature(now time.Time) {
	before := b.profile
	before.Early = nil
	b.learner.Settle()
	b.learner.Join(b.profile.Modes, b.regimeName(now))
	b.judge, b.learner, b.early, b.back, b.rates = b.learner, nil, nil, nil, nil
	if len(before.Modes) > 0 {
		b.profile.replaces(before)
	}
	b.profile.Early, b.profile.Learned, b.profile.Approved = nil, now, time.Time{}
	if a := b.alerts.get(bus.ClassProfile); a != nil && a.Kind == refusedKind {
		b.probation = hops(tamperedProbation)
	}
	b.profile.Modes, b.profile.Now = b.judge.Keep()
	b.store()
	b.setStage(now, bus.StageMature)
	b.margins()
}

// approve takes an operator's word: that what the source does is right, if it is
// accused, so that this is learned beside what it did before; or that the profile is.
func (b *behaviour) approve(now time.Time) error {
	if b.stage == bus.StageProvisional && b.alerts.get(bus.ClassSource) != nil {
		// What is accused is not learned, so that the profile would stay as young as it is.
		b.alerts.close(now, bus.ClassSource, bus.OutcomeAccepted)
		b.verdict, b.profile.Early = detect.Verdict{}, nil
		b.profile.Why = "an operator approved what the source does"
		b.begins(now)
		return nil
	}
	if b.stage != bus.StageMature || b.judge == nil {
		return bus.Refuse(bus.CodeConflict, "stream %s: the profile is %s: approve it when it is mature and the stream runs", b.alerts.stream, b.stage)
	}
	if b.alerts.get(bus.ClassSource) != nil {
		b.alerts.close(now, bus.ClassSource, bus.OutcomeAccepted)
		b.verdict = detect.Verdict{}
		b.learnMode(now, "an operator approved what the source does")
		return nil
	}
	before := b.kept()
	b.judge.Anchor()
	b.profile = b.kept()
	b.profile.replaces(before)
	b.profile.Approved = now
	b.probation = 0
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.store()
	b.margins()
	b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(b.stage), "version": fmt.Sprint(b.profile.Version), "approved": "by the operator"})
	return nil
}

// rollback brings the profile back that was there before the last change, as a whole.
func (b *behaviour) rollback(now time.Time) error {
	if b.stage == bus.StageLoading || b.profile.Before == nil {
		return bus.Refuse(bus.CodeConflict, "stream %s: no profile is kept from before this one", b.alerts.stream)
	}
	replaced, version := b.kept(), b.profile.Version
	b.profile = *b.profile.Before
	b.profile.Why = fmt.Sprintf("an operator went back from version %d to version %d", version, b.profile.Version)
	b.profile.Version = version
	if len(replaced.Modes) > 0 {
		b.profile.replaces(replaced)
	}
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.back, b.early, b.learner, b.judge, b.rates = nil, nil, nil, nil, nil
	b.verdict = detect.Verdict{}
	b.store()
	b.setStage(now, bus.StageMature)
	b.resume(now)
	return nil
}

// relearn takes an operator's word that the source changed.
func (b *behaviour) relearn(now time.Time) error {
	if b.stage == bus.StageLoading {
		return bus.Refuse(bus.CodeUnavailable, "stream %s: the profile is being read: ask again in a moment", b.alerts.stream)
	}
	b.alerts.close(now, bus.ClassSource, bus.OutcomeAccepted)
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.profile.Why = "an operator asked for it"
	b.probation = 0
	b.verdict = detect.Verdict{}
	b.startLearning(now)
	return nil
}

// plan takes an operator's word that the source will change; zero takes it back.
func (b *behaviour) plan(now time.Time, long time.Duration) error {
	if long < 0 || long > bus.MaxPlanned {
		return bus.Refuse(bus.CodeBadRequest, "a planned change must last more than 0, up to %gh, and not %v; 0 takes it back", bus.MaxPlanned.Hours(), long)
	}
	if b.stage == bus.StageLoading {
		return bus.Refuse(bus.CodeUnavailable, "stream %s: its profile is being read: ask again in a moment", b.alerts.stream)
	}
	b.planned, b.pendingKept, b.alerts.dirty = time.Time{}, now, true
	if long > 0 {
		b.planned = now.Add(long)
	}
	b.tell(now, gk.EventPlannedChange, map[string]string{"by": "operator", "for": long.String()})
	return nil
}
