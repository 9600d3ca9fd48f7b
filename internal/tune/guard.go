package tune

import (
	"errors"
	"fmt"
	"math"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Phase is how far a setting came.
type Phase string

// The phases of a setting.
const (
	Shadow     Phase = "shadow"     // it is counted what it would do
	Live       Phase = "live"       // it decides
	Rejected   Phase = "rejected"   // it would have alarmed more than it was expected to
	Withdrawn  Phase = "withdrawn"  // a newer one took its place in the shadow
	Reverted   Phase = "reverted"   // it decided, and was taken back
	Superseded Phase = "superseded" // it decided until the next
)

// Basis is what a setting was found from.
type Basis struct {
	Hours     float64 // of quiet traffic
	False     int     // answers
	Real      int
	Proven    int
	Simulated int
	Contested int // false answers to what is proven; not counted anywhere else
}

// Expected is what a setting is to lead to.
type Expected struct {
	FalsePerDay float64 // with its 95 % interval
	Low, High   float64
	Detected    float64 // share of the real and simulated episodes
	Real        float64 // how many those were, weighted
}

// Setting is one setting of a stream, with why it is there.
type Setting struct {
	Revision uint64
	Params   Params
	At       time.Time // since when it is in its phase
	Phase    Phase
	By       string // operator, tuning, feedback, or default
	Method   string
	Reason   string
	Basis    Basis
	Expected Expected
	Saw      string // what ended it
}

// Guard is what keeps a stream's settings from harm. It is a value: whoever changes it
// works on a copy, has that written down, and then puts it in the place of the old.
// Revision rises with every change, and a change names the one that it saw.
type Guard struct {
	Revision uint64
	Auto     bool      // proposals of the system itself are taken
	History  []Setting // the newest last; the live one and that in shadow are in it
	// Watching is while a setting is young: until then it can be taken back.
	Watching time.Time
}

// Bounds of what changes.
const (
	maxHistory = 32
	// MaxStep is by what a cut-off may change at once; maxWeightStep the same of weights.
	MaxStep       = 1.6
	maxWeightStep = 1.5
	// leastHours of quiet traffic must be known for a proposal of the system itself,
	// leastHoursAsked for one that an operator asks for.
	leastHours      = 0.5
	leastHoursAsked = 2.0 / 60
)

// Errors that callers branch on.
var (
	ErrRevision = errors.New("the settings were changed in between: look again")
	ErrEvidence = errors.New("too little is known")
)

// NewGuard begins with a setting.
func NewGuard(now time.Time, p Params, reason string) Guard {
	return Guard{Auto: true, Revision: 1, History: []Setting{{Revision: 1, Params: p, At: now, Phase: Live, By: "default", Reason: reason}}}
}

func (g *Guard) find(ph Phase) *Setting {
	for i := len(g.History) - 1; i >= 0; i-- {
		if g.History[i].Phase == ph {
			return &g.History[i]
		}
	}
	return nil
}

// Live is the setting that decides.
func (g *Guard) Live() Setting {
	if s := g.find(Live); s != nil {
		return *s
	}
	return Setting{Params: DefaultParams(), Phase: Live, By: "default"}
}

// InShadow is the setting in shadow, nil where there is none. It must not be changed.
func (g *Guard) InShadow() *Setting { return g.find(Shadow) }

// Clone copies what a change would share.
func (g Guard) Clone() Guard {
	g.History = append([]Setting(nil), g.History...)
	return g
}

func (g *Guard) push(s Setting) {
	g.Revision++
	s.Revision = g.Revision
	g.History = append(g.History, s)
	for i := 0; len(g.History) > maxHistory && i < len(g.History); {
		if ph := g.History[i].Phase; ph == Live || ph == Shadow {
			i++
			continue
		}
		g.History = append(g.History[:i], g.History[i+1:]...)
	}
}

func (g *Guard) end(s *Setting, now time.Time, ph Phase, saw string) {
	s.Phase, s.At, s.Saw = ph, now, saw
}

// Propose puts a setting in the shadow, no further from the live one than a step goes.
// if is the revision that was looked at. A proposal that nothing would change by is
// no error, and changes nothing.
func (g *Guard) Propose(now time.Time, saw uint64, s Setting) error {
	if saw != g.Revision {
		return ErrRevision
	}
	least := leastHours
	if s.By != "tuning" {
		least = leastHoursAsked
	}
	if s.By != "feedback" && s.Basis.Hours < least {
		return fmt.Errorf("%w: %.1f minutes of quiet traffic are kept, %.1f are needed", ErrEvidence, 60*s.Basis.Hours, 60*least)
	}
	live := g.Live()
	s.Params = Bounded(live.Params, s.Params)
	if s.Params == live.Params {
		return nil
	}
	if old := g.find(Shadow); old != nil {
		if old.Params == s.Params {
			return nil
		}
		g.end(old, now, Withdrawn, "a newer proposal")
	}
	s.At, s.Phase = now, Shadow
	g.push(s)
	return nil
}

// Bounded gives the settings nearest to want that are within one step of from and
// within the range of each.
func Bounded(from, want Params) Params {
	near := func(a, b, step, least, most float64) float64 {
		return min(max(b, a/step, least), a*step, most)
	}
	out := want
	c := CutoffOf(from.Sensitivity)
	to := CutoffOf(want.Sensitivity)
	if math.Abs(math.Log(to/c)) < 0.02 {
		out.Sensitivity = from.Sensitivity
	} else {
		// A stream that was set outside of the range comes back by steps as well.
		out.Sensitivity = episode.SensitivityAt(near(c, to, MaxStep, min(Floor, c), max(Ceiling, c)))
	}
	for i := range out.Weights {
		out.Weights[i] = near(from.Weights[i], want.Weights[i], maxWeightStep, leastWeight, mostWeight)
	}
	out.Persistence = min(max(want.Persistence, from.Persistence-1, 1), from.Persistence+1, mostPersistence)
	return out
}

// Bound brings a proposal within one step of the settings that decide, and says what
// is expected of that step: it is what can go live.
func (p *Proposal) Bound(d *Data, current Params) {
	bounded := Bounded(current, p.Params)
	if bounded != p.Params {
		p.Params, p.Then = bounded, d.Judge(bounded)
	}
}

// Jumpier reports whether these settings alarm wherever the others do, and more: at
// lower cut-offs, or at the same with greater weights or sooner.
func (p *Params) Jumpier(than Params) bool {
	if p.Sensitivity != than.Sensitivity {
		return p.Sensitivity > than.Sensitivity
	}
	for g := range p.Weights {
		if p.Weights[g] < than.Weights[g] {
			return false
		}
	}
	return p.Persistence <= than.Persistence && *p != than
}

// Promote makes the setting in the shadow the live one. It must not be called while an
// episode runs. watch is for how long it can be taken back by itself.
func (g *Guard) Promote(now time.Time, watch time.Duration, saw string) {
	s := g.find(Shadow)
	if s == nil {
		return
	}
	if live := g.find(Live); live != nil {
		g.end(live, now, Superseded, "")
	}
	g.end(s, now, Live, saw)
	g.Revision++
	g.Watching = now.Add(watch)
}

// Reject ends the setting in the shadow.
func (g *Guard) Reject(now time.Time, saw string) {
	if s := g.find(Shadow); s != nil {
		g.end(s, now, Rejected, saw)
		g.Revision++
	}
}

// Revert goes back to an earlier setting, 0 for the one before. saw is the revision
// that was looked at.
func (g *Guard) Revert(now time.Time, saw, to uint64, by, reason string) error {
	if saw != g.Revision {
		return ErrRevision
	}
	var back *Setting
	for i := range g.History {
		s := &g.History[i]
		if s.Phase != Superseded && s.Phase != Reverted {
			continue
		}
		if s.Revision == to || to == 0 && s.Phase == Superseded {
			back = s
		}
	}
	if back == nil && to == 0 {
		return errors.New("there is nothing to go back to: no earlier setting decided")
	}
	if back == nil {
		return fmt.Errorf("there is no earlier setting %d that decided: gaitkeeper tune STREAM --history lists them", to)
	}
	s := *back
	if sh := g.find(Shadow); sh != nil {
		g.end(sh, now, Withdrawn, reason)
	}
	if live := g.find(Live); live != nil {
		g.end(live, now, Reverted, reason)
	}
	s.At, s.Phase, s.By, s.Reason, s.Saw = now, Live, by, fmt.Sprintf("back to revision %d: %s", s.Revision, reason), ""
	g.push(s)
	g.Watching = time.Time{}
	return nil
}

// TakeBack goes back from a young setting that alarms too much, unless the one before
// alarms more. It reports whether it did.
func (g *Guard) TakeBack(now time.Time, saw string) bool {
	back := g.Clone()
	if back.Revert(now, back.Revision, 0, "tuning", saw) != nil {
		return false
	}
	if before := back.Live().Params; before.Jumpier(g.Live().Params) {
		return false
	}
	*g = back
	return true
}

// Allowed is how many alarms may come in so many hours of a setting that is expected
// to raise so many a day: the 99 % quantile, and one at least.
func Allowed(perDay, hours float64) int {
	mean := max(perDay*hours/24, 1e-9)
	d := distuv.Poisson{Lambda: mean}
	n := 1
	for n < 10000 && d.CDF(float64(n)) < 0.99 {
		n++
	}
	return n
}
