package processing

import (
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// A device that runs its encoder itself says when it began it anew, and in which regime
// it has it run. Nobody before or behind the device can say so; whoever has the device
// can. So its word excuses nothing: an announcement opens an alert of its own, at once,
// which takes up what the detectors find for half a minute. Where the source is by then
// as the profile has it, or as the regime of the announced name, the alert ends as
// accepted. Where it is not, an operator is asked as of any change, and nothing is
// learned before his answer. The key is changed once, because the device asked for that
// with the break in its packets (renew), as it does without any announcement.

const (
	// announcedKind is the alert of an announcement that no detector has seen yet.
	announcedKind = "announced"
	// announcedFor is how long an announcement is good for, from the change on.
	announcedFor = 30 * time.Second
	// refusedEvery is the least time between two events about announcements refused.
	refusedEvery = time.Minute
)

// Announcements gives the budget for n announcements an hour; none for 0.
func Announcements(n int) gkrp.Budget {
	if n <= 0 {
		return gkrp.Budget{}
	}
	return gkrp.Budget{Burst: n, Every: time.Hour / time.Duration(n)}
}

// announced is what a stream's device said of its encoder.
type announced struct {
	session gk.SessionID // zero: nothing yet
	changes uint64       // the most
	why     gkrp.Why
	regime  string
	at      time.Time // of the last change
	until   time.Time // of the announcement in force; zero: none is
	settle  int       // windows until what detectors look back on is new
	taken   uint64
	refused uint64
	budget  gkrp.Budget
	told    time.Time // of a refusal
}

// running reports whether an announcement is in force.
func (g *announced) running(now time.Time) bool { return now.Before(g.until) }

// heardEncoder takes a device's word that came with a report, which was late by so much
// at least. A change is news once in a session.
func (b *behaviour) heardEncoder(now time.Time, session gk.SessionID, e *gkrp.Encoder, late time.Duration) {
	if b.stage == bus.StageLoading {
		return // the next report says it again
	}
	g := &b.announced
	first, before := session != g.session, g.changes
	if first {
		*g, before = announced{session: session, budget: g.budget, told: g.told, until: g.until, settle: g.settle}, 0
	}
	if !first && e.Changes <= before {
		return
	}
	g.changes, g.why, g.regime = e.Changes, e.Why, e.Regime
	if first {
		b.declare()
	}
	if e.Changes == 0 {
		return
	}
	age := time.Duration(e.AgoMs)*time.Millisecond + late
	g.at = now.Add(-age)
	switch {
	case b.cfg.Announced.Burst == 0:
		g.refused++ // the operator's will, which explain shows
	case age >= announcedFor && first:
		// From before this instance, or this session, watched the stream.
	case age >= announcedFor:
		b.refuseAnnouncement(now, fmt.Sprintf("it came %.0f s after the change", age.Seconds()))
	case !g.budget.Take(now):
		b.refuseAnnouncement(now, fmt.Sprintf("the device has announced %d changes in an hour", b.cfg.Announced.Burst))
	default:
		b.accept(now, age)
	}
}

// accept lets an announcement be in force.
func (b *behaviour) accept(now time.Time, age time.Duration) {
	g := &b.announced
	g.taken++
	g.until, g.settle = now.Add(announcedFor-age), excusedHops
	known := b.declare()
	b.excused = max(b.excused, excusedHops)
	b.margins()
	b.calm[bus.ClassSource] = 0
	b.alerts.dirty = true // what is left of the budget is stored with them
	b.tell(now, gk.EventPlannedChange, map[string]string{
		"by": "device", "why": string(g.why), "regime": g.regime, "for": (announcedFor - age).Round(time.Millisecond).String(),
	})
	if b.judge == nil || now.Before(b.planned) || b.response(bus.ClassSource) == bus.RespondShow {
		return // nothing judges the source, or an operator has spoken
	}
	line := fmt.Sprintf("%s: the device began its encoder anew %.1f s ago (%s)", announcedKind, age.Seconds(), orUntold(string(g.why)))
	switch {
	case g.regime == "":
	case known:
		line += ", in the regime " + g.regime + ", which is known"
	default:
		line += ", in the regime " + g.regime + ", of which nothing is known yet"
	}
	a := b.alerts.get(bus.ClassSource)
	if a == nil {
		b.alerts.raise(now, bus.Alert{
			Class: bus.ClassSource, Kind: announcedKind, Severity: "notice", Session: g.session, Epoch: b.epoch, Stage: b.stage,
			Response: b.response(bus.ClassSource), Done: bus.DoneAnnounced, Evidence: []string{line}, Announced: orUntold(string(g.why)), Regime: g.regime,
		})
		return
	}
	b.alerts.see(now, a, 0, line)
	// What the detectors saw of the change before its announcement is of it, too; a
	// question that is asked already is not answered by the device.
	if a.Announced == "" && (a.Outcome == bus.OutcomeUnresolved || a.Session != g.session || g.at.Sub(a.Opened) > announcedFor) {
		return
	}
	if a.Outcome != bus.OutcomeUnresolved {
		a.Announced, a.Regime = orUntold(string(g.why)), g.regime
	}
	b.alerts.tell(now, gk.EventAlertChanged, a)
}

func orUntold(why string) string {
	if why == "" {
		return "no cause told"
	}
	return why
}

// refuseAnnouncement counts an announcement that changes nothing, and tells of it, not
// more often than once a minute.
func (b *behaviour) refuseAnnouncement(now time.Time, cause string) {
	g := &b.announced
	g.refused++
	if !g.told.IsZero() && now.Sub(g.told) < refusedEvery {
		return
	}
	g.told = now
	b.tell(now, gk.EventAnnouncementRefused, map[string]string{
		"cause": cause, "why": string(g.why), "regime": g.regime, "refused": fmt.Sprint(g.refused),
	})
}

// declare has the source judged by the regime that its device names, where the profile
// has one of that name. The engine goes on to another at once where that fits better.
func (b *behaviour) declare() (known bool) {
	g := &b.announced
	return g.session == b.session && g.regime != "" && b.judge != nil && b.stage == bus.StageMature && b.judge.Choose(g.regime)
}

// regimeName names what is learned now: as the device does, or by the time of day.
func (b *behaviour) regimeName(now time.Time) string {
	if g := &b.announced; g.session == b.session && g.regime != "" {
		return g.regime
	}
	return modeName(now)
}

// settles counts a judged window, and reports whether the source of an announced alert
// has yet to show what it is now.
func (b *behaviour) settles(now time.Time, w *feature.Window) bool {
	g := &b.announced
	if g.settle > 0 && w.Packets > 0 {
		g.settle--
	}
	return g.settle > 0 && g.running(now)
}

// encoderInfo is the device's word for profile and explain; nil where there is none.
func (b *behaviour) encoderInfo(now time.Time) *bus.Encoder {
	g := &b.announced
	if g.session.IsZero() || g.session != b.session {
		return nil
	}
	e := &bus.Encoder{Regime: g.regime, Changes: g.changes, Why: string(g.why), Taken: g.taken, Refused: g.refused, Left: g.budget.Left(now)}
	if g.changes > 0 {
		e.At = g.at
	}
	if g.running(now) {
		e.Until = g.until
	}
	for _, m := range b.profile.Modes {
		e.Known = e.Known || m.Name == g.regime && g.regime != ""
	}
	return e
}
