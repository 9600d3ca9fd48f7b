package tune

import (
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Verdict is what is known of a span.
type Verdict int

// The verdicts. Nothing is counted in an ignored span: there was an alert that nobody
// answered, or an announced change.
const (
	Ignored Verdict = iota
	False
	Real
)

// Span is a stretch of a trace of which something is known, in hops; To is the first
// after it.
type Span struct {
	From, To int
	Verdict  Verdict
	Weight   float64 // belief, or share of a simulated set
	Within   int     // hops from From in which an alarm is a detection; 0: to the end
	Name     string
}

// Aftermath is for how long after a real episode alarms are its own.
const Aftermath = 10 * episode.HopsPerSecond

// Case is a trace with what is known of it.
type Case struct {
	Trace *Trace
	Spans []Span
	// Made: simulated, or the context of an episode alone; what is outside of its spans
	// is no quiet traffic.
	Made bool
	// Shift multiplies the cut-off: the stream's own setting, where a fleet's is tried.
	Shift float64
}

// Stats is what settings would have led to.
type Stats struct {
	False  float64 // false alarms, weighted by belief
	Hours  float64 // of quiet traffic
	Real   float64 // real episodes, weighted
	Missed float64
	Late   float64 // of the detected: time to detect over [slow], weighted
}

// slow is a time to detect that is as bad as a miss.
const slow = 60 * time.Second

// Add adds what the same settings led to elsewhere.
func (s *Stats) Add(o Stats) {
	s.False += o.False
	s.Hours += o.Hours
	s.Real += o.Real
	s.Missed += o.Missed
	s.Late += o.Late
}

// Rate is false alarms an hour, and Detected the share of real episodes found.
func (s *Stats) Rate() float64 {
	if s.Hours == 0 {
		return 0
	}
	return s.False / s.Hours
}

// Detected is the share of real episodes that were found; 1 where there was none.
func (s *Stats) Detected() float64 {
	if s.Real == 0 {
		return 1
	}
	return 1 - s.Missed/s.Real
}

// Bound is the upper 95 % confidence bound on false alarms an hour (exact Poisson,
// Garwood 1936; one-sided).
func (s *Stats) Bound() float64 { return bound(s.False, s.Hours) }

func bound(n, hours float64) float64 {
	if hours <= 0 {
		return math.Inf(1)
	}
	return distuv.ChiSquared{K: 2*n + 2}.Quantile(0.95) / 2 / hours
}

// Interval is the 95 % interval of false alarms an hour.
func (s *Stats) Interval() (low, high float64) {
	if s.Hours <= 0 {
		return 0, math.Inf(1)
	}
	if s.False > 0 {
		low = distuv.ChiSquared{K: 2 * s.False}.Quantile(0.025) / 2 / s.Hours
	}
	return low, distuv.ChiSquared{K: 2*s.False + 2}.Quantile(0.975) / 2 / s.Hours
}

// mostPerDay stands for what no evidence bounds.
const mostPerDay = 10000

// Expected is what is to be expected after what a replay gave.
func (s *Stats) Expected() Expected {
	low, high := s.Interval()
	return Expected{FalsePerDay: 24 * s.Rate(), Low: 24 * low, High: min(24*high, mostPerDay), Detected: s.Detected(), Real: s.Real}
}

// Goal is what an operator sets.
type Goal struct {
	Budget   float64 // false rotations an hour that a stream may have
	MissCost float64 // how many false rotations a miss is as bad as
}

// tolerated is how much of one doubtful episode does not count against the budget
// where there is too little traffic to show it.
const tolerated = 0.5

// Over is the logarithm of the upper bound of false alarms over the budget, or over
// what so much traffic can show at best. Up to 0 the budget is kept.
func (g Goal) Over(s Stats) float64 {
	if s.Hours == 0 {
		return 0
	}
	return math.Log(s.Bound() / max(g.Budget, bound(tolerated, s.Hours)))
}

// Cost is what settings cost: false rotations in units of the budget, and misses and
// late detections as if one theft came in the time for which the budget grants one
// false rotation.
func (g Goal) Cost(s Stats) float64 {
	c := s.Rate() / g.Budget
	if s.Real > 0 {
		c += g.MissCost * (s.Missed + s.Late) / s.Real
	}
	return c
}

// Judge replays a case.
func Judge(r *Replayer, c *Case, p Params) Stats {
	if c.Shift > 0 {
		p.Sensitivity = episode.SensitivityAt(c.Shift / episode.Scale(p.Sensitivity))
	}
	var s Stats
	alarms := r.Alarms(c.Trace, p)
	quiet := c.Trace.Len() - c.unanswered()
	for i := range c.Spans {
		sp := &c.Spans[i]
		if sp.Verdict != False {
			to := sp.To
			if sp.Verdict == Real {
				to = min(to+Aftermath, c.Trace.Len())
			}
			quiet -= max(0, to-sp.From)
		}
		if sp.Verdict == Real {
			s.Real += sp.Weight
			end := sp.To
			if sp.Within > 0 {
				end = min(end, sp.From+sp.Within)
			}
			at := slices.IndexFunc(alarms, func(a Alarm) bool { return a.Hop >= sp.From && a.Hop < end })
			if at < 0 {
				s.Missed += sp.Weight
			} else {
				s.Late += sp.Weight * min(1, float64(alarms[at].Hop-sp.From)/(slow.Seconds()*episode.HopsPerSecond))
			}
		}
	}
	if c.Made {
		for _, a := range alarms {
			if inFalse(c.Spans, a.Hop) {
				s.False += falseWeight(c.Spans, a)
			}
		}
		return s
	}
	s.Hours = float64(max(0, quiet)) / episode.HopsPerSecond / 3600
	for _, a := range alarms {
		s.False += falseWeight(c.Spans, a)
	}
	return s
}

// unanswered is how many hops outside of every span say nothing.
func (c *Case) unanswered() (n int) {
	if c.Trace.scan(); !c.Trace.unanswered {
		return 0
	}
	for i := range c.Trace.Len() {
		if _, f := c.Trace.row(i); f&Unanswered != 0 && !covered(c.Spans, i) {
			n++
		}
	}
	return n
}

func covered(spans []Span, hop int) bool {
	return slices.ContainsFunc(spans, func(s Span) bool { return s.From <= hop && hop < s.To })
}

func inFalse(spans []Span, hop int) bool {
	return slices.ContainsFunc(spans, func(s Span) bool { return s.Verdict == False && s.From <= hop && hop < s.To })
}

// falseWeight is how far an alarm counts as false.
func falseWeight(spans []Span, a Alarm) float64 {
	w := quietBelief(a.Peak)
	if a.Unanswered {
		w = 0
	}
	for i := range spans {
		sp := &spans[i]
		switch {
		case sp.Verdict == Real && sp.From <= a.Hop && a.Hop < sp.To+Aftermath:
			return 0
		case sp.Verdict == Ignored && sp.From <= a.Hop && a.Hop < sp.To:
			return 0
		case sp.Verdict == False && sp.From <= a.Hop && a.Hop < sp.To:
			w = sp.Weight
		}
	}
	return w
}

// Data is what there is to tune by.
type Data struct {
	Replayer *Replayer
	Cases    []Case
}

// Judge replays everything.
func (d *Data) Judge(p Params) Stats {
	var s Stats
	for i := range d.Cases {
		s.Add(Judge(d.Replayer, &d.Cases[i], p))
	}
	return s
}

// Split divides data into n parts that follow each other in time. No span is cut;
// cases that were made from one recording stay together.
func (d *Data) Split(n int) []Data {
	parts := make([]Data, n)
	for i := range parts {
		parts[i].Replayer = d.Replayer
	}
	whole := slices.Clone(d.Cases)
	slices.SortStableFunc(whole, func(a, b Case) int { return a.Trace.From.Compare(b.Trace.From) })
	total := 0
	for i := range whole {
		if !whole[i].Made {
			total += whole[i].Trace.Len()
		}
	}
	part, filled := 0, 0
	recordings := map[int64]int{}
	for _, c := range whole {
		if c.Made {
			of := c.Trace.From.UnixNano()
			if _, ok := recordings[of]; !ok {
				recordings[of] = len(recordings) % n
			}
			k := recordings[of]
			parts[k].Cases = append(parts[k].Cases, c)
			continue
		}
		for c.Trace != nil {
			room := (part+1)*total/n - filled
			if part == n-1 || c.Trace.Len() <= room {
				parts[part].Cases = append(parts[part].Cases, c)
				filled += c.Trace.Len()
				c.Trace = nil
			} else {
				var head Case
				head, c = c.cut(max(room, 0))
				if head.Trace != nil {
					parts[part].Cases = append(parts[part].Cases, head)
					filled += head.Trace.Len()
				}
			}
			for part < n-1 && filled >= (part+1)*total/n {
				part++
			}
		}
	}
	return parts
}

// cut divides a case at a hop, or after the span that covers it.
func (c Case) cut(at int) (head, tail Case) {
	for moved := true; moved; {
		moved = false
		for _, s := range c.Spans {
			to := s.To
			if s.Verdict == Real {
				to += Aftermath
			}
			if s.From < at && at < to {
				at, moved = to, true
			}
		}
	}
	n := c.Trace.Len()
	at = min(at, n)
	head, tail = c, c
	head.Trace, tail.Trace, head.Spans, tail.Spans = nil, nil, nil, nil
	if at > 0 {
		head.Trace = c.Trace.Cut(0, at)
	}
	if at < n {
		tail.Trace = c.Trace.Cut(at, n)
	}
	for _, s := range c.Spans {
		if s.From < at {
			head.Spans = append(head.Spans, s)
		} else {
			s.From, s.To = s.From-at, s.To-at
			tail.Spans = append(tail.Spans, s)
		}
	}
	return head, tail
}
