package detect

import (
	"fmt"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Rhythm is how often a source says a word that it says by itself.
type Rhythm struct {
	Token   feature.Token
	Hops    int    // longest silence in the baseline, in hops
	Packets uint64 // and in packets
	Keys    int    // hops with a key picture in a row that did not have it, of what comes with keys
	Alone   bool   // it comes with keys, and came mostly without
}

const (
	rhythmLeast  = 12          // hops of the baseline with the word
	absenceTimes = 4           // times the longest silence accuses
	absenceHops  = fourSec     // but not less than this
	absenceLeast = uint64(100) // nor fewer packets
	// rhythmPause is the longest silence, in hops, of a stream that never pauses: subtitles
	// and data have no rhythm, whatever a baseline shows of them.
	rhythmPause = 2 * hopsPerSecond
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
	keys := make([]bool, len(l.perHop)+1)
	for hop, seen := range l.perHop {
		for t := range seen {
			keys[hop] = keys[hop] || keyed(t, l.form)
		}
	}
	for _, w := range l.words {
		if !w.Token.Regular() {
			continue
		}
		n, last, longest, without, alone := 0, 0, 0, 0, 0
		var sum, most uint64
		r := Rhythm{Token: w.Token}
		for hop, seen := range l.perHop {
			sum += packets[hop]
			if keys[hop] {
				without++
			}
			if _, ok := seen[w.Token]; ok {
				n++
				longest, most = max(longest, hop-last), max(most, sum)
				last, sum, without = hop, 0, 0
				if !keys[hop] && !keys[hop+1] { // the picture may begin in the next
					alone++
				}
			}
			r.Keys = max(r.Keys, without)
		}
		r.Hops, r.Packets = max(longest, len(l.perHop)-last), max(most, sum)
		r.Alone = w.Token.WithKeys() && 2*alone > n
		pause := rhythmPause
		if w.Token.WithKeys() {
			pause = tenSec
		}
		if n >= rhythmLeast && r.Hops <= pause {
			out = append(out, r)
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
	keys    []int // hops with key pictures
}

func newAbsence(p *Profile) *absence {
	return &absence{p: p, hops: make([]int, len(p.Rhythms)), packets: make([]uint64, len(p.Rhythms)), keys: make([]int, len(p.Rhythms))}
}

func (*absence) Name() string { return "absence" }

func (a *absence) Score(v *View) Evidence {
	e := Evidence{Kind: "absence", Class: Source, Limit: absenceTimes}
	if a.p.Form == feature.TS && v.Hop.Partial() {
		// A cut packet shows the first of its seven TS packets. What lies there is a
		// matter of how the multiplexer's cycle stands to the packets', which drifts.
		return e
	}
	key := slices.ContainsFunc(v.Hop.Tokens.All(), func(c feature.TokenCount) bool { return keyed(c.Token, a.p.Form) })
	for i := range a.p.Rhythms {
		r := &a.p.Rhythms[i]
		// Who refreshes bit by bit and says so begins anew with a key picture instead.
		if v.Hop.Tokens.Has(r.Token) || key && r.Alone {
			a.hops[i], a.packets[i], a.keys[i] = 0, 0, 0
			continue
		}
		if key {
			a.keys[i]++
		}
		a.hops[i]++
		a.packets[i] += v.Hop.Packets
		times := min(
			float64(a.hops[i])/float64(max(r.Hops, r.leastHops()/absenceTimes)),
			float64(a.packets[i])/float64(max(r.Packets, absenceLeast/absenceTimes)))
		// For how long a group of pictures goes on is the encoder's choice: what comes with
		// key pictures is missing where they come without it.
		if r.Token.WithKeys() && !r.Alone {
			times = min(times, float64(a.keys[i])/float64(max(r.Keys, 1)))
		}
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

// keyed reports whether t is a key picture's unit.
func keyed(t feature.Token, form feature.Form) bool {
	c, ok := t.Picture(form)
	return ok && c.Key
}
