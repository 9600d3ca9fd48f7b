package tune

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestGaussianProcess: it goes through what it was told, is sure there and unsure far
// away, and finds a length of the right order.
func TestGaussianProcess(t *testing.T) {
	f := func(x []float64) float64 { return 5 + math.Sin(6*x[0]) + 0.3*x[1] }
	rng := rand.New(rand.NewPCG(1, 1))
	var x [][]float64
	var y []float64
	for range 40 {
		p := []float64{rng.Float64(), rng.Float64()}
		x, y = append(x, p), append(y, f(p))
	}
	var g gp
	if err := g.fit(x, y, nil, true); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for range 100 {
		p := []float64{rng.Float64(), rng.Float64()}
		m, _ := g.at(p)
		sum += (m - f(p)) * (m - f(p)) / 100
	}
	if rms := math.Sqrt(sum); rms > 0.1 {
		t.Errorf("predictions are off by %.3f", rms)
	}
	_, sure := g.at(x[0])
	_, far := g.at([]float64{3, 3})
	if sure > far/3 {
		t.Errorf("deviation %.3f at a known point, %.3f far away", sure, far)
	}
	if l := math.Exp(g.hyper[0]); l < 0.05 || l > 1.5 || g.hyper[0] >= g.hyper[1] {
		t.Errorf("lengths %.2f and %.2f: the first dimension is the wavy one", l, math.Exp(g.hyper[1]))
	}
}

// bowl has its least cost, 0, at 0.7 in every dimension, and is forbidden where the
// first coordinate is below 0.3.
func bowl(x []float64) Trial {
	c := 0.0
	for _, v := range x {
		c += (v - 0.7) * (v - 0.7)
	}
	return Trial{X: x, Cost: 10 * c, Over: 0.3 - x[0]}
}

// TestBayesFindsTheBest: with equal trials, the median of three seeds is below that of
// random search, in as many dimensions as the fleet's space has.
func TestBayesFindsTheBest(t *testing.T) {
	const dims, trials, seeds = 2 + Groups, 30, 3
	median := func(method func(seed uint64) Method) float64 {
		var cost []float64
		for seed := range uint64(seeds) {
			m := method(seed)
			var all []Trial
			best := math.Inf(1)
			for range trials {
				tr := bowl(m.Next(dims, all))
				all = append(all, tr)
				if tr.Over <= 0 {
					best = min(best, tr.Cost)
				}
			}
			cost = append(cost, best)
		}
		least := math.Inf(1)
		for i := range cost {
			n := 0
			for j := range cost {
				if cost[j] <= cost[i] {
					n++
				}
			}
			if n > seeds/2 {
				least = min(least, cost[i])
			}
		}
		return least
	}
	bayes := median(func(s uint64) Method { return &Bayes{Rand: rand.New(rand.NewPCG(s, 1))} })
	random := median(func(s uint64) Method { return Random{rand.New(rand.NewPCG(s, 1))} })
	grid := median(func(s uint64) Method { return &Grid{Side: 2, Rand: rand.New(rand.NewPCG(s, 1))} })
	if bayes > random/2 || bayes > grid {
		t.Errorf("cost after %d trials: Bayes %.3f, random %.3f, grid %.3f", trials, bayes, random, grid)
	}
}

func TestSpaceIsInvertible(t *testing.T) {
	s := Space{Base: DefaultParams(), Fleet: true}
	rng := rand.New(rand.NewPCG(9, 9))
	for range 50 {
		p := s.Params(Random{rng}.Next(s.Dims(), nil))
		q := s.Params(s.Point(p))
		if math.Abs(p.Sensitivity-q.Sensitivity) > 1e-9 || p.Persistence != q.Persistence || math.Abs(p.Weights[1]-q.Weights[1]) > 1e-9 {
			t.Fatalf("%+v comes back as %+v", p, q)
		}
		if c := CutoffOf(p.Sensitivity); c < Floor*0.999 || c > Ceiling*1.001 {
			t.Fatalf("cut-off %g is out of range", c)
		}
	}
}

// TestProposeIsDeterministicAndAnytime: the same seed gives the same proposal; a run
// that is stopped at once gives the controller's.
func TestProposeIsDeterministicAndAnytime(t *testing.T) {
	s := newStream(6, 0.25, 0.3).quiet(0.6)
	for range 6 {
		s.burst(0, 0.8, 40, Real, 1).quiet(0.1)
	}
	task := Task{Goal: day, Current: at(2), Prior: 1, Seed: 7, Trials: 10}
	a, b := Propose(s.data(), task), Propose(s.data(), task)
	if a != b {
		t.Errorf("two runs differ:\n%+v\n%+v", a, b)
	}
	if a.Then.Detected() < 1 || CutoffOf(a.Params.Sensitivity) > 0.8 {
		t.Errorf("%.0f %% would be found: %+v", 100*a.Then.Detected(), a)
	}
	task.More = func() bool { return false }
	if p := Propose(s.data(), task); p.Method != ByController || p.Why == "" {
		t.Errorf("stopped at once: %+v", p)
	}
}

// TestBayesGoesLiveWhereItIsBetter: where false alarms come from one group of
// detectors and the thefts show in another at the same scores, no cut-off serves both,
// and weights do.
func TestBayesGoesLiveWhereItIsBetter(t *testing.T) {
	s := newStream(8, 0.05, 0.1)
	for range 12 {
		s.quiet(0.05).burst(1, 1.3, 12, False, 0.95).quiet(0.05).burst(0, 1.1, 40, Real, 1)
	}
	p := Propose(s.data(), Task{Goal: day, Current: DefaultParams(), Prior: 1, Seed: 3, Fleet: true, Trials: 40})
	if p.Method != ByBayes || p.Then.Detected() < 1 || day.Over(p.Then) > 0 {
		t.Errorf("%+v", p)
	}
	if day.Cost(p.Bayes) >= day.Cost(p.Control) {
		t.Errorf("held out: Bayes %.2f, controller %.2f", day.Cost(p.Bayes), day.Cost(p.Control))
	}
}

// BenchmarkPropose is one tuning run of a stream with a day of history: 345,600 hops,
// twelve labelled episodes, and eighteen simulated ones.
func BenchmarkPropose(b *testing.B) {
	s := newStream(6, 0.25, 0.3)
	for range 12 {
		s.quiet(2).burst(0, 0.9, 40, Real, 1)
	}
	d := s.data()
	for i := range 18 {
		made := newStream(uint64(i), 0.2, 0.2).quiet(0.005).burst(i%4, 0.5+0.1*float64(i), 60, Real, 1)
		d.Cases = append(d.Cases, Simulated(made.trace, "made", SimulatedWeight/18))
	}
	for b.Loop() {
		Propose(d, Task{Goal: day, Current: DefaultParams(), Prior: 1, Seed: 1})
	}
}
