package tune

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Anomalies are made in recorded windows, never in live media. They are coarse: a
// window has counts and no packets. They say whether a setting would still see such a
// thing in this stream, not how good the detectors are.

// Anomaly is one kind of thing that is done to windows.
type Anomaly struct {
	Kind string
	// HeldOut kinds are never tuned by; settings are judged by them afterwards.
	HeldOut   bool
	Strengths [3]float64 // weak, medium, strong
	apply     func(m *maker, w *feature.Window, i int, strength float64)
	long      bool // needs the longer stretch
}

// maker holds what anomalies are made from.
type maker struct {
	rng   *rand.Rand
	other []feature.Window // another stream's; may be empty
	own   []feature.Window
}

// Anomalies are all kinds.
var Anomalies = []Anomaly{
	{Kind: "injection", Strengths: [3]float64{0.01, 0.05, 0.3}, apply: (*maker).inject},
	{Kind: "foreign", Strengths: [3]float64{0.1, 0.3, 1}, apply: (*maker).foreign},
	{Kind: "loop", Strengths: [3]float64{0.4, 0.7, 1}, apply: (*maker).loop},
	{Kind: "re-pacing", Strengths: [3]float64{0.3, 0.5, 0.9}, apply: (*maker).repace},
	{Kind: "added-bytes", Strengths: [3]float64{0.05, 0.3, 1}, apply: (*maker).lengthen},
	{Kind: "drift", Strengths: [3]float64{0.05, 0.08, 0.12}, apply: (*maker).drift, long: true},
	{Kind: "freeze", HeldOut: true, Strengths: [3]float64{2.5, 4, 6}, apply: (*maker).freeze},
	{Kind: "restart", HeldOut: true, Strengths: [3]float64{1, 3, 8}, apply: (*maker).restart},
}

// Lengths of what is made, in hops: recorded windows in front, so that the detectors'
// windows are full, then the anomaly.
const (
	LeadHops    = 14 * episode.HopsPerSecond
	anomalyHops = 16 * episode.HopsPerSecond
	longHops    = 58 * episode.HopsPerSecond
	// StretchHops is the length of a recording that every kind fits in.
	StretchHops = LeadHops + longHops
)

// Make applies an anomaly to a copy of recorded windows, from [LeadHops] on. other may
// be empty. The result is nil where the recording is too short.
func (a *Anomaly) Make(own, other []feature.Window, strength float64, seed uint64) []feature.Window {
	n := LeadHops + anomalyHops
	if a.long {
		n = StretchHops
	}
	if len(own) < n {
		return nil
	}
	m := &maker{rng: rand.New(rand.NewPCG(seed, 77)), other: other, own: own}
	out := make([]feature.Window, n)
	copy(out, own)
	for i := LeadHops; i < n; i++ {
		a.apply(m, &out[i], i-LeadHops, strength)
	}
	return out
}

// Name names an anomaly of some strength.
func (a *Anomaly) Name(strength float64) string { return fmt.Sprintf("%s %g", a.Kind, strength) }

// share draws how many of n events happen with a chance each.
func (m *maker) share(n uint64, chance float64) uint64 {
	x := float64(n) * chance
	whole := math.Floor(x)
	if m.rng.Float64() < x-whole {
		whole++
	}
	return uint64(whole)
}

// word is one that no source uses: of a family, with a value that no parser gives.
func word(f feature.Family) feature.Token { return feature.Token(f)<<28 | 0x0badc0d }

// inject puts packets of somebody else between the stream's own.
func (m *maker) inject(w *feature.Window, _ int, strength float64) {
	n := m.share(w.Packets, strength)
	if n == 0 {
		return
	}
	size := w.Bytes / max(w.Packets, 1)
	w.Packets, w.Bytes, w.SizeSq = w.Packets+n, w.Bytes+n*size, w.SizeSq+n*size*size
	w.Tokens.Put(feature.TokenCount{Token: word(feature.FamilyUnit), Count: uint32(n)})
	w.Violations += m.share(n, 0.5)
}

// foreign puts another stream's windows, or such ones as nobody sends, in the place of
// the own.
func (m *maker) foreign(w *feature.Window, i int, strength float64) {
	if m.rng.Float64() >= strength {
		return
	}
	start, end, delay, delay2 := w.Start, w.End, w.Delay, w.Delay2
	if len(m.other) > 0 {
		*w = m.other[i%len(m.other)]
	} else {
		w.Tokens.Put(feature.TokenCount{Token: word(feature.FamilySlice), Count: uint32(max(w.Frames, 1))})
	}
	w.Start, w.End, w.Delay, w.Delay2 = start, end, delay, delay2
}

