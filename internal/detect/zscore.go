package detect

import (
	"fmt"
	"math"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// zscore is the plain rule: a rolling statistic of inter-arrival time, packet size or
// rate against mean and deviation of the same statistic over baseline windows of the
// same length. A source at a constant rate has next to no deviation: the floor holds there.
type zscore struct {
	p     *Profile
	limit float64
}

var zFeatures = []feature.Feature{feature.IATMean, feature.SizeMean, feature.SizeDeviation, feature.ByteRate, feature.PeakRate}

func (zscore) Name() string { return "z-score" }

func (z zscore) Score(v *View) Evidence {
	e := Evidence{Kind: "z-score", Class: Source, Limit: z.limit}
	if !v.OK1 || v.Disturbed {
		return e
	}
	for _, f := range zFeatures {
		s := z.p.Seconds[f]
		if d := math.Abs(v.V1[f]-s.Mean) / math.Max(s.Deviation, sigmaFloor[f]); d > e.Value {
			e.Value = d
			if d >= v.Said*z.limit {
				e.Text = fmt.Sprintf("over 1 s the %s, %.1f deviations away (limit %g)", against(f, v.V1[f], &s), d, z.limit)
			}
		}
	}
	e.Score = e.Value / z.limit
	return e
}

// sigmaFloor is the least deviation that a statistic is granted, per feature: no
// stream is so regular that less means anything.
var sigmaFloor = feature.Vector{
	feature.PacketRate: 0.15, feature.ByteRate: 0.15, feature.PeakRate: 0.2,
	feature.SizeMean: 20, feature.SizeDeviation: 15, feature.SizeRange: 40,
	feature.IATMean: 0.15, feature.IATDeviation: 0.3, feature.IATLow: 0.4, feature.IATMedian: 0.4,
	feature.FrameRate: 0.1, feature.FrameSize: 0.2, feature.FrameVariation: 0.1, feature.FramePackets: 0.2,
	feature.PaceMedian: 0.4, feature.PaceSpread: 0.3, feature.MediaRate: 0.05, feature.LossShare: 0.02,
}

// robust is the z-score with median and MAD over 4 s, for what the path does not move.
type robust struct {
	p     *Profile
	limit float64
}

func (robust) Name() string { return "robust-z" }

func (r robust) Score(v *View) Evidence {
	e := Evidence{Kind: "robust-z", Class: Source, Limit: r.limit}
	if !v.OK4 || v.Disturbed {
		return e
	}
	for f := range feature.Features {
		if feature.Descriptions[f].Path {
			continue
		}
		s := r.p.Fours[f]
		sigma := math.Max(s.MAD, sigmaFloor[f])
		// Beyond the baseline's own range, in its deviations.
		d := math.Max(v.V4[f]-s.Max, s.Min-v.V4[f]) / sigma
		if d > e.Value {
			e.Value = d
			if d >= v.Said*r.limit {
				e.Text = fmt.Sprintf("over 4 s the %s and by habit between %s and %s, %.1f robust deviations outside (limit %g)",
					against(f, v.V4[f], &s), f.Say(s.Min), f.Say(s.Max), d, r.limit)
			}
		}
	}
	e.Score = e.Value / r.limit
	return e
}
