package detect

import (
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// How fast and how far limits follow what normal windows show. Words are never
// adapted: they are the strongest evidence, and who could add one could teach a
// stream a foreign grammar word by word. What a source may say is learned in a
// baseline.
const (
	// adaptRate is the share of the distance to a value beyond a limit, and of the
	// limit's reach at most, by which one hop moves it: four minutes beyond it move it
	// by 63 %.
	adaptRate = 1.0 / (240 * hopsPerSecond)
	// adaptBack is by which share of its way a limit returns with each hop that does
	// not need it: in a day it has gone 63 % of the way back.
	adaptBack = 1.0 / (24 * 3600 * hopsPerSecond)
	// pressHops is how long normal windows must lie beyond a limit that may move no
	// further for the profile to be said to drift, and pressBack what a hop that does
	// not takes off.
	pressHops = 600 * hopsPerSecond
	pressBack = 0.1
)

// limit is a number of a profile that detectors compare with, and that adapts.
type limit struct {
	name  string
	place bool // where the statistic lies; otherwise how open a detector is
	upper bool // a greatest value; otherwise a least one
	at    func(*Profile) *float64
	// seen is what a hop shows of it; ok is false where it shows nothing.
	seen func(a *adapter, v *View) (x float64, ok bool)
	// reach is how far the limit may be moved from its anchor, outwards. It never
	// moves inwards: a profile that adapted accuses nobody whom its anchor does not.
	reach func(anchor *Profile) float64
}

// limits are all that adapt, in the order of [Mode.Moved].
var limits = func() []limit {
	var all []limit
	for f := range feature.Features {
		if f == feature.LossShare {
			continue // loss is not learned
		}
		for _, four := range []bool{false, true} {
			spread := func(p *Profile) *Spread { return &p.Seconds[f] }
			seen := func(_ *adapter, v *View) (float64, bool) { return v.V1[f], v.OK1 }
			name := f.Words() + ", over 1 s"
			if four {
				spread = func(p *Profile) *Spread { return &p.Fours[f] }
				seen = func(_ *adapter, v *View) (float64, bool) { return v.V4[f], v.OK4 }
				name = f.Words() + ", over 4 s"
			}
			// As far again as the baseline reached from end to end, in half each way.
			reach := func(p *Profile) float64 { return max((spread(p).Max-spread(p).Min)/2, 2*sigmaFloor[f]) }
			all = append(all,
				limit{"least " + name, true, false, func(p *Profile) *float64 { return &spread(p).Min }, seen, reach},
				limit{"greatest " + name, true, true, func(p *Profile) *float64 { return &spread(p).Max }, seen, reach})
		}
	}
	content := func(name string, at func(*Profile) *Spread, seen func(*adapter, *View) (float64, bool)) {
		all = append(all, limit{"least bit rate without padding, over " + name, true, false, func(p *Profile) *float64 { return &at(p).Min }, seen,
			func(p *Profile) float64 { return max((at(p).Max-at(p).Min)/2, 2*sigmaFloor[feature.ByteRate]) }})
	}
	content("1 s", func(p *Profile) *Spread { return &p.Content1 }, func(_ *adapter, v *View) (float64, bool) { return contentRate(&v.S1, &v.V1), v.OK1 })
	content("4 s", func(p *Profile) *Spread { return &p.Content4 }, func(_ *adapter, v *View) (float64, bool) { return contentRate(&v.S4, &v.V4), v.OK4 })
	for c := range counters {
		if c == overCap {
			continue // no stream has a packet over its cap in its baseline
		}
		worst := func(p *Profile) *float64 { return &p.Counts[c].Worst }
		all = append(all, limit{counterNames[c] + " in 10 s", false, true, worst,
			func(_ *adapter, v *View) (float64, bool) { return c.of(&v.S10, nil), v.Full },
			func(p *Profile) float64 { return max(1, *worst(p)/2) }})
	}
	greatest := func(name string, at func(*Profile) *float64, reach float64, seen func(*adapter, *View) (float64, bool)) {
		all = append(all, limit{"greatest " + name, false, true, at, seen, func(p *Profile) float64 { return max(reach, *at(p)/2) }})
	}
	greatest("silence", func(p *Profile) *float64 { return &p.MaxGap }, 20e6, func(_ *adapter, v *View) (float64, bool) { return float64(v.Hop.MaxGap), v.Hop.Packets > 0 })
	greatest("loss in a quarter of a second", func(p *Profile) *float64 { return &p.MaxLost }, 2, func(_ *adapter, v *View) (float64, bool) { return float64(v.Hop.Lost), true })
	greatest("share of picture sizes that come again", func(p *Profile) *float64 { return &p.LoopMax }, 0.05, func(_ *adapter, v *View) (float64, bool) { return loopShare(&v.S4), true })
	greatest("share of pictures that come again", func(p *Profile) *float64 { return &p.RepeatMax }, 0.05, func(_ *adapter, v *View) (float64, bool) { return repeatShare(&v.S4), true })
	greatest("change of the bit rate in 8 s", func(p *Profile) *float64 { return &p.StepMax }, 0.03, func(a *adapter, _ *View) (float64, bool) { return a.greatestStep() })
	greatest("beat of 1 ms in the arrivals", func(p *Profile) *float64 { return &p.TickMax }, 0.1, func(_ *adapter, v *View) (float64, bool) { return v.S4.Tick(), v.S4.TickCount >= tickLeast })
	all = append(all, limit{"least spread of the pace, over 10 s", false, false, func(p *Profile) *float64 { return &p.PaceMin },
		func(_ *adapter, v *View) (float64, bool) { return paceSpread(&v.S10), v.Full },
		func(p *Profile) float64 { return p.PaceMin / 4 }})
	return all
}()

var counterNames = [counters]string{
	echoes: "payloads sent again at once", violations: "breaks of order", twoContents: "numbers used twice",
	aliens: "packets that are not the stream's", jumps: "jumps of the numbering", stale: "packets sent again late", overCap: "packets over the cap",
}

// adapter moves a profile's limits towards what normal windows show, slowly and no
// further from their anchor than their reach.
type adapter struct {
	anchor, now *Profile
	moved       []float64 // outwards, by limit
	reach       []float64
	pressed     []float64 // hops beyond a limit that may move no further
	ramp        ramp
	last        int // index of the hop before
	filled      int // hops in the ramp without a break
}

// newAdapter begins with an anchor of which now is a copy, moved.
func newAdapter(anchor, now *Profile, moved []float64) *adapter {
	a := &adapter{anchor: anchor, now: now, moved: make([]float64, len(limits)), pressed: make([]float64, len(limits)), ramp: newRamp()}
	copy(a.moved, moved)
	for i := range limits {
		a.reach = append(a.reach, limits[i].reach(anchor))
		a.place(i)
	}
	return a
}

// place keeps a limit within its reach and writes it into the profile.
func (a *adapter) place(i int) {
	l := &limits[i]
	if m := a.moved[i]; math.IsNaN(m) || m < 0 {
		a.moved[i] = 0
	}
	a.moved[i] = min(a.moved[i], a.reach[i])
	if l.upper {
		*l.at(a.now) = *l.at(a.anchor) + a.moved[i]
	} else {
		*l.at(a.now) = *l.at(a.anchor) - a.moved[i]
	}
}

// add takes a hop that was judged normal.
func (a *adapter) add(v *View) {
	if v.Index != a.last+1 {
		a.filled = 0 // the hops between were not normal
	}
	a.ramp.add(&v.Hop)
	a.last, a.filled = v.Index, a.filled+1
	for i := range limits {
		l := &limits[i]
		x, ok := l.seen(a, v)
		if !ok || a.reach[i] == 0 {
			continue
		}
		beyond := x - *l.at(a.now)
		if !l.upper {
			beyond = -beyond
		}
		switch {
		case beyond <= 0:
			a.moved[i] -= a.moved[i] * adaptBack
			a.pressed[i] = max(0, a.pressed[i]-pressBack)
		case a.moved[i] >= a.reach[i]:
			a.pressed[i]++
		default:
			a.moved[i] += min(beyond, a.reach[i]) * adaptRate
		}
		a.place(i)
	}
}

func (a *adapter) greatestStep() (x float64, ok bool) {
	if a.filled < rampBlocks*rampBlock {
		return 0, false
	}
	for _, s := range a.ramp.steps() {
		x = max(x, math.Abs(s))
	}
	return x, true
}

// distance is how much of its reach the limit has used that used most, 0 to 1, and
// its name.
func (a *adapter) distance() (share float64, name string) {
	for i, r := range a.reach {
		if r > 0 && a.moved[i]/r > share {
			share, name = a.moved[i]/r, limits[i].name
		}
	}
	return share, name
}

// drifting names a limit that normal windows press against though it may move no
// further; "" where there is none.
func (a *adapter) drifting() string {
	for i := range limits {
		if a.pressed[i] >= pressHops {
			return limits[i].name
		}
	}
	return ""
}
