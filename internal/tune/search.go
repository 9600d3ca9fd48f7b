package tune

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Space is what is searched, as a cube of side 1.
type Space struct {
	Base  Params // what is not searched
	Fleet bool   // weights and persistence as well as the cut-off
}

// Bounds of the fleet's weights: a group is never switched off.
const (
	leastWeight = 0.5
	mostWeight  = 2.0
	// mostPersistence keeps an alarm from coming more than this many hops late.
	mostPersistence = 6
)

// Dims is the number of dimensions.
func (s *Space) Dims() int {
	if s.Fleet {
		return 2 + Groups
	}
	return 1
}

// Params gives the settings at a point.
func (s *Space) Params(x []float64) Params {
	p := s.Base
	p.Sensitivity = episode.SensitivityAt(Floor * math.Pow(Ceiling/Floor, x[0]))
	if s.Fleet {
		p.Persistence = 1 + int(min(x[1]*mostPersistence, mostPersistence-1))
		for g := range p.Weights {
			p.Weights[g] = leastWeight * math.Pow(mostWeight/leastWeight, x[2+g])
		}
	}
	return p
}

// Point is the inverse of Params.
func (s *Space) Point(p Params) []float64 {
	unit := func(v float64) float64 { return min(max(v, 0), 1) }
	x := []float64{unit(math.Log(CutoffOf(p.Sensitivity)/Floor) / math.Log(Ceiling/Floor))}
	if s.Fleet {
		x = append(x, unit((float64(max(p.Persistence, 1))-0.5)/mostPersistence))
		for _, w := range p.Weights {
			x = append(x, unit(math.Log(w/leastWeight)/math.Log(mostWeight/leastWeight)))
		}
	}
	return x
}

// Trial is a point that was tried.
type Trial struct {
	X     []float64
	Stats Stats
	Cost  float64
	Over  float64 // see [Goal.Over]
}

// better orders trials: those that keep the budget by cost, before those that do not
// by how far they are from it.
func better(a, b Trial) bool {
	if (a.Over <= 0) != (b.Over <= 0) {
		return a.Over <= 0
	}
	if a.Over <= 0 {
		return a.Cost < b.Cost
	}
	return a.Over < b.Over
}

// Method proposes the next point to try.
type Method interface {
	Next(dims int, done []Trial) []float64
}

// Random tries points at random.
type Random struct{ Rand *rand.Rand }

// Next is a point at random.
func (m Random) Next(dims int, _ []Trial) []float64 {
	x := make([]float64, dims)
	for i := range x {
		x[i] = m.Rand.Float64()
	}
	return x
}

// Grid tries a grid of Side points a dimension, in an order that a run that ends early
// has seen all of the cube.
type Grid struct {
	Side int
	Rand *rand.Rand
	perm []int
}

// Next is the next point of the grid.
func (m *Grid) Next(dims int, done []Trial) []float64 {
	n := 1
	for range dims {
		n *= m.Side
	}
	if len(m.perm) != n {
		m.perm = m.Rand.Perm(n)
	}
	at := m.perm[len(done)%n]
	x := make([]float64, dims)
	for i := range x {
		x[i] = (float64(at%m.Side) + 0.5) / float64(m.Side)
		at /= m.Side
	}
	return x
}

// Bayes is Bayesian optimisation: a Gaussian process for the cost, one for the budget,
// and expected improvement times the chance of keeping the budget (Gardner et al. 2014).
type Bayes struct {
	Rand  *rand.Rand
	hyper [2][]float64
}

const (
	candidates = 300 // points among which the best is taken
	near       = 100 // of them around the best so far
	searchEach = 5   // trials after which hyperparameters are searched anew
	// costCeiling bounds costs as the process sees them: beyond it, bad is bad.
	costCeiling = 3.0 // log2
)

// Next is the point of the greatest expected improvement.
func (m *Bayes) Next(dims int, done []Trial) []float64 {
	if len(done) < dims+3 {
		return m.spread(dims, len(done))
	}
	x := make([][]float64, len(done))
	cost, over := make([]float64, len(done)), make([]float64, len(done))
	best := done[0]
	for _, t := range done[1:] {
		if better(t, best) {
			best = t
		}
	}
	for i, t := range done {
		x[i] = t.X
		cost[i] = min(math.Log2(1e-3+t.Cost)-math.Log2(1e-3+best.Cost), costCeiling)
		over[i] = min(max(t.Over, -3), 3)
	}
	var of [2]gp
	search := m.hyper[0] == nil || len(done)%searchEach == 0
	for i, y := range [][]float64{cost, over} {
		if err := of[i].fit(x, y, m.hyper[i], search); err != nil {
			return Random{m.Rand}.Next(dims, done)
		}
		m.hyper[i] = of[i].hyper
	}
	least := math.Inf(1)
	for i, t := range done {
		if t.Over <= 0 {
			least = min(least, cost[i])
		}
	}
	var pick []float64
	most := math.Inf(-1)
	normal := distuv.UnitNormal
	for c := range candidates {
		p := Random{m.Rand}.Next(dims, done)
		if c < near {
			for i := range p {
				p[i] = min(max(best.X[i]+m.Rand.NormFloat64()*0.08, 0), 1)
			}
		}
		mean, dev := of[1].at(p)
		value := normal.CDF(-mean / dev)
		if !math.IsInf(least, 1) {
			mean, dev := of[0].at(p)
			z := (least - mean) / dev
			value *= dev * (z*normal.CDF(z) + normal.Prob(z))
		}
		if value > most {
			pick, most = p, value
		}
	}
	return pick
}

// spread gives the first points: a lattice that fills the cube (Korobov, by the
// generalised golden ratio; Roberts 2018), turned at random.
func (m *Bayes) spread(dims, n int) []float64 {
	phi := 2.0
	for range 30 {
		phi = math.Pow(1+phi, 1/float64(dims+1))
	}
	x := make([]float64, dims)
	for i := range x {
		_, x[i] = math.Modf(0.5 + float64(n+1)*math.Pow(phi, -float64(i+1)))
	}
	return x
}

// Search tries points until more says no. It can be stopped after any, and then gives
// the best so far; the first is where it starts from.
func Search(s *Space, g Goal, start Params, judge func(Params) Stats, m Method, more func(tried int) bool) (best Trial, all []Trial) {
	try := func(x []float64) {
		st := judge(s.Params(x))
		all = append(all, Trial{X: x, Stats: st, Cost: g.Cost(st), Over: g.Over(st)})
	}
	try(s.Point(start))
	for more(len(all)) {
		try(m.Next(s.Dims(), all))
	}
	best = slices.MinFunc(all, func(a, b Trial) int {
		switch {
		case better(a, b):
			return -1
		case better(b, a):
			return 1
		}
		return 0
	})
	return best, all
}
