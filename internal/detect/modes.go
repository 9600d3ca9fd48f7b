package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Mode is one regime of a source, such as day and night or a bit rate that its
// encoder was told to use: what its baseline left, and how far its limits have moved
// since. It is plain data, to be stored.
type Mode struct {
	Name   string
	Found  bool // by long normal behaviour; nobody announced or approved it
	Anchor *Profile
	Moved  []float64 // outwards, by limit; see adapt.go
}

// MaxModes is how many regimes a source may have.
const MaxModes = 4

// ModeState describes a mode of an engine.
type ModeState struct {
	Name     string
	Found    bool
	Now      bool    // it is the one that is judged by
	Hops     int     // of its baseline
	Distance float64 // share of their reach by which its limits have moved, of the one that moved most
	Moved    string  // the name of that limit
	Drifting string  // a limit that normal windows press against though it may move no further
	Fit      float64 // how far the stream is from it at present, in robust deviations
}

const (
	// A mode that fits better by fitFactor for fitHops takes over. It must not accuse.
	fitFactor = 0.6
	fitHops   = 5 * hopsPerSecond
	fitSmooth = 1.0 / (4 * hopsPerSecond)
	// What would be an alarm is none where another mode fits at once.
	nearSmooth = 1.0 / 6
	fitMost    = 3.0 // robust deviations on average: further away, nothing fits
	// modeDwell is the least time between two changes. Without it, whoever imitates a
	// source could have each detector look through the mode that is blind to him.
	modeDwell = 30 * hopsPerSecond
)

// NormalScore is the score below which a window is fit to learn from.
const NormalScore = 0.75

// regime is a mode at work.
type regime struct {
	mode      Mode
	profile   *Profile // the anchor, moved
	adapter   *adapter
	detectors []Detector
	advisory  []bool
	evidence  []Evidence
	quiet     int     // hops since the path was disturbed, as this baseline sees it
	worst     float64 // greatest score that accuses, of the last hop
	fit       float64 // how far the stream is from it, in robust deviations, over 4 s
	near      float64 // over 1 s
	better    int     // hops in a row in which it fitted better than the one in force
}

func newRegime(m Mode) *regime {
	p := m.Anchor.clone()
	r := &regime{mode: m, profile: p, adapter: newAdapter(m.Anchor, p, m.Moved), quiet: gateHops}
	r.build()
	return r
}

func (r *regime) build() {
	accusing, advisory := Detectors(r.profile)
	r.detectors = append(accusing, advisory...)
	r.advisory = make([]bool, len(r.detectors))
	for i := range advisory {
		r.advisory[len(accusing)+i] = true
	}
}

// clone copies what adapts and what modes share; tables that never change are one.
func (p *Profile) clone() *Profile {
	q := *p
	return &q
}

// score has the detectors look at a hop.
func (r *regime) score(v *View, s *Settings) {
	r.gate(v)
	r.evidence, r.worst = r.evidence[:0], 0
	for i, d := range r.detectors {
		gain := s.Gain(d.Name())
		v.Said = said / max(1, gain)
		e := d.Score(v)
		e.Advisory = r.advisory[i]
		s.weigh(&e, gain)
		if e.Text != "" && gain > 0 && gain != 1 {
			e.Text += fmt.Sprintf(", at present from %.0f %% of its limit on", 100/gain)
		}
		if !e.Advisory {
			r.worst = max(r.worst, e.Score)
		}
		r.evidence = append(r.evidence, e)
	}
	if v.OK4 {
		r.fit += (away(&r.profile.Fours, &v.V4) - r.fit) * fitSmooth
	}
	if v.OK1 {
		r.near += (away(&r.profile.Seconds, &v.V1) - r.near) * nearSmooth
	}
}

// fitFeatures tell regimes apart: what the encoder decides, and the volume.
var fitFeatures = []feature.Feature{
	feature.ByteRate, feature.SizeMean, feature.SizeDeviation, feature.FrameRate, feature.FrameSize, feature.FramePackets, feature.FrameVariation,
}

