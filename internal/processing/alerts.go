package processing

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

const (
	// maxAlerts bounds what is kept of a stream; noise and path give way first.
	maxAlerts = 64
	// maxEvidence bounds the lines of one alert.
	maxEvidence = 8
	// staleFor is how long after a rotation the old key's misuse still decides what
	// the alert was.
	staleFor = 90 * time.Second
	// staleLate is when the source's own late packets have long arrived; before it,
	// staleMany are needed.
	staleLate = 2 * time.Second
	staleMany = 20
)

// alertBook holds a stream's alerts. Like the protocol's state machines it owns no
// clock: it is fed, and what it has to tell is taken out.
type alertBook struct {
	stream gk.StreamID
	number uint64      // of the last alert
	all    []bus.Alert // by number
	open   map[bus.Class]string
	heard  map[string]time.Time // when an open alert was last seen
	told   []gk.Event
	dirty  bool
	// counted is from when on a rotation counts whose alert is later than the clock,
	// which was set back since.
	counted map[string]time.Time
}

func newAlertBook(stream gk.StreamID) alertBook {
	return alertBook{stream: stream, open: map[bus.Class]string{}, heard: map[string]time.Time{}, counted: map[string]time.Time{}}
}

// restore takes up alerts that were stored, before those that were raised meanwhile.
// What was open then is closed: whoever watched it is gone, and sees it again if it goes
// on. Evidence about the source stays open, because it has had its key already.
// A change that an operator announced may be going on.
func (k *alertBook) restore(now time.Time, number uint64, all []bus.Alert, planned bool) {
	early, names := k.all, map[string]string{}
	k.number = max(k.number, number) // answers that were read before may name later ones
	for i := range early {
		names[early[i].ID] = k.next()
		early[i].ID = names[early[i].ID]
	}
	for _, e := range k.told {
		e.Detail["id"] = names[e.Detail["id"]]
	}
	for id := range k.counted {
		if !slices.ContainsFunc(all, func(a bus.Alert) bool { return a.ID == id }) {
			delete(k.counted, id)
		}
	}
	k.all, k.open, k.heard = all, map[bus.Class]string{}, map[string]time.Time{}
	for i := range k.all {
		switch a := &k.all[i]; {
		case !a.Closed.IsZero():
		case a.Class == bus.ClassSource && (planned || a.Done != bus.DonePlanned):
			k.open[a.Class], k.heard[a.ID] = a.ID, now
		default:
			k.finish(now, a, outcomeAtEnd(a))
		}
	}
	for _, a := range early {
		k.keep(a)
		if a.Closed.IsZero() {
			k.open[a.Class], k.heard[a.ID] = a.ID, now
		}
	}
}

// next gives the name of the next alert.
func (k *alertBook) next() string {
	k.number++
	return fmt.Sprintf("%s.%d", k.stream, k.number)
}

// keep adds an alert, and drops another where there are too many.
func (k *alertBook) keep(a bus.Alert) *bus.Alert {
	if len(k.all) >= maxAlerts {
		k.drop()
	}
	k.all = append(k.all, a)
	return &k.all[len(k.all)-1]
}

// numberOf is the number in the name of an alert, 0 for what is none.
func numberOf(id string) uint64 {
	n, err := strconv.ParseUint(id[strings.LastIndexByte(id, '.')+1:], 10, 32)
	if err != nil {
		return 0
	}
	return n
}

// get finds an open alert of a class.
func (k *alertBook) get(c bus.Class) *bus.Alert {
	id, ok := k.open[c]
	if !ok {
		return nil
	}
	return k.find(id)
}

func (k *alertBook) find(id string) *bus.Alert {
	i := slices.IndexFunc(k.all, func(a bus.Alert) bool { return a.ID == id })
	if i < 0 {
		return nil
	}
	return &k.all[i]
}

var severities = map[bus.Class]string{
	bus.ClassProof: "critical", bus.ClassProfile: "critical", bus.ClassSource: "warning",
	bus.ClassIdentity: "warning", bus.ClassPath: "notice", bus.ClassNoise: "notice",
}

