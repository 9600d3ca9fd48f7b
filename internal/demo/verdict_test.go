package demo

import (
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// played is a story whose events are given instead of happening: a camera sends 40
// packets, the attack begins behind the 20th and the key changes at index 30.
func played(t *testing.T, name, place string, tell func(s *story, onset time.Time)) Summary {
	t.Helper()
	k, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d := &demo{meter: newMeter()}
	d.meter.begin(began)
	s := newStory(d, k, place)
	d.story = s
	onset := began.Add(20 * time.Second)
	s.footage.frozen, s.froze, s.over, s.finished = time.Second, onset, onset.Add(5*time.Second), true
	for i := gk.Index(1); i <= 40; i++ {
		p := []byte{byte(i)}
		d.meter.entered(p)
		d.sealed(i, p)
		s.account.delivered(i, p)
		d.meter.delivered(p)
	}
	tell(s, onset)
	return d.summary()
}

func alarm(class string, at time.Time) gk.Event {
	return gk.Event{Kind: gk.EventAlertOpened, At: at, Detail: map[string]string{"id": class, "class": class, "evidence": "seen", "response": "rotate"}}
}

func rotate(s *story, at time.Time) {
	s.device(gk.Event{Kind: gk.EventRotationDone, Epoch: 2, At: at})
	s.service(gk.Event{Kind: gk.EventEpochFirstPacket, Epoch: 2, Index: 30, At: at.Add(time.Millisecond)})
	s.service(gk.Event{Kind: gk.EventRotationDone, Epoch: 2, Index: 30, Reason: gk.ReasonSource, At: at.Add(2 * time.Millisecond)})
}

// The verdict knows what is promised of each kind, and notices when it is broken.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, kind, place string
		tell              func(s *story, onset time.Time)
		fault             string
		alarms            uint64
	}{
		{"as promised", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(1010*time.Millisecond))
		}, "", 0},
		{"no alert", "swap", Input, func(s *story, o time.Time) { rotate(s, o.Add(time.Second)) }, "there was none", 0},
		{"no new key", "swap", Input, func(s *story, o time.Time) { s.service(alarm("source", o.Add(time.Second))) }, "the key was not changed", 0},
		{"another class", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("noise", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
		}, "class noise", 0},
		{"the path speaks first", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("path", o.Add(time.Second/2)))
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
		}, "", 0},
		{"an alarm before", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("source", o.Add(-time.Second)))
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
		}, "false alarm", 1},
		{"an alarm long after", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
			s.service(alarm("path", o.Add(time.Minute)))
		}, "false alarm", 1},
		{"nothing for a relay", "mitm", Path, func(*story, time.Time) {}, "", 0},
		{"a path alert for a relay", "mitm", Path, func(s *story, o time.Time) { s.service(alarm("path", o.Add(time.Second))) }, "", 0},
		{"a relay is taken for another source", "mitm", Path, func(s *story, o time.Time) {
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
		}, "for an attack that no key answers", 1},
		{"two alerts for an outsider", "outsider", Aside, func(s *story, o time.Time) {
			s.service(alarm("noise", o.Add(time.Second)))
			s.service(alarm("noise", o.Add(2*time.Second)))
		}, "an outsider caused 2 alerts", 0},
		{"a held session", "outsider", Aside, func(s *story, o time.Time) {
			s.service(alarm("noise", o.Add(time.Second)))
			s.service(gk.Event{Kind: gk.EventIdentity, At: o})
		}, "held or refused", 0},
		{"lost behind the switch", "swap", Input, func(s *story, o time.Time) {
			s.service(alarm("source", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
			s.demo.sealed(41, []byte{41})
			s.demo.meter.entered([]byte{41})
		}, "1 of the camera's packets were lost after the switch", 0},
		{"foreign behind the switch", "inject", Aside, func(s *story, o time.Time) {
			s.service(alarm("proof", o.Add(time.Second)))
			rotate(s, o.Add(2*time.Second))
			s.account.delivered(35, []byte("not the camera's"))
		}, "not the camera's were delivered after the switch", 0},
		{"not told to its end", "swap", Input, func(s *story, _ time.Time) { s.finished = false }, "before the story's end", 0},
	} {
		sum := played(t, c.kind, c.place, c.tell)
		if fault := sum.Fault(); c.fault == "" && fault != "" || !strings.Contains(fault, c.fault) || sum.FalseAlarms != c.alarms {
			t.Errorf("%s: fault is %q, want %q; %d false alarms, want %d", c.name, fault, c.fault, sum.FalseAlarms, c.alarms)
		}
		if a := sum.Attacks[0]; *a.OnsetMS != 20_000 || c.name == "as promised" && (*a.AlarmMS != 21_000 || a.Ready() != 1010*time.Millisecond || *a.LockedOutMS != 21_011) {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
}