// loop sends what was sent before.
func (m *maker) loop(w *feature.Window, _ int, strength float64) {
	w.Repeats = max(w.Repeats, uint64(strength*float64(w.Hashed)))
	w.RepeatFrames = max(w.RepeatFrames, uint64(strength*float64(w.HashedFrames)))
	w.LoopHits = max(w.LoopHits, uint64(strength*float64(w.LoopFrames)))
}

// repace gives packets that had times of their own the time of the one before, as a
// sender does that is no paced gateway.
func (m *maker) repace(w *feature.Window, _ int, strength float64) {
	w.SameTimes = max(w.SameTimes, uint64(strength*float64(w.Packets)))
	w.Violations += m.share(w.Frames, strength/10)
}

// added is how many bytes a hidden message takes.
const added = 24

// lengthen adds bytes to a share of the packets.
func (m *maker) lengthen(w *feature.Window, _ int, strength float64) {
	n := m.share(w.Packets, strength)
	if n == 0 || w.Packets == 0 {
		return
	}
	mean := w.Bytes / w.Packets
	w.Bytes, w.SizeSq = w.Bytes+added*n, w.SizeSq+n*added*(2*mean+added)
	w.SizeMax += added
	top := w.Top
	long := uint32(min(m.share(uint64(top[0].Count), strength), uint64(top[0].Count)))
	if long > 0 {
		w.Top = [4]feature.SizeCount{{Size: top[0].Size + added, Count: long}, {Size: top[0].Size, Count: top[0].Count - long}, top[1], top[2]}
		w.Tokens.Put(feature.TokenCount{Token: feature.Token(feature.FamilySize)<<28 | feature.Token(top[0].Size+added), Count: long})
	}
}

// drift lets the volume grow by a share every 8 s, in a straight line.
func (m *maker) drift(w *feature.Window, i int, strength float64) {
	f := math.Pow(1+strength, float64(i)/(8*episode.HopsPerSecond))
	m.scale(w, f)
}

// freeze stops the picture: the volume falls by octaves, the clock runs on, and every
// picture is as large as the last, because it says only that nothing changed.
func (m *maker) freeze(w *feature.Window, _ int, strength float64) {
	f := math.Exp2(-strength)
	m.scale(w, f)
	var bytes, pictures uint64
	var video []uint16
	for i := range m.own {
		bytes, pictures = bytes+m.own[i].FrameBytes, pictures+m.own[i].Frames
		for _, c := range m.own[i].Tokens.All() {
			if pid, ok := c.Token.VideoStart(); ok && !slices.Contains(video, pid) {
				video = append(video, pid)
			}
		}
	}
	size := uint64(f * float64(bytes) / float64(max(pictures, 1)))
	w.FrameBytes, w.FrameSq = w.Frames*size, w.Frames*size*size
	// In a TS such a picture is the packet that it begins with.
	said := w.Tokens
	w.Tokens = feature.TokenSet{Overflow: said.Overflow, Full: said.Full}
	for _, c := range said.All() {
		if pid, start, ok := c.Token.Carries(); !ok || start || !slices.Contains(video, pid) {
			w.Tokens.Put(c)
		}
	}
}

func (m *maker) scale(w *feature.Window, f float64) {
	for _, v := range []*uint64{&w.Bytes, &w.FrameBytes, &w.PeakBytes} {
		*v = uint64(float64(*v) * f)
	}
	w.FrameSq = uint64(float64(w.FrameSq) * f * f)
}

// restart numbers packets anew.
func (m *maker) restart(w *feature.Window, i int, strength float64) {
	if i < int(strength) {
		w.Jumps++
	}
}

// Simulated makes the case of a trace that was recorded over windows that Make gave.
// share is its weight.
func Simulated(t *Trace, name string, share float64) Case {
	return Case{Trace: t, Made: true, Spans: []Span{{From: LeadHops, To: t.Len(), Verdict: Real, Weight: share, Name: name}}}
}

// SimulatedWeight is how many real episodes all simulated ones of a stream together
// count for.
const SimulatedWeight = 3.0
