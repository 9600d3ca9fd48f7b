package archtest

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named is a test as documents name it: `package: TestName`, where the package
// may be left out if it is the one before in the same line.
var named = regexp.MustCompile("`(?:([a-z0-9]+): )?(Test[A-Za-z0-9_]+)`")

// TestThreatModelNamesTestsThatExist: whoever follows a row of the threat model
// finds the test that holds it.
func TestThreatModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for n, line := range strings.Split(string(text), "\n") {
		pkg := ""
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			found++
			if m[1] != "" {
				pkg = m[1]
			}
			if pkg == "" {
				t.Errorf("line %d: %s is named without its package", n+1, m[2])
			} else if !hasTest(t, pkg, m[2]) {
				t.Errorf("line %d: %s has no %s", n+1, pkg, m[2])
			}
		}
		if loose := strings.Count(line, "Test") - len(named.FindAllString(line, -1)); strings.HasPrefix(line, "|") && loose > 0 {
			t.Errorf("line %d: a test is named in a way that nobody checks", n+1)
		}
	}
	if found < 60 {
		t.Errorf("only %d tests are named: the rule looks at nothing", found)
	}
}

// hasTest looks for a test function in a package's test files.
func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	for _, dir := range []string{"../" + pkg, "../../" + pkg} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T)")) {
				return true
			}
		}
	}
	return false
}
