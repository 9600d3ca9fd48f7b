package processing

import (
	"context"
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// The scores around an alert are kept for as long as the alert is, so that an answer
// finds them whenever it comes: from before it opened, and to some time after its end.
// They are written when it opened, for whoever kills the service in the middle, and as
// a whole when they are.

const (
	contextToken = "context"
	// contextLead is how much is kept from before an alert, contextTail from after it,
	// and contextMost of one in all: what lasts longer was there all the time.
	contextLead = before + contextBefore
	contextTail = after + contextBefore
	contextMost = 6 * time.Minute
	// contextSoon after an alert opened its scores are written for the first time.
	contextSoon = 5 * time.Second
)

// around is what is kept around one alert that is open, or was a moment ago.
type around struct {
	number uint64
	id     string
	trace  *tune.Trace // nil when all is written
	film   *filming    // the windows; nil when all are written, or none are kept
	soon   int         // hops until it is written for the first time
	tail   int         // hops that follow its end
}

// kept is the scores around an alert, as they are to be stored.
type kept struct {
	number uint64
	trace  *tune.Trace
}

// keepAround keeps a hop, its scores and its window, for the alerts that it belongs to.
func (b *behaviour) keepAround(now time.Time, w *feature.Window, f tune.Flags) {
	t := &b.tuned
	if t.recent != nil && now.Sub(t.recent.At(t.recent.Len())).Abs() > mostLag {
		b.endAround() // windows were lost
	}
	if t.recent == nil {
		t.recent = &tune.Trace{Layout: t.layout, From: now.Add(-feature.Hop)}
	}
	lead := hops(before + b.cfg.Tuning.Around)
	if b.cfg.Tuning.Around <= 0 {
		lead = 0
	}
	for i := range t.around {
		a := &t.around[i]
		if a.trace != nil {
			a.trace.Add(t.levels, f)
			b.lead(a)
		}
		if a.film != nil {
			b.goOn(a, hopKept{b.encoded(w), f})
		}
	}
	if lead > 0 {
		t.films.recent.add(hopKept{b.encoded(w), f}, lead)
	}
	t.recent.Add(t.levels, f)
	if n := t.recent.Len(); n >= 2*hops(contextLead) {
		t.recent = t.recent.Cut(n-hops(contextLead), n)
	}
	for _, c := range []bus.Class{bus.ClassSource, bus.ClassProof} {
		a := b.alerts.get(c)
		if a == nil || slices.ContainsFunc(t.around, func(have around) bool { return have.id == a.ID }) {
			continue
		}
		n := t.recent.Len()
		t.around = append(t.around, around{
			number: numberOf(a.ID), id: a.ID, soon: hops(contextSoon), tail: hops(contextTail),
			trace: t.recent.Cut(max(0, n-hops(contextLead)), n), film: b.film(now, numberOf(a.ID)),
		})
	}
	// An alert that is open stays in the list, so that it is not begun again.
	t.around = slices.DeleteFunc(t.around, func(a around) bool { return a.trace == nil && a.film == nil && !b.alertOpen(a.id) })
}

func (b *behaviour) alertOpen(id string) bool {
	a := b.alerts.find(id)
	return a != nil && a.Closed.IsZero()
}

// lead has the scores around an alert written when it is time.
func (b *behaviour) lead(a *around) {
	if !b.alertOpen(a.id) {
		a.tail--
	}
	a.soon--
	switch {
	case a.tail <= 0 || a.trace.Len() >= hops(contextMost):
		b.tuned.contexts = append(b.tuned.contexts, kept{a.number, a.trace})
		a.trace = nil
	case a.soon == 0:
		b.tuned.contexts = append(b.tuned.contexts, kept{a.number, a.trace.Cut(0, a.trace.Len())})
	}
}

// endAround has what there is written: what follows does not go on from it.
func (b *behaviour) endAround() {
	t := &b.tuned
	for i := range t.around {
		a := &t.around[i]
		if a.trace != nil {
			t.contexts = append(t.contexts, kept{a.number, a.trace})
			a.trace = nil
		}
		b.cut(a)
	}
	t.recent, t.films.recent = nil, hopRing{}
}

// takeContexts gives what is to be stored, once.
func (b *behaviour) takeContexts() []kept {
	out := b.tuned.contexts
	b.tuned.contexts = nil
	return out
}

// storeContext writes the scores around an alert, in a ring as long as that of alerts.
func (st *stream) storeContext(k kept) {
	c, err := k.trace.Append(nil)
	if err != nil {
		st.svc.log.Error("scores do not encode", "stream", st.id, "error", err)
		return
	}
	st.storeSealed(bus.SealedContext, k.number, c, st.putAt(contextToken, k.number%maxAlerts))
}

// contexts reads the scores around the alerts, by the alerts' names.
func (st *stream) contexts(ctx context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := st.eachSealed(ctx, bus.SealedContext, contextToken, func(number uint64, b []byte) error {
		all[fmt.Sprintf("%s.%d", st.id, number)] = b
		return nil
	})
	return all, err
}

// wantsContext reports whether there is a label without the scores around it, which
// are in the history by now.
func (r *tuningRecord) wantsContext(now time.Time) bool {
	return slices.ContainsFunc(r.Labels, func(l label) bool {
		age := now.Sub(l.At)
		return l.Context == nil && age > contextLate && age < contextGone
	})
}

// lateContext writes the scores around such labels down.
func (st *stream) lateContext(ctx context.Context, rec *tuningRecord) error {
	traces, err := st.history(ctx)
	if err != nil {
		return err
	}
	alerts, err := st.contexts(ctx)
	if err != nil {
		return err
	}
	m := &material{context: map[string][]byte{}}
	for i := range rec.Labels {
		if l := &rec.Labels[i]; l.Context == nil {
			if b := alerts[l.ID]; b != nil {
				m.context[l.ID] = b
			} else if t := over(traces, l); t != nil {
				m.cut(t, l)
			}
		}
	}
	return st.keepContext(ctx, m)
}

// over is the stretch that a label lies in, or nil.
func over(traces []*tune.Trace, l *label) *tune.Trace {
	at := slices.IndexFunc(traces, func(t *tune.Trace) bool { return t.From.Before(l.To) && l.From.Before(t.At(t.Len())) })
	if at < 0 {
		return nil
	}
	return traces[at]
}

// cut notes the scores around a label, which lies in t.
func (m *material) cut(t *tune.Trace, l *label) {
	to := l.To
	if most := l.From.Add(contextMost); to.After(most) && !l.missed() {
		to = most // what lasts longer was there all the time
	}
	if b, err := t.Cut(t.Index(l.From.Add(-contextBefore)), t.Index(to.Add(contextBefore))).Append(nil); err == nil {
		m.context[l.ID] = b
	}
}

// notes writes down when the system looked for settings, and when it will.
func (st *stream) notes(ctx context.Context, searched, next time.Time) error {
	_, err := st.tuner.change(ctx, func(r *tuningRecord) ([]gk.Event, error) {
		r.Searched, r.Next = searched, next
		return nil, nil
	})
	return err
}
