package gkrp

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// greeted is a stream without a session, and says it a session's HELLO with a fresh nonce.
func greeted() (*Stream, func(id byte) []Of) {
	s := NewStream("cam-1", "cam-1", &StreamConfig{
		SilentAfter: time.Second, Started: t0, Place: func(time.Time) []gk.TransportID { return []gk.TransportID{"t1"} },
		SSRC: func(gk.StreamID) uint32 { return 7 }, Timing: func([]gk.TransportID) Timing { return Timing{CloseAfter: 30 * time.Second} },
	})
	return s, func(id byte) []Of {
		h := greeting(id)
		h.Nonce = s.nonce(s.stretch(t0), h)
		return s.Step(t0, From{Heard: Heard{Message: h}})
	}
}

func greeting(id byte) *Hello {
	return &Hello{Device: "cam-1", Stream: "cam-1", Session: gk.SessionID{id}, Versions: []Version{CurrentVersion}, Suites: []Suite{SuiteMLKEM768X25519}}
}

// stopped reports whether a HELLO was answered with STOP unknown-session and nothing else.
func stopped(out []Of, id byte) bool {
	if len(out) != 1 {
		return false
	}
	send, _ := out[0].Effect.(Send)
	stop, is := send.Message.(*Stop)
	return is && stop.Session == gk.SessionID{id} && stop.Code == CodeUnknownSession
}

// A session whose keys are being wiped cannot begin again, however it ended, and
// whoever holds the stream meanwhile is not disturbed by it.
func TestSessionThatIsOverCannotBeginAgain(t *testing.T) {
	for name, end := range map[string]func(s *Stream, hello func(byte) []Of){
		"pushed out by another candidate": func(_ *Stream, hello func(byte) []Of) { hello(2) },
		"no ACK came":                     func(s *Stream, _ func(byte) []Of) { s.Step(t0.Add(time.Minute), Tick{}) },
		"stopped":                         func(s *Stream, _ func(byte) []Of) { s.Step(t0, End{CodeUnknownSession}) },
		"its keys are gone":               func(s *Stream, _ func(byte) []Of) { s.Step(t0, Outcome{s.candidate, End{CodeUnknownSession}}) },
		"a new session took its place": func(s *Stream, _ func(byte) []Of) {
			s.live, s.candidate = s.candidate, begun(t, t0)
			s.Step(t0, Outcome{s.candidate, Tick{}})
		},
		"the session before it is alive": func(s *Stream, _ func(byte) []Of) {
			s.live = begun(t, t0)
			s.Step(t0, Media{s.live.Record.Session, t0.Add(time.Millisecond)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, hello := greeted()
			if hello(1); s.candidate == nil || s.candidate.Record.Session != (gk.SessionID{1}) {
				t.Fatal("the first HELLO began no session")
			}
			end(s, hello)
			live, candidate := s.live, s.candidate
			if candidate != nil && candidate.Record.Session == (gk.SessionID{1}) {
				t.Fatal("it is not over")
			}
			if out := hello(1); !stopped(out, 1) {
				t.Errorf("its HELLO, said again: %v", out)
			}
			if s.live != live || s.candidate != candidate {
				t.Error("it took a place")
			}
			// Who does not prove to be there now learns nothing of it.
			out := s.Step(t0, From{Heard: Heard{Message: greeting(1)}})
			if len(out) != 1 {
				t.Fatalf("without a nonce: %v", out)
			}
			if _, is := out[0].Effect.(Send).Message.(*Challenge); !is {
				t.Errorf("without a nonce: %+v", out[0])
			}
		})
	}
}

// What is remembered of sessions that are over is bounded.
func TestSessionsThatAreOverAreForgotten(t *testing.T) {
	s, hello := greeted()
	for id := range byte(keptClosed + 2) {
		hello(id + 1)
	}
	if len(s.closed) != keptClosed {
		t.Errorf("%d are remembered", len(s.closed))
	}
	if !stopped(hello(keptClosed+1), keptClosed+1) || !stopped(hello(2), 2) {
		t.Error("one of the last is forgotten")
	}
	if stopped(hello(1), 1) {
		t.Error("the first is remembered beyond the bound")
	}
}

// Refusals are answered each time, and told of within a budget: who asks again and again
// does not fill the audit trail.
func TestRefusalsAreToldWithinABudget(t *testing.T) {
	s, _ := greeted()
	s.live = begun(t, t0)
	s.seen = t0
	h := greeting(9)
	h.Versions = []Version{CurrentVersion + 1}
	told, answered := 0, 0
	const span, every = 10 * time.Minute, 20 * time.Millisecond
	for at := time.Duration(0); at < span; at += every {
		h.Session[1]++
		for _, of := range s.Step(t0.Add(at), From{Heard: Heard{Message: h}, Revoked: at%(2*every) == 0}) {
			switch fx := of.Effect.(type) {
			case Send:
				if _, is := fx.Message.(*Reject); is {
					answered++
				}
			case Tell:
				if fx.Event.Kind == gk.EventSessionRejected {
					told++
				}
			}
		}
		if at == 0 && told != 1 {
			t.Error("the first is not told of")
		}
	}
	if answered != int(span/every) || told < 1200 || told > 1301 {
		t.Errorf("%d answered and %d told of %d", answered, told, span/every)
	}
}
