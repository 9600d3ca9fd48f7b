package detect

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Shape of the forest. 64 trees of 64 samples take at most 64 × 127 nodes of 8
// bytes: 64 KB a stream.
const (
	forestTrees   = 64
	forestSamples = 64
	forestDepth   = 6 // ⌈log2 samples⌉
)

// node is one cut: feature below, threshold, and where the right child is; the left
// one is next. A leaf has feature -1 and its path length, c(size) included, as cut.
type node struct {
	Feature int8
	Right   uint16
	Cut     float32
}

// Forest is an Isolation Forest (Liu, Ting, Zhou 2008) in one flat array.
type Forest struct {
	Nodes []node
	Roots []uint16
	Mean  float64 // c(samples), the expected path length
}

// averagePath is c(n): the mean path length of an unsuccessful search in a binary
// search tree of n points (Liu, Ting, Zhou 2008, equation 1).
func averagePath(n int) float64 {
	switch {
	case n <= 1:
		return 0
	case n == 2:
		return 1
	}
	return 2*(math.Log(float64(n-1))+0.5772156649015329) - 2*float64(n-1)/float64(n)
}

// GrowForest grows a forest over rows of numbers. Each tree takes its own sample
// without replacement.
func GrowForest(rows [][]float64, trees, samples int, rng *rand.Rand) *Forest {
	samples = min(samples, len(rows))
	f := &Forest{Mean: averagePath(samples)}
	depth := int(math.Ceil(math.Log2(float64(max(samples, 2)))))
	index := make([]int, len(rows))
	for i := range index {
		index[i] = i
	}
	for range trees {
		for i := range samples {
			j := i + rng.IntN(len(index)-i)
			index[i], index[j] = index[j], index[i]
		}
		f.Roots = append(f.Roots, uint16(len(f.Nodes)))
		f.grow(rows, append([]int(nil), index[:samples]...), 0, depth, rng)
	}
	return f
}

func (f *Forest) grow(rows [][]float64, in []int, depth, limit int, rng *rand.Rand) {
	at := len(f.Nodes)
	f.Nodes = append(f.Nodes, node{Feature: -1})
	leaf := func() { f.Nodes[at].Cut = float32(float64(depth) + averagePath(len(in))) }
	if depth >= limit || len(in) <= 1 {
		leaf()
		return
	}
	// A feature that is constant here cannot cut: take the others in random order.
	var feat int
	var lo, hi float64
	found := false
	for _, k := range rng.Perm(len(rows[in[0]])) {
		lo, hi = math.Inf(1), math.Inf(-1)
		for _, i := range in {
			lo, hi = min(lo, rows[i][k]), max(hi, rows[i][k])
		}
		if lo < hi {
			feat, found = k, true
			break
		}
	}
	if !found {
		leaf()
		return
	}
	cut := float32(lo + rng.Float64()*(hi-lo))
	var left, right []int
	for _, i := range in {
		if float32(rows[i][feat]) <= cut {
			left = append(left, i)
		} else {
			right = append(right, i)
		}
	}
	f.grow(rows, left, depth+1, limit, rng)
	f.Nodes[at] = node{Feature: int8(feat), Cut: cut, Right: uint16(len(f.Nodes))}
	f.grow(rows, right, depth+1, limit, rng)
}

// Score is the anomaly score 2^(−E[h(x)] / c(n)) in (0, 1]: about 0.5 for what is as
// others are, towards 1 for what is easily told apart.
func (f *Forest) Score(x []float64) float64 {
	if len(f.Roots) == 0 || f.Mean == 0 {
		return 0.5
	}
	sum := 0.0
	for _, root := range f.Roots {
		n := &f.Nodes[root]
		at := root
		for n.Feature >= 0 {
			if float32(x[n.Feature]) <= n.Cut {
				at++
			} else {
				at = n.Right
			}
			n = &f.Nodes[at]
		}
		sum += float64(n.Cut)
	}
	return math.Exp2(-sum / float64(len(f.Roots)) / f.Mean)
}

