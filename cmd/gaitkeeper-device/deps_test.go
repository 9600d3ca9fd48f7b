package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestLinksNoServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d dependencies listed: the test looks at nothing", len(deps))
	}
	for _, dep := range deps {
		for _, never := range []string{"nats-server", "/internal/app", "/internal/kms", "/internal/processing", "/internal/transport", "/internal/store"} {
			if strings.Contains(dep, never) {
				t.Errorf("links %s: the agent for small encoders carries no server", dep)
			}
		}
	}
}
