package tune

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// plain makes windows of a source of even behaviour.
func plain(rng *rand.Rand, n int) []feature.Window {
	out := make([]feature.Window, n)
	for i := range out {
		w := &out[i]
		packets := uint64(25 + rng.IntN(8))
		*w = feature.Window{Sums: feature.Sums{
			Start: int64(i) * feature.Hop, End: int64(i+1) * feature.Hop, Hops: 1,
			Packets: packets, Bytes: packets * uint64(900+rng.IntN(200)), SizeMin: 60, SizeMax: 1412,
			Gaps: packets, IATSum: feature.Hop, MaxGap: 20e6, Frames: 6, FramePackets: packets, MediaTicks: 22500,
			Delay: 1000, Delay2: 1200 + int64(rng.IntN(300)), Hashed: packets, HashedFrames: 6, LoopFrames: 6,
			TickCount: packets, TickCos: int64(rng.IntN(2000)),
		}}
		w.SizeSq, w.FrameBytes, w.PeakBytes = w.Bytes*900, w.Bytes, w.Bytes/4
		w.FrameSq = w.FrameBytes * w.FrameBytes / 6
		w.Top[0] = feature.SizeCount{Size: 1412, Count: uint32(packets / 2)}
		w.Sizes[14], w.IATs[20], w.PerByte[24] = uint32(packets), uint32(packets), uint32(packets)
		for k := range 5 {
			w.Tokens.Put(feature.TokenCount{Token: feature.Token(feature.FamilyUnit)<<28 | feature.Token(k), Count: 6})
		}
	}
	return out
}

// learned gives the profile of an even source.
func learned(windows []feature.Window) *detect.Profile {
	e := detect.NewEngine(feature.H264, detect.Settings{})
	for i := range windows {
		e.Observe(&windows[i])
	}
	return e.Settle()
}

// record runs an engine and keeps what its detectors said. alarms are the hops at which
// it raised one about the source.
func record(e *detect.Engine, windows []feature.Window, set func(hop int) Flags) (t *Trace, alarms []int) {
	for i := range windows {
		f := set(i)
		v := e.Observe(&windows[i])
		if v.Alarm && v.Class == detect.Source {
			alarms = append(alarms, i)
		}
		var levels []episode.Level
		l := &Layout{}
		for _, ev := range e.Evidence() {
			if !ev.Advisory {
				l.Kinds, l.Path, levels = append(l.Kinds, ev.Kind), append(l.Path, ev.Class == detect.Path), append(levels, ev.Level)
			}
		}
		if t == nil {
			t = &Trace{Layout: l, From: epoch}
		}
		t.Add(levels, f)
	}
	return t, alarms
}

// TestReplayEqualsEngine: whatever happens in the windows and however the settings are,
// the replay of what was kept raises the alarms that the engine raised.
func TestReplayEqualsEngine(t *testing.T) {
	profile := learned(plain(rand.New(rand.NewPCG(1, 1)), 240))
	other := plain(rand.New(rand.NewPCG(2, 2)), 400)
	for i := range other {
		other[i].Tokens = feature.TokenSet{}
		other[i].Tokens.Put(feature.TokenCount{Token: feature.Token(feature.FamilyUnit)<<28 | 99, Count: 6})
	}
	total := 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 6))
		windows := plain(rand.New(rand.NewPCG(seed, 4)), 160)
		m := &maker{rng: rand.New(rand.NewPCG(seed, 5)), other: other}
		for range 1 + rng.IntN(4) {
			a := Anomalies[rng.IntN(len(Anomalies))]
			from := rng.IntN(len(windows))
			strength := a.Strengths[rng.IntN(3)]
			for i := from; i < min(from+1+rng.IntN(120), len(windows)); i++ {
				a.apply(m, &windows[i], i-from, strength)
			}
		}
		p := Params{Sensitivity: 0.01 + 0.99*rng.Float64(), Persistence: 1 + rng.IntN(mostPersistence)}
		for i := range p.Weights {
			p.Weights[i] = leastWeight + (mostWeight-leastWeight)*rng.Float64()
		}
		wideUntil := rng.IntN(len(windows) + 1)
		circumstance := func(kind string, f Flags) float64 {
			if f&Wide != 0 && (kind == "grammar" || kind == "volume") {
				return 0.7
			}
			return 1
		}
		engine := detect.Resume(profile, detect.Settings{Sensitivity: p.Sensitivity, Persistence: p.Persistence})
		set := func(i int) Flags {
			f := Flags(0)
			if i < wideUntil {
				f = Wide
			}
			weights := map[string]float64{}
			accusing, _ := detect.Detectors(profile)
			for _, d := range accusing {
				weights[d.Name()] = circumstance(d.Name(), f) * p.Weight(d.Name())
			}
			engine.SetWeights(weights)
			return f
		}
		trace, want := record(engine, windows, set)
		b, err := trace.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := ReadTrace(b)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, a := range NewReplayer(kept.Layout, circumstance).Alarms(kept, p) {
			got = append(got, a.Hop)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: the engine alarmed at %v, the replay at %v", seed, want, got)
		}
		total += len(want)
	}
	if total == 0 {
		t.Error("nothing ever alarmed: the test looks at nothing")
	}
}

// TestGroupsNameDetectors: every detector of the source is in a group, and every name
// in a group is a detector's.
func TestGroupsNameDetectors(t *testing.T) {
	accusing, _ := detect.Detectors(&detect.Profile{})
	names := map[string]bool{}
	for _, d := range accusing {
		names[d.Name()] = true
		if _, ok := groupOf[d.Name()]; !ok && d.Name() != "bottleneck" && d.Name() != "tick" {
			t.Errorf("%s is in no group", d.Name())
		}
	}
	for kind := range groupOf {
		if !names[kind] {
			t.Errorf("%s is no detector", kind)
		}
	}
}

// TestAnomaliesAreSeen: what is made in windows of an even source is seen by the
// engine at its full strength, and never changes the recording.
func TestAnomaliesAreSeen(t *testing.T) {
	own := plain(rand.New(rand.NewPCG(1, 2)), StretchHops)
	before := slices.Clone(own)
	profile := learned(plain(rand.New(rand.NewPCG(1, 1)), 240))
	for _, a := range Anomalies {
		windows := a.Make(own, nil, a.Strengths[2], 1)
		_, alarms := record(detect.Resume(profile, detect.Settings{}), windows, func(int) Flags { return 0 })
		if len(alarms) == 0 || alarms[0] < LeadHops {
			t.Errorf("%s: alarms at %v", a.Name(a.Strengths[2]), alarms)
		}
		if a.Make(own[:LeadHops], nil, 1, 1) != nil {
			t.Errorf("%s was made in a recording that is too short", a.Kind)
		}
	}
	if !slices.Equal(own, before) {
		t.Error("the recording was changed")
	}
}
