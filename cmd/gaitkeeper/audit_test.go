package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuditVerify(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	if status, _, errs := gaitkeeper(t.Context(), "audit", "verify", "--data", dir); status != 1 || !strings.Contains(errs, "kms-key.pem") {
		t.Errorf("without a server: %d %s", status, errs)
	}
	if status, _, errs := gaitkeeper(t.Context(), "demo", "--data", dir, "--duration=2s", "--rotate-every=200ms", "--listen=127.0.0.1:0", "--json"); status != 0 {
		t.Fatal(errs)
	}
	status, out, errs := gaitkeeper(t.Context(), "audit", "verify", "--data", dir)
	if status != 0 || !strings.Contains(out, "the chain holds") || !strings.Contains(out, "signed heads, the last over line") {
		t.Errorf("%d %s %s", status, out, errs)
	}
	path := filepath.Join(dir, "audit.jsonl")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	copied := filepath.Join(dir, "copy.jsonl")
	for _, c := range []struct {
		name string
		text []byte
		want string
	}{
		{"flipped byte", bytes.Join([][]byte{lines[0], lines[1], bytes.Replace(lines[2], []byte(`"kind"`), []byte(`"kinE"`), 1), bytes.Join(lines[3:], nil)}, nil), ":3: "},
		{"dropped line", bytes.Join([][]byte{lines[0], bytes.Join(lines[2:], nil)}, nil), ":2: "},
		{"dropped tail", bytes.Join(lines[:3], nil), ":4: the end is missing"},
	} {
		write(t, copied, string(c.text))
		status, _, errs := gaitkeeper(t.Context(), "audit", "verify", copied, "--data", dir)
		if status != 1 || !strings.Contains(errs, copied+c.want) {
			t.Errorf("%s: %d %s", c.name, status, errs)
		}
		status, out, _ := gaitkeeper(t.Context(), "audit", "verify", copied, "--data", dir, "--json")
		var got struct {
			OK    bool
			Fault struct{ Line int }
		}
		if err := json.Unmarshal([]byte(out), &got); status != 1 || err != nil || got.OK || got.Fault.Line == 0 {
			t.Errorf("%s: %d %s", c.name, status, out)
		}
	}
}
