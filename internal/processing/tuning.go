package processing

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// How thresholds tune themselves:
//
//	tuning.go        what is written down of a stream: labels and settings, one record
//	tuning_live.go   the stream's goroutine: scores are kept, settings shadowed and watched
//	tuning_label.go  what operators say
//	tuning_data.go   labels and history → what there is to tune by
//	tuning_context.go  the scores around every alert, kept from when it opens
//	tuning_reels.go    its windows beside them
//	tuning_rescore.go  the windows judged anew by what is known now
//	tuning_run.go    the search when asked, and what follows from it
//	tuning_night.go  the search by itself
//	tuning_fleet.go  what new streams start from
//
// The record is changed by compare-and-set, one change at a time: a change is worked
// out on a copy, written down, and only then does anything follow from it. So a crash
// leaves the old record or the new one, and a label that was answered for is there.

// Tuning is how thresholds tune themselves.
type Tuning struct {
	FalseEvery time.Duration // one false rotation is granted in this time
	MissCost   float64       // a miss is as bad as so many false rotations
	Auto       bool          // proposals of the system itself are taken, until an operator says otherwise
	Every      time.Duration // between two runs for a stream; 0: only when asked
	Shadow     time.Duration // how long it is counted what a setting would do before it does it
	Watch      time.Duration // how long a new setting can be taken back by itself
	History    time.Duration // how much of every stream's scores is kept; 0: nothing
	// Around is for how long before and after every alert about the source its windows
	// are kept, 0: not at all; of Episodes alerts of a stream at most, in EpisodeBytes.
	Around       time.Duration
	Episodes     int
	EpisodeBytes int64
}

// reelBook is an empty one with these bounds.
func (t *Tuning) reelBook() reelBook {
	if t.Around <= 0 || t.History <= 0 {
		return reelBook{}
	}
	return reelBook{most: t.Episodes, bytes: t.EpisodeBytes}
}

// DefaultTuning gives the values that a Config starts from.
func DefaultTuning() Tuning {
	return Tuning{
		FalseEvery: 24 * time.Hour, MissCost: 20, Auto: true, Every: 24 * time.Hour,
		Shadow: 10 * time.Minute, Watch: 24 * time.Hour, History: 24 * time.Hour,
		Around: 30 * time.Second, Episodes: maxAlerts, EpisodeBytes: 4 << 20,
	}
}

func (t *Tuning) goal() tune.Goal {
	return tune.Goal{Budget: float64(time.Hour) / float64(t.FalseEvery), MissCost: t.MissCost}
}

const (
	tuningToken  = "tuning"
	scoresToken  = "scores"
	windowsToken = "windows"
	fleetKey     = "fleet-tuning"

	// maxLabels bounds the labels of a stream; the eldest go first.
	maxLabels = 256
	// maxTuning bounds an unpacked record, in bytes.
	maxTuning = 16 << 20
)

// label is a label with the scores around it, so that it outlives the history.
type label struct {
	tune.Label
	Context []byte `cbor:",omitempty"` // a tune.Trace
	// Judged is what looked last whether the windows around the alert say something else
	// now (see printOf), and Anew whether Context is what they say.
	Judged uint64 `cbor:",omitempty"`
	Anew   bool   `cbor:",omitempty"`
}

// tuningRecord is what is written down of a stream.
type tuningRecord struct {
	Version uint64
	Guard   tune.Guard
	Labels  []label
	// Searched is when the system last looked for better settings by itself, and Next
	// when it is the stream's turn again: a service that is off at that hour does it
	// when it is there.
	Searched, Next time.Time
}

func (r *tuningRecord) clone() tuningRecord {
	out := *r
	out.Guard, out.Labels = r.Guard.Clone(), slices.Clone(r.Labels)
	return out
}

