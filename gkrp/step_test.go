package gkrp

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var testTiming = Timing{
	Every: time.Minute, Packets: 1000, Retry: 100 * time.Millisecond, RetryMax: 2 * time.Second,
	CloseAfter: 30 * time.Second, Linger: time.Second,
	Addresses: map[gk.TransportID]string{"t1": "127.0.0.1:7004", "t2": "127.0.0.1:7005"},
}

// kinds names effects, for comparing what a step asks for.
func kinds(effects []Effect) string {
	var b bytes.Buffer
	for _, fx := range effects {
		switch fx := fx.(type) {
		case OpenKeys:
			fmt.Fprint(&b, "open ")
		case Write:
			fmt.Fprintf(&b, "write(%d,%s) ", fx.Record.Epoch, fx.Record.Pending)
		case Release:
			if fx.Epoch == 0 {
				fmt.Fprintf(&b, "release(>%d) ", fx.After)
				continue
			}
			fmt.Fprintf(&b, "release(%d) ", fx.Epoch)
		case Arm:
			fmt.Fprintf(&b, "arm(%s,%d) ", fx.Transport, fx.Epoch)
		case Send:
			fmt.Fprintf(&b, "send(%s) ", fx.Message.Type())
		case SendGrant:
			fmt.Fprint(&b, "grant ")
		case Switch:
			fmt.Fprintf(&b, "switch(%d,%d) ", fx.Epoch, fx.First)
		case Activate:
			fmt.Fprintf(&b, "activate(%d,%d) ", fx.Epoch, fx.Before)
		case Close:
			fmt.Fprint(&b, "close ")
		case Over:
			fmt.Fprintf(&b, "over(%s) ", fx.Code)
		}
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

func want(t *testing.T, what string, got []Effect, wanted string) {
	t.Helper()
	if k := kinds(got); k != wanted {
		t.Fatalf("%s: %q, want %q", what, k, wanted)
	}
}

func released(e gk.Epoch) Released {
	return Released{
		Epoch: e, Device: []byte{byte(e)}, Confirm: bytes.Repeat([]byte{byte(e)}, 32),
		Transports: map[gk.TransportID][]byte{"t1": {1, byte(e)}, "t2": {2, byte(e)}},
	}
}

func ackOf(s *Session, e gk.Epoch, first gk.Index) Heard {
	a := &Ack{Stream: s.Stream, Session: s.Record.Session, Epoch: e, Confirm: bytes.Repeat([]byte{byte(e)}, 32), First: first, Prekeys: [][]byte{{0xaa, byte(e)}}}
	if s.rot != nil {
		a.GrantHash = s.rot.hash
	}
	return Heard{Message: a}
}

// begun brings a session with two transports to its first confirmed epoch, 5.
func begun(t *testing.T, now time.Time) *Session {
	t.Helper()
	h := &Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Versions: []Version{0}, Suites: []Suite{1}, HighWater: 4, Prekeys: [][]byte{{1}, {2}, {3}, {4}}}
	s, fx := Begin(now, Record{SSRC: 9, Suite: 1, Transports: []gk.TransportID{"t1", "t2"}}, Heard{Message: h, Payload: must(Encode(h))}, testTiming)
	want(t, "begin", fx, "open")
	want(t, "opened", s.Step(now, Opened{5}), "release(5)")
	want(t, "released", s.Step(now, released(5)), "arm(t1,5) arm(t2,5)")
	want(t, "first armed", s.Step(now, Armed{"t1", 5}), "")
	want(t, "all armed", s.Step(now, Armed{"t2", 5}), "send(welcome)")
	if !s.Candidate() {
		t.Fatal("confirmed before its ACK")
	}
	want(t, "acked", s.Step(now, ackOf(s, 5, 100)), "switch(5,100) activate(5,0) write(5,)")
	return s
}

func TestOneRotationStageByStage(t *testing.T) {
	s := begun(t, t0)
	want(t, "too early", s.Step(t0.Add(59*time.Second), Tick{}), "")
	now := t0.Add(time.Minute)
	want(t, "due", s.Step(now, Tick{}), "write(5,schedule) release(>5)")
	want(t, "asked twice", s.Step(now, Rotate{Reason: gk.ReasonOperator}), "")
	want(t, "an earlier record", s.Step(now, Recorded{4, gk.ReasonSchedule}), "")
	want(t, "released", s.Step(now, released(6)), "arm(t1,6) arm(t2,6)")
	want(t, "armed", s.Step(now, Armed{"t2", 6}), "")
	want(t, "armed again", s.Step(now, Armed{"t2", 6}), "")
	want(t, "all armed, not recorded", s.Step(now, Armed{"t1", 6}), "")
	want(t, "recorded", s.Step(now, Recorded{5, gk.ReasonSchedule}), "grant")
	first := s.rot.grant
	for i, wait := range []time.Duration{100, 300, 700, 1500, 3100} {
		fx := s.Step(now.Add(wait*time.Millisecond), Tick{})
		want(t, fmt.Sprint("repetition ", i), fx, "grant")
		if !bytes.Equal(fx[0].(SendGrant).Payload, first) {
			t.Fatal("a repeated GRANT differs from the first")
		}
	}
	want(t, "acked", s.Step(now, ackOf(s, 6, 2000)), "switch(6,2000) activate(6,5) write(6,)")
	want(t, "acked again", s.Step(now, ackOf(s, 6, 2000)), "")
	if s.Rotations != 1 || s.ByReason[gk.ReasonSchedule] != 1 || s.First != 2000 {
		t.Errorf("record: %+v", s.Record)
	}
}

func TestUrgentRotationWaitsForNoWrite(t *testing.T) {
	for _, r := range []gk.Reason{gk.ReasonProof, gk.ReasonSource} {
		s := begun(t, t0)
		want(t, string(r), s.Step(t0, Rotate{Reason: r, Known: 5}), fmt.Sprintf("write(5,%s) release(>5)", r))
	}
	for _, r := range []gk.Reason{gk.ReasonProof, gk.ReasonOperator} {
		s := begun(t, t0)
		s.Step(t0, Rotate{Reason: r, Known: 5})
		s.Step(t0, released(6))
		s.Step(t0, Armed{"t1", 6})
		grant := map[gk.Reason]string{gk.ReasonProof: "grant", gk.ReasonOperator: ""}
		want(t, string(r)+" armed", s.Step(t0, Armed{"t2", 6}), grant[r])
	}
}

func TestProofNewerThanTheGrantRotatesAgain(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	s.Step(t0, Recorded{s.Record.Epoch, gk.ReasonOperator})
	want(t, "proof before the grant", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 5}), "write(5,proof)")
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	s.Step(t0, Armed{"t2", 6})
	want(t, "operator after the grant", s.Step(t0, Rotate{Reason: gk.ReasonOperator}), "")
	want(t, "acked", s.Step(t0, ackOf(s, 6, 200)), "switch(6,200) activate(6,5) write(6,)")

	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	s.Step(t0, Recorded{s.Record.Epoch, gk.ReasonOperator})
	s.Step(t0, released(7))
	s.Step(t0, Armed{"t1", 7})
	s.Step(t0, Armed{"t2", 7})
	want(t, "proof of the key before, after the grant", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 6}), "write(6,proof) arm(t1,7) arm(t2,7)")
	if s.wants != "" {
		t.Error("the grant in flight already locks the holder of epoch 6 out")
	}
	want(t, "proof after the grant", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 7}), "")
	want(t, "acked", s.Step(t0, ackOf(s, 7, 300)), "switch(7,300) activate(7,6) write(7,) write(7,proof) release(>7)")
	want(t, "proof of a key that was changed", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 6}), "")
}

