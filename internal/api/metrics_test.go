package api

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
)

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
