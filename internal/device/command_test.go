package device

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func runCommand(t *testing.T, c Command) (out, log string, err error) {
	t.Helper()
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	var o, e bytes.Buffer
	err = c.Run(t.Context(), Std{In: strings.NewReader(""), Out: &o, Err: &e}, "test")
	return o.String(), e.String(), err
}

func TestCommandErrors(t *testing.T) {
	w := newWorld(t)
	t.Setenv("HOME", t.TempDir())
	clip := filepath.Join(t.TempDir(), "x.ts")
	if err := os.WriteFile(clip, newTS(0, time.Millisecond, 10).packets(nil, 50), 0o600); err != nil {
		t.Fatal(err)
	}
	joined := t.TempDir()
	s := openState(t, joined)
	if err := s.keep(w.identity(t)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cmd  Command
		want string
	}{
		"never joined":          {Command{Source: []string{clip}}, "give a token with --join"},
		"never joined, state":   {Command{Source: []string{clip}, State: t.TempDir()}, "give a token with --join"},
		"two sources, one name": {Command{Source: []string{clip, clip}, Stream: []string{"a"}}, "give one --stream for each --source"},
		"bad stream name":       {Command{Source: []string{clip}, Stream: []string{"a b"}}, "--stream"},
		"stdin twice":           {Command{Source: []string{"-", "-"}, Stream: []string{"a", "b"}}, "one stream only"},
		"no such token file":    {Command{Source: []string{clip}, Join: "@/no/such"}, "--join"},
		"bad token":             {Command{Source: []string{clip}, Join: "hello"}, "gkj1."},
		"no such file":          {Command{Source: []string{"none.ts"}, State: joined}, "no such file"},
		"no such source file":   {Command{Source: []string{"@/no/such"}, State: joined}, "source @: open /no/such"},
		"empty source file":     {Command{Source: []string{"@" + file}, State: joined}, "it names no source"},
		"bad level":             {Command{Source: []string{clip}, LogLevel: "loud"}, "--log-level"},
		"state is a file":       {Command{Source: []string{clip}, State: file}, "choose another with --state"},
		"nobody at the broker":  {Command{Source: []string{clip}, State: joined}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := runCommand(t, c.cmd)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
			if out != "" {
				t.Errorf("wrote %q", out)
			}
		})
	}
}

func TestStateDirectoryIsFound(t *testing.T) {
	w := newWorld(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	own := filepath.Join(home, ".gaitkeeper", "devices", "cam-1")
	if dir, err := new(Command).stateDir(w.token.Text()); err != nil || dir != own {
		t.Errorf("by the token: %s, %v", dir, err)
	}
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if dir, err := new(Command).stateDir(""); err != nil || dir != own {
		t.Errorf("the only one: %s, %v", dir, err)
	}
	if err := os.MkdirAll(own+"b", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := new(Command).stateDir(""); err == nil || !strings.Contains(err.Error(), "holds 2 devices") {
		t.Errorf("one of two: %v", err)
	}
	path := filepath.Join(home, "token")
	if err := os.WriteFile(path, []byte(w.token.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := (&Command{Join: "@" + path}).token(); err != nil || text != w.token.Text() {
		t.Errorf("token from a file: %v", err)
	}
}
