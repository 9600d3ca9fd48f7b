package detect

import (
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Label is what is known of a recording: what happened in it and when. Times are
// seconds from the flow's first packet.
type Label struct {
	Capture  string  `json:"capture"`
	Encoder  string  `json:"encoder"` // these two name the source
	Footage  string  `json:"footage"`
	Baseline float64 `json:"baseline_end_s"`
	Duration float64 `json:"duration_s"`
	// RepeatsFrom is where a quiet recording's content comes a second time; nothing is
	// judged from there on. 0: it does not.
	RepeatsFrom float64 `json:"content_repeats_from_s"`
	Events      []Event `json:"events"`
}

// Event is one thing that was done to a stream.
type Event struct {
	Start     float64 `json:"t_start"`
	End       float64 `json:"t_end"`
	Kind      string  `json:"kind"`
	Malicious bool    `json:"malicious"`
	Planned   bool    `json:"planned"` // announced: alarms in it are not counted
}

// Reading is the score of one window.
type Reading struct {
	T     float64
	Score float64
	Class Class
	Kind  string // of the detector
	Text  string // its evidence
	Held  bool   // no alarm could be told: one of an episode that goes on was
}

const (
	detectWithin = 10.0 // s after an attack's start in which an alarm is a detection
	driftWithin  = 60.0 // for attacks that begin slowly
	aftermath    = 10.0 // s after an event's end in which an alarm is not counted as false
	mergeWithin  = 10.0 // s in which alarms are one
)

// KindResult is how one kind of attack fared.
type KindResult struct {
	Kind      string    `json:"kind"`
	Events    int       `json:"events"`
	Detected  int       `json:"detected"`
	Low, High float64   `json:"-"`
	Interval  []float64 `json:"detected_95"`
	Median    float64   `json:"median_s"` // time to detect; 0 without a detection
}

// BenignResult is how often one kind of harmless event raised an alarm.
type BenignResult struct {
	Kind    string `json:"kind"`
	Events  int    `json:"events"`
	Alarmed int    `json:"alarmed"`
}

// FalseAlarm is an alarm outside of every attack.
type FalseAlarm struct {
	Capture  string   `json:"capture"`
	T        float64  `json:"t"`
	Class    Class    `json:"class"`
	Kind     string   `json:"kind"`
	Evidence string   `json:"evidence"`
	During   []string `json:"during,omitempty"` // harmless events that were going on or had just ended
}

// Result is an evaluation at one threshold.
type Result struct {
	Threshold   float64        `json:"threshold"`
	Events      int            `json:"events"`
	Detected    int            `json:"detected"`
	DetectedCI  [2]float64     `json:"detected_95"` // Clopper and Pearson
	MedianTime  float64        `json:"median_s"`
	Kinds       []KindResult   `json:"kinds"`
	Benign      []BenignResult `json:"benign"`
	False       int            `json:"false_alarms"`
	Hours       float64        `json:"benign_hours"`
	FalseRate   float64        `json:"false_per_hour"`
	FalseRateCI [2]float64     `json:"false_per_hour_95"` // exact Poisson
	Missed      []string       `json:"missed"`
	FalseIn     map[string]int `json:"false_in,omitempty"`
	FalseAlarms []FalseAlarm   `json:"false_alarms_list,omitempty"`
	Times       []float64      `json:"-"` // to detect, s, ascending
}

// Evaluate counts detections and false alarms. An attack is detected by an alarm within
// 10 s of its start (60 s if it begins slowly). A false alarm is one after the baseline
// and outside of every attack and the 10 s behind it; alarms within 10 s are one. Time in
// which an episode of a false alarm goes on, so that none could be told, is not counted.
func Evaluate(labels []Label, readings map[string][]Reading, threshold float64) Result {
	r := Result{Threshold: threshold, FalseIn: map[string]int{}}
	times := map[string][]float64{}
	events := map[string]int{}
	benign := map[string][2]int{}
	var all []float64
	for _, l := range labels {
		var alarms []float64
		said := map[float64]Reading{}
		for _, x := range readings[l.Capture] {
			if x.Score >= threshold && x.T > l.Baseline {
				alarms = append(alarms, x.T)
				said[x.T] = x
			}
		}
		slices.Sort(alarms)
		end := l.Duration
		if l.RepeatsFrom > 0 {
			end = min(end, l.RepeatsFrom)
		}
		var excluded [][2]float64
		for _, e := range l.Events {
			if !e.Malicious {
				n := benign[e.Kind]
				n[0]++
				if _, ok := firstWithin(alarms, e.Start, e.End+aftermath); ok {
					n[1]++
				}
				benign[e.Kind] = n
				if e.Planned {
					excluded = append(excluded, [2]float64{e.Start - 1, e.End + aftermath})
				}
				continue
			}
			excluded = append(excluded, [2]float64{e.Start, e.End + aftermath})
			events[e.Kind]++
			within := detectWithin
			if strings.Contains(e.Kind, "drift") {
				within = driftWithin
			}
			if t, ok := firstWithin(alarms, e.Start, e.Start+within); ok {
				times[e.Kind] = append(times[e.Kind], t-e.Start)
				all = append(all, t-e.Start)
			} else {
				r.Missed = append(r.Missed, l.Capture+" "+e.Kind)
			}
		}
		last := math.Inf(-1)
		for _, t := range alarms {
			if t > end || inAny(excluded, t) || t-last <= mergeWithin {
				continue
			}
			last = t
			r.False++
			r.FalseIn[l.Capture]++
			x := said[t]
			r.FalseAlarms = append(r.FalseAlarms, FalseAlarm{l.Capture, t, x.Class, x.Kind, x.Text, l.during(t)})
		}
		r.Hours += free(l.Baseline, end, excluded) / 3600
		for _, x := range readings[l.Capture] {
			if x.Held && x.T > l.Baseline && x.T <= end && !inAny(excluded, x.T) {
				r.Hours -= feature.Hop / 1e9 / 3600
			}
		}
	}
	for kind, n := range events {
		k := KindResult{Kind: kind, Events: n, Detected: len(times[kind]), Median: median(times[kind])}
		lo, hi := BinomialInterval(k.Detected, n)
		k.Low, k.High, k.Interval = lo, hi, []float64{lo, hi}
		r.Kinds = append(r.Kinds, k)
		r.Events += n
		r.Detected += k.Detected
	}
	for kind, n := range benign {
		r.Benign = append(r.Benign, BenignResult{kind, n[0], n[1]})
	}
	sort.Slice(r.Kinds, func(i, j int) bool { return r.Kinds[i].Kind < r.Kinds[j].Kind })
	sort.Slice(r.Benign, func(i, j int) bool { return r.Benign[i].Kind < r.Benign[j].Kind })
	r.MedianTime = median(all)
	slices.Sort(all)
	r.Times = all
	lo, hi := BinomialInterval(r.Detected, r.Events)
	r.DetectedCI = [2]float64{lo, hi}
	if r.Hours > 0 {
		r.FalseRate = float64(r.False) / r.Hours
		lo, hi = PoissonInterval(r.False)
		r.FalseRateCI = [2]float64{lo / r.Hours, hi / r.Hours}
	}
	return r
}

// during names the harmless events at a time and just before it.
func (l *Label) during(t float64) []string {
	var kinds []string
	for _, e := range l.Events {
		if !e.Malicious && t >= e.Start && t <= e.End+aftermath {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func firstWithin(sorted []float64, from, to float64) (float64, bool) {
	i := sort.SearchFloat64s(sorted, from)
	if i < len(sorted) && sorted[i] <= to {
		return sorted[i], true
	}
	return 0, false
}

func inAny(spans [][2]float64, t float64) bool {
	for _, s := range spans {
		if s[0] <= t && t <= s[1] {
			return true
		}
	}
	return false
}

// free is the length of [from, to] that no span covers.
func free(from, to float64, spans [][2]float64) float64 {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b [2]float64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	length, at := 0.0, from
	for _, s := range spans {
		a, b := max(s[0], from), min(s[1], to)
		if b <= from || a >= to {
			continue
		}
		length += max(0, a-at)
		at = max(at, b)
	}
	return length + max(0, to-at)
}

func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	y := slices.Clone(x)
	slices.Sort(y)
	if n := len(y); n%2 == 0 {
		return (y[n/2-1] + y[n/2]) / 2
	}
	return y[len(y)/2]
}

// PoissonInterval is the exact 95 % interval of a Poisson mean of which n were seen
// (Garwood 1936). For n = 0 its upper end is the one-sided 95 % bound, 3.00: nobody
// claims that fewer than none are possible.
func PoissonInterval(n int) (low, high float64) {
	const tail = 0.025
	if n == 0 {
		return 0, -math.Log(0.05)
	}
	low = bisect(0, float64(n), func(m float64) bool { return 1-poissonBelow(n-1, m) < tail })
	high = bisect(float64(n), 10*float64(n)+20, func(m float64) bool { return poissonBelow(n, m) > tail })
	return low, high
}

// poissonBelow is the probability of at most n.
func poissonBelow(n int, mean float64) float64 {
	p := math.Exp(-mean)
	sum := p
	for k := 1; k <= n; k++ {
		p *= mean / float64(k)
		sum += p
	}
	return sum
}

// BinomialInterval is the exact 95 % interval of a share of which k in n were seen
// (Clopper and Pearson 1934).
func BinomialInterval(k, n int) (low, high float64) {
	const tail = 0.025
	if n == 0 {
		return 0, 1
	}
	high = 1
	if k > 0 {
		low = bisect(0, 1, func(p float64) bool { return 1-binomialBelow(k-1, n, p) < tail })
	}
	if k < n {
		high = bisect(0, 1, func(p float64) bool { return binomialBelow(k, n, p) > tail })
	}
	return low, high
}

func binomialBelow(k, n int, p float64) float64 {
	sum := 0.0
	for i := 0; i <= k; i++ {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(a - b - c + float64(i)*math.Log(max(p, 1e-300)) + float64(n-i)*math.Log(max(1-p, 1e-300)))
	}
	return min(sum, 1)
}

// bisect finds where below turns from true to false.
func bisect(lo, hi float64, below func(float64) bool) float64 {
	for range 60 {
		if m := (lo + hi) / 2; below(m) {
			lo = m
		} else {
			hi = m
		}
	}
	return (lo + hi) / 2
}
