package tune

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"
)

// gp is a Gaussian process over the unit cube with a Matérn 5/2 kernel, a length for
// every dimension, and noise (Rasmussen and Williams 2006, chapters 2 and 4). Its
// targets are brought to mean 0 and deviation 1.
type gp struct {
	x     [][]float64
	hyper []float64 // log of: lengths, signal deviation, noise deviation
	chol  mat.Cholesky
	alpha mat.VecDense // K⁻¹ y
	mean  float64
	scale float64
	k     mat.VecDense
	v     mat.VecDense
}

// Where the hyperparameters are expected (maximum a posteriori): lengths of a third of
// the cube, a signal of 1, little noise; with deviations in logs.
var (
	hyperMean = [3]float64{math.Log(0.33), 0, math.Log(0.05)}
	hyperDev  = [3]float64{0.7, 0.5, 1}
)

// matern is the kernel at a scaled distance r (same source, equation 4.17).
func matern(r float64) float64 {
	s := math.Sqrt(5) * r
	return (1 + s + s*s/3) * math.Exp(-s)
}

func distance(a, b, lengths []float64) float64 {
	sum := 0.0
	for i := range a {
		d := (a[i] - b[i]) / lengths[i]
		sum += d * d
	}
	return math.Sqrt(sum)
}

// hyperEvaluations bounds the search for hyperparameters.
const hyperEvaluations = 120

var errSingular = errors.New("the Gaussian process is singular")

// fit learns from points x with targets y. start holds hyperparameters to begin from,
// or nil; they are searched for when search is set.
func (g *gp) fit(x [][]float64, y, start []float64, search bool) error {
	g.x = x
	g.mean, g.scale = 0, 0
	for _, v := range y {
		g.mean += v / float64(len(y))
	}
	for _, v := range y {
		g.scale += (v - g.mean) * (v - g.mean) / float64(len(y))
	}
	g.scale = math.Max(math.Sqrt(g.scale), 1e-9)
	z := mat.NewVecDense(len(y), nil)
	for i, v := range y {
		z.SetVec(i, (v-g.mean)/g.scale)
	}
	dims := len(x[0])
	if start == nil {
		start = make([]float64, dims+2)
		for i := range start {
			start[i] = hyperMean[max(0, i-dims+1)]
		}
	}
	g.hyper = append([]float64(nil), start...)
	if search {
		settings := &optimize.Settings{FuncEvaluations: hyperEvaluations, Concurrent: 0}
		result, err := optimize.Minimize(optimize.Problem{Func: func(h []float64) float64 { return g.loss(h, z) }}, start, settings, &optimize.NelderMead{})
		if result == nil {
			return err
		}
		if math.IsInf(result.F, 1) {
			return errSingular
		}
		copy(g.hyper, result.X)
	}
	if math.IsInf(g.loss(g.hyper, z), 1) {
		return errSingular
	}
	return nil
}

// loss is the negative logarithm of likelihood and prior. It leaves the factors of the
// last call behind.
func (g *gp) loss(h []float64, z *mat.VecDense) float64 {
	dims := len(g.x[0])
	penalty := 0.0
	for i, v := range h {
		group := max(0, i-dims+1)
		d := (v - hyperMean[group]) / hyperDev[group]
		penalty += d * d / 2
	}
	if penalty > 200 {
		return math.Inf(1)
	}
	lengths := make([]float64, dims)
	for i := range lengths {
		lengths[i] = math.Exp(h[i])
	}
	signal, noise := math.Exp(2*h[dims]), math.Exp(2*h[dims+1])
	k := mat.NewSymDense(len(g.x), nil)
	for i := range g.x {
		for j := range i {
			k.SetSym(i, j, signal*matern(distance(g.x[i], g.x[j], lengths)))
		}
		k.SetSym(i, i, signal+noise+1e-9)
	}
	if !g.chol.Factorize(k) {
		return math.Inf(1)
	}
	g.alpha.Reset()
	if g.chol.SolveVecTo(&g.alpha, z) != nil {
		return math.Inf(1)
	}
	return penalty + mat.Dot(z, &g.alpha)/2 + g.chol.LogDet()/2
}

// at predicts mean and deviation at a point, without the noise.
func (g *gp) at(x []float64) (mean, deviation float64) {
	dims := len(x)
	lengths := make([]float64, dims)
	for i := range lengths {
		lengths[i] = math.Exp(g.hyper[i])
	}
	signal := math.Exp(2 * g.hyper[dims])
	if g.k.Len() != len(g.x) {
		g.k, g.v = *mat.NewVecDense(len(g.x), nil), *mat.NewVecDense(len(g.x), nil)
	}
	for i := range g.x {
		g.k.SetVec(i, signal*matern(distance(g.x[i], x, lengths)))
	}
	mean = mat.Dot(&g.k, &g.alpha)
	variance := signal
	if g.chol.SolveVecTo(&g.v, &g.k) == nil {
		variance -= mat.Dot(&g.k, &g.v)
	}
	return mean*g.scale + g.mean, math.Sqrt(max(variance, 1e-12)) * g.scale
}