// raise opens an alert, or adds to the one of its class that is open.
func (k *alertBook) raise(now time.Time, a bus.Alert) *bus.Alert {
	if have := k.get(a.Class); have != nil {
		k.see(now, have, a.Score, a.Evidence...)
		return have
	}
	a.ID, a.Stream, a.Opened, a.Count = k.next(), k.stream, now, 1
	a.Evidence = a.Evidence[:min(len(a.Evidence), maxEvidence)]
	if a.Severity == "" {
		a.Severity = severities[a.Class]
	}
	have := k.keep(a)
	k.open[a.Class], k.heard[a.ID] = a.ID, now
	k.tell(now, gk.EventAlertOpened, have)
	return have
}

// drop makes room: the oldest closed one of what matters least. The newest that count
// against the budget of rotations stay: a flood of others must not earn it back.
func (k *alertBook) drop() {
	spent := map[string]bool{}
	for i := len(k.all) - 1; i >= 0 && len(spent) < tune.MostBurst; i-- {
		if spends(&k.all[i]) {
			spent[k.all[i].ID] = true
		}
	}
	for _, least := range []func(a *bus.Alert) bool{
		func(a *bus.Alert) bool { return a.Class == bus.ClassNoise },
		func(a *bus.Alert) bool { return a.Class == bus.ClassPath },
		func(a *bus.Alert) bool { return a.Announced != "" && a.Outcome == bus.OutcomeAccepted && !spent[a.ID] },
		func(a *bus.Alert) bool { return !spent[a.ID] },
	} {
		i := slices.IndexFunc(k.all, func(a bus.Alert) bool { return !a.Closed.IsZero() && least(&a) })
		if i >= 0 {
			delete(k.counted, k.all[i].ID)
			k.all = slices.Delete(k.all, i, i+1)
			return
		}
	}
}

// spends reports whether an alert counts against the budget of rotations by evidence
// about the source: it changed the key, and nothing says that it was real.
func spends(a *bus.Alert) bool {
	return a.Class == bus.ClassSource && (a.Done == bus.DoneRotated || a.Done == bus.DoneOrdered) &&
		a.Answer != bus.AnswerReal && a.Outcome != bus.OutcomeStaleProven
}

// spentAt is from when on the rotation of an alert counts against the budget. What the
// clock was set back behind counts from when that is noticed, which is written down:
// else it would count for as long as the clock was wrong, or not at all.
func (k *alertBook) spentAt(now time.Time, a *bus.Alert) time.Time {
	at := a.Opened
	if c, ok := k.counted[a.ID]; ok {
		at = c
	}
	if at.After(now) {
		at = now
		k.counted[a.ID], k.dirty = now, true
	}
	return at
}

// recount takes up what was written down of spentAt, before the alerts themselves.
func (k *alertBook) recount(counted map[string]time.Time) { maps.Copy(k.counted, counted) }

// see notes that an alert's cause was seen again. Evidence is a line for each kind,
// which stands in front of a colon.
func (k *alertBook) see(now time.Time, a *bus.Alert, score float64, evidence ...string) {
	a.Count++
	a.Score = max(a.Score, score)
	if a.Closed.IsZero() {
		k.heard[a.ID] = now
	}
	for _, e := range evidence {
		kind, _, _ := strings.Cut(e, ":")
		i := slices.IndexFunc(a.Evidence, func(have string) bool { return strings.HasPrefix(have, kind+":") })
		switch {
		case i >= 0:
			a.Evidence[i] = e // the newest numbers
		case len(a.Evidence) < maxEvidence:
			a.Evidence = append(a.Evidence, e)
			k.dirty = true
		}
	}
}

// close ends the open alert of a class.
func (k *alertBook) close(now time.Time, c bus.Class, outcome bus.Outcome) {
	if a := k.get(c); a != nil {
		k.finish(now, a, outcome)
	}
}

