package detect

import (
	"fmt"
	"math"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// grammar accuses where a source uses words that it never used. Its families have
// their own limits; the value is occasions within 10 s.
type grammar struct {
	p        *Profile
	family   []feature.Family
	kind     string
	sums     []tally
	examples [][]feature.Token // by family, of the 10 s
}

const examplesMost = 3

func newGrammar(p *Profile, kind string, families ...feature.Family) *grammar {
	g := &grammar{p: p, kind: kind, family: families, examples: make([][]feature.Token, len(families))}
	for range families {
		g.sums = append(g.sums, newTally(tenSec))
	}
	return g
}

func (g *grammar) Name() string { return g.kind }

func (g *grammar) Score(v *View) Evidence {
	n := g.p.Vocabulary.novelty(&v.Hop)
	e := Evidence{Kind: g.kind, Class: Source}
	for i, f := range g.family {
		sum := g.sums[i].add(n[f])
		if n[f] > 0 {
			g.note(i, f, &v.Hop, sum == n[f])
		}
		lim := g.p.Vocabulary.Families[f]
		if lim.Limit == 0 {
			continue
		}
		if s := sum / lim.Limit; s > e.Score {
			e.Score, e.Value, e.Limit = s, sum, lim.Limit
			if s >= v.Said {
				var words string
				words, e.Code = list(g.examples[i], g.p.Form)
				e.Text = fmt.Sprintf("what this source never sent, %s in 10 s: %s (limit %.0f)", times(sum), words, lim.Limit)
			}
		}
	}
	return e
}

// note keeps examples of a family's unknown words in w; fresh says that there were none in
// the 10 s before.
func (g *grammar) note(i int, f feature.Family, w *feature.Window, fresh bool) {
	have := &g.examples[i]
	if fresh {
		*have = (*have)[:0]
	}
	chosen := g.p.Vocabulary.choicesOf(w)
	for _, c := range w.Tokens.All() {
		// What a source says by its rhythm is another word of a unit that was named.
		if t := c.Token; t.Family() == f && len(*have) < examplesMost && !g.p.Vocabulary.knows(t, chosen) && !slices.Contains(*have, t) && (len(*have) == 0 || !t.Regular()) {
			*have = append(*have, t)
		}
	}
}

// countLimit is what a count within 10 s may reach: twice the baseline's worst and a
// floor; and where the source does such things by itself, what ten seconds bring at
// that rate once in a million times.
func (p *Profile) countLimit(c counter, floor float64) float64 {
	have := p.Counts[c]
	return max(floor+2*have.Worst, rareCount(have.Total, float64(p.Hops)/tenSec))
}

// rareCount is the least count in one span of which as many or more have a probability
// below a millionth, where total were seen in so many spans and come independently:
// the predictive distribution of a Poisson count with an unknown rate, which is a
// negative binomial (Gelman et al., Bayesian Data Analysis, section 2.6), with
// Jeffreys' prior. 0 where none was seen: then the floor knows better.
func rareCount(total, spans float64) float64 {
	const rare, most = 1e-6, 1000
	if total == 0 || spans < 1 {
		return 0
	}
	shape := total + 0.5
	q := 1 / (1 + spans)
	p := math.Exp(shape * math.Log(1-q)) // of none
	left := 1 - p
	k := 1.0
	for ; left >= rare && k < most; k++ {
		p *= q * (shape + k - 1) / k
		left -= p
	}
	return k
}

// count accuses where something happens more often within 10 s than ever in the
// baseline.
type count struct {
	p     *Profile
	of    counter
	kind  string
	class Class
	floor float64
	text  string // what happened, once
	sum   tally
}

func (c *count) Name() string { return c.kind }

func (c *count) Score(v *View) Evidence {
	n := c.of.of(&v.Hop, c.p)
	switch {
	case c.of == overCap && c.p.CapShare < capShareLeast:
		n = 0
	case c.of == echoes && v.V4[feature.ByteRate] < c.p.Fours[feature.ByteRate].Min-echoVolume:
		n = 0 // a picture stiller than any of the baseline repeats itself
	}
	sum := c.sum.add(n)
	limit := c.p.countLimit(c.of, c.floor)
	e := Evidence{Kind: c.kind, Class: c.class, Score: sum / limit, Value: sum, Limit: limit}
	if e.Score >= v.Said {
		what := c.text
		if c.of == overCap {
			what += fmt.Sprintf(", %d bytes", c.p.Cap)
		}
		e.Text = fmt.Sprintf("%s: %s in 10 s (%s, limit %.0f)", what, times(sum), habit(c.p.Counts[c.of].Worst), limit)
	}
	return e
}

// restarting reports whether the codec codes rows of a picture apart from each other.
func (p *Profile) restarting() bool {
	return p.Vocabulary.says(feature.FamilySlice, feature.Token.Restarting)
}

// Echoes that a source makes by itself are a share of its packets: a picture of few
// packets cannot hold many that stand alone.
const (
	// echoRestarting of all packets is what codecs may make whose rows are coded apart,
	// when part of a picture stands, up to echoMost within 10 s.
	echoRestarting = 0.012
	// echoShare is what others may: H.264 without arithmetic coding, as far as a counter that
	// goes on does not make them count less (feature/echo.go).
	echoShare = 0.001
	echoMost  = 12
	echoLeast = 3
)

// echoFloor is how many echoes within 10 s accuse where the baseline has none.
func (p *Profile) echoFloor() float64 {
	packets := 10 * math.Exp2(p.Fours[feature.PacketRate].Median)
	share := echoShare
	if p.restarting() {
		share = echoRestarting
	}
	return min(echoMost, max(echoLeast, math.Ceil(share*packets)))
}

// capShareLeast is the share of packets that must have the greatest size for it to be
// a limit that the sender keeps, and no accident.
const capShareLeast = 0.1

// echoVolume is how far below the baseline's least, in octaves, echoes still count.
const echoVolume = 0.1

func newCount(p *Profile, of counter, kind string, class Class, floor float64, text string) *count {
	return &count{p: p, of: of, kind: kind, class: class, floor: floor, text: text, sum: newTally(tenSec)}
}