func TestAcksThatDoNotFit(t *testing.T) {
	granting := func() *Session {
		s := begun(t, t0)
		s.Step(t0, Rotate{Reason: gk.ReasonOperator})
		s.Step(t0, Recorded{s.Record.Epoch, gk.ReasonOperator})
		s.Step(t0, released(6))
		s.Step(t0, Armed{"t1", 6})
		s.Step(t0, Armed{"t2", 6})
		return s
	}
	for name, f := range map[string]func(a *Ack){
		"confirmation of another key": func(a *Ack) { a.Confirm = bytes.Repeat([]byte{9}, 32) },
		"another grant":               func(a *Ack) { a.GrantHash = make([]byte, 32) },
		"an index that falls":         func(a *Ack) { a.First = 99 },
		"an epoch before":             func(a *Ack) { a.Epoch = 5 },
		"an epoch after":              func(a *Ack) { a.Epoch = 7 },
	} {
		s := granting()
		h := ackOf(s, 6, 500)
		f(h.Message.(*Ack))
		if want(t, name, s.Step(t0, h), ""); s.Record.Epoch != 5 {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestGrantThatDoesNotOpenIsSealedToTheNextPrekey(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	s.Step(t0, Recorded{s.Record.Epoch, gk.ReasonOperator})
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	s.Step(t0, Armed{"t2", 6})
	used, hash := s.rot.prekey, s.rot.hash
	want(t, "another grant", s.Step(t0, Heard{Message: &Reject{Session: testSession, Regarding: []byte{1}, Code: CodeCannotOpen}}), "")
	if s.rot.stage != StageGranting {
		t.Fatal("a refusal of another grant was taken")
	}
	want(t, "refused", s.Step(t0, Heard{Message: &Reject{Session: testSession, Regarding: hash, Code: CodeCannotOpen}}), "")
	fx := s.Step(s.Deadline(), Tick{})
	want(t, "sealed anew", fx, "release(6)")
	if bytes.Equal(fx[0].(Release).Prekey, used) {
		t.Error("sealed to the same prekey")
	}
}

func TestEveryStageAsksAgain(t *testing.T) {
	late := func(s *Session) []Effect { return s.Step(s.Deadline(), Tick{}) }
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	want(t, "releasing", late(s), "release(>5)")
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	want(t, "arming", late(s), "arm(t2,6)")
	s.Step(t0, Armed{"t2", 6})
	want(t, "recording", late(s), "write(5,operator)")
	s.Step(t0, Recorded{5, gk.ReasonOperator})
	want(t, "granting", late(s), "grant")
}

func TestTransportThatLostItsKeysGetsThemBack(t *testing.T) {
	s := begun(t, t0)
	want(t, "lost", s.Step(t0, TransportLost{"t2"}), "release(5)")
	want(t, "released", s.Step(t0, released(5)), "arm(t2,5)")
	want(t, "armed", s.Step(t0, Armed{"t2", 5}), "")
	if len(s.rejoin) != 0 {
		t.Error("still rejoining")
	}
	// In mid-rotation, both the epoch in use and the one that was granted.
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	s.Step(t0, Recorded{s.Record.Epoch, gk.ReasonOperator})
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	s.Step(t0, Armed{"t2", 6})
	want(t, "lost", s.Step(t0, TransportLost{"t1"}), "release(5) release(6)")
	want(t, "somebody else's", s.Step(t0, TransportLost{"t9"}), "")
}

func TestResumeRepeatsWhatWasUnderWay(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	record := s.snapshot()
	r, fx := Resume(t0, record, testTiming)
	want(t, "resumed", fx, "release(5) release(5) release(>5)")
	r.Step(t0, released(6))
	r.Step(t0, Armed{"t1", 6})
	r.Step(t0, Armed{"t2", 6})
	// The device answered the GRANT of the instance before; its hash is unknown here.
	h := ackOf(r, 6, 400)
	h.Message.(*Ack).GrantHash = make([]byte, 32)
	r.Step(t0, h)
	if r.Record.Epoch != 6 {
		t.Error("the stored ACK was not taken")
	}
}

func TestReportOfAnUnrecordedEpochIsFollowed(t *testing.T) {
	s := begun(t, t0)
	fx := s.Step(t0, Heard{Message: &Report{Stream: "cam-1", Session: testSession, Number: 1, Epoch: 6, To: 900}})
	want(t, "reported", fx, "switch(6,0) release(6)")
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	s.Step(t0, Armed{"t2", 6})
	h := ackOf(s, 6, 400)
	h.Message.(*Ack).GrantHash = make([]byte, 32)
	s.Step(t0, h)
	if s.Record.Epoch != 6 {
		t.Error("the session did not follow its device")
	}
}

func TestLastPrekeyIsKeptForProof(t *testing.T) {
	s := begun(t, t0)
	s.Prekeys = s.Prekeys[:1]
	want(t, "operator at one", s.Step(t0, Rotate{Reason: gk.ReasonOperator}), "send(refill)")
	want(t, "asked again", s.Step(s.Deadline(), Tick{}), "send(refill)")
	want(t, "proof at one", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 5}), "write(5,proof) release(>5)")

	s = begun(t, t0)
	s.Prekeys = s.Prekeys[:1]
	want(t, "operator at one", s.Step(t0, Rotate{Reason: gk.ReasonOperator}), "send(refill)")
	want(t, "one is not enough", s.Step(t0, Heard{Message: &Refill{Prekeys: s.Prekeys}}), "")
	want(t, "refilled", s.Step(t0, Heard{Message: &Refill{Prekeys: [][]byte{{0xbb}, {0xbc}}}}), "write(5,operator) release(>5)")
	if !s.refilling.at.IsZero() {
		t.Error("still asking")
	}
}

func TestPrekeysRunOut(t *testing.T) {
	s := begun(t, t0)
	s.Prekeys = nil
	want(t, "none left", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 5}), "write(5,proof) send(refill)")
	want(t, "asked again", s.Step(s.Deadline(), Tick{}), "send(refill)")
	want(t, "refilled", s.Step(t0, Heard{Message: &Refill{Prekeys: [][]byte{{0xcc}}}}), "release(>5)")
	want(t, "refused", s.Step(t0, PrekeyRefused{}), "")
	want(t, "asked once more", s.Step(s.Deadline(), Tick{}), "send(refill)")
}