// away is how far a window is from a baseline, in robust deviations on average.
func away(baseline *[feature.Features]Spread, x *feature.Vector) (d float64) {
	for _, f := range fitFeatures {
		s := &baseline[f]
		d += min(math.Abs(x[f]-s.Median)/max(s.MAD, sigmaFloor[f]), 3*fitMost)
	}
	return d / float64(len(fitFeatures))
}

// choose finds the regime to judge by. There is one for all detectors, and it stays
// for a while: a stream has to fit one regime as a whole.
func (e *Engine) choose() {
	e.dwell++
	now := e.regimes[e.now]
	best := e.now
	for i, r := range e.regimes {
		if i == e.now {
			continue
		}
		if r.fit < fitFactor*now.fit && r.worst < 1 {
			r.better++
		} else {
			r.better = 0
		}
		ready := r.better >= fitHops || now.worst >= 1 && r.worst < NormalScore && r.near < fitMost && r.near < now.near
		if ready && (best == e.now || r.fit < e.regimes[best].fit) {
			best = i
		}
	}
	if best == e.now || e.dwell < modeDwell {
		return
	}
	e.now, e.dwell = best, 0
	for _, r := range e.regimes {
		r.better = 0
	}
}

// ResumeModes begins to judge by modes that were learned before, by the one with the
// number now first.
func ResumeModes(modes []Mode, now int, s Settings) *Engine {
	e := NewEngine(modes[0].Anchor.Form, s)
	e.learner = nil
	for _, m := range modes[:min(len(modes), MaxModes)] {
		e.regimes = append(e.regimes, newRegime(m))
	}
	e.now = max(0, min(now, len(e.regimes)-1))
	e.dwell = modeDwell
	e.shareWords()
	return e
}

// Choose judges by the newest regime of a name from now on, because the source's owner
// says that it runs so; false where none has the name. Where another regime fits
// better, it may take over at once: a word is not a window.
func (e *Engine) Choose(name string) bool {
	for i, r := range slices.Backward(e.regimes) {
		if r.mode.Name != name {
			continue
		}
		if i != e.now {
			e.now, e.dwell = i, modeDwell
			for _, r := range e.regimes {
				r.better = 0
			}
		}
		return true
	}
	return false
}

// AddMode adds a regime and judges by it from now on. Where there is no room, the one
// that gives way is the least like the stream at present, but never the first.
func (e *Engine) AddMode(m Mode) {
	if len(e.regimes) >= MaxModes {
		out := 1
		for i, r := range e.regimes[1:] {
			if r.fit > e.regimes[out].fit {
				out = i + 1
			}
		}
		e.regimes = slices.Delete(e.regimes, out, out+1)
	}
	e.regimes = append(e.regimes, newRegime(m))
	e.now, e.dwell = len(e.regimes)-1, 0
	e.shareWords()
}

// Join puts regimes that were learned before in front of the one that the engine has
// learned, by which it goes on to judge, and names that one.
func (e *Engine) Join(before []Mode, name string) {
	own := e.regimes[e.now]
	own.mode.Name = name
	e.regimes = nil
	for _, m := range before {
		e.regimes = append(e.regimes, newRegime(m))
	}
	e.AddMode(own.mode)
	e.regimes[e.now] = own
	e.shareWords()
}

// CheckModes refuses stored modes that this engine cannot judge by.
func CheckModes(modes []Mode) error {
	if len(modes) > MaxModes {
		return fmt.Errorf("%w: it has %d modes", ErrProfile, len(modes))
	}
	for _, m := range modes {
		if m.Anchor == nil {
			return fmt.Errorf("%w: a mode is empty", ErrProfile)
		}
		if err := m.Anchor.Check(); err != nil {
			return err
		}
	}
	return nil
}

