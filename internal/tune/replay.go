package tune

import (
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Params are what tuning moves. The sensitivity is each stream's own, the rest the
// fleet's.
type Params struct {
	Sensitivity float64
	Weights     [Groups]float64 // multiply the weights of the detectors of a group
	Persistence int             // hops; see [episode.Tracker]
}

// DefaultParams is what holds where nothing was tuned.
func DefaultParams() Params {
	p := Params{Sensitivity: 0.5, Persistence: 1}
	for g := range p.Weights {
		p.Weights[g] = 1
	}
	return p
}

// Valid reports whether these are settings at all. What is no number would blind, and
// stays what it is in every bound.
func (p *Params) Valid() bool {
	ok := p.Sensitivity > 0 && p.Sensitivity <= 1 && p.Persistence >= 1 && p.Persistence <= mostPersistence
	for _, w := range p.Weights {
		ok = ok && w >= leastWeight && w <= mostWeight
	}
	return ok
}

// Groups is the number of groups of detectors that are weighed together. There are
// far fewer labels than detectors, so weights of their own could not be told.
const Groups = 4

// GroupNames are the groups' names.
var GroupNames = [Groups]string{"words", "numbers", "repetition", "volume"}

// groupOf has the group of each detector by name; those of the path have none, because
// no rotation follows from them.
var groupOf = map[string]int{
	"grammar": 0, "parameter-set": 0, "clock-step": 0, "packet-size": 0, "absence": 0,
	"two-contents": 1, "alien": 1, "stale": 1, "renumbering": 1, "order": 1, "over-cap": 1,
	"loop": 2, "echo": 2,
	"volume": 3, "drift": 3, "pacing": 3,
}

// Weight is what a detector's weight is multiplied by. Weights and sensitivity together
// lead no cut-off out of the range from [Floor] to [Ceiling].
func (p *Params) Weight(kind string) float64 {
	if g, ok := groupOf[kind]; ok {
		c := CutoffOf(p.Sensitivity)
		return min(max(p.Weights[g], min(1, c/Ceiling)), max(1, c/Floor))
	}
	return 1
}

// Weights is what holds besides what is tuned: the weight of a detector in some
// circumstances, as the engine would have it.
type Weights func(kind string, f Flags) float64

// Plain is the weights of an engine whose settings have none.
func Plain(string, Flags) float64 { return 1 }

// Replayer turns traces of one layout into alarms.
type Replayer struct {
	layout  *Layout
	weights Weights
	subject []int // of each detector
	rules   []episode.Subject
	tables  [1 << weightBits][]table // by the flags that change weights
	raw     [1 << weightBits][]table // at a sensitivity of 0.5
	high    []float64
	quiet   byte   // levels up to here come to less than [episode.Said] whatever they are of
	last    Params // that the tables are for
	ready   bool
}

// Layout is that of the traces that it replays.
func (r *Replayer) Layout() *Layout { return r.layout }

type table [1 << levelBits]float64

// NewReplayer prepares for traces of one layout.
func NewReplayer(l *Layout, w Weights) *Replayer {
	r := &Replayer{layout: l, weights: w, rules: []episode.Subject{episode.SourceSubject}}
	for i := range l.Kinds {
		s := 0
		if l.Path[i] {
			s = len(r.rules)
			r.rules = append(r.rules, episode.PathSubject)
		}
		r.subject = append(r.subject, s)
	}
	r.high = make([]float64, len(r.rules))
	for f := range r.tables {
		r.tables[f], r.raw[f] = make([]table, len(l.Kinds)), make([]table, len(l.Kinds))
	}
	return r
}

// set prepares the tables of scores.
func (r *Replayer) set(p *Params) {
	if r.ready && r.last == *p {
		return
	}
	r.last, r.ready = *p, true
	most := 0.0
	for f := range r.tables {
		for d, kind := range r.layout.Kinds {
			// Beliefs rest on plain scores: a weight must not make false alarms look real.
			w := r.weights(kind, Flags(f))
			gain, raw := episode.Gain(w*p.Weight(kind), p.Sensitivity), episode.Gain(w, 0.5)
			most = max(most, gain)
			for l := range r.tables[f][d] {
				r.tables[f][d][l] = episode.Level(l).Score() * gain
				r.raw[f][d][l] = episode.Level(l).Score() * raw
			}
		}
	}
	r.quiet = 0
	for l := episode.Level(1); l < 1<<levelBits && l.Score()*most < episode.Said; l++ {
		r.quiet = byte(l)
	}
}

// Alarm is one that the source raised.
type Alarm struct {
	Hop  int
	Kind string  // the detector that said most
	Peak float64 // greatest score of the episode's first seconds at a sensitivity of 0.5
	// Unanswered: within these seconds there was an alert that nobody spoke of.
	Unanswered bool
}

// peakHops is the length over which an alarm's peak is taken.
const peakHops = 5 * episode.HopsPerSecond

// Alarms gives the alarms about the source that the engine would have raised with
// these settings.
func (r *Replayer) Alarms(t *Trace, p Params) []Alarm {
	r.set(&p)
	tracker := episode.Tracker{Persistence: p.Persistence}
	for _, s := range r.rules {
		tracker.Add(s)
	}
	var out []Alarm
	t.scan()
	for i, n := 0, t.Len(); i < n; i++ {
		if t.peaks[i] <= r.quiet && tracker.Idle() {
			continue
		}
		if row, f := t.row(i); r.step(&tracker, row, f) {
			a := Alarm{Hop: i}
			a.Kind, a.Peak, a.Unanswered = r.peak(t, i, min(i+peakHops, n))
			out = append(out, a)
		}
	}
	return out
}

// step takes the levels of a hop and reports an alarm about the source. The tables
// must be set.
func (r *Replayer) step(tracker *episode.Tracker, row []byte, f Flags) bool {
	clear(r.high)
	tables := r.tables[f%(1<<weightBits)]
	for d, level := range row {
		if level != 0 {
			s := r.subject[d]
			r.high[s] = max(r.high[s], tables[d][level])
		}
	}
	return tracker.Step(r.high) == 0
}

// Peak is the greatest score about the source between two hops, at a sensitivity of
// 0.5 and plain weights of groups, and the detector whose it is.
func (r *Replayer) Peak(t *Trace, from, to int) (kind string, most float64) {
	p := DefaultParams()
	r.set(&p)
	kind, most, _ = r.peak(t, from, to)
	return kind, most
}

// Follower replays a stream hop by hop, as it comes.
type Follower struct {
	r       *Replayer
	tracker episode.Tracker
	row     []byte
}

// Follow begins to replay with some settings, without an episode.
func Follow(l *Layout, w Weights, p Params) *Follower {
	f := &Follower{r: NewReplayer(l, w), tracker: episode.Tracker{Persistence: p.Persistence}}
	f.r.set(&p)
	for _, s := range f.r.rules {
		f.tracker.Add(s)
	}
	return f
}

// Step takes the levels of a hop and reports whether the settings would raise an
// alarm about the source.
func (f *Follower) Step(levels []episode.Level, fl Flags) bool {
	f.row = f.row[:0]
	for _, l := range levels {
		f.row = append(f.row, byte(l))
	}
	return f.r.step(&f.tracker, f.row, fl)
}

// peak is the greatest score about the source within hops, at a sensitivity of 0.5,
// whose it is, and whether any of them is unanswered. The tables must be set.
func (r *Replayer) peak(t *Trace, from, to int) (kind string, most float64, unanswered bool) {
	for i := from; i < to; i++ {
		row, f := t.row(i)
		unanswered = unanswered || f&Unanswered != 0
		raw := r.raw[f%(1<<weightBits)]
		for d, level := range row {
			if v := raw[d][level]; r.subject[d] == 0 && v > most {
				kind, most = r.layout.Kinds[d], v
			}
		}
	}
	return kind, most, unanswered
}
