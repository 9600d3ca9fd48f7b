package processing

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

const (
	// runTimeout ends a run with the best so far, fleetTimeout one for the fleet.
	runTimeout   = 10 * time.Second
	fleetTimeout = 50 * time.Second
	// fleetStreams is how many streams a run for the fleet looks at, at most.
	fleetStreams = 50
)

// found is what a run found.
type found struct {
	tune.Proposal
	material *material
	record   tuningRecord
	took     time.Duration
}

// seedOf makes runs repeatable, and different for each stream.
func seedOf(id gk.StreamID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // it does not fail
	return h.Sum64()
}

// search looks for settings of a stream. One search runs at a time in the whole
// service, so that tuning takes one core at most.
func (st *stream) search(ctx context.Context) (*found, error) {
	svc := st.svc
	if err := svc.cfg.Host.Acquire(ctx, svc.tuning); err != nil {
		return nil, bus.Refuse(bus.CodeUnavailable, "another stream is being tuned: try again in a moment")
	}
	defer func() { <-svc.tuning }()
	rec, err := st.tuner.view(ctx)
	if err != nil {
		return nil, err
	}
	m, err := st.gather(ctx, &rec)
	if err != nil {
		return nil, err
	}
	start := svc.now()
	current := rec.Guard.Live().Params
	prior, err := svc.prior(ctx)
	if err != nil {
		return nil, err
	}
	p := tune.Propose(&m.data, tune.Task{
		Goal: svc.cfg.Behaviour.Tuning.goal(), Current: current, Prior: tune.CutoffOf(prior.Sensitivity),
		Seed: seedOf(st.id),
		More: func() bool { return ctx.Err() == nil && svc.now().Sub(start) < runTimeout },
	})
	p.Bound(&m.data, current)
	if err := st.keepContext(ctx, m); err != nil {
		svc.log.Warn("the scores around labels were not written down", "stream", st.id, "error", err)
	}
	return &found{Proposal: p, material: m, record: rec, took: svc.now().Sub(start)}, nil
}

// setting is the setting that a run proposes.
func (f *found) setting(by string) tune.Setting {
	return tune.Setting{Params: f.Params, By: by, Method: f.Method, Reason: f.Why, Basis: f.material.basis, Expected: expected(f.Then)}
}

// apply puts what a run found in the shadow. saw is the revision that was looked at.
func (st *stream) apply(ctx context.Context, s tune.Setting, saw uint64) (tuningRecord, error) {
	return st.tuner.change(ctx, func(r *tuningRecord) ([]gk.Event, error) {
		had := r.Guard.Revision
		if saw == 0 {
			saw = had
		}
		switch err := r.Guard.Propose(st.svc.now(), saw, s); {
		case errors.Is(err, tune.ErrRevision):
			return nil, bus.Refuse(bus.CodeConflict, "stream %s: %v", st.id, err)
		case errors.Is(err, tune.ErrEvidence):
			return nil, littleKnown("stream "+string(st.id), err)
		case err != nil:
			return nil, err
		case r.Guard.Revision == had:
			return nil, errUnchanged
		}
		return []gk.Event{settingEvent(gk.EventSettingProposed, *r.Guard.InShadow())}, nil
	})
}

// littleKnown refuses for want of evidence, and says when there will be more.
func littleKnown(of string, err error) error {
	return bus.Refuse(bus.CodeConflict, "%s: %v; they count in stretches of %.0f minutes, when one is full: try again then", of, err, (chunkHops * time.Second / episode.HopsPerSecond).Minutes())
}

// describe tells people what a run found.
func (f *found) describe() *bus.TuningProposal {
	now := f.record.Guard.Live()
	now.Expected, now.Basis = expected(f.Now), f.material.basis
	then := f.setting("tuning")
	p := &bus.TuningProposal{
		Now: describeSetting(now), Then: describeSetting(then), Method: f.Method, Why: f.Why, Tried: f.Tried, Took: f.took,
		Unseen: f.material.unseen, HeldOutEpisodes: len(f.material.heldOut.Cases),
	}
	m, b := f.material, f.material.basis
	p.Anew, p.Lost = m.again, m.lost
	p.Data = fmt.Sprintf("%.2f h of quiet traffic, %d false and %d real answers, %d proven, %d simulated episodes", b.Hours, b.False, b.Real, b.Proven, b.Simulated)
	if m.again > 0 {
		p.Data += fmt.Sprintf("; %d of the labels are judged anew, by the windows around them", m.again)
	}
	if m.lost > 0 {
		p.Data += fmt.Sprintf("; %d labels do not count: other detectors ran then, and their windows do not say what those of now would", m.lost)
	}
	if m.quiet > 0 {
		p.Data += fmt.Sprintf("; %d quiet recordings, judged anew, are among it", m.quiet)
	}
	held := m.heldOut.Judge(f.Params)
	p.HeldOut = held.Detected()
	return p
}

