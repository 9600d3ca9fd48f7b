package detect

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// ProfileVersion is the layout of [Profile], and what its words and numbers mean: a
// profile of another version cannot be compared and is learned anew. Version 2 has the
// scrambling bits of TS packets in their words, where 1 had two bits of the PID; version 3
// has the volume without padding; version 4 that of predicted pictures.
const ProfileVersion = 4

// Profile is what a baseline leaves: what a source says, how often rare things
// happen to it, and the spread of its statistics. It is plain data, to be stored.
type Profile struct {
	Version int
	Form    feature.Form
	Hops    int // windows learned from

	Vocabulary Vocabulary
	Rhythms    []Rhythm
	Counts     [counters]CountSpread
	Seconds    [feature.Features]Spread // statistics over 1 s
	Fours      [feature.Features]Spread // and over 4 s
	// Content1 and Content4 are of the volume without what only fills a TS, over 1 and 4 s.
	Content1, Content4 Spread
	// Predicted is of pictures without key pictures.
	Predicted Predicted

	MaxGap  float64 // longest silence, ns
	MaxLost float64 // most missing packets in a hop
	// Cap is the greatest packet, CapShare the share of packets that have its size.
	Cap      uint32
	CapShare float64
	// Rates below are of the smallest and greatest over the baseline.
	LoopMax, RepeatMax float64 // share of known runs of frame sizes; of known payloads
	// RepeatHops is in how many hops of 5 s payloads came again and none was new.
	RepeatHops  float64
	StepMax     float64 // greatest change of the volume from 8 s to the next, octaves
	PaceMin     float64 // smallest spread of the pace over 10 s, octaves
	TickMax     float64
	DelayMin    float64 // ms
	DelayMax    float64
	DelaySwing  float64 // greatest change of the 5 s envelope within the baseline, ms
	DistanceMax [distances]float64
	Reference   [distances]Histogram
	// MeanStep is by how many ticks the RTP timestamp rises a frame on average, SameTimeMax the
	// greatest share of packets without a step.
	MeanStep, SameTimeMax float64
	Forest                *Forest
	ForestMax             float64
}

// matureHops is the length of a baseline whose statistics are taken at their word.
const matureHops = 60 * hopsPerSecond

// margin widens the limits of statistics: the spread of a short baseline is known the
// worse the shorter it is.
func (p *Profile) margin() float64 {
	return math.Sqrt(math.Max(1, matureHops/math.Max(float64(p.Hops), hopsPerSecond)))
}

// ErrProfile says that a stored profile is not one that this engine made.
var ErrProfile = errors.New("stored profile cannot be used: learn the stream anew")

// Check refuses a profile of another version, or one that would lead a detector out of
// its tables. Whether it is authentic is for its keeper to say.
func (p *Profile) Check() error {
	if p.Version != ProfileVersion {
		return fmt.Errorf("%w: version %d, this engine writes %d", ErrProfile, p.Version, ProfileVersion)
	}
	if !slices.IsSortedFunc(p.Vocabulary.Words, func(a, b Word) int { return cmp.Compare(a.Token, b.Token) }) || len(p.Vocabulary.Words) > vocabularyRoom {
		return fmt.Errorf("%w: its vocabulary is out of order", ErrProfile)
	}
	var w feature.Sums
	for d, ref := range p.Reference {
		if len(ref) != len(histogram(&w, d)) {
			return fmt.Errorf("%w: its distributions have another shape", ErrProfile)
		}
	}
	if p.Forest != nil {
		if err := p.Forest.check(int(feature.Features)); err != nil {
			return err
		}
	}
	return nil
}

// Spread is the distribution of a statistic over windows of one length.
type Spread struct {
	Mean, Deviation, Median, MAD, Min, Max float64
}

func spreadOf(x []float64) Spread {
	if len(x) == 0 {
		return Spread{}
	}
	s := Spread{}
	for _, v := range x {
		s.Mean += v
	}
	s.Mean /= float64(len(x))
	for _, v := range x {
		s.Deviation += (v - s.Mean) * (v - s.Mean)
	}
	s.Deviation = math.Sqrt(s.Deviation / float64(len(x)))
	y := slices.Clone(x)
	slices.Sort(y)
	s.Min, s.Max, s.Median = y[0], y[len(y)-1], y[len(y)/2]
	for i, v := range x {
		y[i] = math.Abs(v - s.Median)
	}
	slices.Sort(y)
	s.MAD = 1.4826 * y[len(y)/2]
	return s
}

// counter names a count of rare things.
type counter int

const (
	echoes counter = iota
	violations
	twoContents
	aliens
	jumps
	stale
	overCap
	counters
)

func (c counter) of(w *feature.Window, p *Profile) float64 {
	switch c {
	case echoes:
		return float64(w.Echoes)
	case violations:
		return float64(w.Violations)
	case twoContents:
		return float64(w.TwoContents)
	case aliens:
		return float64(w.Aliens)
	case jumps:
		return float64(w.Jumps)
	case stale:
		return float64(w.Stale)
	}
	var n uint32
	for _, t := range w.Top {
		if t.Size > p.Cap {
			n += t.Count
		}
	}
	return float64(n)
}

// CountSpread is how often something happened in the baseline.
type CountSpread struct {
	Total float64
	Worst float64 // most within 10 s
}

