package app

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// steps are events that only say how something came about that is told as well.
var steps = []gk.EventKind{
	gk.EventRotationDecided, gk.EventEpochArmed, gk.EventGrantSent, gk.EventEpochFirstPacket, gk.EventEpochRetired, gk.EventKeyState,
	gk.EventServiceStarted, gk.EventServiceStopped,
}

// loud are events that ask for somebody's eyes.
var loud = []gk.EventKind{
	gk.EventSessionRejected, gk.EventProof, gk.EventIdentity, gk.EventBudgetSpent, gk.EventAlertOpened, gk.EventProfileRefused,
	gk.EventStreamHeld, gk.EventLeaseLapsed, gk.EventAuditBroken, gk.EventLabelContested, gk.EventSettingReverted, gk.EventTuningRefused,
}

// levelOf is how loud an event is in a server's log.
func levelOf(kind gk.EventKind) slog.Level {
	switch {
	case slices.Contains(steps, kind):
		return slog.LevelDebug
	case slices.Contains(loud, kind):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// logEvent writes an event as a log line: what is empty is left out, details come in
// the order of their names.
func logEvent(log *slog.Logger, e gk.Event) {
	level := levelOf(e.Kind)
	switch {
	case e.Kind == gk.EventRotationDone && e.Reason == gk.ReasonStart: // the session's start tells it
		level = slog.LevelDebug
	case e.Kind == gk.EventAlertOpened && e.Detail["severity"] == "notice": // a change that was announced
		level = slog.LevelInfo
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	var attrs []slog.Attr
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	add("stream", string(e.Stream))
	add("device", string(e.Device))
	if !e.Session.IsZero() {
		add("session", e.Session.String())
	}
	if e.Epoch != 0 {
		attrs = append(attrs, slog.Uint64("epoch", uint64(e.Epoch)))
	}
	add("reason", string(e.Reason))
	if e.Took != 0 {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		add(name, e.Detail[name])
	}
	log.LogAttrs(context.Background(), level, string(e.Kind), attrs...)
}
