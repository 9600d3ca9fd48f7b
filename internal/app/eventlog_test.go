package app

import (
	"bytes"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// What an operator should see is in a server's log, with its details; steps of it are
// there for who asks for them.
func TestEventsAreLogged(t *testing.T) {
	for _, c := range []struct {
		e    gk.Event
		want string // at level info; empty: nothing
	}{
		{gk.Event{Kind: gk.EventAlertOpened, Stream: "cam-1", Epoch: 2, Detail: map[string]string{"id": "cam-1.7", "evidence": "two writers", "ask": ""}},
			`level=WARN msg=alert-opened stream=cam-1 epoch=2 evidence="two writers" id=cam-1.7`},
		{gk.Event{Kind: gk.EventRotationDone, Stream: "cam-1", Epoch: 3, Reason: gk.ReasonProof, Took: 5 * time.Millisecond},
			"level=INFO msg=rotation-done stream=cam-1 epoch=3 reason=proof took=5ms"},
		{gk.Event{Kind: gk.EventRotationDone, Stream: "cam-1", Epoch: 1, Reason: gk.ReasonStart}, ""},
		{gk.Event{Kind: gk.EventAlertOpened, Stream: "cam-1", Detail: map[string]string{"severity": "notice", "done": "planned"}},
			"level=INFO msg=alert-opened stream=cam-1 done=planned severity=notice"},
		{gk.Event{Kind: "something-new", Device: "cam-1"}, "level=INFO msg=something-new device=cam-1"},
		{gk.Event{Kind: gk.EventEpochArmed, Stream: "cam-1"}, ""},
		{gk.Event{Kind: gk.EventKeyState, Stream: "cam-1"}, ""},
	} {
		var b bytes.Buffer
		logEvent(NewLogger(&b, "info", "text"), c.e)
		if got := strings.TrimSpace(b.String()); !strings.HasSuffix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s gives %q, want %q", c.e.Kind, got, c.want)
		}
		b.Reset()
		if logEvent(NewLogger(&b, "debug", "text"), c.e); !strings.Contains(b.String(), string(c.e.Kind)) {
			t.Errorf("%s is not told with debug", c.e.Kind)
		}
	}
}