// put adds a label, in the place of one with its id.
func (r *tuningRecord) put(l label) {
	i := slices.IndexFunc(r.Labels, func(have label) bool { return have.ID == l.ID })
	if i >= 0 {
		have := &r.Labels[i]
		l.Context, l.Judged, l.Anew = have.Context, have.Judged, have.Anew
		r.Labels[i] = l
		return
	}
	if len(r.Labels) >= maxLabels {
		r.Labels = slices.Delete(r.Labels, 0, 1)
	}
	r.Labels = append(r.Labels, l)
}

// prove notes what is proven: a label of its own, or at the answer that there is. It
// reports whether that is news.
func (r *tuningRecord) prove(l label) bool {
	i := slices.IndexFunc(r.Labels, func(have label) bool { return have.ID == l.ID })
	if i < 0 {
		r.put(l)
		return true
	}
	was := r.Labels[i].Proven
	r.Labels[i].Proven = true
	return !was
}

// counts describes the labels.
func (r *tuningRecord) counts() (c bus.TuningLabels) {
	for i := range r.Labels {
		l := &r.Labels[i]
		switch {
		case l.Contested():
			c.Contested++
		case l.Origin == tune.FromOutcome:
			c.Proven++
		case !l.Real:
			c.False++
		case l.missed():
			c.Missed++
		default:
			c.Real++
		}
	}
	return c
}

// pack writes a value as compressed CBOR; unpack reads it.
func pack(v any) ([]byte, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	err = errors.Join(keepMode.NewEncoder(z).Encode(v), z.Close())
	return out.Bytes(), err
}

func unpack(b []byte, v any) error {
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxTuning+1))
	if err != nil || len(plain) > maxTuning {
		return fmt.Errorf("it does not unpack: %v", err)
	}
	return cbor.Unmarshal(plain, v)
}

// tuner is who changes a stream's record. Whoever holds the token owns the rest.
type tuner struct {
	st       *stream
	token    chan struct{}
	loaded   bool
	record   tuningRecord
	revision uint64 // in the store
	refused  uint64 // what was told to be refused: the revision and one; 0: nothing
}

func newTuner(st *stream) *tuner { return &tuner{st: st, token: make(chan struct{}, 1)} }

// errUnchanged ends a change that is none.
var errUnchanged = errors.New("unchanged")

// change works a change out on a copy and writes it down. What follows from it, the
// stream's goroutine is told then, and the audit trail. An error that is no refusal
// leaves open whether it was written: the next change looks.
func (t *tuner) change(ctx context.Context, f func(r *tuningRecord) ([]gk.Event, error)) (tuningRecord, error) {
	svc := t.st.svc
	if err := svc.cfg.Host.Acquire(ctx, t.token); err != nil {
		return tuningRecord{}, err
	}
	defer func() { <-t.token }()
	for {
		if !t.loaded {
			if err := t.read(ctx); err != nil {
				return tuningRecord{}, err
			}
		}
		next := t.record.clone()
		events, err := f(&next)
		if errors.Is(err, errUnchanged) {
			return next, nil
		}
		if err != nil {
			return tuningRecord{}, err
		}
		next.Version++
		switch err := t.put(ctx, &next); {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
			t.loaded = false // somebody was faster: from what he wrote
			continue
		case err != nil:
			t.loaded = false
			return tuningRecord{}, bus.Refuse(bus.CodeUnavailable, "stream %s: it was not written down for certain; say it again: %v", t.st.id, err)
		}
		t.record = next
		told := next.clone()
		t.st.post(func() {
			for _, e := range events {
				e.Stream, e.Device = t.st.id, t.st.device
				svc.tell(e)
			}
			t.st.behaviour.adopt(svc.now(), &told)
			t.st.react()
		})
		return next.clone(), nil
	}
}

// view gives the record as it is.
func (t *tuner) view(ctx context.Context) (tuningRecord, error) {
	return t.change(ctx, func(*tuningRecord) ([]gk.Event, error) { return nil, errUnchanged })
}

