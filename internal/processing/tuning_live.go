package processing

import (
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// tuned is what tuning keeps of a stream in its own goroutine. Like all of behaviour
// it owns no clock, lock or goroutine.
type tuned struct {
	params tune.Params  // that decide
	next   *tune.Params // that will, as soon as no episode runs

	known uint64 // version of the record that these are from

	layout *tune.Layout
	levels []episode.Level
	trace  *tune.Trace
	goal   int // hops of trace when it is stored

	scratch []byte
	hop     []byte // the window of this hop as it encodes itself, once somebody wants it

	recording  [][]byte  // windows so far
	recordedAt time.Time // when the last recording was full

	shadow shadow
	watch  tune.Tally // of the setting that decides

	recent   *tune.Trace // the newest scores, for alerts that open
	around   []around    // alerts whose scores are being kept
	contexts []kept      // to be stored
	films    films

	chunks  []*tune.Trace // full, to be stored
	windows []byte        // a full recording, to be stored
	order   settle
}

// shadow is the setting in the shadow, and what it would have done.
type shadow struct {
	tune.Tally
	params tune.Params
	follow *tune.Follower
}

// settle is what has to happen with the settings.
type settle struct {
	do       settleDo
	revision uint64
	saw      string
}

type settleDo int

const (
	settleNothing settleDo = iota
	settlePromote
	settleReject
	settleRevert
)

const (
	chunkHops = 5 * 60 * episode.HopsPerSecond // of scores that are stored as one
	leastHops = 10 * episode.HopsPerSecond     // fewer are not worth it, and take more than [tune.MaxRate]
	// mostLag is by how much kept scores may be dated wrongly: windows come late and
	// together at times.
	mostLag = 2 * time.Second
	// recordEvery is the least time between two recordings of windows.
	recordEvery = time.Hour
)

// accusing are the names of the detectors that accuse.
var accusing = func() (names []string) {
	all, _ := detect.Detectors(&detect.Profile{})
	for _, d := range all {
		names = append(names, d.Name())
	}
	return names
}()

// weight is what a detector's scores are multiplied by in some circumstances, before
// anything that is tuned.
func (b *behaviour) weight(kind string, f tune.Flags) float64 {
	w := 1.0
	if v, ok := b.cfg.Weights[kind]; ok {
		w = v
	}
	if v, ok := wideMargins[kind]; ok && f&tune.Wide != 0 {
		w *= v
	}
	if v, ok := restartExcuses[kind]; ok && f&tune.Excused != 0 {
		w *= v
	}
	return w
}

// flags are the circumstances of the present hop.
func (b *behaviour) flags() (f tune.Flags) {
	if b.margin.wide {
		f |= tune.Wide
	}
	if b.margin.excused {
		f |= tune.Excused
	}
	return f
}

// adopt takes the record up, at the start and whenever it changed. What decides
// changes only while no episode runs.
func (b *behaviour) adopt(now time.Time, r *tuningRecord) {
	t := &b.tuned
	if r.Version < t.known {
		return // a change was quicker than whoever read the record before it
	}
	t.known = r.Version
	for i := range r.Labels { // no alert is named as one that was answered
		b.alerts.number = max(b.alerts.number, numberOf(r.Labels[i].ID))
	}
	b.saidOf(r.Labels)
	live := r.Guard.Live()
	p := live.Params
	t.next = &p
	if t.watch.Revision != live.Revision {
		// No setting is young for longer than from now, whatever was written down by a
		// clock that was set back since.
		until := now.Add(b.cfg.Tuning.Watch)
		if r.Guard.Watching.Before(until) {
			until = r.Guard.Watching
		}
		t.watch = tune.Tally{Revision: live.Revision, Until: until, Expected: live.Expected}
	}
	s := r.Guard.InShadow()
	switch {
	case s == nil:
		t.shadow = shadow{}
	case s.Revision != t.shadow.Revision:
		t.shadow = shadow{Tally: tune.Tally{Revision: s.Revision, Expected: s.Expected}, params: s.Params}
	}
	b.retune()
}

// retune makes settings decide that wait for it. An alert that outlived a restart is no
// episode of these engines before their first window.
func (b *behaviour) retune() {
	t := &b.tuned
	if t.next == nil || b.windows > 0 && b.alerts.get(bus.ClassSource) != nil {
		return
	}
	if t.params != *t.next {
		t.params = *t.next
		for _, e := range []*detect.Engine{b.judge, b.early, b.learner, b.back} {
			if e != nil {
				e.Tune(t.params.Sensitivity, t.params.Persistence)
			}
		}
		b.margins()
	}
	t.next = nil
}

// keepScores keeps what the detectors said of a window, and has the settings in shadow
// and the young ones counted. Call it for every window that was judged.
func (b *behaviour) keepScores(now time.Time, w *feature.Window, planned bool) {
	t := &b.tuned
	b.retune()
	t.hop = nil
	t.levels = detect.Levels(t.levels[:0], b.judge.Evidence())
	if t.layout == nil {
		kinds, path := detect.Accusing(b.judge.Evidence())
		t.layout = &tune.Layout{Kinds: kinds, Path: path}
	}
	// What somebody else demonstrably sends is nothing that settings are blamed for.
	proof := b.alerts.get(bus.ClassProof) != nil
	open := proof || b.alerts.get(bus.ClassSource) != nil
	f := b.flags()
	if open || planned {
		f |= tune.Unanswered
	}
	if b.cfg.Tuning.History > 0 {
		// Windows that were lost, or not judged, leave a hole: what comes after it would be
		// dated too early, and labels would lie beside their episodes.
		if t.trace != nil && now.Sub(t.trace.At(t.trace.Len())).Abs() > mostLag {
			if t.trace.Len() >= leastHops {
				t.chunks = append(t.chunks, t.trace)
			}
			t.trace = nil
		}
		if t.trace == nil {
			t.trace = &tune.Trace{Layout: t.layout, From: now.Add(-feature.Hop)}
			t.goal = b.toBoundary(t.trace.From)
		}
		t.trace.Add(t.levels, f)
		if t.trace.Len() >= t.goal {
			from := t.trace.At(t.trace.Len())
			t.chunks = append(t.chunks, t.trace)
			t.trace, t.goal = &tune.Trace{Layout: t.layout, From: from}, b.toBoundary(from)
		}
		b.record(now, w, open || planned)
		b.keepAround(now, w, f)
	}
	news := b.verdict.Alarm && b.verdict.Class == detect.Source && !planned && !proof
	b.shadowed(open, planned, f)
	b.watched(now, news)
}

// toBoundary is how many hops a stretch that begins then has: to the stream's own next
// boundary, or the one after that where it would not be worth it.
func (b *behaviour) toBoundary(from time.Time) int {
	since := (time.Duration(from.UnixNano()) + phase(b.alerts.stream, chunkTime)) % chunkTime
	n := hops(chunkTime - since)
	if n < leastHops {
		n += chunkHops
	}
	return n
}

// breakScores ends the stretch of scores: the engine begins anew.
func (b *behaviour) breakScores() {
	t := &b.tuned
	if t.trace != nil && t.trace.Len() >= leastHops {
		t.chunks = append(t.chunks, t.trace)
	}
	b.endAround()
	t.trace, t.layout = nil, nil
	t.recording = nil
	t.shadow.follow = nil
}

// record keeps windows of normal behaviour, now and then, for anomalies to be made in.
func (b *behaviour) record(now time.Time, w *feature.Window, disturbed bool) {
	t := &b.tuned
	if disturbed || b.stage != bus.StageMature || b.probation > 0 || b.excused > 0 || !steady(w) || !b.judge.Normal() {
		t.recording = t.recording[:0]
		return
	}
	if !t.recordedAt.IsZero() && now.Sub(t.recordedAt) < recordEvery {
		return
	}
	if t.recording = append(t.recording, b.encoded(w)); len(t.recording) < tune.StretchHops {
		return
	}
	if all, err := packWindows(t.recording); err == nil {
		t.windows = all
	}
	t.recording, t.recordedAt = nil, now
}

// shadowed counts what the setting in the shadow would have done in this hop.
func (b *behaviour) shadowed(open, planned bool, f tune.Flags) {
	t := &b.tuned
	s := &t.shadow
	if s.Revision == 0 {
		return
	}
	if s.follow == nil {
		s.follow = tune.Follow(t.layout, b.weight, s.params)
	}
	alarm := s.follow.Step(t.levels, f) && !open && !planned
	switch end, saw := s.Shadow(b.cfg.Tuning.goal(), alarm, !open, b.cfg.Tuning.Shadow); end {
	case tune.Rejected:
		t.order = settle{settleReject, s.Revision, saw}
	case tune.Live:
		t.order = settle{settlePromote, s.Revision, saw}
	}
}

// watched counts what a young setting does; too many alarms take it back.
func (b *behaviour) watched(now time.Time, alarm bool) {
	w := &b.tuned.watch
	// One order at a time: a verdict is given once, and one written over would be lost.
	calm := b.alerts.get(bus.ClassSource) == nil && b.tuned.order.do == settleNothing
	if end, saw := w.Young(now, b.cfg.Tuning.goal(), alarm, calm); end == tune.Reverted {
		b.tuned.order = settle{settleRevert, w.Revision, saw}
	}
}

// budget is what bounds how often evidence about the source changes the key.
func (b *behaviour) budget() tune.Rotations { return tune.Rotations{Every: b.cfg.Tuning.FalseEvery} }

// rotationsLeft is how many rotations evidence about the source may cause now. Those
// of alerts that were called or proven real are not counted, so that a theft uses
// nothing up.
func (b *behaviour) rotationsLeft(now time.Time) int {
	var spent []time.Time
	for i := range b.alerts.all {
		if a := &b.alerts.all[i]; spends(a) && !b.proven(a) {
			spent = append(spent, b.alerts.spentAt(now, a))
		}
	}
	return b.budget().Left(now, spent)
}

// answered notes an operator's answer at the alert.
func (b *behaviour) answered(now time.Time, id string, real bool) {
	a := b.alerts.find(id)
	if a == nil {
		return
	}
	a.Answer = bus.AnswerFalse
	if real {
		a.Answer = bus.AnswerReal
		if w := &b.tuned.watch; a.Class == bus.ClassSource && a.Opened.After(w.Until.Add(-b.cfg.Tuning.Watch)) {
			w.Real()
		}
	}
	b.alerts.dirty = true
}

// takeTuning gives what tuning wants stored and done, once.
func (b *behaviour) takeTuning() (chunks []*tune.Trace, windows []byte, order settle) {
	t := &b.tuned
	chunks, windows, order = slices.Clone(t.chunks), t.windows, t.order
	t.chunks, t.windows, t.order = nil, nil, settle{}
	return chunks, windows, order
}
