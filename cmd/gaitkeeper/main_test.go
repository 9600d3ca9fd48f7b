package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write gaitkeeper.yml anew")

// gaitkeeper runs a command line in this process.
func gaitkeeper(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(ctx, args, console{in: strings.NewReader(""), out: &out, err: &errs})
	return status, out.String(), errs.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	bad := write(t, filepath.Join(dir, "bad.yml"), "listen: 127.0.0.1:1\n\nrotate-evry: 5m\n")
	for _, c := range []struct {
		args   []string
		status int
		out    string // wanted in standard output
		err    string // wanted in standard error
	}{
		{[]string{"--help"}, 0, "serve ", ""},
		{[]string{"serve", "--help"}, 0, "--rotate-every", ""},
		{[]string{"version"}, 0, "gaitkeeper ", ""},
		{[]string{"version", "--json"}, 0, `"version"`, ""},
		{[]string{}, 2, "", "expected one of"},
		{[]string{"nonsense"}, 2, "", "unexpected argument nonsense"},
		{[]string{"serve", "--rotate-evry=5m"}, 2, "", `did you mean "--rotate-every"`},
		{[]string{"serve", "--rotate-every=soon"}, 2, "", "expected duration"},
		{[]string{"serve", "--log-level=loud"}, 2, "", "must be one of"},
		{[]string{"serve", "--config", bad}, 2, "", bad + `:3: unknown setting "rotate-evry": did you mean "rotate-every"?`},
		{[]string{"serve", "--config", filepath.Join(dir, "absent.yml")}, 2, "", "absent.yml"},
		{[]string{"serve", "--data", dir, "--listen=8080"}, 1, "", "listen: \"8080\" is not host:port"},
		{[]string{"serve", "--data", dir, "--listen=127.0.0.1:0", "--join-listen=127.0.0.1:0", "--mqtt-listen=127.0.0.1:0", "--media-listen=127.0.0.1:0", "--output=srt://x"}, 1, "", "output: "},
		{[]string{"demo", "--loss=2"}, 2, "", `"2" is not a percentage: write for example 2%`},
		{[]string{"demo", "--loss=101%"}, 2, "", "0% to 100%"},
		{[]string{"demo", "--duration=-1s"}, 1, "", "is negative"},
		{[]string{"demo", "--jitter=5ms", "--listen=127.0.0.1:0"}, 1, "", "jitter"},
		{[]string{"demo", "--attack=theft"}, 1, "", `"theft" is no kind of attack: choose inject, `},
		{[]string{"demo", "--attack=swap", "--rotate-every=1s", "--loss=1%"}, 1, "", "leave --loss, --rotate-every out, or choose --attack none"},
		{[]string{"demo", "--attack=mitm", "--from=aside"}, 1, "", "choose --from path"},
		{[]string{"demo", "--attack=none", "--from=aside"}, 1, "", "there is no attacker"},
		{[]string{"demo", "--footage=film"}, 2, "", "must be one of"},
		{[]string{"enroll"}, 2, "", `expected "<device>"`},
		{[]string{"streams", "--data", filepath.Join(dir, "none")}, 1, "", "choose another with --data, or name the server with --server"},
		{[]string{"rotate", "cam-1", "--data", filepath.Join(dir, "none"), "--server", "http://127.0.0.1:1"}, 1, "", "GAITKEEPER_TOKEN"},
		{[]string{"device", "--source", "-", "--join", "nonsense", "--state", filepath.Join(dir, "s")}, 1, "", "join token"},
		{[]string{"device"}, 2, "", "--source"},
	} {
		status, out, errs := gaitkeeper(t.Context(), c.args...)
		if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) {
			t.Errorf("%q gives %d\n%s\n%s\nwant %d %q %q", c.args, status, out, errs, c.status, c.out, c.err)
		}
	}
}

// The home directory is what HOME says, for what is written as ~ too.
func TestHome(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, args := range [][]string{{"streams"}, {"streams", "--data", "~/.gaitkeeper"}} {
		if _, _, errs := gaitkeeper(t.Context(), args...); !strings.Contains(errs, filepath.Join(home, ".gaitkeeper")+":") {
			t.Errorf("%q: %s", args, errs)
		}
	}
}

