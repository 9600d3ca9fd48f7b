package detect

import (
	"cmp"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// reference is what testdata/forest.py wrote: scikit-learn's forest and its scores.
type reference struct {
	Samples int         `json:"samples"`
	Train   [][]float64 `json:"train"`
	Probe   [][]float64 `json:"probe"`
	Scores  []float64   `json:"scores"`
	Trees   []struct {
		Feature   []int     `json:"feature"`
		Threshold []float64 `json:"threshold"`
		Left      []int     `json:"left"`
		Right     []int     `json:"right"`
		Samples   []int     `json:"samples"`
	} `json:"trees"`
}

func readReference(t *testing.T) reference {
	t.Helper()
	b, err := os.ReadFile("testdata/forest.json")
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Trees) == 0 || len(r.Probe) != len(r.Scores) {
		t.Fatal("testdata/forest.json holds no forest")
	}
	return r
}

// flatten puts scikit-learn's trees into our array.
func (r reference) flatten() *Forest {
	f := &Forest{Mean: averagePath(r.Samples)}
	for _, t := range r.Trees {
		f.Roots = append(f.Roots, uint16(len(f.Nodes)))
		var add func(i, depth int)
		add = func(i, depth int) {
			at := len(f.Nodes)
			f.Nodes = append(f.Nodes, node{Feature: -1, Cut: float32(float64(depth) + averagePath(t.Samples[i]))})
			if t.Left[i] < 0 {
				return
			}
			add(t.Left[i], depth+1)
			f.Nodes[at] = node{Feature: int8(t.Feature[i]), Cut: float32(t.Threshold[i]), Right: uint16(len(f.Nodes))}
			add(t.Right[i], depth+1)
		}
		add(0, 0)
	}
	return f
}

// The same forest gives the same scores here and in scikit-learn.
func TestForestScoresLikeScikitLearn(t *testing.T) {
	r := readReference(t)
	f := r.flatten()
	for i, x := range r.Probe {
		if got := f.Score(x); math.Abs(got-r.Scores[i]) > 2e-4 {
			t.Errorf("row %d: score %.6f, scikit-learn's %.6f", i, got, r.Scores[i])
		}
	}
}

// A forest that we grow ranks like the one that scikit-learn grew.
func TestForestRanksLikeScikitLearn(t *testing.T) {
	r := readReference(t)
	f := GrowForest(r.Train, 100, r.Samples, rand.New(rand.NewPCG(1, 2)))
	got := make([]float64, len(r.Probe))
	for i, x := range r.Probe {
		got[i] = f.Score(x)
	}
	if rho := spearman(got, r.Scores); rho < 0.93 {
		t.Errorf("rank correlation with scikit-learn's scores is %.3f, want at least 0.93", rho)
	}
}

func spearman(a, b []float64) float64 {
	rank := func(x []float64) []float64 {
		order := make([]int, len(x))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int { return cmp.Compare(x[i], x[j]) })
		r := make([]float64, len(x))
		for pos, i := range order {
			r[i] = float64(pos)
		}
		return r
	}
	ra, rb := rank(a), rank(b)
	n, d := float64(len(a)), 0.0
	for i := range ra {
		d += (ra[i] - rb[i]) * (ra[i] - rb[i])
	}
	return 1 - 6*d/(n*(n*n-1))
}

func TestForestFitsIn64K(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	rows := make([][]float64, 400)
	for i := range rows {
		rows[i] = make([]float64, feature.Features)
		for k := range rows[i] {
			rows[i][k] = rng.NormFloat64()
		}
	}
	f := GrowForest(rows, forestTrees, forestSamples, rng)
	if size := len(f.Nodes)*int(unsafe.Sizeof(node{})) + 2*len(f.Roots); size > 64<<10 {
		t.Errorf("a forest takes %d bytes, want at most %d", size, 64<<10)
	}
	if s := f.Score(make([]float64, feature.Features)); s > 0.5 {
		t.Errorf("the middle of the data scores %.2f, want below 0.5", s)
	}
	far := make([]float64, feature.Features)
	for i := range far {
		far[i] = 9
	}
	if s := f.Score(far); s < 0.65 {
		t.Errorf("a point far outside scores %.2f, want above 0.65", s)
	}
}

func TestAveragePath(t *testing.T) {
	for n, want := range map[int]float64{0: 0, 1: 0, 2: 1, 256: 10.244770} {
		if got := averagePath(n); math.Abs(got-want) > 1e-5 {
			t.Errorf("c(%d) = %.6f, want %.6f", n, got, want)
		}
	}
}

func BenchmarkForest(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 5))
	rows := make([][]float64, 400)
	for i := range rows {
		rows[i] = make([]float64, feature.Features)
		for k := range rows[i] {
			rows[i][k] = rng.NormFloat64()
		}
	}
	f := GrowForest(rows, forestTrees, forestSamples, rng)
	for i := 0; b.Loop(); i++ {
		f.Score(rows[i%len(rows)])
	}
}

// TestForestSaysWhatItGoesBy: the statistics that set a second apart are named with their
// values, and none that is as ever; together where it takes several.
func TestForestSaysWhatItGoesBy(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	rows := make([]feature.Vector, 400)
	p := &Profile{}
	for i := range rows {
		for k := range rows[i] {
			rows[i][k] = 10 + rng.NormFloat64()/10
		}
	}
	for k := range p.Seconds {
		p.Seconds[k] = Spread{Mean: 10, Median: 10, MAD: 0.1, Deviation: 0.1}
	}
	p.learnForest(rows, 1)
	for _, row := range [][]feature.Feature{{feature.SizeMean}, {feature.ByteRate, feature.FrameRate}, {feature.SizeMean, feature.FrameRate, feature.ByteRate}} {
		v := &View{OK1: true}
		for k := range v.V1 {
			v.V1[k] = 10 + rng.NormFloat64()/20
		}
		for _, k := range row {
			v.V1[k] = 13
		}
		e := isolation{p, 0}.Score(v)
		named := 0
		for _, f := range allFeatures {
			switch said := strings.Contains(e.Text, against(f, v.V1[f], &p.Seconds[f])); {
			case said && !slices.Contains(row, f):
				t.Errorf("%s is as ever, and is named in %q", f.Words(), e.Text)
			case said:
				named++
			}
		}
		if named < min(2, len(row)) {
			t.Errorf("%d statistics of %d are named in %q", named, len(row), e.Text)
		}
	}
	usual := make([]float64, feature.Features)
	for k := range usual {
		usual[k] = 10
	}
	for k, share := range p.Forest.Blame(usual, usual) {
		if share != 0 {
			t.Errorf("the middle of what was learned is set apart by %s", feature.Feature(k).Words())
		}
	}
}
