package processing

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
)

// info describes the profile.
func (b *behaviour) info(now time.Time) bus.ProfileInfo {
	i := bus.ProfileInfo{
		Stream: b.alerts.stream, Stage: b.stage, Version: b.profile.Version, Windows: b.learned, Wanted: hops(b.cfg.Learn),
		Learned: b.profile.Learned, Approved: b.profile.Approved, Why: b.profile.Why, Probation: b.probation,
		Planned: b.planned, Stored: b.profile.Early != nil || len(b.profile.Modes) > 0, Refused: b.refused,
		Encoder: b.encoderInfo(now),
	}
	if b.profile.Before != nil {
		i.Before = b.profile.Before.Version
	}
	if len(b.profile.Modes) == 0 {
		i.Learned, i.Approved = time.Time{}, time.Time{}
	}
	var p *detect.Profile
	switch {
	case b.judge != nil:
		p = b.judge.Profile()
		for _, m := range b.judge.Modes() {
			i.Modes = append(i.Modes, bus.Mode{Name: m.Name, Now: m.Now, Found: m.Found, Windows: m.Hops, Fit: finite(m.Fit), Distance: finite(m.Distance), Moved: m.Moved})
		}
	case b.stage == bus.StageMature:
		p = b.profile.Modes[b.profile.Now].Anchor
	case !b.session.IsZero():
		i.Form = b.form.String()
	}
	if p != nil {
		i.Words, i.Form = len(p.Vocabulary.Words), p.Form.String()
	}
	if p != nil && b.stage == bus.StageMature {
		i.Windows = p.Hops
	}
	return i
}

// explain tells how the stream is judged.
func (b *behaviour) explain(now time.Time) bus.Explanation {
	e := bus.Explanation{
		Stream: b.alerts.stream, Responses: b.cfg.Responses, Profile: b.info(now), Sensitivity: b.tuned.params.Sensitivity,
		At: b.at, Score: b.verdict.Score, Outsiders: b.dropped,
	}
	if t := b.profile.Tail; b.stage == bus.StageMature {
		e.False = &bus.Prediction{Hours: t.Hours}
		e.False.PerDay, e.False.Low, e.False.High = t.Expected(b.settings())
	}
	if b.judge != nil {
		for _, d := range b.judge.Evidence() {
			e.Detectors = append(e.Detectors, bus.Detector{Kind: d.Kind, Class: bus.Class(d.Class), Score: finite(d.Score), Value: finite(d.Value), Limit: finite(d.Limit), Text: d.Text, Code: d.Code, Advisory: d.Advisory})
		}
		slices.SortStableFunc(e.Detectors, func(x, y bus.Detector) int { return cmp.Compare(y.Score, x.Score) })
	}
	for _, a := range slices.Backward(b.alerts.all) {
		if a.Closed.IsZero() {
			e.Open = append(e.Open, a)
		} else if e.Last == nil {
			e.Last = &a
		}
	}
	return e
}

// finite keeps numbers fit for JSON.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// scores are what is told once a second.
func (b *behaviour) scores() bus.StreamScores {
	s := bus.StreamScores{Stream: b.alerts.stream, Stage: b.stage, Score: finite(b.verdict.Score), Open: len(b.alerts.open)}
	if b.judge != nil {
		s.Detectors = map[string]float64{}
		for _, d := range b.judge.Evidence() {
			s.Detectors[d.Kind] = max(s.Detectors[d.Kind], finite(d.Score))
		}
	}
	return s
}
