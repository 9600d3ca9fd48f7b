package processing

import (
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// profileRecord is a profile as it is stored.
type profileRecord struct {
	Version  uint64          `cbor:"1,keyasint"` // rises with every one stored
	Learned  time.Time       `cbor:"2,keyasint"`
	Approved time.Time       `cbor:"3,keyasint,omitzero"`
	Why      string          `cbor:"4,keyasint,omitempty"` // why it was learned anew
	Profile  *detect.Profile `cbor:"5,keyasint"`
}

// loaded takes up what was stored. refused says why the stored profile is not
// believed; a stream without one begins to learn.
func (b *behaviour) loaded(now time.Time, p profileRecord, refused string, number uint64, alerts []bus.Alert) {
	if b.stage != bus.StageLoading {
		return
	}
	b.alerts.restore(now, number, alerts)
	b.profile = p
	switch {
	case refused != "":
		b.profile.Profile, b.profile.Why = nil, refused
		b.tell(now, gk.EventProfileRefused, map[string]string{"why": refused})
		b.raise(now, bus.Alert{Class: bus.ClassProfile, Kind: "refused-profile", Evidence: []string{refused}, Score: 1,
			Ask: "look who can write the store; the profile is learned anew, in probation: gaitkeeper profile approve " + string(b.alerts.stream) + " when it is right"})
		b.startLearning(now)
	case p.Profile != nil:
		b.setStage(now, bus.StageMature)
	default:
		b.startLearning(now)
	}
}

func (b *behaviour) setStage(now time.Time, s bus.Stage) {
	b.stage = s
	b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(s), "version": fmt.Sprint(b.profile.Version), "windows": fmt.Sprint(b.learned)})
}

// startLearning forgets what was learned and begins anew.
func (b *behaviour) startLearning(now time.Time) {
	b.profile.Profile, b.judge = nil, nil
	b.restarts, b.refused = 0, 0
	b.fresh()
	b.setStage(now, bus.StageLearning)
}

// fresh begins a baseline.
func (b *behaviour) fresh() {
	b.early, b.learner = b.engine(), b.engine()
	b.settling, b.learned, b.rates = settleHops, 0, b.rates[:0]
}

func (b *behaviour) settings() detect.Settings {
	return detect.Settings{Sensitivity: b.cfg.Sensitivity, Weights: b.cfg.Weights}
}

func (b *behaviour) engine() *detect.Engine { return detect.NewEngine(b.form, b.settings()) }

// steady reports whether a window is fit to learn from as far as the path goes.
func steady(w *feature.Window) bool {
	return w.Packets > 0 && w.Jumps == 0 && w.MaxGap < feature.Hop && w.Lost <= w.Packets/10
}

// learn gathers the baseline while nothing can be judged yet.
func (b *behaviour) learn(now time.Time, w *feature.Window) {
	// A path that is never steady is the stream's own.
	if !steady(w) && (w.Packets == 0 || b.refused < uint64(2*hops(b.cfg.Learn))) {
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
	b.early.Settle()
	b.judge, b.early = b.early, nil
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
	b.profile.Profile = b.learner.Settle()
	b.judge, b.learner, b.early, b.rates = b.learner, nil, nil, nil
	b.profile.Version++
	b.profile.Learned, b.profile.Approved = now, time.Time{}
	if b.alerts.get(bus.ClassProfile) != nil {
		b.probation = hops(tamperedProbation)
	}
	b.out.saveProfile = true
	b.setStage(now, bus.StageMature)
	b.margins()
}

// approve takes an operator's word that the profile is right.
func (b *behaviour) approve(now time.Time) error {
	if b.stage != bus.StageMature {
		return bus.Refuse(bus.CodeConflict, "stream %s: the profile is %s: approve it when it is mature", b.alerts.stream, b.stage)
	}
	b.profile.Approved = now
	b.profile.Version++
	b.probation = 0
	b.alerts.close(now, bus.ClassProfile, bus.OutcomeAccepted)
	b.out.saveProfile = true
	b.margins()
	b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(b.stage), "version": fmt.Sprint(b.profile.Version), "approved": "by the operator"})
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
		return bus.Refuse(bus.CodeBadRequest, "a planned change lasts %v at most", bus.MaxPlanned)
	}
	b.planned = time.Time{}
	if long > 0 {
		b.planned = now.Add(long)
	}
	b.tell(now, gk.EventPlannedChange, map[string]string{"for": long.String()})
	return nil
}
