package processing

import (
	"cmp"
	"fmt"
	"maps"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/detect"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// restartExcuses are the weights while the device says that its source was
// restarted: numbers and clocks may break then, but what the source says may not
// change. They hold for as long as detectors look back.
var restartExcuses = map[string]float64{"order": 0, "renumbering": 0, "clock-step": 0.3, "echo": 0.5, "pacing": 0.5, "volume": 0.5}

const excusedHops = 44

// wideMargins are the weights while a profile is young or in probation: what a
// source says acts as ever, statistics must be far off.
var wideMargins = map[string]float64{
	"grammar": 0.8, "parameter-set": 0.8, "clock-step": 0.7, "packet-size": 0.6, "pacing": 0.7,
	"loop": 0.7, "volume": 0.6, "drift": 0.5, "bottleneck": 0.5, "tick": 0.6, "over-cap": 0.6,
}

// outcomeAtEnd is what becomes of an open alert whose cause is not watched any more.
func outcomeAtEnd(a *bus.Alert) bus.Outcome {
	if a.Ask != "" {
		return bus.OutcomeUnresolved
	}
	return bus.OutcomeEnded
}

// margin is what the weights of an engine were set for.
type margin struct {
	of            *detect.Engine
	wide, excused bool
	tuned         tune.Params
}

// margins sets the weights that the stage, probation, the device's word and tuning ask
// for.
func (b *behaviour) margins() {
	want := margin{b.judge, b.stage == bus.StageProvisional || b.probation > 0, b.excused > 0, b.tuned.params}
	if want == b.margin || b.judge == nil {
		return
	}
	b.margin = want
	f, w := b.flags(), map[string]float64{}
	maps.Copy(w, b.cfg.Weights)
	for _, kind := range accusing {
		w[kind] = b.weight(kind, f) * b.tuned.params.Weight(kind)
	}
	b.judge.SetWeights(w)
}

// score judges a window, and learns from it where it is normal.
func (b *behaviour) score(now time.Time, w *feature.Window) {
	planned := now.Before(b.planned)
	if b.excused > 0 {
		b.excused--
		b.margins()
	}
	b.verdict = b.judge.Observe(w)
	high, plain := b.high, 0.0
	clear(high)
	for _, e := range b.judge.Evidence() {
		if !e.Advisory {
			high[bus.Class(e.Class)] = max(high[bus.Class(e.Class)], e.Score)
		}
		if e.Class == detect.Source {
			plain = max(plain, e.Level.Score())
		}
	}
	if high[bus.ClassSource] >= 1 {
		b.hot = now
	}
	for _, c := range []bus.Class{bus.ClassSource, bus.ClassPath} {
		if high[c] < calmScore {
			b.calm[c]++
		} else {
			b.calm[c] = 0
		}
	}
	if b.verdict.Alarm {
		b.alarm(now, planned)
	}
	expected := planned || b.announced.running(now) && b.alerts.get(bus.ClassSource) != nil
	b.follow(now, high, expected, b.settles(now, w))
	b.keepScores(now, w, expected)

	quiet := b.usual(w) && !planned && b.excused == 0 && b.alerts.get(bus.ClassSource) == nil && b.alerts.get(bus.ClassPath) == nil &&
		b.alerts.get(bus.ClassProof) == nil
	if !quiet {
		b.profile.Tail.Drop()
	} else if b.stage == bus.StageMature && b.probation == 0 {
		b.profile.Tail.Add(plain)
	}
	ok := quiet && max(high[bus.ClassSource], high[bus.ClassPath]) < normal
	if !ok {
		b.refused++
		return
	}
	switch {
	case b.probation > 0:
		if b.probation--; b.probation == 0 {
			if a := b.alerts.get(bus.ClassProfile); a != nil && a.Kind == refusedKind {
				b.alerts.finish(now, a, bus.OutcomeCalm)
			}
			b.tell(now, gk.EventProfileStage, map[string]string{"stage": string(b.stage), "version": fmt.Sprint(b.profile.Version), "probation": "over"})
		}
		b.margins()
	case b.stage == bus.StageMature:
		b.adapt(now, w)
	}
	if b.stage == bus.StageProvisional {
		if b.observe(w); b.learned >= hops(b.cfg.Learn) {
			b.mature(now)
		}
	}
}

// alarm answers a verdict that is news.
func (b *behaviour) alarm(now time.Time, planned bool) {
	a := bus.Alert{Class: bus.Class(b.verdict.Class), Kind: b.verdict.Kind, Score: b.verdict.Score, Evidence: b.evidence(), Code: b.verdict.Code}
	if a.Class == bus.ClassPath {
		if b.path.since.IsZero() {
			b.path = pathEpisode{since: now, alert: a}
		} else if len(b.path.alert.Evidence) < maxEvidence {
			b.path.alert.Evidence = append(b.path.alert.Evidence, a.Evidence...)
		}
		return
	}
	a = b.explained(now, a)
	if planned {
		a.Response, a.Done, a.Severity = bus.RespondShow, bus.DonePlanned, "notice"
	}
	b.raise(now, a)
}

// evidence is what the verdict rests on, in words, the strongest first.
func (b *behaviour) evidence() []string {
	var all []string
	for _, e := range append([]detect.Evidence{b.verdict.Evidence}, b.verdict.Others...) {
		if e.Text != "" {
			all = append(all, e.Kind+": "+e.Text)
		}
	}
	return all
}

// raise opens an alert by the response table, and orders what it says.
func (b *behaviour) raise(now time.Time, a bus.Alert) {
	if a.Response == "" {
		a.Response = b.response(a.Class)
	}
	if a.Response == bus.RespondShow && a.Done == "" {
		return
	}
	a.Stage = b.stage
	if a.Session.IsZero() {
		a.Session, a.Epoch = b.session, b.epoch
	}
	news := b.alerts.get(a.Class) == nil
	if have := b.alerts.get(a.Class); have != nil && have.Kind == announcedKind {
		// What was announced shows. Unless the key was changed with it, it is now.
		have.Kind, news = a.Kind, have.Done == bus.DoneAnnounced
		b.alerts.tell(now, gk.EventAlertChanged, have)
	}
	if a.Done == "" {
		a.Done = bus.DoneAlerted
		if a.Response == bus.RespondHold {
			a.Done = bus.DoneHeld
		}
	}
	have := b.alerts.raise(now, a)
	if news && have.Class == bus.ClassSource && have.Response == bus.RespondRotate {
		if p := b.alerts.get(bus.ClassProof); p != nil && p.Done == bus.DoneRotated && now.Sub(p.RotatedAt) < proofShows {
			// What a thief sent under the key before is still in the windows.
			have.Done, have.Rotated, have.RotatedAt, have.Took = p.Done, p.Rotated, p.RotatedAt, p.Took
			b.alerts.tell(now, gk.EventAlertChanged, have)
			return
		}
		if b.rotationsLeft(now) == 0 {
			b.alerts.rotation(now, gk.Event{Kind: gk.EventBudgetSpent, Reason: gk.ReasonSource})
			return
		}
		b.out.rotate = true
	}
}

func (b *behaviour) response(c bus.Class) bus.Response {
	if r, ok := b.cfg.Responses[c]; ok {
		return r
	}
	return bus.RespondAlert
}

// follow takes the episodes on that are open: they end in calm, grow into an alert,
// or become a question.
// Of what is expected, for now, nobody is asked; and what settles has not ended yet.
func (b *behaviour) follow(now time.Time, high map[bus.Class]float64, expected, settles bool) {
	if a := b.alerts.get(bus.ClassSource); a != nil {
		switch {
		case b.calm[bus.ClassSource] >= calmHops && !(settles && a.Announced != ""):
			outcome := bus.OutcomeCalm
			if a.Done == bus.DonePlanned || a.Announced != "" && b.announced.running(now) {
				outcome = bus.OutcomeAccepted
			}
			b.announced.until = time.Time{}
			b.alerts.finish(now, a, outcome)
		case high[bus.ClassSource] >= 1:
			b.alerts.see(now, a, high[bus.ClassSource], b.evidence()...)
		}
		if a.Closed.IsZero() && a.Outcome != bus.OutcomeUnresolved && !expected && now.Sub(a.Opened) >= b.cfg.AskAfter && now.Sub(b.hot) < time.Second {
			b.ask(now, a)
		}
	}
	if b.path.since.IsZero() || b.path.alert.Kind == outageKind {
		return
	}
	if b.calm[bus.ClassPath] >= calmHops {
		b.path = pathEpisode{}
		b.alerts.close(now, bus.ClassPath, bus.OutcomeCalm)
		return
	}
	if b.alerts.get(bus.ClassPath) == nil && now.Sub(b.path.since) >= b.cfg.PathAfter {
		b.raise(now, b.path.alert)
	}
	if a := b.alerts.get(bus.ClassPath); a != nil && high[bus.ClassPath] >= 1 {
		b.alerts.see(now, a, high[bus.ClassPath])
	}
}

// ask turns an alert whose evidence stays into a question: no key answers it.
func (b *behaviour) ask(now time.Time, a *bus.Alert) {
	id := string(b.alerts.stream)
	a.Outcome, a.Severity = bus.OutcomeUnresolved, severities[a.Class]
	a.Ask = "the source stays as it is now. If it was changed on purpose: gaitkeeper profile relearn " + id + ", or profile approve " + id + " if it may be either from now on. If not, look at the encoder, and revoke the device if it is not yours any more"
	if a.Announced != "" {
		a.Ask = "its device announced a change (" + a.Announced + "), and " + a.Ask
	}
	b.alerts.tell(now, gk.EventAlertChanged, a)
}

// proof takes a transport's evidence that somebody else has an epoch's key, while
// current is in use. It says whether the key is to be changed.
func (b *behaviour) proof(now time.Time, p bus.Proof, current gk.Epoch) (rotate bool) {
	b.raise(now, bus.Alert{Class: bus.ClassProof, Session: p.Session, Epoch: p.Epoch, Kind: p.What, Score: 1, Evidence: []string{
		fmt.Sprintf("%s: %s: somebody else has the key of epoch %d (packet %d)", p.What, cmp.Or(p.Words(), "a packet sealed with the stream's key that the device cannot have sent"), p.Epoch, p.Index),
	}})
	rotate = b.response(bus.ClassProof) == bus.RespondRotate
	if a := b.alerts.get(bus.ClassProof); a != nil && rotate && a.Done == bus.DoneAlerted && p.Epoch < current {
		// The key was changed before, for whatever reason.
		a.Done, a.Rotated, a.RotatedAt, a.Outcome = bus.DoneRotated, current, now, bus.OutcomeStaleProven
		b.alerts.tell(now, gk.EventAlertChanged, a)
	}
	return rotate
}

// event takes what the protocol's state machine told of the stream.
func (b *behaviour) event(now time.Time, e gk.Event) {
	switch e.Kind {
	case gk.EventRotationDecided, gk.EventRotationDone, gk.EventBudgetSpent:
		b.alerts.rotation(now, e)
		if e.Kind == gk.EventRotationDecided && e.Reason == gk.ReasonDiscontinuity {
			b.broke(now)
		}
	case gk.EventIdentity:
		b.raise(now, bus.Alert{Class: bus.ClassIdentity, Kind: "second-session", Score: 1, Evidence: []string{
			"the device's identity asks for a second session, " + e.Detail["newcomer"] + ", while the first one sends: it is kept out",
		}, Ask: "if the device was not restarted, its identity was copied: revoke it and enrol it anew"})
	}
}
