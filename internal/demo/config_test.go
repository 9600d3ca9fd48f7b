package demo

import (
	"strings"
	"testing"
	"time"
)

func TestAttacked(t *testing.T) {
	for _, c := range []struct {
		cfg         Config
		name, place string
		err         string
	}{
		{Config{}, "inject", Aside, ""},
		{Config{From: Path}, "inject", Path, ""},
		{Config{Attack: "swap"}, "swap", Input, ""},
		{Config{Attack: "swap", From: Path}, "swap", Path, ""},
		{Config{Attack: "mitm"}, "mitm", Path, ""},
		{Config{Attack: None}, None, "", ""},
		{Config{RotateEvery: time.Second}, None, "", ""},
		{Config{Duration: time.Second}, None, "", ""},
		{Config{Loss: 0.01}, None, "", ""},
		{Config{Attack: None, Jitter: time.Second}, None, "", ""},
		{Config{Attack: "inject", Delay: time.Second}, "", "", "leave --delay out"},
		{Config{Attack: "drift", From: Path}, "", "", "choose --from input"},
		{Config{Attack: "bribe"}, "", "", "no kind of attack"},
		{Config{RotateEvery: time.Second, From: Path}, "", "", "no attacker"},
		{Config{Duration: -1}, "", "", "negative"},
	} {
		name, place, err := c.cfg.Attacked()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: error %v, want %q", c.cfg, err, c.err)
			}
			continue
		}
		if err != nil || name != c.name || place != c.place {
			t.Errorf("%+v: %s from %q, %v; want %s from %q", c.cfg, name, place, err, c.name, c.place)
		}
	}
}

// Every kind says, for each place, what it does and what must follow.
func TestKindsAreComplete(t *testing.T) {
	for _, k := range kinds {
		for _, place := range k.from {
			if k.words[place] == "" || k.within == 0 {
				t.Errorf("%s from %s is not described", k.name, place)
			}
			if k.rotates[place] && len(k.classes[place]) == 0 {
				t.Errorf("%s from %s changes a key without an alert", k.name, place)
			}
		}
	}
	for _, name := range []string{"mitm", "throttle", "outsider"} {
		k, err := find(name)
		if err != nil || len(k.rotates) > 0 {
			t.Errorf("%s may change a key (%v)", name, err)
		}
	}
}
