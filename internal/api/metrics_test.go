package api

import (
	"context"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Requests that a busy responder refused are counted for whoever watches.
func TestRefusedRequestsAreCounted(t *testing.T) {
	m := bus.NewMemory()
	defer m.Close()
	const call = bus.Call[bus.Empty, bus.Empty]("gk.test.busy")
	let := make(chan struct{})
	sub, err := call.Serve(m.Conn(), func(context.Context, bus.Empty) (bus.Empty, error) { <-let; return bus.Empty{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	defer close(let)
	for refused := make(chan error); ; {
		go func() {
			if _, err := call.Do(t.Context(), m.Conn(), bus.Empty{}); bus.CodeOf(err) == bus.CodeBusy {
				refused <- err
			}
		}()
		if bus.TurnedAway()[string(call)] > 0 {
			<-refused
			break
		}
	}
	w := httptest.NewRecorder()
	newMetrics("v").handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if want := `gaitkeeper_requests_refused_total{subject="gk.test.busy"} `; !strings.Contains(w.Body.String(), want) {
		t.Errorf("no %s in %s", want, w.Body)
	}
}

// Every kind of event and every reason that the root package names has a label of its
// own: one that is forgotten here counts as "other", and nobody could watch it.
func TestEveryKindHasItsLabel(t *testing.T) {
	files, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			kind, _ := v.Type.(*ast.Ident)
			text, _ := v.Values[0].(*ast.BasicLit)
			if kind == nil || text == nil {
				return true
			}
			value, err := strconv.Unquote(text.Value)
			if err != nil {
				return true
			}
			found[kind.Name]++
			switch {
			case kind.Name == "EventKind" && !knownKinds[gk.EventKind(value)]:
				t.Errorf("events of kind %q are counted as %q", value, otherLabel)
			case kind.Name == "Reason" && !knownReasons[gk.Reason(value)]:
				t.Errorf("rotations for reason %q are counted as %q", value, otherLabel)
			}
			return true
		})
	}
	if found["EventKind"] != len(knownKinds) || found["Reason"] != len(knownReasons) {
		t.Errorf("the sources name %v, the metrics %d kinds and %d reasons", found, len(knownKinds), len(knownReasons))
	}
}