// serveTuning shows and changes the settings of a stream.
func (s *Service) serveTuning(ctx context.Context, r bus.TuningRequest) (bus.TuningInfo, error) {
	st, err := s.streamOf(r.Stream)
	if err != nil {
		return bus.TuningInfo{}, err
	}
	if len(r.By) > bus.MaxNote {
		return bus.TuningInfo{}, bus.Refuse(bus.CodeBadRequest, "a name has %d characters at most", bus.MaxNote)
	}
	if r.By == "" {
		r.By = "operator"
	}
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, runTimeout+2*callTimeout)
	defer cancel()
	var rec tuningRecord
	var proposal *bus.TuningProposal
	switch r.Do {
	case bus.TuningShow:
		rec, err = st.tuner.view(ctx)
	case bus.TuningPropose, bus.TuningApply:
		var f *found
		if f, err = st.search(ctx); err != nil {
			break
		}
		rec, proposal = f.record, f.describe()
		if r.Do == bus.TuningApply {
			saw := r.Saw
			if saw == 0 {
				saw = f.record.Guard.Revision
			}
			// Scores around labels may have been written down in between: that is no
			// change of the settings, and the revision is the settings' own.
			rec, err = st.apply(ctx, f.setting(r.By), saw)
		}
	case bus.TuningRevert:
		rec, err = st.tuner.change(ctx, func(rec *tuningRecord) ([]gk.Event, error) {
			saw := r.Saw
			if saw == 0 {
				saw = rec.Guard.Revision
			}
			if err := rec.Guard.Revert(s.now(), saw, r.To, r.By, "asked for"); err != nil {
				return nil, bus.Refuse(bus.CodeConflict, "stream %s: %v", st.id, err)
			}
			return []gk.Event{settingEvent(gk.EventSettingReverted, rec.Guard.Live())}, nil
		})
	case bus.TuningAuto:
		rec, err = st.tuner.change(ctx, func(rec *tuningRecord) ([]gk.Event, error) {
			if rec.Guard.Auto == r.Auto {
				return nil, errUnchanged
			}
			rec.Guard.Auto = r.Auto
			if sh := rec.Guard.InShadow(); sh != nil && !r.Auto && (sh.By == "tuning" || sh.By == "feedback") {
				rec.Guard.Reject(s.now(), "automatic tuning was switched off")
			}
			return []gk.Event{{Kind: gk.EventTuningAuto, Detail: map[string]string{"auto": fmt.Sprint(r.Auto), "by": r.By}}}, nil
		})
	default:
		return bus.TuningInfo{}, bus.Refuse(bus.CodeBadRequest, "%q is nothing that can be done with settings", r.Do)
	}
	if err != nil {
		return bus.TuningInfo{}, err
	}
	return s.tuningInfo(ctx, st, &rec, proposal)
}

func (s *Service) tuningInfo(ctx context.Context, st *stream, rec *tuningRecord, p *bus.TuningProposal) (bus.TuningInfo, error) {
	i := bus.TuningInfo{
		Stream: st.id, Revision: rec.Guard.Revision, Auto: rec.Guard.Auto, Live: describeSetting(rec.Guard.Live()),
		Proposal: p, Labels: rec.counts(), Budget: s.cfg.Behaviour.Tuning.FalseEvery, Searched: rec.Searched,
	}
	if rec.Guard.Auto && s.cfg.Behaviour.Tuning.Every > 0 {
		i.Next = rec.Next
	}
	for _, h := range slices.Backward(rec.Guard.History) {
		i.History = append(i.History, describeSetting(h))
	}
	if sh := rec.Guard.InShadow(); sh != nil {
		d := describeSetting(*sh)
		i.Shadow = &d
	}
	type seen struct {
		left int
		long time.Duration
	}
	v, err := ask(ctx, s, st.id, func(st *stream) (seen, error) {
		return seen{st.behaviour.rotationsLeft(s.now()), time.Duration(st.behaviour.tuned.shadow.Hops) * time.Second / 4}, nil
	})
	i.Left, i.Observed = v.left, v.long
	return i, err
}

