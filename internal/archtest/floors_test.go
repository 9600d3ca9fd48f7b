// Package archtest holds the architecture to its word: which package may
// import which, and what must never be linked where. The rules are tables with
// the reason beside each; a new package has to take its place in them.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gaitkeeper/gaitkeeper"

// floors gives every package its floor. A package imports only packages of
// lower floors; what shares a floor does not know of each other.
var floors = map[string]int{
	"": 0, // identifiers, epochs, reasons, events

	"gkrp":             1, // the wire protocol
	"internal/keyring": 1, // keys in memory
	"internal/audit":   1, // the chain of the audit trail
	"internal/clip":    1, // the demonstration clip
	"internal/feature": 1, // packets into windows
	"internal/episode": 1, // scores into alarms
	"internal/host":    1, // time and concurrency, real or simulated

	"internal/store": 2, // key-value state
	"internal/bus":   2, // topics and clients
	"internal/media": 2, // SRTP and batched UDP

	"internal/capture": 2, // packet captures
	"internal/detect":  2, // profiles and detectors
	"internal/tune":    2, // thresholds from answers and history

	"internal/device":     3, // the encoder's agent
	"internal/transport":  3, // opens and forwards
	"internal/processing": 3, // decides rotations
	"internal/kms":        3, // owns keys
	"internal/api":        3, // REST, events, metrics

	"internal/app":    4, // assembly
	"internal/attack": 4, // the thief of tests and demonstrations
	"internal/sim":    4, // whole services on virtual time, for tests
	"internal/synth":  4, // labelled captures of real encoders over model networks

	"internal/demo": 5, // the whole system on one machine, with an attacker

	"cmd/gaitkeeper":        6,
	"cmd/gaitkeeper-device": 6,

	"internal/archtest": 7, // tests only
	"internal/e2e":      7, // tests only
}

// A reach rule says what a package must not link, directly or through others.
type reach struct {
	from   string // package below the module path, or "*" for all
	never  string // import path or prefix ending in "/..."
	except []string
	why    string
}

var forbidden = []reach{
	{from: "internal/processing", never: module + "/internal/keyring", why: "the service that decides rotations holds no media key, ever"},
	{from: "internal/api", never: module + "/internal/keyring", why: "what faces people and the network cannot leak what it cannot reach"},
	{from: "internal/bus", never: module + "/internal/keyring", why: "every key on the bus is sealed; the bus needs no key type"},
	{from: "internal/store", never: module + "/internal/keyring", why: "the store sees only wrapped keys"},
	{from: "gkrp", never: module + "/internal/...", why: "the protocol is public: others import it"},
	{from: "cmd/gaitkeeper-device", never: "github.com/nats-io/nats-server/...", why: "the agent for small encoders carries no broker"},
	{from: "cmd/gaitkeeper-device", never: module + "/internal/app", why: "the agent alone assembles nothing else"},
	{from: "cmd/gaitkeeper-device", never: module + "/internal/kms", why: "a device cannot issue keys"},
	{
		from: "*", never: "github.com/nats-io/nats-server/...",
		except: []string{"internal/app", "internal/demo", "cmd/gaitkeeper", "internal/e2e", "internal/archtest"},
		why:    "services speak to a bus by its client; only the assembly starts one",
	},
	{from: "*", never: "github.com/pion/...", why: "pion is the tests' oracle for our own SRTP, not part of the product"},
	{
		from: "*", never: module + "/internal/attack",
		except: []string{"internal/demo", "cmd/gaitkeeper"},
		why:    "what steals keys is linked by the demonstration alone",
	},
	{
		from: "*", never: module + "/internal/demo",
		except: []string{"cmd/gaitkeeper"},
		why:    "a demonstration is no part of anything",
	},
	{from: "*", never: module + "/internal/sim", why: "the simulation is for tests only"},
	{from: "*", never: "testing", why: "test helpers stay in test files"},
}

// keyringUsers are the only packages that may import internal/keyring themselves.
var keyringUsers = []string{
	"internal/kms", "internal/device", "internal/transport", "internal/media",
	"internal/app", "cmd/gaitkeeper", "cmd/gaitkeeper-device", "internal/attack", "internal/sim",
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// packages lists the module's own packages as the build sees them, tests left out.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,GoFiles", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := map[string]listed{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[short(p.ImportPath)] = p
	}
	return all
}

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

func own(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func matches(path, pattern string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

func TestEveryPackageHasAFloor(t *testing.T) {
	all := packages(t)
	for name := range all {
		if _, ok := floors[name]; !ok {
			t.Errorf("package %q has no floor: add it to the table", name)
		}
	}
	if len(all) < 15 {
		t.Errorf("only %d packages listed: the rules look at nothing", len(all))
	}
}

func TestImportsGoDown(t *testing.T) {
	for name, p := range packages(t) {
		for _, imp := range p.Imports {
			if !own(imp) {
				continue
			}
			target := short(imp)
			if floors[target] >= floors[name] {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down only", name, floors[name], target, floors[target])
			}
		}
	}
}

func TestForbiddenReach(t *testing.T) {
	all := packages(t)
	for _, rule := range forbidden {
		for name, p := range all {
			if rule.from != "*" && rule.from != name || slices.Contains(rule.except, name) {
				continue
			}
			for _, dep := range p.Deps {
				if matches(dep, rule.never) {
					t.Errorf("%s reaches %s: %s", name, dep, rule.why)
				}
			}
		}
	}
}

func TestKeyringImporters(t *testing.T) {
	for name, p := range packages(t) {
		if slices.Contains(p.Imports, module+"/internal/keyring") && !slices.Contains(keyringUsers, name) {
			t.Errorf("%s imports internal/keyring: only %s may hold keys", name, strings.Join(keyringUsers, ", "))
		}
	}
}
