package demo

import (
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Attack is what came of one attack. Times are milliseconds since the first packet
// entered the device; null where it did not happen.
type Attack struct {
	Kind        string   `json:"kind"`
	From        string   `json:"from"`
	Class       string   `json:"class"`         // of the alert; none: empty
	OnsetMS     *float64 `json:"onset_ms"`      // the attacker's first packet
	AlarmMS     *float64 `json:"alarm_ms"`      // the alert was opened
	RotatedMS   *float64 `json:"rotated_ms"`    // the device sends under the new key
	LockedOutMS *float64 `json:"locked_out_ms"` // the transport opened its first packet: the old key is worth nothing
	Response    string   `json:"response"`
	Evidence    string   `json:"evidence"`
}

// Ready is the time from the attacker's first packet to the device's readiness
// under the new key; 0 if the key was not changed.
func (a Attack) Ready() time.Duration {
	if a.OnsetMS == nil || a.RotatedMS == nil {
		return 0
	}
	return time.Duration((*a.RotatedMS - *a.OnsetMS) * float64(time.Millisecond))
}

// conclude holds what happened against what is promised.
func (s *story) conclude(sum *Summary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := Attack{Kind: s.kind.name, From: s.place, OnsetMS: s.demo.meter.since0(s.onset())}
	if n := s.due(); n != nil {
		a.Class, a.Response, a.Evidence, a.AlarmMS = n.class, n.answer, n.evidence, s.demo.meter.since0(n.at)
	}
	var first gk.Index
	c := s.change()
	if c != nil {
		first = c.Index
		a.RotatedMS = s.demo.meter.since0(s.ready[c.Epoch])
		a.LockedOutMS = s.demo.meter.since0(s.opened[c.Epoch])
	}
	sum.Attacks = append(sum.Attacks, a)
	sum.FalseAlarms = uint64(len(s.falseAlarms()))
	b := s.account.settle(first)
	sum.Displaced, sum.LostAfterSwitch = b.displaced, b.lostAfter
	switch {
	case s.finished:
		sum.faults = append(sum.faults, s.broken(a, c, b, sum)...)
	case len(s.faults) > 0:
		sum.faults = append(sum.faults, s.faults...)
	default:
		sum.faults = append(sum.faults, "the input ended, or the run was stopped, before the story's end")
	}
	for _, n := range s.alerts {
		sum.alerts = append(sum.alerts, n.class)
	}
	if s.outsider != nil {
		st, _ := s.outsider.Stats()
		sum.forged, sum.replayed = st.Forged, st.Replayed
	}
	sum.story, sum.scenes = true, s.scenes()
	sum.promise = s.kind.promise(s.place)
}

// falseAlarms are alerts that the attack does not account for.
func (s *story) falseAlarms() (out []alertNews) {
	onset := s.onset()
	for _, n := range s.alerts {
		during := !onset.IsZero() && !n.at.Before(onset) && (s.over.IsZero() || n.at.Before(s.over.Add(aftermath)))
		if !during || !s.kind.allowed(s.place, bus.Class(n.class)) {
			out = append(out, n)
		}
	}
	return out
}

// broken lists the promises that were not kept.
func (s *story) broken(a Attack, change *gk.Event, b balance, sum *Summary) (faults []string) {
	is := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	want := s.kind.classes[s.place]
	is(a.OnsetMS == nil, "the attack did not begin")
	is(len(want) > 0 && !slices.Contains(want, bus.Class(a.Class)), "an alert of class %v was due, and there was %s", want, orNone(a.Class))
	for _, n := range s.falseAlarms() {
		is(true, "false alarm, class %s: %s", n.class, n.evidence)
	}
	if s.kind.rotates[s.place] {
		is(change == nil, "the key was not changed")
	} else {
		is(len(s.rotated) > 0, "the key was changed, for an attack that no key answers")
	}
	is(s.kind.name == "outsider" && len(s.alerts) > 1, "an outsider caused %d alerts", len(s.alerts))
	is(s.held > 0, "a session was held or refused")
	is(b.lostAfter > 0, "%d of the camera's packets were lost after the switch", b.lostAfter)
	is(b.foreignAfter > 0, "%d packets that were not the camera's were delivered after the switch", b.foreignAfter)
	is(sum.sealed != sum.PacketsSent, "the device did not send everything that entered it")
	if s.thief == nil {
		is(b.displaced > 0, "%d of the camera's packets were displaced by somebody without a key", b.displaced)
		is(b.missing > sum.dropped, "%d packets were lost, the path dropped %d", b.missing, sum.dropped)
	}
	return faults
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return "one of class " + s
}
