package processing

import (
	"context"
	"slices"
	"strings"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// What reaches a stream's behaviour, and who asks about it.

// transportWindow hands a window to its stream. One that does not keep up loses
// windows rather than holding up the others.
func (s *Service) transportWindow(u bus.StreamWindow) {
	if st := s.find(u.Stream); st != nil {
		st.loop.Offer(func() { st.window(u) })
	}
}

// window takes a window of the live session, from the first of its transports.
func (st *stream) window(u bus.StreamWindow) {
	l := st.machine.Live()
	if l == nil || l.Record.Ended || l.Record.Session != u.Session || len(l.Transports) == 0 || l.Transports[0] != u.Transport {
		return
	}
	form := feature.Form(u.Form)
	if form > feature.Hidden || st.measured.Decode(u.Window) != nil {
		st.svc.log.Warn("a window does not read: transport and processing are of different versions", "stream", st.id, "transport", u.Transport)
		return
	}
	st.behaviour.window(st.svc.now(), u.Session, u.Epoch, form, &st.measured)
	st.react()
}

// proof answers evidence that somebody else has a key. It waits for no window.
func (st *stream) proof(p bus.Proof) {
	l := st.machine.Live()
	if l == nil || st.carried(p.Session, p.Transport) != l {
		return
	}
	now := st.svc.now()
	if st.behaviour.proof(now, p, l.Record.Epoch) && p.Epoch >= l.Record.Epoch {
		st.execute(st.machine.Step(now, gkrp.Rotate{Reason: gk.ReasonProof, Known: p.Epoch}))
		st.ordered(l, bus.ClassProof, gk.ReasonProof)
	}
	st.react()
}

// rotateForSource orders the one rotation of an episode of source evidence.
func (st *stream) rotateForSource() {
	l := st.machine.Live()
	if l == nil || l.Record.Ended {
		return
	}
	st.execute(st.machine.Step(st.svc.now(), gkrp.Rotate{Reason: gk.ReasonSource, Known: l.Record.Epoch}))
	st.ordered(l, bus.ClassSource, gk.ReasonSource)
}

// ordered tells an alert what came of its order, where the protocol did not: a
// rotation is under way already, which serves as well, or a budget is spent, of
// which it was told before.
func (st *stream) ordered(l *gkrp.Session, c bus.Class, r gk.Reason) {
	a := st.behaviour.alerts.get(c)
	if a == nil || a.Done != bus.DoneAlerted {
		return
	}
	kind := gk.EventBudgetSpent
	if _, stage := l.Rotating(); stage != 0 {
		kind = gk.EventRotationDecided
	}
	st.behaviour.event(st.svc.now(), gk.Event{Kind: kind, Reason: r})
}

// react does what the behaviour wants done. The stream's goroutine calls it after
// everything that feeds the behaviour.
func (st *stream) react() {
	st.reactTuning()
	for {
		out := st.behaviour.take()
		for _, e := range out.events {
			e.Device = st.device
			st.svc.tell(e)
		}
		if out.rotate {
			st.rotateForSource() // of which there is something to tell, too
		}
		if out.saveProfile {
			st.saveProfile()
		}
		if out.saveAlerts {
			st.saveAlerts()
		}
		if out.scores {
			if err := bus.ProcessingScores.Tell(st.svc.conn, st.behaviour.scores()); err != nil {
				st.svc.log.Debug("scores were not told", "stream", st.id, "error", err)
			}
		}
		if !out.rotate {
			return
		}
	}
}

// ask runs f on the goroutine of a stream and waits for it.
func ask[T any](ctx context.Context, s *Service, id gk.StreamID, f func(*stream) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	st := s.find(id)
	if st == nil {
		return none, bus.Refuse(bus.CodeNotFound, "there is no stream %q: gaitkeeper streams lists them", id)
	}
	c := make(chan answer, 1)
	st.post(func() {
		v, err := f(st)
		st.react()
		c <- answer{v, err}
	})
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		return none, bus.Refuse(bus.CodeUnavailable, "stream %q does not answer: try again", id)
	}
}

// defaultAlerts is how many alerts are listed where nobody says.
const defaultAlerts = 100

func (s *Service) serveAlerts(ctx context.Context, r bus.AlertsRequest) (bus.AlertsReply, error) {
	rep := bus.AlertsReply{Alerts: []bus.Alert{}}
	if r.ID != "" {
		at := strings.LastIndexByte(r.ID, '.')
		if at < 0 {
			return rep, bus.Refuse(bus.CodeBadRequest, "alert %q: the name of an alert is STREAM.NUMBER", r.ID)
		}
		r.Stream = gk.StreamID(r.ID[:at])
	}
	var streams []gk.StreamID
	if r.Stream == "" || r.Stream == bus.SiteAlerts {
		rep.Alerts = s.siteAlerts()
	}
	switch r.Stream {
	case bus.SiteAlerts:
	default:
		streams = []gk.StreamID{r.Stream}
	case "":
		s.eachStream(func(st *stream) { streams = append(streams, st.id) })
	}
	for _, id := range streams {
		alerts, err := ask(ctx, s, id, func(st *stream) ([]bus.Alert, error) {
			return cloneAlerts(st.behaviour.alerts.all), nil
		})
		if err != nil {
			return rep, err
		}
		rep.Alerts = append(rep.Alerts, alerts...)
	}
	if r.ID != "" {
		rep.Alerts = slices.DeleteFunc(rep.Alerts, func(a bus.Alert) bool { return a.ID != r.ID })
		if len(rep.Alerts) == 0 {
			return rep, bus.Refuse(bus.CodeNotFound, "there is no alert %s: gaitkeeper alerts lists them", r.ID)
		}
	}
	slices.SortStableFunc(rep.Alerts, func(a, b bus.Alert) int { return b.Opened.Compare(a.Opened) })
	if r.Limit <= 0 {
		r.Limit = defaultAlerts
	}
	rep.Alerts = rep.Alerts[:min(r.Limit, len(rep.Alerts))]
	return rep, nil
}

func (s *Service) serveExplain(ctx context.Context, r bus.ExplainRequest) (bus.Explanation, error) {
	return ask(ctx, s, r.Stream, func(st *stream) (bus.Explanation, error) {
		e := st.behaviour.explain(s.now())
		e.Ingress = st.behaviour.ingress.info(s.now())
		e.Open = cloneAlerts(e.Open)
		if e.Last != nil {
			e.Last = &cloneAlerts([]bus.Alert{*e.Last})[0]
		}
		return e, nil
	})
}

func (s *Service) serveProfile(ctx context.Context, r bus.ProfileRequest) (bus.ProfileInfo, error) {
	return ask(ctx, s, r.Stream, func(st *stream) (i bus.ProfileInfo, err error) {
		now := s.now()
		switch r.Do {
		case "":
		case bus.ProfileApprove:
			err = st.behaviour.approve(now)
		case bus.ProfileRelearn:
			err = st.behaviour.relearn(now)
		case bus.ProfileRollback:
			err = st.behaviour.rollback(now)
		default:
			err = bus.Refuse(bus.CodeBadRequest, "%q is nothing that can be done with a profile: %s, %s, %s", r.Do, bus.ProfileApprove, bus.ProfileRelearn, bus.ProfileRollback)
		}
		return st.behaviour.info(now), err
	})
}

func (s *Service) servePlanned(ctx context.Context, r bus.PlannedRequest) (bus.ProfileInfo, error) {
	return ask(ctx, s, r.Stream, func(st *stream) (bus.ProfileInfo, error) {
		now := s.now()
		err := st.behaviour.plan(now, r.For)
		return st.behaviour.info(now), err
	})
}
