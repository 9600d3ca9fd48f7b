package detect

import "github.com/gaitkeeper/gaitkeeper/internal/episode"

// Settings are the operator's knobs.
type Settings struct {
	// Sensitivity in (0, 1] moves every limit: 0.5 is what the limits were made for;
	// more finds more and errs more often.
	Sensitivity float64
	// Weights multiply the scores of detectors by name; absent is 1, 0 switches off.
	Weights map[string]float64
	// Persistence is for how many hops in a row a score must be at its limit to be an
	// alarm, from 1 to [episode.MostPersistence]; 0 is 1.
	Persistence int
}

// Gain is what the scores of a detector are multiplied by.
func (s Settings) Gain(kind string) float64 {
	w, ok := s.Weights[kind]
	if !ok {
		w = 1
	}
	return episode.Gain(w, s.Sensitivity)
}

// weigh puts the score of an accusing detector on the grid, and applies its gain.
func (s *Settings) weigh(e *Evidence, gain float64) {
	if !e.Advisory {
		e.Level = episode.LevelOf(e.Score)
		e.Score = e.Level.Score()
	}
	e.Score *= gain
}

// Verdict is what the decision says of one hop.
type Verdict struct {
	Evidence      // the strongest
	Alarm    bool // Score is at least 1 and this is news
	Held     bool // Score would be at least 1, but the episode it belongs to was told
	Others   []Evidence
}

// Decision turns evidence into alarms. Most of a detector's persistence is in its
// window; what remains is in [episode.Tracker]: that one disturbance is one alarm. After
// it, evidence of the same class is no news until the stream was calm for a while.
type Decision struct {
	tracker episode.Tracker
	known   []subject // by index in the tracker
	high    []float64
	of      []int // index of the subject of each evidence; -1 of an advisory one
}

// quietScore is what held evidence of a running episode is shown as, at most.
const quietScore = 0.99

// subject is what an episode is about: the source as a whole, and of the path each
// kind of change.
type subject struct {
	class Class
	kind  string
}

// NewDecision begins without an episode.
func NewDecision() *Decision { return &Decision{} }

// subject gives the index of what evidence is about.
func (d *Decision) subject(e *Evidence) int {
	s, rule := subject{class: e.Class}, episode.SourceSubject
	if e.Class == Path {
		s.kind, rule = e.Kind, episode.PathSubject
	}
	for i, have := range d.known {
		if have == s {
			return i
		}
	}
	d.known, d.high = append(d.known, s), append(d.high, 0)
	return d.tracker.Add(rule)
}

// Judge takes the evidence of one hop, scaled and weighted.
func (d *Decision) Judge(all []Evidence) Verdict {
	d.of = d.of[:0]
	clear(d.high)
	for i := range all {
		at := -1
		if e := &all[i]; !e.Advisory {
			at = d.subject(e)
			d.high[at] = max(d.high[at], e.Score)
		}
		d.of = append(d.of, at)
	}
	alarm := d.tracker.Step(d.high)
	best := -1
	var v Verdict
	for i := range all {
		e := &all[i]
		if e.Advisory {
			continue
		}
		if e.Score >= 1 && d.tracker.Held(d.of[i]) {
			e.Score, v.Held = quietScore, true
		}
		if best < 0 || e.Score > all[best].Score || e.Score == all[best].Score && e.Class == Source && all[best].Class == Path {
			best = i
		}
	}
	if best < 0 {
		return v
	}
	v.Evidence, v.Alarm = all[best], alarm >= 0
	for i := range all {
		if i != best && all[i].Score >= said {
			v.Others = append(v.Others, all[i])
		}
	}
	return v
}