func TestRestlessSourceIsRenewedNowAndThen(t *testing.T) {
	s := begun(t, t0)
	renew := func(n uint64, after time.Duration) []Effect {
		return s.Step(t0.Add(after), Heard{Message: &Report{Session: testSession, Number: n, Epoch: s.Record.Epoch, Renew: true}})
	}
	want(t, "first", renew(1, 0), "switch(5,0) write(5,discontinuity) release(>5)")
	s.rot = nil
	want(t, "soon again", renew(2, 4*time.Second), "switch(5,0)")
	want(t, "later", renew(3, 5*time.Second), "switch(5,0) write(5,discontinuity) release(>5)")
	given := 2
	keys := s.Prekeys
	for n := range uint64(3600) { // all the time for an hour
		s.rot, s.Prekeys = nil, append(keys, make([][]byte, MaxPrekeys)...)
		if renew(4+n, time.Duration(10+n)*time.Second); s.rot != nil {
			given++
		}
	}
	if given < 60 || given > 66 {
		t.Errorf("%d epochs in an hour of breaks", given)
	}
}

func TestKeyThatTheStoreForgot(t *testing.T) {
	s := begun(t, t0)
	want(t, "another epoch", s.Step(t0, KeyUnknown{3}), "")
	want(t, "the epoch in use", s.Step(t0, KeyUnknown{5}), "send(stop) write(5,) close over(unknown-session)")
	s = begun(t, t0)
	s.Step(t0, Heard{Message: &Report{Session: testSession, Number: 1, Epoch: 50}})
	want(t, "the epoch that the device reports", s.Step(t0, KeyUnknown{50}), "send(stop) write(5,recovery) close over(unknown-session)")
}

