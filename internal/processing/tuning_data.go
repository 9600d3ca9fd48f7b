package processing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// recordings is how many recordings of windows are kept of a stream.
const recordings = 4

// contextBefore is how much of the scores around a label is kept with it, before and
// behind.
const contextBefore = 30 * time.Second

const (
	chunkTime = chunkHops / episode.HopsPerSecond * time.Second
	// maxParts is how many stretches that begin within chunkTime are kept: every hole in
	// what comes begins another.
	maxParts = 8
)

// placeScores writes a sealed stretch that begins at from into a ring that holds history:
// over one of an earlier round, or beside those that began within the same chunkTime, of
// which the last gives way where there is no room. The store says which are there, so that
// a service that was restarted writes over none of them.
func (s *Service) placeScores(ctx context.Context, id gk.StreamID, from time.Time, value []byte) error {
	const long = uint64(chunkTime / time.Second)
	slot := uint64(from.Unix()) / long
	key := fmt.Sprintf("%s.%s.%d", scoresToken, id, slot%max(1, uint64(s.cfg.Behaviour.Tuning.History/chunkTime)))
	for part := 1; ; {
		at := key
		if part > 1 {
			at += fmt.Sprintf("-%d", part)
		}
		e, err := s.records.Get(ctx, at)
		var have envelope
		switch {
		case errors.Is(err, store.ErrNotFound):
			_, err = s.records.Create(ctx, at, value)
		case err != nil:
			return err
		case part < maxParts && cbor.Unmarshal(e.Value, &have) == nil && have.Version/long == slot && have.Version != uint64(from.Unix()):
			part++
			continue
		default:
			_, err = s.records.Update(ctx, at, value, e.Revision)
		}
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// sealOverhead is what sealing and the envelope add to content, in bytes, and a bit.
const sealOverhead = 64

// storeScores writes a stretch of scores, in [tune.MaxRate] bytes a second as it stands
// in the store.
func (st *stream) storeScores(t *tune.Trace) {
	b, fits, err := t.AppendWithin(t.Len()*tune.MaxRate/episode.HopsPerSecond - sealOverhead)
	if err != nil || !fits {
		st.svc.log.Error("scores do not encode", "stream", st.id, "bytes", len(b), "error", err)
		return
	}
	st.storeSealed(bus.SealedScores, uint64(t.From.Unix()), b, func(ctx context.Context, value []byte) error {
		return st.svc.placeScores(ctx, st.id, t.From, value)
	})
}

func (st *stream) storeWindows(b []byte) {
	hour := uint64(st.svc.now().Unix()) / uint64(recordEvery/time.Second)
	st.storeSealed(bus.SealedWindows, hour, b, st.putAt(windowsToken, hour%recordings))
}

// putAt writes under a number, whatever was there.
func (st *stream) putAt(token string, number uint64) func(ctx context.Context, value []byte) error {
	return func(ctx context.Context, value []byte) error {
		_, err := st.svc.records.Put(ctx, fmt.Sprintf("%s.%s.%d", token, st.id, number), value)
		return err
	}
}

// storeSealed seals one of many and has it written. One that cannot be written is left
// out: history is wanted, and nothing waits for it.
func (st *stream) storeSealed(kind string, version uint64, content []byte, write func(ctx context.Context, value []byte) error) {
	svc := st.svc
	err := svc.keeps.pass(svc.ctx, svc, st.id, func() error {
		ctx, cancel := svc.cfg.Host.WithTimeout(svc.ctx, callTimeout)
		defer cancel()
		rep, err := bus.KMSSeal.Do(ctx, svc.conn, bus.SealRequest{Place: bus.SealPlace{Kind: kind, Stream: st.id, Version: version}, Content: content})
		if err != nil {
			return err
		}
		value, err := keepMode.Marshal(envelope{Term: svc.protocol.Term, Version: version, Content: rep.Sealed})
		if err == nil {
			err = write(ctx, value)
		}
		return err
	})
	if err != nil && svc.ctx.Err() == nil {
		svc.log.Warn("history was not written", "stream", st.id, "kind", kind, "error", err)
	}
}

// eachSealed reads what storeSealed wrote, and leaves out what is not believed.
func (st *stream) eachSealed(ctx context.Context, kind, token string, f func(version uint64, content []byte) error) error {
	svc := st.svc
	all, err := svc.records.List(ctx, token+"."+string(st.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		var v envelope
		if cbor.Unmarshal(e.Value, &v) != nil || len(v.Content) == 0 {
			continue
		}
		rep, err := bus.KMSUnseal.Do(ctx, svc.conn, bus.UnsealRequest{Place: bus.SealPlace{Kind: kind, Stream: st.id, Version: v.Version}, Sealed: v.Content})
		if bus.CodeOf(err) == bus.CodeUnauthorized {
			continue
		}
		if err != nil {
			return err
		}
		if err := f(v.Version, rep.Content); err != nil {
			svc.log.Warn("a stretch of history does not read", "stream", st.id, "kind", kind, "error", err)
		}
	}
	return nil
}

// history reads the kept scores, joined where they follow each other.
func (st *stream) history(ctx context.Context) ([]*tune.Trace, error) {
	oldest := st.svc.now().Add(-st.svc.cfg.Behaviour.Tuning.History)
	var all []*tune.Trace
	err := st.eachSealed(ctx, bus.SealedScores, scoresToken, func(_ uint64, b []byte) error {
		t, err := tune.ReadTrace(b)
		if err == nil && !t.At(t.Len()).Before(oldest) {
			all = append(all, t)
		}
		return err
	})
	slices.SortFunc(all, func(a, b *tune.Trace) int { return a.From.Compare(b.From) })
	var joined []*tune.Trace
	for _, t := range all {
		if n := len(joined); n > 0 && joined[n-1].Layout.Equal(t.Layout) && joined[n-1].At(joined[n-1].Len()).Equal(t.From) {
			joined[n-1].Join(t)
			continue
		}
		joined = append(joined, t)
	}
	return joined, err
}

// material is what there is to tune a stream by.
type material struct {
	data    tune.Data
	heldOut tune.Data // simulated kinds that nothing is tuned by
	basis   tune.Basis
	unseen  int // simulated episodes that no cut-off would show
	context map[string][]byte
	anew    map[string]label // labels whose windows were looked at again
	again   int              // of the labels, those that count by that
	lost    int              // labels whose scores are of other detectors
	quiet   int              // recordings that stand for a history of other detectors
	// outcomes are what is proven of a stream's own alerts, answered or not.
	outcomes []label
}

// gather builds it. now is the newest that counts.
func (st *stream) gather(ctx context.Context, rec *tuningRecord) (*material, error) {
	live, err := ask(ctx, st.svc, st.id, func(st *stream) (liveView, error) { return st.behaviour.liveView(), nil })
	if err != nil {
		return nil, err
	}
	traces, err := st.history(ctx)
	if err != nil {
		return nil, err
	}
	layout := live.layout
	if layout == nil && len(traces) > 0 {
		layout = traces[len(traces)-1].Layout
	}
	if layout == nil {
		return nil, bus.Refuse(bus.CodeConflict, "stream %s: nothing was judged yet: tune it when its profile is there", st.id)
	}
	m := &material{context: map[string][]byte{}, anew: map[string]label{}}
	replayer := tune.NewReplayer(layout, live.weights)
	m.data.Replayer = replayer
	m.heldOut.Replayer = tune.NewReplayer(layout, live.weights)
	traces = slices.DeleteFunc(traces, func(t *tune.Trace) bool { return !t.Layout.Equal(layout) })
	// Proof may have come after an answer, and outlives the alert that it was told of.
	for _, l := range live.outcomes {
		rec.prove(l)
	}
	alerts, err := st.contexts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range rec.Labels {
		if l := &rec.Labels[i]; l.Context == nil && alerts[l.ID] != nil {
			l.Context = alerts[l.ID]
			m.context[l.ID] = l.Context
		}
	}
	if err := st.rejudge(ctx, live, rec, m); err != nil {
		return nil, err
	}
	placed := place(replayer, layout, traces, rec.Labels, m)
	m.data.Cases = append(m.data.Cases, placed...)
	m.outcomes = live.outcomes
	counts := rec.counts()
	m.basis.False, m.basis.Real, m.basis.Contested = counts.False, counts.Real+counts.Missed, counts.Contested
	m.basis.Proven = counts.Proven
	mine, err := st.recordings(ctx)
	if err != nil {
		return nil, err
	}
	st.simulate(ctx, live, mine, m)
	standIn(live, mine, traces, m)
	m.basis.Hours = m.data.Judge(tune.DefaultParams()).Hours
	return m, nil
}

// liveView is what tuning asks the stream's goroutine for.
type liveView struct {
	layout   *tune.Layout
	weights  tune.Weights
	modes    []detect.Mode
	outcomes []label
	reels    []uint64 // alerts that there are windows of
	cutoff   float64  // that decides
}

func (b *behaviour) liveView() liveView {
	v := liveView{layout: b.tuned.layout, weights: b.weight, cutoff: tune.CutoffOf(b.tuned.params.Sensitivity)}
	for _, m := range b.profile.Modes {
		m.Moved = slices.Clone(m.Moved)
		v.modes = append(v.modes, m)
	}
	for _, e := range b.tuned.films.book.all {
		if !e.Gone {
			v.reels = append(v.reels, e.Number)
		}
	}
	for i := range b.alerts.all {
		a := &b.alerts.all[i]
		if (a.Class == bus.ClassSource || a.Class == bus.ClassProof) && b.proven(a) && !a.Closed.IsZero() {
			v.outcomes = append(v.outcomes, label{Label: tune.Label{
				ID: a.ID, Origin: tune.FromOutcome, Real: true, Proven: true, From: a.Opened.Add(-before), To: endOf(a, a.Closed), Kind: a.Kind,
			}})
		}
	}
	return v
}

// place puts labels on the traces that they lie in, or on the scores that were kept
// with them. It notes the scores around those that have none yet.
func place(r *tune.Replayer, layout *tune.Layout, traces []*tune.Trace, labels []label, m *material) []tune.Case {
	cases := make([]tune.Case, len(traces))
	for i, t := range traces {
		cases[i].Trace = t
	}
	type spot struct {
		c        *tune.Case
		from, to int
	}
	spots := make([]spot, len(labels))
	var own []*tune.Case
	known := make([]tune.Label, len(labels))
	for i := range labels {
		l := &labels[i]
		known[i] = l.Label
		at := slices.IndexFunc(traces, func(t *tune.Trace) bool { return t.From.Before(l.To) && l.From.Before(t.At(t.Len())) })
		switch {
		case at >= 0 && !l.judgedAs(layout):
			t := traces[at]
			spots[i] = spot{&cases[at], t.Index(l.From), t.Index(l.To)}
			if l.Context == nil {
				m.cut(t, l)
			}
		case l.Context != nil:
			t, err := tune.ReadTrace(l.Context)
			if err != nil || !t.Layout.Equal(layout) || t.Len() == 0 {
				m.lost++
				continue
			}
			if l.Anew {
				m.again++
			}
			if at >= 0 { // what was said of it there was said by another profile
				o := traces[at]
				cases[at].Spans = append(cases[at].Spans, tune.Span{From: o.Index(l.From), To: o.Index(l.To.Add(tune.Aftermath * time.Second / episode.HopsPerSecond)), Name: l.ID})
			}
			c := &tune.Case{Trace: t, Made: true}
			own = append(own, c)
			spots[i] = spot{c, t.Index(l.From), t.Index(l.To)}
		default:
			continue
		}
		kind, peak := r.Peak(spots[i].c.Trace, spots[i].from, spots[i].to)
		if known[i].Peak = peak; !l.missed() && kind != "" {
			known[i].Kind = kind
		}
		if l.missed() {
			known[i].Peak = 0 // nothing contradicts a report
		}
	}
	beliefs := tune.Beliefs(known)
	for i := range labels {
		s := spots[i]
		if s.c == nil || s.from >= s.to {
			continue
		}
		sp := tune.Span{From: s.from, To: s.to, Verdict: tune.False, Weight: beliefs[i], Name: labels[i].ID}
		if labels[i].Real || labels[i].Proven {
			sp.Verdict = tune.Real
		}
		if labels[i].Contested() {
			sp.Weight = 1
		}
		s.c.Spans = append(s.c.Spans, sp)
	}
	for _, c := range own {
		cases = append(cases, *c)
	}
	return cases
}

// simulate makes anomalies in recorded windows and has the engine look at them.
func (st *stream) simulate(ctx context.Context, live liveView, mine []recording, m *material) {
	if len(live.modes) == 0 || len(mine) == 0 {
		return
	}
	var other []feature.Window
	st.svc.eachStream(func(o *stream) {
		if other == nil && o != st {
			if all, err := o.recordings(ctx); err == nil && len(all) > 0 {
				other = all[0].windows
			}
		}
	})
	var seen []tune.Case
	for n := range mine {
		own := mine[n].windows
		for k := range tune.Anomalies {
			a := &tune.Anomalies[k]
			for _, strength := range a.Strengths {
				windows := a.Make(own, other, strength, uint64(n*100+k))
				if windows == nil {
					continue
				}
				t := replayed(live, windows, nil)
				if !t.Layout.Equal(m.data.Replayer.Layout()) {
					continue // the scores that were kept are of other detectors
				}
				c := tune.Simulated(t, a.Name(strength), 1)
				if _, peak := m.data.Replayer.Peak(c.Trace, tune.LeadHops, c.Trace.Len()); peak < tune.Floor {
					m.unseen++
					continue
				}
				m.basis.Simulated++
				if a.HeldOut {
					m.heldOut.Cases = append(m.heldOut.Cases, c)
				} else {
					seen = append(seen, c)
				}
			}
		}
	}
	for i := range seen {
		seen[i].Spans[0].Weight = tune.SimulatedWeight / float64(len(seen))
	}
	m.data.Cases = append(m.data.Cases, seen...)
}

// replayed has an engine with the stream's profile look at windows, in the circumstances
// of then; nil stands for none.
func replayed(live liveView, windows []feature.Window, flags []tune.Flags) *tune.Trace {
	e := detect.ResumeModes(live.modes, 0, detect.Settings{})
	t := &tune.Trace{Layout: &tune.Layout{}, From: time.Unix(0, windows[0].Start)}
	var levels []episode.Level
	for i := range windows {
		e.Observe(&windows[i])
		if i == 0 {
			t.Layout.Kinds, t.Layout.Path = detect.Accusing(e.Evidence())
		}
		levels = detect.Levels(levels[:0], e.Evidence())
		f := tune.Flags(0)
		if flags != nil {
			f = flags[i]
		}
		t.Add(levels, f)
	}
	return t
}

// recording is quiet windows that were sampled in one hour.
type recording struct {
	hour    time.Time
	windows []feature.Window
}

func (st *stream) recordings(ctx context.Context) (all []recording, err error) {
	err = st.eachSealed(ctx, bus.SealedWindows, windowsToken, func(hour uint64, b []byte) error {
		w, err := readWindows(b, tune.StretchHops)
		if err == nil && len(w) == tune.StretchHops {
			all = append(all, recording{time.Unix(0, 0).Add(time.Duration(hour) * recordEvery), w})
		}
		return err
	})
	return all, err
}

// keepContext writes down the scores around labels that have none yet.
func (st *stream) keepContext(ctx context.Context, m *material) error {
	if len(m.context) == 0 && len(m.outcomes) == 0 && len(m.anew) == 0 {
		return nil
	}
	_, err := st.tuner.change(ctx, func(r *tuningRecord) ([]gk.Event, error) {
		changed := false
		for _, l := range m.outcomes {
			changed = r.prove(l) || changed
		}
		for i := range r.Labels {
			if b := m.context[r.Labels[i].ID]; b != nil && r.Labels[i].Context == nil {
				r.Labels[i].Context, changed = b, true
			}
			if l, ok := m.anew[r.Labels[i].ID]; ok {
				have := &r.Labels[i]
				have.Context, have.Judged, have.Anew, changed = l.Context, l.Judged, l.Anew, true
			}
		}
		if !changed {
			return nil, errUnchanged
		}
		return nil, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// streamOf gives the stream of a name.
func (s *Service) streamOf(id gk.StreamID) (*stream, error) {
	if st := s.find(id); st != nil {
		return st, nil
	}
	return nil, bus.Refuse(bus.CodeNotFound, "there is no stream %q: gaitkeeper streams lists them", strings.TrimSpace(string(id)))
}
