package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// fails runs a command that has to end with an error which says all of want.
func fails(t *testing.T, what string, want []string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	err := cmd.Run()
	if err == nil {
		t.Errorf("%s: succeeds\n%s", what, tail(errs.String(), 1000))
		return
	}
	for _, w := range want {
		if !strings.Contains(errs.String(), w) {
			t.Errorf("%s: the error does not say %q:\n%s", what, w, tail(errs.String(), 1000))
		}
	}
	if out.Len() > 0 {
		t.Errorf("%s: standard output has %q", what, out.String())
	}
}

// TestBadInput gives the programs what people give them by mistake: each error
// names cause and mend.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	clip, err := filepath.Abs("../clip/demo.ts")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	server := s.serve()

	fails(t, "a second server on the same data", []string{"is locked by another gaitkeeper (pid ", "choose another directory with --data"},
		"serve", "--data", s.data, "--listen=127.0.0.1:0", "--join-listen=127.0.0.1:0", "--mqtt-listen=127.0.0.1:0", "--media-listen=127.0.0.1:0")
	fails(t, "a data directory that is a file", []string{"cannot be made", "choose another with --data"}, "serve", "--data", file("plain", ""))

	token := strings.TrimSpace(string(s.run("enroll", "cam-1")))
	join, err := gkrp.ParseJoinToken(token)
	if err != nil {
		t.Fatal(err)
	}
	device := func(token, source, state string) []string {
		return []string{"device", "--join", token, "--source", source, "--state", filepath.Join(dir, state), "--wait=1s"}
	}
	fails(t, "a source that is not there", []string{"no such file"}, device(token, filepath.Join(dir, "none.ts"), "a")...)
	fails(t, "a token cut short", []string{"damaged or cut short", "copy the whole word"}, device(token[:len(token)-9], clip, "a")...)

	foreign := join
	foreign.CAFingerprint[0] ^= 1
	fails(t, "a token of another CA", []string{"fingerprint", "get a new token"}, device(foreign.Text(), clip, "a")...)
	wrong := join
	wrong.Secret = []byte("0123456789abcdef")
	fails(t, "a token with a wrong secret", []string{"does not know the token", "gaitkeeper enroll cam-1"}, device(wrong.Text(), clip, "a")...)

	text := file("text.ts", strings.Repeat("this is no transport stream at all. ", 10000))
	fails(t, "a source that is not MPEG-TS", []string{"MPEG-TS"}, device(token, text, "joined")...)
	fails(t, "a token used a second time", []string{"used already", "gaitkeeper enroll cam-1"}, device(token, clip, "b")...)

	// An expired token: a second is the shortest life.
	short := strings.TrimSpace(string(s.run("enroll", "cam-2", "--ttl=1s")))
	expired, err := gkrp.ParseJoinToken(short)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the token expires", func() bool { return !time.Now().Before(expired.Expires) })
	fails(t, "an expired token", []string{"expired", "gaitkeeper enroll cam-2"}, device(short, clip, "c")...)

	fails(t, "a stream that is not there", []string{"nobody"}, "rotate", "nobody", "--data", s.data)
	server.stop()
	fails(t, "a broker that is not there", []string{"is gaitkeeper serve running there"}, "device", "--source", clip, "--state", filepath.Join(dir, "joined"), "--wait=1s")
	fails(t, "a server that is not there", []string{"is gaitkeeper serve running?"}, "streams", "--data", s.data)
}