// shareWords gives all regimes the words of each, and the greatest packet. It is one encoder, which may say in
// each regime what it said in another, and while one passes into the other ten seconds
// hold words of both. How complete a regime's baseline shows its words to be stays its
// own, and so do its statistics.
func (e *Engine) shareWords() {
	if len(e.regimes) < 2 {
		return
	}
	var all []Word
	for _, r := range e.regimes {
		all = append(all, r.mode.Anchor.Vocabulary.Words...)
	}
	slices.SortStableFunc(all, func(a, b Word) int { return int(a.Token) - int(b.Token) })
	all = slices.CompactFunc(all, func(a, b Word) bool { return a.Token == b.Token })
	widest := slices.MaxFunc(e.regimes, func(a, b *regime) int { return cmp.Compare(a.profile.Cap, b.profile.Cap) }).profile
	for _, r := range e.regimes {
		r.profile.Vocabulary.Words = all
		r.profile.Cap, r.profile.CapShare = widest.Cap, widest.CapShare
	}
}

// Modes describes the regimes.
func (e *Engine) Modes() []ModeState {
	var out []ModeState
	for i, r := range e.regimes {
		s := ModeState{Name: r.mode.Name, Found: r.mode.Found, Now: i == e.now, Hops: r.profile.Hops, Fit: r.fit, Drifting: r.adapter.drifting()}
		s.Distance, s.Moved = r.adapter.distance()
		out = append(out, s)
	}
	return out
}

// Keep gives the modes as they are now, to be stored, and the number of the one in
// force.
func (e *Engine) Keep() (modes []Mode, now int) {
	for _, r := range e.regimes {
		m := r.mode
		m.Moved = slices.Clone(r.adapter.moved)
		modes = append(modes, m)
	}
	return modes, e.now
}

// Anchor makes what the limits are now the anchor of all modes: somebody has looked
// at it.
func (e *Engine) Anchor() {
	for i, r := range e.regimes {
		m := r.mode
		own := m.Anchor
		m.Anchor, m.Moved, m.Found = r.profile.clone(), nil, false
		m.Anchor.Vocabulary.Words, m.Anchor.Cap, m.Anchor.CapShare = own.Vocabulary.Words, own.Cap, own.CapShare
		fit := r.fit
		e.regimes[i] = newRegime(m)
		e.regimes[i].fit = fit
	}
	e.shareWords()
}

// Normal reports whether the last hop is fit to learn from: nothing accuses, and the
// path was steady.
func (e *Engine) Normal() bool {
	if len(e.regimes) == 0 {
		return false
	}
	r, w := e.regimes[e.now], &e.viewer.view.Hop
	return r.worst < NormalScore && r.quiet >= gateHops && w.Packets > 0
}

// Adapt lets the regime in force move a little towards the last hop. Whoever calls it
// has found the hop normal, and nothing else against it.
func (e *Engine) Adapt() { e.regimes[e.now].adapter.add(&e.viewer.view) }

// Confine draws the limits of a regime that nobody announced back to where those of
// the regime that it was found in may be moved to. What is found by itself may lie
// elsewhere, since all of it was judged normal; it may not be more open.
func Confine(p, from *Profile) {
	for i := range limits {
		l := &limits[i]
		if l.place {
			continue
		}
		to, have := *l.at(from), l.at(p)
		if l.upper {
			*have = min(*have, to+l.reach(from))
		} else {
			*have = max(*have, to-l.reach(from))
		}
	}
	// A few foreign words in ten seconds are forgiven, and regimes share their words: one
	// that nobody announced brings none, and no greater packet.
	p.Vocabulary.Words = slices.DeleteFunc(slices.Clone(p.Vocabulary.Words), func(w Word) bool { return !from.Vocabulary.said(w.Token) })
	p.Vocabulary.Partial = p.Vocabulary.Partial && from.Vocabulary.Partial
	if q := &p.Vocabulary.Quantum; *q != 0 && (from.Vocabulary.Quantum == 0 || *q%from.Vocabulary.Quantum != 0) {
		*q = from.Vocabulary.Quantum
	}
	if p.Cap > from.Cap {
		p.Cap, p.CapShare = from.Cap, from.CapShare
	}
	for f := range p.Vocabulary.Families {
		have := &p.Vocabulary.Families[f]
		have.Known = min(have.Known, from.Vocabulary.Families[f].Known)
		own, of := &have.Limit, from.Vocabulary.Families[f].Limit
		if of != 0 && (*own == 0 || *own > of) {
			*own = of
		}
	}
}