func TestEpochThatIsGivenNoMore(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonOperator})
	s.Step(t0, Recorded{5, gk.ReasonOperator})
	s.Step(t0, released(6))
	s.Step(t0, Armed{"t1", 6})
	s.Step(t0, Armed{"t2", 6})
	s.Step(t0, Heard{Message: &Reject{Session: testSession, Regarding: s.rot.hash, Code: CodeCannotOpen}})
	want(t, "asked again", s.Step(s.Deadline(), Tick{}), "release(6)")
	want(t, "refused", s.Step(t0, KeyUnknown{6}), "send(stop) write(5,operator) close over(unknown-session)")
}

func TestByeLingersThenEnds(t *testing.T) {
	s := begun(t, t0)
	want(t, "bye", s.Step(t0, Heard{Message: &Bye{Session: testSession, End: 300}}), "")
	want(t, "rotate", s.Step(t0, Rotate{Reason: gk.ReasonProof}), "")
	want(t, "over", s.Step(t0.Add(time.Second), Tick{}), "write(5,) close over()")
	want(t, "after", s.Step(t0.Add(time.Hour), Tick{}), "")
	if !s.Deadline().IsZero() {
		t.Error("an ended session wants a tick")
	}
}

func TestCandidateThatNeverConfirmsIsDropped(t *testing.T) {
	h := &Hello{Device: "cam-1", Stream: "cam-1", Session: testSession, Prekeys: [][]byte{{1}}}
	s, _ := Begin(t0, Record{Transports: []gk.TransportID{"t1"}}, Heard{Message: h}, testTiming)
	s.Step(t0, Opened{1})
	want(t, "dropped", s.Step(t0.Add(30*time.Second), Tick{}), "send(stop) close over(unavailable)")
}