// Variables that set up this machine's server are not the demonstration's, which must
// not come upon that one's data.
func TestDemoLeavesTheServerAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	data := filepath.Join(t.TempDir(), "server")
	t.Setenv("GAITKEEPER_DATA", data)
	t.Setenv("GAITKEEPER_ROTATE_EVERY", "1h")
	// That an attack was not refused for its --rotate-every shows that none was taken.
	status, _, errs := gaitkeeper(t.Context(), "demo", "--attack=inject", "--listen", taken.Addr().String())
	if status != 1 || !strings.Contains(errs, "is in use") {
		t.Errorf("%d %s", status, errs)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the server's data directory was opened (%v)", err)
	}
}

func TestServerCannotBeReached(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GAITKEEPER_TOKEN", "not-a-real-token")
	status, out, errs := gaitkeeper(t.Context(), "streams", "--server", "http://127.0.0.1:1")
	if status != 1 || out != "" || !strings.Contains(errs, "is gaitkeeper serve running?") || strings.Contains(errs, "not-a-real-token") {
		t.Errorf("%d %q %q", status, out, errs)
	}
}

func TestPortInUse(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	for _, args := range [][]string{
		{"serve", "--data", t.TempDir(), "--listen", addr},
		{"serve", "--data", t.TempDir(), "--listen=127.0.0.1:0", "--join-listen", addr},
		{"serve", "--data", t.TempDir(), "--listen=127.0.0.1:0", "--join-listen=127.0.0.1:0", "--mqtt-listen", addr},
		{"demo", "--listen", addr},
	} {
		status, _, errs := gaitkeeper(t.Context(), args...)
		if setting := args[len(args)-2]; status != 1 || !strings.Contains(errs, addr+" is in use") || !strings.Contains(errs, "with "+setting) {
			t.Errorf("%q gives %d %s", args, status, errs)
		}
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	status, _, errs := gaitkeeper(t.Context(), "serve", "--data", t.TempDir(), "--listen=127.0.0.1:0", "--join-listen=127.0.0.1:0",
		"--mqtt-listen=127.0.0.1:0", "--media-listen", u.LocalAddr().String())
	if status != 1 || !strings.Contains(errs, u.LocalAddr().String()+" is in use") || !strings.Contains(errs, "--media-listen") {
		t.Errorf("media port in use gives %d %s", status, errs)
	}
}

// The sample in the repository is what the program prints.
func TestSampleConfig(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	status, out, errs := gaitkeeper(t.Context(), "config")
	if status != 0 {
		t.Fatal(errs)
	}
	const path = "../../gaitkeeper.yml"
	if *update {
		write(t, path, out)
	}
	want, err := os.ReadFile(path)
	if err != nil || out != string(want) {
		t.Errorf("%s is not what gaitkeeper config prints (%v): run go test ./cmd/gaitkeeper -update", path, err)
	}
	// Every line of it is a setting that may be switched on as it stands.
	live := regexp.MustCompile(`(?m)^#([a-z0-9-]+: .*)$`).ReplaceAllStringFunc(out, func(line string) string {
		if strings.HasSuffix(line, `""`) || strings.HasSuffix(line, "[]") {
			return line
		}
		return line[1:]
	})
	dir := t.TempDir()
	path2 := write(t, filepath.Join(dir, "all.yml"), live)
	status, _, errs = gaitkeeper(t.Context(), "serve", "--config", path2, "--data", dir, "--listen=x")
	if status != 1 || !strings.Contains(errs, "listen: ") {
		t.Errorf("the sample does not read back: %d %s", status, errs)
	}
	if n := strings.Count(live, "\nrotate-every: "); n != 1 {
		t.Errorf("rotate-every stands %d times in\n%s", n, live)
	}
}

func TestDemoJSON(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	status, out, errs := gaitkeeper(t.Context(), "demo", "--json", "--duration=2s", "--rotate-every=300ms", "--listen=127.0.0.1:0",
		"--loss=5%", "--delay=20ms", "--jitter=5ms", "--reorder=2%")
	if status != 0 {
		t.Fatalf("status %d\n%s\n%s", status, out, errs)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	attacked := got["attacks"]
	for _, name := range []string{
		"packets_sent", "packets_delivered", "packets_lost", "undecryptable", "rotations", "rotation_ms", "first_packet_ms",
		"sha256_sent", "sha256_expected", "sha256_delivered", "attacks", "false_alarms", "displaced", "lost_after_switch",
	} {
		if _, ok := got[name]; !ok {
			t.Errorf("field %s is missing", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("more fields than promised: %v", got)
	}
	if attacks, ok := attacked.([]any); !ok || len(attacks) != 0 {
		t.Errorf("a run without an attacker tells of %v", attacked)
	}
	if !strings.Contains(errs, "Watch it:") || strings.Contains(errs, "\x1b[") {
		t.Errorf("progress is %q", errs)
	}
}
