package gkrp

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

func TestDeviceRefusesAWelcomeThatIsNotAnAnswer(t *testing.T) {
	for name, f := range map[string]func(w *Welcome){
		"another hello":         func(w *Welcome) { w.HelloHash = make([]byte, 32) },
		"another session":       func(w *Welcome) { w.Session[0]++ },
		"another stream":        func(w *Welcome) { w.Stream = "other" },
		"a shortened offer":     func(w *Welcome) { w.Suites = w.Suites[1:] },
		"a suite not offered":   func(w *Welcome) { w.Suite = 9 },
		"a version not offered": func(w *Welcome) { w.Version = 9 },
	} {
		d, fx := NewDevice(t0, Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0}, Suites: []Suite{1, 2}}, time.Second, time.Minute)
		h := fx[0].(Send).Message.(*Hello)
		fx = d.Step(t0, Heard{Message: &Challenge{Session: testSession, HelloHash: Hash(must(Encode(h))), Nonce: make([]byte, 16)}})
		proven := fx[0].(Send).Message.(*Hello)
		w := &Welcome{
			Session: testSession, HelloHash: Hash(must(Encode(proven))), Versions: []Version{0}, Suites: []Suite{1, 2}, Suite: 1, Stream: "cam-1",
			Transports: []string{"a:1"}, Grant: must(Encode(&Grant{Stream: "cam-1", Session: testSession, Epoch: 1, Envelope: []byte{1}})),
		}
		bad := *w
		f(&bad)
		if got := d.Step(t0, Heard{Message: &bad}); len(got) != 0 || d.Stage() == DeviceRunning {
			t.Errorf("%s: accepted", name)
		}
		if got := d.Step(t0, Heard{Message: w}); len(got) != 2 {
			t.Errorf("%s: the right one was then refused", name)
		}
	}
}

func TestDeviceAnswersARepeatedGrantWithItsStoredAck(t *testing.T) {
	d := &Device{hello: Hello{Stream: "cam-1", Session: testSession}, stage: DeviceRunning, hashes: map[gk.Epoch][]byte{}}
	grant := func(e gk.Epoch) Heard {
		g := &Grant{Stream: "cam-1", Session: testSession, Epoch: e, Envelope: []byte{1}}
		return Heard{Message: g, Payload: must(Encode(g))}
	}
	var acks []Message
	for e := gk.Epoch(1); e <= 20; e++ {
		if fx := d.Step(t0, grant(e)); len(fx) != 1 || fx[0].(Install).Epoch != e {
			t.Fatalf("grant %d: %v", e, fx)
		}
		if fx := d.Step(t0, grant(e)); len(fx) != 0 {
			t.Fatalf("grant %d while installing: %v", e, fx)
		}
		fx := d.Step(t0, Installed{Epoch: e, Confirm: make([]byte, 32), First: gk.Index(e)})
		acks = append(acks, fx[0].(Send).Message)
	}
	for e := gk.Epoch(5); e <= 20; e++ {
		if fx := d.Step(t0, grant(e)); len(fx) != 1 || fx[0].(Send).Message != acks[e-1] {
			t.Errorf("epoch %d: %v", e, fx)
		}
	}
	if fx := d.Step(t0, grant(2)); len(fx) != 0 {
		t.Errorf("an epoch long gone: %v", fx)
	}
}

// A device that heeds a later term than the session's says so in its reports.
func TestDeviceThatHeedsALaterTerm(t *testing.T) {
	s := begun(t, t0)
	outranked := func(n, term uint64) (yes bool) {
		for _, fx := range s.Step(t0, Heard{Message: &Report{Session: testSession, Number: n, Epoch: 5, Term: term}}) {
			_, is := fx.(Outranked)
			yes = yes || is
		}
		return yes
	}
	if outranked(1, 0) || outranked(2, s.Term) || !outranked(3, s.Term+1) {
		t.Error("terms are not compared")
	}
}