// A service that was stopped between the confirmation of an epoch and its record
// asks for a key that is given no more. The session goes on.
func TestKeyOfAnEpochThatIsOver(t *testing.T) {
	s := begun(t, t0)
	want(t, "not the one on record", s.Step(t0, KeyRetired{3}), "")
	want(t, "the one on record", s.Step(t0, KeyRetired{5}), "release(>5)")
	want(t, "once more", s.Step(t0, KeyRetired{5}), "")
	want(t, "its successor", s.Step(t0, Released{Epoch: 6, Device: []byte{1}, Confirm: make([]byte, 32), Transports: map[gk.TransportID][]byte{"t1": {1}, "t2": {1}}}), "arm(t1,6) arm(t2,6)")
}

func TestKeyStoreThatFellBehind(t *testing.T) {
	s := begun(t, t0)
	want(t, "rotation", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 5}), "write(5,proof) release(>5)")
	want(t, "no later epoch", s.Step(t0, KeyUnknown{0}), "send(stop) write(5,proof) close over(unknown-session)")
}

// A record's times are of another machine's clock: they must not put a rotation off.
func TestScheduleAfterAStepOfTheClock(t *testing.T) {
	for _, since := range []time.Duration{-24 * time.Hour, -time.Second, 0, time.Second, 24 * time.Hour} {
		r := begun(t, t0).Record
		r.Since = t0.Add(since)
		s, _ := Resume(t0, r, Timing{Every: time.Minute, Retry: time.Second, RetryMax: time.Second})
		if s.rotateAt.Before(t0) || s.rotateAt.After(t0.Add(time.Minute)) {
			t.Errorf("key %v older than now: rotation in %v", -since, s.rotateAt.Sub(t0))
		}
	}
}

// A transport that was not there when a key was sealed, or that restarted since,
// must not leave the rotation arming for ever.
func TestArmingAsksForAnotherEnvelope(t *testing.T) {
	s := begun(t, t0)
	s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: 5})
	seal := func(ids ...gk.TransportID) Released {
		r := Released{Epoch: 6, Device: []byte{1}, Confirm: make([]byte, 32), Transports: map[gk.TransportID][]byte{}}
		for _, id := range ids {
			r.Transports[id] = []byte{1}
		}
		return r
	}
	want(t, "one is missing", s.Step(t0, seal("t1")), "")
	want(t, "both", s.Step(t0, seal("t1", "t2")), "arm(t1,6) arm(t2,6)")
	for range 20 {
		if fx := s.Step(s.Deadline(), Tick{}); kinds(fx) == "release(6)" {
			return
		}
	}
	t.Error("no other envelope is asked for")
}

// A newcomer that was let in during a moment of silence gives way when the session
// before it goes on.
func TestNewcomerGivesWayToMediaThatGoesOn(t *testing.T) {
	s := NewStream("cam-1", "cam-1", &StreamConfig{BusyRetry: time.Second})
	s.live = begun(t, t0)
	c, _ := Begin(t0.Add(time.Second), Record{}, Heard{Message: &Hello{Device: "cam-1", Stream: "cam-1", Session: gk.SessionID{9}}}, Timing{})
	s.candidate = c
	old := Media{s.live.Record.Session, t0.Add(500 * time.Millisecond)}
	if out := s.Step(t0.Add(2*time.Second), old); out != nil || s.candidate == nil {
		t.Errorf("for media from before: %v", out)
	}
	old.At = t0.Add(1500 * time.Millisecond)
	out := s.Step(t0.Add(2*time.Second), old)
	if s.candidate != nil || len(out) == 0 {
		t.Fatalf("for media that goes on: %v", out)
	}
	if r, ok := out[0].Effect.(Send).Message.(*Reject); !ok || r.Code != CodeBusy || r.Session != (gk.SessionID{9}) {
		t.Errorf("%+v", out[0])
	}
}

// A candidate whose media is there is not pushed out by a HELLO that a broker kept.
func TestHelloDoesNotPushOutACandidateThatSends(t *testing.T) {
	s, hello := greeted()
	hello(1)
	hello(2)
	if s.candidate == nil || s.candidate.Record.Session != (gk.SessionID{2}) {
		t.Fatal("the second HELLO began no session")
	}
	s.Step(t0, Media{gk.SessionID{2}, t0})
	hello(1)
	if s.candidate.Record.Session != (gk.SessionID{2}) {
		t.Error("the first HELLO, said again, pushed out a session that sends")
	}
}