// Learner gathers a baseline and makes the profile of it.
type Learner struct {
	form  feature.Form
	hops  int
	words *vocabularyLearner
	one   [feature.Features][]float64
	four  [feature.Features][]float64
	// volume without padding, over 1 and 4 s
	content1, content4 []float64
	predicted          predictedLearner
	again              unbroken
	againMost          int

	perHop     []uint64 // packets
	vectors    []feature.Vector
	counts     [counters]CountSpread
	maxGap     float64
	maxLost    float64
	cap        feature.SizeCount
	packets    float64
	loops      []float64
	repeats    []float64
	pace       []float64
	ticks      []float64
	ramp       ramp
	rampMax    float64
	delays     []float64
	sameTime   float64
	sum        feature.Sums
	fourSecond []feature.Sums
}

// NewLearner begins a baseline.
func NewLearner(form feature.Form) *Learner {
	return &Learner{form: form, words: newVocabularyLearner(form), ramp: newRamp()}
}

// Add learns from one hop.
func (l *Learner) Add(v *View) {
	w := &v.Hop
	l.words.add(w, l.hops)
	l.perHop = append(l.perHop, w.Packets)
	l.hops++
	l.maxGap = max(l.maxGap, float64(w.MaxGap))
	l.maxLost = max(l.maxLost, float64(w.Lost))
	l.packets += float64(w.Packets)
	if t := w.Top[0]; t.Size > l.cap.Size {
		l.cap = t
	} else if t.Size == l.cap.Size {
		l.cap.Count += t.Count
	}
	for c := range counters {
		if c == overCap {
			continue
		}
		l.counts[c].Total += c.of(w, nil)
		l.counts[c].Worst = max(l.counts[c].Worst, c.of(&v.S10, nil))
	}
	if ms, ok := w.DelayMS(); ok {
		l.delays = append(l.delays, ms)
	}
	if l.ramp.add(w); l.ramp.full {
		for _, step := range l.ramp.steps() {
			l.rampMax = max(l.rampMax, math.Abs(step))
		}
	}
	if l.hops < fourSec { // a stream's first seconds are like no others
		return
	}
	l.sum.Add(&w.Sums)
	l.predicted.add(w, l.form)
	if v.OK1 {
		l.vectors = append(l.vectors, v.V1)
		for f := range l.one {
			l.one[f] = append(l.one[f], v.V1[f])
		}
		l.content1 = append(l.content1, contentRate(&v.S1, &v.V1))
	}
	if v.OK4 {
		for f := range l.four {
			l.four[f] = append(l.four[f], v.V4[f])
		}
		l.content4 = append(l.content4, contentRate(&v.S4, &v.V4))
		l.fourSecond = append(l.fourSecond, v.S4.Sums)
	}
	if v.S4.Packets > 0 {
		l.sameTime = max(l.sameTime, float64(v.S4.SameTimes)/float64(v.S4.Packets))
	}
	l.loops = append(l.loops, loopShare(&v.S4))
	l.repeats = append(l.repeats, repeatShare(&v.S4))
	l.againMost = max(l.againMost, l.again.add(&w.Sums))
	if v.Full {
		l.pace = append(l.pace, paceSpread(&v.S10))
	}
	if v.S4.TickCount >= tickLeast {
		l.ticks = append(l.ticks, v.S4.Tick())
	}
}

// Hops is how many windows were learned from.
func (l *Learner) Hops() int { return l.hops }

// Finish makes the profile. seed decides the forest's cuts.
func (l *Learner) Finish(seed uint64) *Profile {
	p := &Profile{
		Version: ProfileVersion, Form: l.form, Hops: l.hops,
		Vocabulary: l.words.finish(),
		Rhythms:    l.words.rhythms(l.perHop),
		Counts:     l.counts,
		MaxGap:     l.maxGap,
		MaxLost:    l.maxLost,
		Cap:        l.cap.Size,
		LoopMax:    greatest(l.loops),
		RepeatMax:  greatest(l.repeats),
		RepeatHops: float64(l.againMost),
		StepMax:    l.rampMax,
		TickMax:    greatest(l.ticks),
	}
	if len(l.ticks) == 0 {
		p.TickMax = 1 // too few packets to know: it says nothing
	}
	if l.packets > 0 {
		p.CapShare = float64(l.cap.Count) / l.packets
	}
	for f := range p.Seconds {
		p.Seconds[f] = spreadOf(l.one[f])
		p.Fours[f] = spreadOf(l.four[f])
	}
	p.Content1, p.Content4 = spreadOf(l.content1), spreadOf(l.content4)
	p.Predicted = l.predicted.finish()
	if len(l.pace) > 0 {
		p.PaceMin = slices.Min(l.pace)
	}
	if len(l.delays) > 0 {
		p.DelayMin, p.DelayMax = slices.Min(l.delays), slices.Max(l.delays)
	}
	if l.sum.Frames > 0 {
		p.MeanStep = float64(l.sum.MediaTicks) / float64(l.sum.Frames)
	}
	p.SameTimeMax = l.sameTime
	p.DelaySwing = envelopeSwing(l.delays)
	p.learnDistances(&l.sum, l.fourSecond)
	p.learnForest(l.vectors, seed)
	return p
}

func greatest(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	return slices.Max(x)
}