// read reads the record. A stream without one starts from the fleet's prior; one that
// was changed by somebody is told of, and starts anew: then nothing is tuned by itself
// until an operator says so.
func (t *tuner) read(ctx context.Context) error {
	svc := t.st.svc
	t.record = tuningRecord{}
	e, err := svc.records.Get(ctx, tuningToken+"."+string(t.st.id))
	t.revision = e.Revision
	refused := ""
	switch {
	case errors.Is(err, store.ErrNotFound):
		t.revision = 0
		if _, refused, err = svc.removed(ctx, t.place(0)); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		var v envelope
		if err := cbor.Unmarshal(e.Value, &v); err != nil {
			refused = "the stored record does not read"
			break
		}
		if v.Term > svc.protocol.Term {
			return errFenced
		}
		rep, err := bus.KMSUnseal.Do(ctx, svc.conn, bus.UnsealRequest{Place: t.place(v.Version), Sealed: v.Content})
		if err == nil {
			err = unpack(rep.Content, &t.record)
		} else if bus.CodeOf(err) != bus.CodeUnauthorized {
			return err
		}
		if err != nil {
			refused, t.record = err.Error(), tuningRecord{}
		}
	}
	if t.record.Guard.Revision == 0 {
		reason := "a new stream starts from the fleet's settings"
		if refused != "" {
			reason = "the stored settings were refused: " + refused
			t.tellRefused(refused)
		}
		prior, err := svc.prior(ctx)
		if err != nil {
			return err
		}
		t.record.Guard = tune.NewGuard(svc.now(), prior, reason)
		// Whoever spoiled the record must not undo an operator's off by it.
		t.record.Guard.Auto = svc.cfg.Behaviour.Tuning.Auto && refused == ""
	}
	t.loaded = true
	return nil
}

// tellRefused tells, once for what stands there, that the stored record is not believed.
func (t *tuner) tellRefused(why string) {
	if t.refused == t.revision+1 {
		return
	}
	t.refused = t.revision + 1
	t.st.svc.log.Error("the stored settings and labels are not believed", "stream", t.st.id, "error", why)
	t.st.svc.tell(gk.Event{Kind: gk.EventTuningRefused, Stream: t.st.id, Device: t.st.device, Detail: map[string]string{"why": why}})
}

func (t *tuner) place(version uint64) bus.SealPlace {
	return bus.SealPlace{Kind: bus.SealedTuning, Stream: t.st.id, Version: version}
}

// put writes the record over the revision that was read.
func (t *tuner) put(ctx context.Context, r *tuningRecord) error {
	svc := t.st.svc
	for {
		b, err := pack(r)
		if err != nil {
			return err
		}
		if len(b) > bus.MaxSealed && len(r.Labels) > 0 {
			// What was answered stays; the scores around it are in the history for a day.
			if i := slices.IndexFunc(r.Labels, func(l label) bool { return l.Context != nil }); i >= 0 {
				l := &r.Labels[i]
				l.Context, l.Judged, l.Anew = nil, 0, false
			} else {
				r.Labels = r.Labels[1:]
			}
			continue
		}
		rep, err := bus.KMSSeal.Do(ctx, svc.conn, bus.SealRequest{Place: t.place(r.Version), Content: b})
		if err != nil {
			return err
		}
		if rep.Newest >= r.Version {
			r.Version = rep.Newest + 1
			continue
		}
		value, err := keepMode.Marshal(envelope{Term: svc.protocol.Term, Version: r.Version, Content: rep.Sealed})
		if err != nil {
			return err
		}
		key := tuningToken + "." + string(t.st.id)
		if t.revision == 0 {
			t.revision, err = svc.records.Create(ctx, key, value)
		} else {
			var rev uint64
			if rev, err = svc.records.Update(ctx, key, value, t.revision); err == nil {
				t.revision = rev
			}
		}
		if err == nil { // opened again, as a profile is: from then on, no older one does
			_, err = bus.KMSUnseal.Do(ctx, svc.conn, bus.UnsealRequest{Place: t.place(r.Version), Sealed: rep.Sealed})
		}
		return err
	}
}

