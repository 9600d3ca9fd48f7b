// Package e2e runs the programs as their users do: as processes, on real
// sockets, with ffmpeg before and behind them.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the gaitkeeper that was built for these tests.
var program string

func TestMain(m *testing.M) {
	if config := os.Getenv(natsVariable); config != "" {
		os.Exit(natsChild(config))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "gaitkeeper-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "gaitkeeper")
		build := exec.Command("go", "build", "-o", program, "github.com/gaitkeeper/gaitkeeper/cmd/gaitkeeper")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// need skips a test where a program is missing, but not in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is missing: make test installs it", p)
			}
			t.Skipf("%s is missing: make packages installs it", p)
		}
	}
}

// patience is how long anything may take that is waited for. It decides nothing
// but when a test gives up.
const patience = 60 * time.Second

// until polls what cannot be waited for otherwise: another process.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// process is a running program with its output in a file.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &process{t: t, cmd: exec.Command(name, args...), log: f.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(name), strings.Join(args, " "), tail(p.output(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	return string(b)
}

// says waits until the program has printed something.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s says %q", filepath.Base(p.cmd.Path), text), func() bool {
		select {
		case <-p.done:
			if !strings.Contains(p.output(), text) {
				p.t.Fatalf("%s ended without saying %q: %v\n%s", p.cmd.Path, text, p.err, tail(p.output(), 2000))
			}
		default:
		}
		return strings.Contains(p.output(), text)
	})
}

// kill ends the program as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop ends the program as an operator would, and wants it to end well.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p.cmd.Path)
	}
	if p.err != nil {
		p.t.Errorf("%s: %v\n%s", filepath.Base(p.cmd.Path), p.err, tail(p.output(), 2000))
	}
}

// site is a data directory with the addresses of its server, which stay the
// same when the server is started again.
type site struct {
	t    *testing.T
	data string
	args []string
	api  string
}

func newSite(t *testing.T, args ...string) *site {
	t.Helper()
	s := &site{t: t, data: filepath.Join(t.TempDir(), "data")}
	s.api = freeTCP(t)
	s.args = append([]string{
		"serve", "--data", s.data, "--listen", s.api, "--join-listen", freeTCP(t), "--mqtt-listen", freeTCP(t), "--media-listen", freeUDP(t),
	}, args...)
	return s
}

func (s *site) serve() *process {
	s.t.Helper()
	p := start(s.t, program, s.args...)
	p.says("msg=ready")
	return p
}

// ask runs an operator's command and decodes what it prints.
func (s *site) ask(out any, args ...string) {
	s.t.Helper()
	b := s.run(append(args, "--json")...)
	if err := json.Unmarshal(b, out); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, b)
	}
}

func (s *site) run(args ...string) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, "--data", s.data)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("gaitkeeper %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

// device enrols a device and gives the arguments to run it with.
func (s *site) device(name, source string) []string {
	s.t.Helper()
	token := strings.TrimSpace(string(s.run("enroll", name)))
	file := filepath.Join(s.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return []string{"device", "--join", "@" + file, "--source", source, "--state", filepath.Join(s.t.TempDir(), "state")}
}

func freeTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}
