package detect

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// How evidence is put: what was seen, what this source does by habit, and from where on it
// accuses, in units that operators use. "Habit" is always what the profile holds: the
// baseline, and what normal windows added to it.

// times says how often.
func times(n float64) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%.0f times", n)
}

// habit says what a source did at most.
func habit(most float64) string {
	if most == 0 {
		return "by habit never"
	}
	return "by habit at most " + times(math.Ceil(most))
}

// percent says an octave step as a growth.
func percent(octaves float64) string { return fmt.Sprintf("%.0f %%", 100*(math.Exp2(octaves)-1)) }

// list joins what several words stand for, each said once, and their codes.
func list(tokens []feature.Token, form feature.Form) (words, codes string) {
	var w, c []string
	for _, t := range tokens {
		if say := t.Words(form); !slices.Contains(w, say) {
			w = append(w, say)
		}
		c = append(c, t.String())
	}
	return strings.Join(w, "; "), strings.Join(c, ", ")
}

// against says a statistic now and as it is by habit.
func against(f feature.Feature, now float64, usual *Spread) string {
	return fmt.Sprintf("%s is %s, usually %s", f.Words(), f.Say(now), f.Say(usual.Median))
}

var allFeatures = func() (all [feature.Features]feature.Feature) {
	for f := range all {
		all[f] = feature.Feature(f)
	}
	return all
}()

// furthest is, of some statistics, the one that lies furthest from its habit, in deviations.
func furthest(x *feature.Vector, usual *[feature.Features]Spread, of ...feature.Feature) feature.Feature {
	far, most := of[0], 0.0
	for _, f := range of {
		if d := math.Abs(x[f]-usual[f].Median) / max(usual[f].MAD, sigmaFloor[f]); d > most {
			far, most = f, d
		}
	}
	return far
}

// fell tells of a picture that stands still: rate is the volume over the last seconds.
func (d *volume) fell(v *View, rate, seconds float64) string {
	goes := fmt.Sprintf("pictures still come at %s", feature.FrameRate.Say(v.V4[feature.FrameRate]))
	if d.p.Form == feature.TS { // whose packets may each have a time
		goes = fmt.Sprintf("the media clock still runs at %s", feature.MediaRate.Say(v.V4[feature.MediaRate]))
	}
	return fmt.Sprintf("the picture stands still: for %.1f s the bit rate has been %s, usually %s and never below %s, while %s",
		seconds, feature.ByteRate.Say(rate), feature.ByteRate.Say(d.p.Content4.Median), feature.ByteRate.Say(d.p.Content1.Min), goes)
}

// climbed tells of a volume that is walked up.
func (d *drift) climbed(slope, limit float64) string {
	b := d.r.blocks()
	const block = rampBlock / hopsPerSecond
	rate := func(octaves float64) string { return feature.BitRate(math.Exp2(octaves) / block) }
	return fmt.Sprintf("the bit rate climbs in a straight line, by %s every %d s, from %s to %s in %d s (by habit a step is at most %s, and not one after another in line; limit %s)",
		percent(slope), block, rate(b[0]), rate(b[rampBlocks-1]), block*(rampBlocks-1), percent(d.p.StepMax), percent(limit))
}
