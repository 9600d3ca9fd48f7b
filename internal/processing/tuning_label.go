package processing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

const (
	missedPrefix = "missed-"
	// before and after are how much longer than its alert an episode is taken to be.
	before = 5 * time.Second
	after  = 5 * time.Second
)

func (l *label) missed() bool { return strings.HasPrefix(l.ID, missedPrefix) }

// serveFeedback takes an operator's word. It is answered when it is written down.
func (s *Service) serveFeedback(ctx context.Context, r bus.FeedbackRequest) (bus.FeedbackReply, error) {
	if len(r.Note) > bus.MaxNote || len(r.Kind) > bus.MaxNote || len(r.By) > bus.MaxNote {
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "a note has %d characters at most", bus.MaxNote)
	}
	if r.Alert == "" {
		return s.missed(ctx, r)
	}
	at := strings.LastIndexByte(r.Alert, '.')
	if at < 0 {
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "alert %q: the name of an alert is STREAM.NUMBER: gaitkeeper alerts lists them", r.Alert)
	}
	r.Stream = gk.StreamID(r.Alert[:at])
	now := s.now()
	l, err := ask(ctx, s, r.Stream, func(st *stream) (label, error) {
		a := st.behaviour.alerts.find(r.Alert)
		if a == nil {
			return label{}, bus.Refuse(bus.CodeNotFound, "there is no alert %s: gaitkeeper alerts lists them", r.Alert)
		}
		if a.Class != bus.ClassSource && a.Class != bus.ClassProof {
			return label{}, bus.Refuse(bus.CodeBadRequest, "alert %s is of class %s, which no threshold of the source decides: nothing is learned from it", r.Alert, a.Class)
		}
		return label{Label: tune.Label{
			ID: a.ID, Origin: tune.FromOperator, Real: r.Real, From: a.Opened.Add(-before), To: endOf(a, now), Kind: a.Kind,
			Proven: st.behaviour.proven(a), By: r.By, Note: r.Note, At: now,
		}}, nil
	})
	if err != nil {
		return bus.FeedbackReply{}, err
	}
	return s.labelled(ctx, r.Stream, l)
}

// endOf is when an alert's episode is over, with some time for what follows.
func endOf(a *bus.Alert, now time.Time) time.Time {
	if a.Closed.IsZero() {
		return now.Add(after)
	}
	return a.Closed.Add(after)
}

// proven reports whether there is proof for what an alert is about: it is proof, the
// old key was used after its rotation, or proof came while it was open.
func (b *behaviour) proven(a *bus.Alert) bool {
	if a.Class == bus.ClassProof || a.Outcome == bus.OutcomeStaleProven {
		return true
	}
	for i := range b.alerts.all {
		p := &b.alerts.all[i]
		if p.Class == bus.ClassProof && p.Session == a.Session && !p.Opened.Before(a.Opened.Add(-proofQuiet)) && (a.Closed.IsZero() || p.Opened.Before(a.Closed.Add(proofQuiet))) {
			return true
		}
	}
	return false
}

// missed takes an operator's report of what nothing noticed.
func (s *Service) missed(ctx context.Context, r bus.FeedbackRequest) (bus.FeedbackReply, error) {
	now := s.now()
	switch {
	case !r.From.Before(r.To):
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "from %s to %s is no stretch of time: it ends before it begins", clockText(r.From), clockText(r.To))
	case r.To.Sub(r.From) > bus.MaxMissed:
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "what was missed is %v long: say within %v when it was", r.To.Sub(r.From), bus.MaxMissed)
	case r.To.After(now.Add(time.Minute)) || r.From.After(now):
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "%s to %s has not come yet: report what was missed when it is over", clockText(r.From), clockText(r.To))
	}
	since, err := s.existsSince(ctx, r.Stream)
	if err != nil {
		return bus.FeedbackReply{}, err
	}
	if !r.To.After(since) {
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeBadRequest, "from %s to %s there was no stream %q: nothing is known of it before %s", clockText(r.From), clockText(r.To), r.Stream, clockText(since))
	}
	return s.labelled(ctx, r.Stream, label{Label: tune.Label{
		ID: fmt.Sprintf("%s%d", missedPrefix, r.From.UnixMilli()), Origin: tune.FromOperator, Real: true,
		From: r.From, To: r.To, Kind: r.Kind, By: r.By, Note: r.Note, At: now,
	}})
}

// clockText is a time for people, in the zone that it came in.
func clockText(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }

