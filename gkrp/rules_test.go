package gkrp

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// running is a device whose session runs under epoch 5, granted under term 7.
func running(t *testing.T) (*Device, func(stream gk.StreamID, e gk.Epoch, term uint64) []Effect) {
	t.Helper()
	d, _ := NewDevice(t0, Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0}, Suites: []Suite{1}}, time.Second, time.Minute)
	d.stage = DeviceRunning
	grant := func(stream gk.StreamID, e gk.Epoch, term uint64) []Effect {
		g := &Grant{Stream: stream, Session: testSession, Epoch: e, Term: term, Envelope: []byte{1}}
		return d.Step(t0, Heard{Message: g, Payload: must(Encode(g))})
	}
	if fx := grant("cam-1", 5, 7); len(fx) != 1 {
		t.Fatalf("%v", fx)
	}
	d.Step(t0, Installed{Epoch: 5, Confirm: make([]byte, 32), First: 1})
	return d, grant
}

// A GRANT of an earlier owner, or of another stream, installs nothing and repeats nothing.
func TestGrantsThatAreIgnored(t *testing.T) {
	d, grant := running(t)
	for _, row := range []struct {
		name   string
		stream gk.StreamID
		epoch  gk.Epoch
		term   uint64
		fx     int
	}{
		{"an earlier term", "cam-1", 6, 6, 0},
		{"an earlier term, of the epoch in use", "cam-1", 5, 6, 0},
		{"another stream", "cam-2", 6, 7, 0},
		{"the epoch in use again", "cam-1", 5, 7, 1},
		{"an earlier epoch", "cam-1", 4, 7, 0},
		{"the next", "cam-1", 6, 8, 1},
		{"the next again, of the term before", "cam-1", 7, 7, 0},
	} {
		if fx := grant(row.stream, row.epoch, row.term); len(fx) != row.fx {
			t.Errorf("%s: %v", row.name, fx)
		}
	}
	if d.Epoch() != 5 {
		t.Errorf("epoch %d", d.Epoch())
	}
}

// Reports that a broker repeats or brings late change nothing.
func TestOldReportsAreIgnored(t *testing.T) {
	s := begun(t, t0)
	report := func(n uint64, to gk.Index) int {
		return len(s.Step(t0, Heard{Message: &Report{Stream: "cam-1", Session: testSession, Number: n, Epoch: 5, To: to, Packets: uint64(to)}}))
	}
	if report(3, 300) == 0 {
		t.Error("the first is ignored")
	}
	for _, n := range []uint64{0, 1, 2, 3} {
		if report(n, 900) != 0 || s.Near != 300 {
			t.Errorf("report %d after report 3 is taken: near %d", n, s.Near)
		}
	}
	if report(4, 400) == 0 || s.Near != 400 {
		t.Error("the next is ignored")
	}
}

// A key that comes for an epoch asked for by "the one after" must be above the epoch in use.
func TestReleasedKeyOfTheEpochInUse(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	want(t, "the epoch in use", s.Step(t0, released(5)), "")
	want(t, "an earlier one", s.Step(t0, released(4)), "")
	want(t, "the next", s.Step(t0, released(6)), "arm(t1,6) arm(t2,6)")
}

// REFILL and REJECT go both ways: what goes down is nothing that came up.
func TestReflectedMessagesAreMalformed(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	signer := must(NewSigner(key))
	scope := Scope{Device: "cam-1", Stream: "cam-1"}
	for _, m := range []Message{&Refill{Stream: "cam-1", Session: testSession}, &Reject{Session: testSession, Regarding: make([]byte, 32), Code: CodeBusy}} {
		down := must(Sign(signer, []byte("p"), []byte{1}, scope, m))
		up := must(Sign(signer, []byte("d"), nil, scope, m))
		if _, err := Parse(down, Up); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s of a service, sent back to it: %v", m.Type(), err)
		}
		if _, err := Parse(up, Down); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s of a device, sent back to it: %v", m.Type(), err)
		}
		if _, err := Parse(up, Up); err != nil {
			t.Error(err)
		}
	}
}

// A lease names 1 to [MaxLeaseSessions] sessions, a transport and a mark of 16 to 64 bytes.
func TestLeasesAreBounded(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(nil)
	signer, verifier := must(NewSigner(key)), must(NewVerifier(public))
	for _, row := range []struct {
		name      string
		transport gk.TransportID
		mark      int
		sessions  int
		ok        bool
	}{
		{"least", "t", 16, 1, true}, {"most", "t", 64, MaxLeaseSessions, true}, {"no session", "t", 32, 0, false},
		{"a session too many", "t", 32, MaxLeaseSessions + 1, false}, {"a short mark", "t", 15, 1, false},
		{"a long mark", "t", 65, 1, false}, {"no transport", "", 32, 1, false},
	} {
		wire := must(SignLease(signer, []byte("kms"), &Lease{
			Transport: row.transport, Mark: bytes.Repeat([]byte{1}, row.mark), ForMs: 1, Sessions: make([]LeaseSession, row.sessions),
		}))
		if _, err := OpenLease(verifier, wire); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
