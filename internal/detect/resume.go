package detect

// Resume begins to judge by a profile that was learned before.
func Resume(p *Profile, s Settings) *Engine { return ResumeModes([]Mode{{Anchor: p}}, 0, s) }

// SetWeights replaces the weights of the detectors, from the next hop on.
func (e *Engine) SetWeights(w map[string]float64) { e.settings.Weights = w }

// Tune replaces sensitivity and persistence, from the next hop on.
func (e *Engine) Tune(sensitivity float64, persistence int) {
	e.settings.Sensitivity, e.decision.tracker.Persistence = sensitivity, persistence
}