// existsSince is from when on anything is known of a stream: its device's enrolment, or
// what is older because the device was enrolled anew.
func (s *Service) existsSince(ctx context.Context, id gk.StreamID) (time.Time, error) {
	type trace struct {
		device gk.DeviceID
		oldest time.Time
	}
	t, err := ask(ctx, s, id, func(st *stream) (trace, error) { return trace{st.device, st.behaviour.oldest()}, nil })
	if err != nil {
		return time.Time{}, err
	}
	dev, err := bus.KMSDevice.Do(ctx, s.conn, bus.KMSDeviceRequest{Device: t.device})
	if err != nil {
		return time.Time{}, err
	}
	if !t.oldest.IsZero() && t.oldest.Before(dev.Enrolled) {
		return t.oldest, nil
	}
	return dev.Enrolled, nil
}

// labelled writes a label down, and lets the sensitivity follow by one step.
func (s *Service) labelled(ctx context.Context, id gk.StreamID, l label) (bus.FeedbackReply, error) {
	st := s.find(id)
	if st == nil {
		return bus.FeedbackReply{}, bus.Refuse(bus.CodeNotFound, "there is no stream %q: gaitkeeper streams lists them", id)
	}
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	text := ""
	rec, err := st.tuner.change(ctx, func(r *tuningRecord) (events []gk.Event, err error) {
		first := true
		for i := range r.Labels {
			first = first && r.Labels[i].ID != l.ID
			l.Proven = l.Proven || r.Labels[i].ID == l.ID && r.Labels[i].Proven
		}
		r.put(l)
		detail := map[string]string{"label": l.ID, "real": fmt.Sprint(l.Real), "kind": l.Kind, "by": l.By, "note": l.Note}
		events = append(events, gk.Event{Kind: gk.EventLabel, Detail: detail})
		if l.Contested() {
			text = "there is proof that somebody else had the key: the answer is kept, and counts for nothing"
			return append(events, gk.Event{Kind: gk.EventLabelContested, Detail: detail}), nil
		}
		more, told := follow(s.now(), r, &l, first)
		text = told
		return append(events, more...), nil
	})
	if err != nil {
		return bus.FeedbackReply{}, err
	}
	if !l.missed() {
		st.post(func() {
			st.behaviour.answered(s.now(), l.ID, l.Real)
			st.react()
		})
	}
	rep := bus.FeedbackReply{Stream: id, Label: l.ID, Contested: l.Contested(), Sensitivity: rec.Guard.Live().Params.Sensitivity, Text: text}
	if sh := rec.Guard.InShadow(); sh != nil && sh.By == "feedback" {
		rep.Proposed = sh.Params.Sensitivity
	}
	return rep, nil
}

// follow lets the settings follow one label, and says what is to be told of it.
func follow(now time.Time, r *tuningRecord, l *label, first bool) (events []gk.Event, text string) {
	counts := r.counts()
	done, text := r.Guard.Answer(now, &l.Label, first, l.missed(), tune.Basis{False: counts.False, Real: counts.Real + counts.Missed, Proven: counts.Proven, Contested: counts.Contested})
	kinds := map[tune.Phase]gk.EventKind{tune.Shadow: gk.EventSettingProposed, tune.Rejected: gk.EventSettingRejected, tune.Reverted: gk.EventSettingReverted}
	for _, c := range done {
		events = append(events, settingEvent(kinds[c.To], c.Setting))
	}
	return events, text
}

// settle does what the shadow or the watch over a young setting came to.
func (st *stream) settle(o settle) {
	ctx, cancel := st.svc.cfg.Host.WithTimeout(st.svc.ctx, 2*callTimeout)
	defer cancel()
	now := st.svc.now()
	_, err := st.tuner.change(ctx, func(r *tuningRecord) ([]gk.Event, error) {
		g := &r.Guard
		switch o.do {
		case settlePromote, settleReject:
			sh := g.InShadow()
			if sh == nil || sh.Revision != o.revision {
				return nil, errUnchanged
			}
			if o.do == settleReject {
				told := *sh
				g.Reject(now, o.saw)
				told.Saw = o.saw
				return []gk.Event{settingEvent(gk.EventSettingRejected, told)}, nil
			}
			g.Promote(now, st.svc.cfg.Behaviour.Tuning.Watch, o.saw)
			return []gk.Event{settingEvent(gk.EventSettingLive, g.Live())}, nil
		case settleRevert:
			if g.Live().Revision != o.revision || !g.TakeBack(now, o.saw) {
				return nil, errUnchanged
			}
			return []gk.Event{settingEvent(gk.EventSettingReverted, g.Live())}, nil
		}
		return nil, errUnchanged
	})
	if err != nil && st.svc.ctx.Err() == nil && !errors.Is(err, errFenced) {
		st.svc.log.Warn("what became of a setting was not written down; trying again", "stream", st.id, "error", err)
		st.post(func() { st.behaviour.again(o) })
	}
}

// again has an order given once more.
func (b *behaviour) again(o settle) {
	b.tuned.shadow.Again(o.revision)
	b.tuned.watch.Again(o.revision)
}
