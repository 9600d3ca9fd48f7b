package detect

// Resume begins to judge by a profile that was learned before.
func Resume(p *Profile, s Settings) *Engine {
	e := NewEngine(p.Form, s)
	e.learner = nil
	e.judgeBy(p)
	return e
}

// SetWeights replaces the weights of the detectors, from the next hop on.
func (e *Engine) SetWeights(w map[string]float64) { e.settings.Weights = w }

// judgeBy makes the detectors over a profile.
func (e *Engine) judgeBy(p *Profile) {
	e.profile = p
	accusing, advisory := Detectors(p)
	e.detectors = append(accusing, advisory...)
	e.advisory = make([]bool, len(e.detectors))
	for i := range advisory {
		e.advisory[len(accusing)+i] = true
	}
}