// serveFleet looks for weights and persistence over all streams.
func (s *Service) serveFleet(ctx context.Context, r bus.FleetRequest) (bus.FleetInfo, error) {
	if len(r.By) > bus.MaxNote {
		return bus.FleetInfo{}, bus.Refuse(bus.CodeBadRequest, "a name has %d characters at most", bus.MaxNote)
	}
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, fleetTimeout+2*callTimeout)
	defer cancel()
	if err := s.cfg.Host.Acquire(ctx, s.tuning); err != nil {
		return bus.FleetInfo{}, bus.Refuse(bus.CodeUnavailable, "a stream is being tuned: try again in a moment")
	}
	defer func() { <-s.tuning }()
	prior, err := s.prior(ctx)
	if err != nil {
		return bus.FleetInfo{}, err
	}
	info := bus.FleetInfo{Prior: describeSetting(tune.Setting{Params: prior, Phase: tune.Live, By: "fleet"})}
	all := &material{}
	var streams []*stream
	s.eachStream(func(st *stream) { streams = append(streams, st) })
	// The fleet's settings are tried around each stream's own sensitivity.
	var logs []float64
	for _, st := range streams[:min(len(streams), fleetStreams)] {
		rec, err := st.tuner.view(ctx)
		if err != nil {
			return info, err
		}
		m, err := st.gather(ctx, &rec)
		if bus.CodeOf(err) == bus.CodeConflict {
			continue
		}
		if err != nil {
			return info, err
		}
		if !all.merge(m, tune.CutoffOf(rec.Guard.Live().Params.Sensitivity)) {
			continue
		}
		logs = append(logs, math.Log(tune.CutoffOf(rec.Guard.Live().Params.Sensitivity)))
	}
	info.Streams = len(logs)
	if len(logs) == 0 {
		return info, nil
	}
	slices.Sort(logs)
	middle := math.Exp(logs[len(logs)/2])
	for i := range all.data.Cases {
		all.data.Cases[i].Shift /= middle
	}
	start := s.now()
	current := prior
	current.Sensitivity = episode.SensitivityAt(middle)
	f := &found{material: all}
	f.Proposal = tune.Propose(&all.data, tune.Task{
		Goal: s.cfg.Behaviour.Tuning.goal(), Current: current, Prior: middle, Fleet: true, Seed: uint64(len(logs)),
		More: func() bool { return ctx.Err() == nil && s.now().Sub(start) < fleetTimeout },
	})
	f.ForNew(&all.data, s.cfg.Behaviour.Tuning.goal(), prior)
	f.took = s.now().Sub(start)
	f.record.Guard = tune.NewGuard(start, prior, "")
	info.Proposal = f.describe()
	if !r.Apply {
		return info, nil
	}
	by := r.By
	if by == "" {
		by = "operator"
	}
	// New streams begin with no less evidence than the others change on.
	rails := f.record.Guard.Clone()
	if err := rails.Propose(s.now(), rails.Revision, f.setting(by)); errors.Is(err, tune.ErrEvidence) {
		return info, littleKnown("fleet", err)
	}
	if err := s.keepPrior(ctx, f.Params); err != nil {
		return info, err
	}
	for _, st := range streams {
		changed := false
		_, err := st.tuner.change(ctx, func(rec *tuningRecord) ([]gk.Event, error) {
			set := f.setting(by)
			set.Method = "fleet, " + f.Method
			set.Params.Sensitivity = rec.Guard.Live().Params.Sensitivity
			had := rec.Guard.Revision
			err := rec.Guard.Propose(s.now(), had, set)
			if changed = err == nil && rec.Guard.Revision != had; !changed {
				return nil, errUnchanged
			}
			return []gk.Event{settingEvent(gk.EventSettingProposed, *rec.Guard.InShadow())}, nil
		})
		if err != nil {
			return info, err
		}
		if changed {
			info.Applied = append(info.Applied, st.id)
		}
	}
	return info, nil
}

// merge adds another stream's material, unless its scores are of other detectors. It
// reports whether it did.
func (m *material) merge(o *material, cutoff float64) bool {
	if m.data.Replayer == nil {
		m.data.Replayer, m.heldOut.Replayer = o.data.Replayer, o.heldOut.Replayer
	}
	if !m.data.Replayer.Layout().Equal(o.data.Replayer.Layout()) {
		return false
	}
	for _, c := range o.data.Cases {
		c.Shift = cutoff
		m.data.Cases = append(m.data.Cases, c)
	}
	m.heldOut.Cases = append(m.heldOut.Cases, o.heldOut.Cases...)
	m.basis.Hours += o.basis.Hours
	m.basis.False += o.basis.False
	m.basis.Real += o.basis.Real
	m.basis.Proven += o.basis.Proven
	m.basis.Simulated += o.basis.Simulated
	m.basis.Contested += o.basis.Contested
	m.unseen += o.unseen
	return true
}
