package transport

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// gaps are those that were given up lately. Whoever has a stolen key can leap the
// index as far as he likes, and what he leapt over was never sent; so a gap counts
// as loss as far as the device's reports reach, or when it is old, and not at all
// where a later key shows that it was a leap. The zero value has none.
//
// It owns no clock and no lock.
type gaps struct {
	open [maxGaps]gap // by rising index
	n    int
	sure uint64 // packets lost, beyond doubt
}

type gap struct {
	from, to gk.Index
	lost     uint64 // of to - from; less where gaps were put together
	at       time.Time
}

const (
	maxGaps = 64
	// gapDoubt is how long a gap waits for a report or a later key. Proof changes a
	// key in less.
	gapDoubt = 10 * time.Second
)

// add notes a gap, above all those before.
func (g *gaps) add(now time.Time, from, to gk.Index) {
	if g.n == maxGaps { // the oldest two become one
		g.open[1] = gap{g.open[0].from, g.open[1].to, g.open[0].lost + g.open[1].lost, g.open[1].at}
		g.remove(1)
	}
	g.open[g.n] = gap{from, to, uint64(to - from), now}
	g.n++
}

func (g *gaps) remove(k int) {
	copy(g.open[:], g.open[k:g.n])
	g.n -= k
}

// count gives the packets lost: those beyond doubt, and those below reach, up to
// where the device is known to have come. It never falls.
func (g *gaps) count(now time.Time, reach gk.Index) uint64 {
	k := 0
	for ; k < g.n && (g.open[k].to <= reach || now.Sub(g.open[k].at) >= gapDoubt); k++ {
		g.sure += g.open[k].lost
	}
	g.remove(k)
	if g.n > 0 {
		below := g.open[0].below(reach)
		g.sure += below
		if below > 0 {
			g.open[0].from, g.open[0].lost = reach, g.open[0].lost-below
		}
	}
	return g.sure
}

// below is how much was lost below an index.
func (g *gap) below(i gk.Index) uint64 {
	switch {
	case i <= g.from:
		return 0
	case i >= g.to:
		return g.lost
	case g.lost == uint64(g.to-g.from):
		return uint64(i - g.from)
	}
	return uint64(float64(g.lost) * float64(i-g.from) / float64(g.to-g.from))
}

// void takes back what is at or past an index: it was leapt over, not lost.
func (g *gaps) void(first gk.Index) {
	for g.n > 0 {
		o := &g.open[g.n-1]
		if o.from < first {
			if o.to > first {
				o.lost, o.to = o.below(first), first
			}
			return
		}
		g.n--
	}
}
