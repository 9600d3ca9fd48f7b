package detect

import (
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Engine is one stream's: it learns, then judges. It belongs to one goroutine.
type Engine struct {
	settings Settings
	viewer   *viewer
	learner  *Learner
	regimes  []*regime // none while learning
	now      int       // of them, the one that is judged by
	dwell    int       // hops since it was changed
	decision *Decision
	evidence []Evidence
	seed     uint64
}

// NewEngine begins to learn a stream with the given form of payload.
func NewEngine(form feature.Form, s Settings) *Engine {
	if s.Sensitivity == 0 {
		s.Sensitivity = 0.5
	}
	e := &Engine{settings: s, viewer: newViewer(), learner: NewLearner(form), decision: NewDecision(), seed: 1}
	e.decision.tracker.Persistence = s.Persistence
	return e
}

// Learning reports whether the baseline is still being gathered.
func (e *Engine) Learning() bool { return len(e.regimes) == 0 }

// Profile is the profile that is judged by, nil while learning.
func (e *Engine) Profile() *Profile {
	if e.Learning() {
		return nil
	}
	return e.regimes[e.now].profile
}

// Observe takes the next hop: it learns from it, or judges it.
func (e *Engine) Observe(w *feature.Window) Verdict {
	v := e.viewer.push(w)
	if e.Learning() {
		e.learner.Add(v)
		return Verdict{}
	}
	for _, r := range e.regimes {
		r.score(v, &e.settings)
	}
	e.choose()
	e.evidence = append(e.evidence[:0], e.regimes[e.now].evidence...)
	return e.decision.Judge(e.evidence)
}

// Settle ends learning.
func (e *Engine) Settle() *Profile {
	e.regimes = []*regime{newRegime(Mode{Anchor: e.learner.Finish(e.seed)})}
	e.learner, e.dwell = nil, modeDwell
	return e.regimes[0].mode.Anchor
}

// Detectors makes the detectors over a profile: those that accuse, in order of
// strength, and those that only support. Which is which was found by ablation.
func Detectors(p *Profile) (accusing, advisory []Detector) {
	return []Detector{
			newCount(p, twoContents, "two-contents", Source, 1, "a sequence number that was in use came with other content"),
			newCount(p, aliens, "alien", Source, 3, "a packet came that is not the stream's: no RTP, or of another SSRC"),
			newCount(p, stale, "stale", Source, 5, "a packet was sent again more than a second after its time"),
			newCount(p, echoes, "echo", Source, p.echoFloor(), "a payload of the last 3 s was sent again under a new number"),
			newCount(p, overCap, "over-cap", Source, 2, "a packet was larger than this source's largest"),
			newCount(p, violations, "order", Source, 2, "fragments, frame ends or continuity counters were out of order though no packet was missing"),
			newCount(p, jumps, "renumbering", Source, 3, "the sequence numbers jumped"),
			newGrammar(p, "grammar", feature.FamilyHeader, feature.FamilyUnit, feature.FamilySlice),
			newGrammar(p, "parameter-set", feature.FamilyParameter),
			newGrammar(p, "clock-step", feature.FamilyStep),
			newGrammar(p, "packet-size", feature.FamilySize),
			newAbsence(p),
			pacing{p},
			newLoop(p),
			newVolume(p),
			&drift{p: p, r: newRamp()},
			&bottleneck{p: p, e: newEnvelope(2 * tenSec), edge: newEnvelope(tenSec)},
			tick{p},
		}, []Detector{
			distance{p, sizeDistance, "size-distribution", Source},
			distance{p, iatDistance, "iat-distribution", Path},
			distance{p, paceDistance, "pace-distribution", Path},
			&step{p: p, e: newEnvelope(40 * hopsPerSecond)},
			zscore{p, 6},
			robust{p, 6},
			isolation{p, 0.1},
		}
}

// Evidence is what every detector said of the last hop, before episodes were
// told apart. The slice is valid until the next call of Observe.
func (e *Engine) Evidence() []Evidence {
	if e.Learning() {
		return nil
	}
	return e.regimes[e.now].evidence
}

// Vector is the last second in numbers; ok is false where there were too few packets.
func (e *Engine) Vector() (v feature.Vector, ok bool) { return e.viewer.view.V1, e.viewer.view.OK1 }
