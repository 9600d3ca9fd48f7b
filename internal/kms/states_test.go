package kms

import (
	"slices"
	"strings"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

func TestEveryMove(t *testing.T) {
	const (
		none = bus.KeyState("")
		pre  = bus.KeyPreActive
		act  = bus.KeyActive
		dea  = bus.KeyDeactivated
		des  = bus.KeyDestroyed
	)
	all := []bus.KeyState{none, pre, act, dea, des, "nonsense"}
	allowed := [][2]bus.KeyState{{pre, act}, {pre, des}, {act, dea}, {dea, des}}
	for _, from := range all {
		for _, to := range all {
			want := slices.Contains(allowed, [2]bus.KeyState{from, to})
			if err := checkMove(from, to); (err == nil) != want {
				t.Errorf("%q to %q: %v", from, to, err)
			}
		}
	}
}

func TestForbiddenMovesSayWhy(t *testing.T) {
	for _, tc := range []struct {
		from, to bus.KeyState
		why      string
	}{
		{"", bus.KeyActive, "not states"},
		{bus.KeyActive, "", "not states"},
		{bus.KeyActive, bus.KeyActive, "already"},
		{bus.KeyDestroyed, bus.KeyActive, "a destroyed key cannot"},
		{bus.KeyDeactivated, bus.KeyActive, "again"},
		{bus.KeyActive, bus.KeyPreActive, "again"},
		{bus.KeyPreActive, bus.KeyDeactivated, "never active"},
		{bus.KeyActive, bus.KeyDestroyed, "deactivate it first"},
	} {
		if err := checkMove(tc.from, tc.to); err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%q to %q: got %v, want %q", tc.from, tc.to, err, tc.why)
		}
	}
}

func TestMovesTo(t *testing.T) {
	for _, tc := range []struct {
		from, to bus.KeyState
		want     []bus.KeyState
		ok       bool
	}{
		{bus.KeyPreActive, bus.KeyActive, []bus.KeyState{bus.KeyActive}, true},
		{bus.KeyPreActive, bus.KeyDestroyed, []bus.KeyState{bus.KeyDestroyed}, true},
		{bus.KeyActive, bus.KeyDestroyed, []bus.KeyState{bus.KeyDeactivated, bus.KeyDestroyed}, true},
		{bus.KeyActive, bus.KeyActive, nil, true},
		{bus.KeyDestroyed, bus.KeyDestroyed, nil, true},
		{bus.KeyDestroyed, bus.KeyDeactivated, nil, true},
		{bus.KeyDestroyed, bus.KeyActive, nil, false},
		{bus.KeyDeactivated, bus.KeyActive, nil, false},
		{bus.KeyPreActive, bus.KeyDeactivated, nil, false},
	} {
		got, err := movesTo(tc.from, tc.to)
		if !slices.Equal(got, tc.want) || (err == nil) != tc.ok {
			t.Errorf("%q to %q: %v, %v", tc.from, tc.to, got, err)
		}
	}
}
