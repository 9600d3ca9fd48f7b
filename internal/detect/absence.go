package detect

import (
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Rhythm is how often a source says a word that it says by itself.
type Rhythm struct {
	Token   feature.Token
	Hops    int    // longest silence in the baseline, in hops
	Packets uint64 // and in packets
}

const (
	rhythmLeast  = 12          // hops of the baseline with the word
	absenceTimes = 4           // times the longest silence accuses
	absenceHops  = fourSec     // but not less than this
	absenceLeast = uint64(100) // nor fewer packets
	// accessHops is for how long what key pictures bring must be missing: where they come
	// at cuts, a scene without one makes a silence, for as long as the encoder lets a group
	// of pictures be. Ten seconds are usual.
	accessHops = 40 * hopsPerSecond
)

// leastHops is the shortest silence, in hops, that accuses.
func (r *Rhythm) leastHops() int {
	if r.Token.WithKeys() {
		return accessHops
	}
	return absenceHops
}

// rhythms finds the words with a rhythm.
func (l *vocabularyLearner) rhythms(packets []uint64) []Rhythm {
	var out []Rhythm
	for _, w := range l.words {
		if !w.Token.Regular() {
			continue
		}
		n, last, longest := 0, 0, 0
		var sum, most uint64
		for hop, seen := range l.perHop {
			sum += packets[hop]
			if _, ok := seen[w.Token]; ok {
				n++
				longest, most = max(longest, hop-last), max(most, sum)
				last, sum = hop, 0
			}
		}
		longest, most = max(longest, len(l.perHop)-last), max(most, sum)
		if n >= rhythmLeast && longest <= tenSec {
			out = append(out, Rhythm{w.Token, longest, most})
		}
	}
	return out
}

// absence accuses where a source no longer says what it said by its own rhythm, in
// time and in packets: an elementary stream that is gone, no more parameter sets.
type absence struct {
	p       *Profile
	hops    []int
	packets []uint64
}

func newAbsence(p *Profile) *absence {
	return &absence{p: p, hops: make([]int, len(p.Rhythms)), packets: make([]uint64, len(p.Rhythms))}
}

func (*absence) Name() string { return "absence" }

func (a *absence) Score(v *View) Evidence {
	e := Evidence{Kind: "absence", Class: Source, Limit: absenceTimes}
	if a.p.Form == feature.TS && v.Hop.Partial() {
		// A cut packet shows the first of its seven TS packets. What lies there is a
		// matter of how the multiplexer's cycle stands to the packets', which drifts.
		return e
	}
	for i := range a.p.Rhythms {
		r := &a.p.Rhythms[i]
		if v.Hop.Tokens.Has(r.Token) {
			a.hops[i], a.packets[i] = 0, 0
			continue
		}
		a.hops[i]++
		a.packets[i] += v.Hop.Packets
		times := min(
			float64(a.hops[i])/float64(max(r.Hops, r.leastHops()/absenceTimes)),
			float64(a.packets[i])/float64(max(r.Packets, absenceLeast/absenceTimes)))
		if times > e.Value {
			e.Value, e.Score = times, times/absenceTimes
			if e.Score >= v.Said {
				e.Code = r.Token.String()
				e.Text = fmt.Sprintf("missing for %.1f s and %d packets: %s (by habit for at most %.1f s and %d packets)",
					float64(a.hops[i])/hopsPerSecond, a.packets[i], r.Token.Words(a.p.Form), float64(r.Hops)/hopsPerSecond, r.Packets)
			}
		}
	}
	return e
}
