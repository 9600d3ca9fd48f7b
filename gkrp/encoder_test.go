package gkrp

import (
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

func TestNamesOfEncoders(t *testing.T) {
	for _, row := range []struct {
		e  Encoder
		ok bool
	}{
		{Encoder{}, true},
		{Encoder{Changes: 1, Why: WhyFailed, Regime: "night"}, true},
		{Encoder{Why: "a-cause_to-come"}, true},
		{Encoder{Why: "it failed"}, false},
		{Encoder{Why: Why(strings.Repeat("w", MaxWhy+1))}, false},
		{Encoder{Regime: strings.Repeat("r", MaxRegime)}, true},
		{Encoder{Regime: strings.Repeat("r", MaxRegime+1)}, false},
		{Encoder{Regime: "-night"}, false},
		{Encoder{Regime: "night\x1b[2J"}, false},
		{Encoder{Regime: "näh"}, false},
	} {
		if err := row.e.validate(); (err == nil) != row.ok {
			t.Errorf("%+v: %v", row.e, err)
		}
	}
}

// TestReportThatWasKept: a broker that keeps reports shows by the key's own age.
func TestReportThatWasKept(t *testing.T) {
	s := begun(t, t0)
	number := uint64(0)
	late := func(after time.Duration, epoch gk.Epoch, since uint64) time.Duration {
		t.Helper()
		number++
		for _, fx := range s.Step(t0.Add(after), Heard{Message: &Report{Session: testSession, Number: number, Epoch: epoch, Since: since}}) {
			if r, ok := fx.(Reported); ok {
				return r.Late
			}
		}
		t.Fatalf("report %d was not taken", number)
		return 0
	}
	for _, row := range []struct {
		name  string
		after time.Duration
		epoch gk.Epoch
		since uint64
		want  time.Duration
	}{
		{"at once", time.Second, 5, 1000, 0},
		{"its ACK took longer than it", time.Second, 5, 1200, 0},
		{"kept", 20 * time.Second, 5, 1000, 19 * time.Second},
		{"no clock", 20 * time.Second, 5, 0, 0},
		{"a clock out of all bounds", 20 * time.Second, 5, 1<<64 - 1, 0},
	} {
		if got := late(row.after, row.epoch, row.since); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	now := t0.Add(time.Minute)
	s.Step(now, Tick{})
	s.Step(now, released(6))
	s.Step(now, Armed{"t1", 6})
	s.Step(now, Armed{"t2", 6})
	s.Step(now, Recorded{5, gk.ReasonSchedule})
	s.Step(now, ackOf(s, 6, 900))
	if got := late(67*time.Second, 5, 59_000); got != 7*time.Second {
		t.Errorf("of an epoch that was replaced 7 s ago: %v", got)
	}
	taken, _ := Resume(now, s.Record, testTiming)
	s, number = taken, 0
	if got := late(2*time.Minute, 6, 1); got != 0 {
		t.Errorf("an instance that did not take the ACK: %v", got)
	}
}
