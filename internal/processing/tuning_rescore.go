package processing

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// What was said of an alert lasts; what its scores were worth does not: a profile is
// learned anew, and a version of this program brings other detectors. The windows around
// the alert are judged again then, so that the label counts with the scores that the
// stream would have now.

// build tells versions of this program apart.
var build = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	out := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			out += s.Value
		}
	}
	return out
})

// printOf tells apart what judges a stream: the program, its detectors, and what regimes
// were learned. How far limits moved by themselves since is left out. It is never 0.
func printOf(modes []detect.Mode) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, build(), detect.ProfileVersion, accusing)
	e := keepMode.NewEncoder(h)
	for i := range modes {
		_ = e.Encode(modes[i].Anchor) // plain data into a hash: it does not fail
	}
	return max(1, h.Sum64())
}

// reelKey is the key of a part of the windows around an alert.
func (st *stream) reelKey(number uint64, part int) string {
	return fmt.Sprintf("%s.%s.%d-%d", reelToken, st.id, number, part)
}

// reelVersion binds a sealed part to its place.
func reelVersion(number uint64, part int) uint64 { return number*mostParts + uint64(part) }

func (st *stream) storeReel(p reelPart) {
	st.storeSealed(bus.SealedEpisode, reelVersion(p.number, p.part), p.content, func(ctx context.Context, value []byte) error {
		_, err := st.svc.records.Put(ctx, st.reelKey(p.number, p.part), value)
		return err
	})
}

// eraseReel removes the windows around an alert. What could not be removed is tried again
// when the service starts.
func (st *stream) eraseReel(number uint64) {
	svc := st.svc
	err := svc.keeps.pass(svc.ctx, svc, st.id, func() error {
		ctx, cancel := svc.cfg.Host.WithTimeout(svc.ctx, callTimeout)
		defer cancel()
		for part := range mostParts {
			if err := svc.records.Erase(ctx, st.reelKey(number, part)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if svc.ctx.Err() == nil {
			svc.log.Warn("the windows around an alert were not erased", "stream", st.id, "alert", number, "error", err)
		}
		return
	}
	st.post(func() {
		st.behaviour.erased(number)
		st.react()
	})
}

// eraseReels removes all windows around alerts: what says which there are was lost.
func (st *stream) eraseReels(ctx context.Context) error {
	all, err := st.svc.records.List(ctx, reelToken+"."+string(st.id))
	for _, e := range all {
		err = errors.Join(err, st.svc.records.Erase(ctx, e.Key))
	}
	return err
}

// reel reads the windows around an alert, as far as they follow each other; nil where
// there are none that are believed.
func (st *stream) reel(ctx context.Context, number uint64) (*reel, error) {
	var out *reel
	for part := range mostParts {
		e, err := st.svc.records.Get(ctx, st.reelKey(number, part))
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		var v envelope
		if cbor.Unmarshal(e.Value, &v) != nil || len(v.Content) == 0 {
			break
		}
		rep, err := bus.KMSUnseal.Do(ctx, st.svc.conn, bus.UnsealRequest{Place: bus.SealPlace{Kind: bus.SealedEpisode, Stream: st.id, Version: reelVersion(number, part)}, Sealed: v.Content})
		if bus.CodeOf(err) == bus.CodeUnauthorized {
			break
		}
		if err != nil {
			return nil, err
		}
		r, err := readReel(rep.Content)
		if err != nil {
			st.svc.log.Info("windows around an alert do not read: they are of another version of this program", "stream", st.id, "alert", number, "error", err)
			return nil, nil
		}
		if out == nil {
			out = r
		} else if !out.goOn(r) {
			break
		}
	}
	return out, nil
}

// errUnknown says why windows cannot be judged by the present profile.
var errUnknown = errors.New("the present profile does not know what the stream was then")

// judge has what is known now of the stream look at windows around something that began
// at from. The trace begins when the detectors' own windows are full. What came before
// must be quiet to a profile, or it is of another source and says nothing of this one.
func (r *reel) judge(live liveView, replayer *tune.Replayer, from time.Time) (*tune.Trace, error) {
	switch {
	case len(live.modes) == 0:
		return nil, errors.New("the stream's profile is not mature")
	case r.form != live.modes[0].Anchor.Form:
		return nil, fmt.Errorf("the payload was %s then and is %s now", r.form, live.modes[0].Anchor.Form)
	case from.Sub(r.from) <= tune.LeadHops*feature.Hop:
		return nil, fmt.Errorf("%v before it are too little for the detectors", from.Sub(r.from))
	case !r.end().After(from): // a part was not written
		return nil, fmt.Errorf("what is left of the windows ends %v before it", from.Sub(r.end()))
	}
	t := replayed(live, r.windows, r.flags)
	t.From = r.from
	if !t.Layout.Equal(replayer.Layout()) {
		return nil, errors.New("other detectors ran")
	}
	if _, peak := replayer.Peak(t, tune.LeadHops, t.Index(from)); peak >= 1 {
		return nil, errUnknown
	}
	return t.Cut(tune.LeadHops, t.Len()), nil
}

// rejudge looks again at the windows around the labels, once for everything that may
// judge them. What cannot be judged keeps the scores that it has.
func (st *stream) rejudge(ctx context.Context, live liveView, rec *tuningRecord, m *material) error {
	if len(live.modes) == 0 {
		return nil
	}
	now := printOf(live.modes)
	for i := range rec.Labels {
		l := &rec.Labels[i]
		number := numberOf(l.ID)
		if l.missed() || l.Judged == now || !slices.Contains(live.reels, number) {
			continue
		}
		r, err := st.reel(ctx, number)
		if err != nil {
			return err
		}
		l.Judged = now
		if r != nil && (r.by != now || l.Anew) {
			if t, err := r.judge(live, m.data.Replayer, l.From); err == nil {
				if b, err := t.Append(nil); err == nil {
					l.Context, l.Anew = b, true
				}
			}
		}
		m.anew[l.ID] = *l
	}
	return nil
}

// judgedAs reports whether a label has scores of its own that are newer than those of the
// history, by the detectors of a layout.
func (l *label) judgedAs(layout *tune.Layout) bool {
	if !l.Anew {
		return false
	}
	t, err := tune.ReadTrace(l.Context)
	return err == nil && t.Layout.Equal(layout) && t.Len() > 0
}

// standIn takes recordings of quiet windows, judged by what is known now, for the history
// of their hours where that is of other detectors, or gone.
func standIn(live liveView, mine []recording, traces []*tune.Trace, m *material) {
	if len(live.modes) == 0 {
		return
	}
	for _, r := range mine {
		covered := slices.ContainsFunc(traces, func(t *tune.Trace) bool {
			return t.From.Before(r.hour.Add(recordEvery)) && r.hour.Before(t.At(t.Len()))
		})
		if covered {
			continue
		}
		t := replayed(live, r.windows, nil)
		t.From = r.hour
		if t.Layout.Equal(m.data.Replayer.Layout()) {
			m.data.Cases = append(m.data.Cases, tune.Case{Trace: t.Cut(tune.LeadHops, t.Len())})
			m.quiet++
		}
	}
}
