package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// rotate-kek takes the settings that serve would; a stream's keys are still listed
// without a word between.
func TestKeysCommands(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	status, _, errs := gaitkeeper(t.Context(), "keys", "rotate-kek", "--data", dir, "--to", "file:next")
	if status != 1 || !strings.Contains(errs, "no key store here") {
		t.Errorf("nothing to rotate gives %d %s", status, errs)
	}
	write(t, filepath.Join(dir, "gaitkeeper.yml"), "roles: [transport]\nbus: nats://127.0.0.1:1\n")
	status, _, errs = gaitkeeper(t.Context(), "keys", "rotate-kek", "--data", dir, "--to", "file:next")
	if status != 1 || !strings.Contains(errs, "no role kms") {
		t.Errorf("the settings file is not heeded: %d %s", status, errs)
	}
	for _, args := range [][]string{{"keys", "cam-1", "--data", dir}, {"keys", "show", "--all", "cam-1", "--data", dir}} {
		if status, _, errs := gaitkeeper(t.Context(), args...); status != 1 || !strings.Contains(errs, "no gaitkeeper serve has run") {
			t.Errorf("%q gives %d %s", args, status, errs)
		}
	}
}