func (k *alertBook) finish(now time.Time, a *bus.Alert, outcome bus.Outcome) {
	a.Closed = now
	if a.Outcome != bus.OutcomeStaleProven {
		a.Outcome = outcome
	}
	delete(k.open, a.Class)
	delete(k.heard, a.ID)
	k.tell(now, gk.EventAlertClosed, a)
}

// quiet reports whether nothing was seen of the open alert of a class for so long.
func (k *alertBook) quiet(now time.Time, c bus.Class, long time.Duration) bool {
	a := k.get(c)
	return a != nil && now.Sub(k.heard[a.ID]) >= long
}

// rotation notes what became of the rotations that alerts asked for.
func (k *alertBook) rotation(now time.Time, e gk.Event) {
	if e.Reason == gk.ReasonDiscontinuity {
		k.renewed(now, e)
		return
	}
	class, ok := map[gk.Reason]bus.Class{gk.ReasonProof: bus.ClassProof, gk.ReasonSource: bus.ClassSource}[e.Reason]
	if !ok {
		return
	}
	a := k.get(class)
	if a == nil || a.Response != bus.RespondRotate {
		return
	}
	switch e.Kind {
	case gk.EventRotationDecided:
		a.Done = bus.DoneOrdered
	case gk.EventBudgetSpent:
		a.Done = bus.DoneNoBudget
		a.Ask = "the rotations that evidence may cause are used up: look at the stream, and rotate by hand if in doubt (gaitkeeper rotate " + string(k.stream) + ")"
	case gk.EventRotationDone:
		a.Done, a.Rotated, a.RotatedAt, a.Took = bus.DoneRotated, e.Epoch, now, int64(e.Took)
	default:
		return
	}
	k.tell(now, gk.EventAlertChanged, a)
}

// renewed notes a key that was changed because the device asked for it with the break in
// its packets: a change that it announced needs no other.
func (k *alertBook) renewed(now time.Time, e gk.Event) {
	a := k.get(bus.ClassSource)
	if e.Kind != gk.EventRotationDone || a == nil || a.Announced == "" || a.Rotated != 0 || a.Response != bus.RespondRotate {
		return
	}
	a.Done, a.Rotated, a.RotatedAt, a.Took = bus.DoneRenewed, e.Epoch, now, int64(e.Took)
	k.tell(now, gk.EventAlertChanged, a)
}

// stale notes n packets more that were authentic under a key that serves no more.
func (k *alertBook) stale(now time.Time, session gk.SessionID, n uint64) {
	for i := range k.all {
		a := &k.all[i]
		since := now.Sub(a.RotatedAt)
		if a.Rotated == 0 || a.Session != session || a.Outcome == bus.OutcomeStaleProven || since > staleFor || since < staleLate && n < staleMany {
			continue
		}
		a.Outcome = bus.OutcomeStaleProven
		k.see(now, a, a.Score, fmt.Sprintf("%d packets came under the old key after the switch: somebody else has it", n))
		k.tell(now, gk.EventAlertChanged, a)
	}
}

// tell leaves an event about an alert.
func (k *alertBook) tell(now time.Time, kind gk.EventKind, a *bus.Alert) {
	k.dirty = true
	detail := map[string]string{
		"id": a.ID, "class": string(a.Class), "kind": a.Kind, "severity": a.Severity,
		"score": fmt.Sprintf("%.2f", a.Score), "response": string(a.Response), "done": string(a.Done),
	}
	if len(a.Evidence) > 0 {
		detail["evidence"] = a.Evidence[0]
	}
	if a.Outcome != "" {
		detail["outcome"] = string(a.Outcome)
	}
	if a.Announced != "" {
		detail["announced"] = a.Announced
	}
	if a.Ask != "" {
		detail["ask"] = a.Ask
	}
	k.told = append(k.told, gk.Event{Kind: kind, At: now, Stream: k.stream, Session: a.Session, Epoch: a.Epoch, Detail: detail})
}