// setting describes a setting for people.
func describeSetting(s tune.Setting) bus.TuningSetting {
	d := bus.TuningSetting{
		Revision: s.Revision, Phase: string(s.Phase), At: s.At, Sensitivity: s.Params.Sensitivity, Cutoff: tune.CutoffOf(s.Params.Sensitivity),
		Persistence: s.Params.Persistence, Weights: map[string]float64{}, By: s.By, Method: s.Method, Reason: s.Reason, Saw: s.Saw,
		FalsePerDay: finite(s.Expected.FalsePerDay), Low: finite(s.Expected.Low), High: finite(s.Expected.High),
		Detected: s.Expected.Detected, Episodes: s.Expected.Real, Hours: s.Basis.Hours,
	}
	for g, w := range s.Params.Weights {
		d.Weights[tune.GroupNames[g]] = w
	}
	return d
}

// settingEvent tells the audit trail of a setting: what, why, from what data and what
// is expected.
func settingEvent(kind gk.EventKind, s tune.Setting) gk.Event {
	return gk.Event{Kind: kind, Detail: map[string]string{
		"revision": fmt.Sprint(s.Revision), "sensitivity": fmt.Sprintf("%.3f", s.Params.Sensitivity),
		"cutoff": fmt.Sprintf("%.2f", tune.CutoffOf(s.Params.Sensitivity)), "persistence": fmt.Sprint(s.Params.Persistence),
		"weights": fmt.Sprintf("%.2f", s.Params.Weights), "by": s.By, "method": s.Method, "reason": s.Reason,
		"data":     fmt.Sprintf("%.2f h quiet, %d false, %d real, %d proven, %d simulated, %d contested", s.Basis.Hours, s.Basis.False, s.Basis.Real, s.Basis.Proven, s.Basis.Simulated, s.Basis.Contested),
		"expected": fmt.Sprintf("%.2f false a day (95 %%: %.2f to %.2f), %.0f %% of %.1f episodes detected", s.Expected.FalsePerDay, s.Expected.Low, s.Expected.High, 100*s.Expected.Detected, s.Expected.Real),
		"saw":      s.Saw,
	}}
}

// expected turns what a replay gave into what is expected.
func expected(s tune.Stats) tune.Expected {
	return s.Expected()
}

// loadTuning reads the record, until it can be read, and gives it to the stream's
// goroutine. Until then the stream is judged by what is configured.
func (st *stream) loadTuning() {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		var r tuningRecord
		err := st.svc.keeps.pass(st.svc.ctx, st.svc, st.id, func() (err error) {
			ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, callTimeout)
			defer cancel()
			r, err = st.tuner.view(ctx)
			return err
		})
		if err == nil {
			st.post(func() {
				st.behaviour.adopt(st.svc.now(), &r)
				st.react()
			})
			return
		}
		if errors.Is(err, errFenced) || st.svc.ctx.Err() != nil {
			return
		}
		st.svc.log.Warn("labels and settings were not read; trying again", "stream", st.id, "error", err)
		if st.svc.cfg.Host.Sleep(st.svc.ctx, wait) != nil {
			return
		}
	}
}

// reactTuning does what tuning wants stored and done. The stream's goroutine calls it.
func (st *stream) reactTuning() {
	for _, c := range st.behaviour.takeContexts() {
		st.svc.beside(func() { st.storeContext(c) })
	}
	parts, gone := st.behaviour.takeReels()
	for _, p := range parts {
		st.svc.beside(func() { st.storeReel(p) })
	}
	for _, number := range gone {
		st.svc.beside(func() { st.eraseReel(number) })
	}
	chunks, windows, order := st.behaviour.takeTuning()
	for _, t := range chunks {
		st.svc.beside(func() { st.storeScores(t) })
	}
	if windows != nil {
		st.svc.beside(func() { st.storeWindows(windows) })
	}
	if order.do != settleNothing {
		st.svc.beside(func() { st.settle(order) })
	}
}
