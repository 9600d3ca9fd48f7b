package archtest

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestOnlyTheThiefTakesKeys: the hook that hands out media keys is used by nothing
// but the thief of demonstrations; no setting reaches it.
func TestOnlyTheThiefTakesKeys(t *testing.T) {
	all := packages(t)
	if len(all["internal/device"].GoFiles) == 0 {
		t.Fatal("no package lists its files")
	}
	for name, p := range all {
		if name == "internal/device" || name == "internal/attack" {
			continue
		}
		for _, f := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join("../..", name, f))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("OnKey")) {
				t.Errorf("%s/%s uses OnKey: only a demonstration's thief may be handed keys", name, f)
			}
		}
	}
}

// TestOnlyTheDemoCommandReachesTheThief: one program has a demonstration among its
// commands, and only that command's file knows of it: `serve` and `device` cannot
// have a key stolen.
func TestOnlyTheDemoCommandReachesTheThief(t *testing.T) {
	const command = "demo.go"
	fenced := map[string][]string{ // who may import what
		"internal/attack": {"internal/demo"},
		"internal/demo":   {"cmd/gaitkeeper"},
	}
	found := 0
	for name, p := range packages(t) {
		for target, users := range fenced {
			if !slices.Contains(p.Imports, module+"/"+target) {
				continue
			}
			found++
			if !slices.Contains(users, name) {
				t.Errorf("%s imports %s: only %v may", name, target, users)
			}
		}
		if name != "cmd/gaitkeeper" {
			continue
		}
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", name, f), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range file.Imports {
				path, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if _, thief := fenced[short(path)]; thief && f != command {
					t.Errorf("%s/%s imports %s: only %s may", name, f, short(path), command)
				}
			}
		}
	}
	if found != len(fenced) {
		t.Errorf("%d imports found, %d wanted: the rule looks at nothing", found, len(fenced))
	}
}
