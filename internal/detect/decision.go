package detect

// Settings are the operator's knobs.
type Settings struct {
	// Sensitivity in (0, 1] moves every limit: 0.5 is what the limits were made for;
	// more finds more and errs more often.
	Sensitivity float64
	// Weights multiply the scores of detectors by name; absent is 1, 0 switches off.
	Weights map[string]float64
}

// scale is what scores are multiplied by: 1 at 0.5, half at 0, half again as much at 1.
func (s Settings) scale() float64 { return 0.5 + s.Sensitivity }

// Verdict is what the decision says of one hop.
type Verdict struct {
	Evidence      // the strongest
	Alarm    bool // Score is at least 1 and this is news
	Others   []Evidence
}

// Decision turns evidence into alarms. A detector's window is its persistence; what
// remains is that one disturbance is one alarm: after it, evidence of the same class is
// no news until the stream was calm for a while.
type Decision struct {
	open map[subject]*episode
}

type episode struct {
	calm int // hops below half of the limit
}

// calmHops is how long scores must stay low for an episode to be over. A path that
// changed stays changed, and its evidence comes and goes.
var calmHops = map[Class]int{Proof: 5 * hopsPerSecond, Source: 5 * hopsPerSecond, Path: 120 * hopsPerSecond}

// quietScore is what held evidence of a running episode is shown as, at most.
const quietScore = 0.99

// subject is what an episode is about: the source as a whole, and of the path each
// kind of change.
type subject struct {
	class Class
	kind  string
}

func subjectOf(e *Evidence) subject {
	if e.Class == Path {
		return subject{Path, e.Kind}
	}
	return subject{class: e.Class}
}

// NewDecision begins without an episode.
func NewDecision() *Decision { return &Decision{open: map[subject]*episode{}} }

// Judge takes the evidence of one hop, scaled and weighted.
func (d *Decision) Judge(all []Evidence) Verdict {
	d.close(all)
	_, source := d.open[subject{class: Source}]
	best := -1
	for i := range all {
		e := &all[i]
		if e.Advisory {
			continue
		}
		// A source episode speaks for the path's as well: what replaced the source
		// also moved the timing.
		covered := d.open[subjectOf(e)] != nil || e.Class == Path && source
		if e.Score >= 1 && covered {
			e.Score = quietScore
		}
		if best < 0 || e.Score > all[best].Score || e.Score == all[best].Score && e.Class == Source && all[best].Class == Path {
			best = i
		}
	}
	var v Verdict
	if best < 0 {
		return v
	}
	v.Evidence = all[best]
	if v.Score >= 1 {
		v.Alarm = true
		d.open[subjectOf(&v.Evidence)] = &episode{}
	}
	for i := range all {
		if i != best && all[i].Score >= said {
			v.Others = append(v.Others, all[i])
		}
	}
	return v
}

// close ends the episodes that were calm for long enough.
func (d *Decision) close(all []Evidence) {
	for s, ep := range d.open {
		high := 0.0
		for i := range all {
			if e := &all[i]; !e.Advisory && subjectOf(e) == s {
				high = max(high, e.Score)
			}
		}
		if high < said {
			ep.calm++
		} else {
			ep.calm = 0
		}
		if ep.calm >= calmHops[s.class] {
			delete(d.open, s)
		}
	}
}