// Blame says which features set x apart from usual, in shares that add up to 1; all are 0
// where no tree isolates x sooner than the average row. It is the local form of DIFFI
// (Carletti, Terzi, Susto: Interpretable Anomaly Detection with DIFFI, 2023): every tree
// gives the features on x's path the more, the shorter that is. Here only those cuts count
// that part x from usual: the others are on the path by the dice alone.
func (f *Forest) Blame(x, usual []float64) []float64 {
	shares, total := make([]float64, len(x)), 0.0
	var seen []int8
	for _, root := range f.Roots {
		at, n := root, &f.Nodes[root]
		for seen = seen[:0]; n.Feature >= 0; n = &f.Nodes[at] {
			k := n.Feature
			left := float32(x[k]) <= n.Cut
			if left != (float32(usual[k]) <= n.Cut) && !slices.Contains(seen, k) {
				seen = append(seen, k)
			}
			if at++; !left {
				at = n.Right
			}
		}
		if h := float64(n.Cut); h > 0 && h < f.Mean {
			for _, k := range seen {
				shares[k] += 1/h - 1/f.Mean
				total += 1/h - 1/f.Mean
			}
		}
	}
	for k := range shares {
		if total > 0 {
			shares[k] /= total
		}
	}
	return shares
}

// check refuses a forest that Score could not walk to its end: children lie behind
// their parent, inside the array.
func (f *Forest) check(features int) error {
	for _, r := range f.Roots {
		if int(r) >= len(f.Nodes) {
			return fmt.Errorf("%w: its forest is out of shape", ErrProfile)
		}
	}
	for i, n := range f.Nodes {
		if n.Feature >= 0 && (int(n.Feature) >= features || int(n.Right) <= i+1 || int(n.Right) >= len(f.Nodes)) {
			return fmt.Errorf("%w: its forest is out of shape", ErrProfile)
		}
	}
	return nil
}

func (p *Profile) learnForest(v []feature.Vector, seed uint64) {
	if len(v) < forestSamples {
		return
	}
	rows := make([][]float64, len(v))
	for i := range v {
		rows[i] = v[i][:]
	}
	p.Forest = GrowForest(rows, forestTrees, forestSamples, rand.New(rand.NewPCG(seed, 0x666f72657374)))
	for _, r := range rows {
		p.ForestMax = max(p.ForestMax, p.Forest.Score(r))
	}
}

// isolation scores the window vector with the forest.
type isolation struct {
	p      *Profile
	margin float64
}

func (isolation) Name() string { return "isolation-forest" }

func (d isolation) Score(v *View) Evidence {
	e := Evidence{Kind: "isolation-forest", Class: Source}
	if d.p.Forest == nil || !v.OK1 || v.Disturbed {
		return e
	}
	e.Limit = min(0.98, max(0.6, d.p.ForestMax)+d.margin)
	e.Value = d.p.Forest.Score(v.V1[:])
	e.Score = max(0, (e.Value-0.4)/(e.Limit-0.4))
	if e.Score >= v.Said {
		e.Text = fmt.Sprintf("no second that was learned is like the last, which is told from them by this: %s (isolation %.2f, by habit at most %.2f, limit %.2f)",
			d.apart(v), e.Value, d.p.ForestMax, e.Limit)
	}
	return e
}

// maxBlamed bounds the features that an evidence names, and leastBlamed is the share of
// the first one's that a further one has.
const maxBlamed, leastBlamed = 3, 0.4

// apart says by which statistics the forest tells the last second from those that it learned.
func (d isolation) apart(v *View) string {
	var usual feature.Vector
	for f := range usual {
		usual[f] = d.p.Seconds[f].Median
	}
	shares := d.p.Forest.Blame(v.V1[:], usual[:])
	order := slices.SortedStableFunc(slices.Values(allFeatures[:]), func(a, b feature.Feature) int { return cmp.Compare(shares[b], shares[a]) })
	if shares[order[0]] == 0 {
		order[0] = furthest(&v.V1, &d.p.Seconds, allFeatures[:]...)
	}
	var say []string
	for i, f := range order[:maxBlamed] {
		if i == 0 || shares[f] > 0 && shares[f] >= leastBlamed*shares[order[0]] {
			say = append(say, against(f, v.V1[f], &d.p.Seconds[f]))
		}
	}
	return strings.Join(say, "; ")
}
