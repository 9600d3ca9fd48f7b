package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// debianPython has Debian's Python packages, whatever else comes first in PATH.
const debianPython = "/usr/bin/python3"

func needPython(t *testing.T) {
	t.Helper()
	need(t, debianPython)
	if out, err := exec.Command(debianPython, "-c", "import cbor2, cryptography, paho.mqtt").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Python packages are missing: make test installs them\n%s", out)
		}
		t.Skip("Python packages are missing: make packages installs them")
	}
}

// transportStream is bytes in the shape of MPEG-TS that repeat nowhere.
func transportStream(size int) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	b := make([]byte, size/188*188)
	_, _ = rng.Read(b) // never fails
	for i := 0; i < len(b); i += 188 {
		b[i] = 0x47
	}
	return b
}

// pythonDevice starts the example that was written from the protocol's
// specification; it has joined when state holds an identity.
func pythonDevice(t *testing.T, clip, state string, more ...string) *process {
	t.Helper()
	script, err := filepath.Abs("../../examples/python-device/device.py")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-B", script, "--source", clip, "--state", state}
	return start(t, debianPython, append(args, more...)...)
}

func tokenFile(t *testing.T, s *site, name string) string {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, s.run("enroll", name), 0o600); err != nil {
		t.Fatal(err)
	}
	return "@" + token
}

// TestDeviceInAnotherLanguage sends a clip through a device that shares no line
// with this project, under keys that change every 400 ms, and wants every byte.
func TestDeviceInAnotherLanguage(t *testing.T) {
	needPython(t)
	dir := t.TempDir()
	s := newSite(t, "--allow-x25519", "--rotate-every=400ms", "--output", "file:"+filepath.Join(dir, "{stream}.out.ts"))
	server := s.serve()
	sent := transportStream(2 << 20)
	clip := filepath.Join(dir, "clip.ts")
	if err := os.WriteFile(clip, sent, 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	d := pythonDevice(t, clip, state, "--join", tokenFile(t, s, "cam-py"))
	out := filepath.Join(dir, "cam-py.out.ts")
	until(t, "the stream runs", func() bool { return size(out) > 1<<20 })
	var info bus.StreamInfo
	s.ask(&info, "streams", "cam-py")
	d.wait()
	until(t, "everything sent was delivered", func() bool { return size(out) >= int64(len(sent)) })
	// Once more, as the same device: a new session, and epochs that go on rising.
	again := pythonDevice(t, clip, state)
	again.wait()
	sent = append(sent, sent...)
	until(t, "everything sent again was delivered", func() bool { return size(out) >= int64(len(sent)) })
	server.stop()
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes were sent, %d arrived, and they differ first at %d", len(sent), len(got), firstDifference(sent, got))
	}
	last := 0
	for _, d := range []*process{d, again} {
		epochs := 0
		for _, line := range strings.Split(d.output(), "\n") {
			var epoch int
			if n, _ := fmt.Sscanf(line, "epoch %d from", &epoch); n == 0 {
				continue
			}
			if epoch <= last {
				t.Errorf("epoch %d after %d", epoch, last)
			}
			last = epoch
			epochs++
		}
		if epochs < 6 {
			t.Errorf("%d keys in 4 s\n%s", epochs, d.output())
		}
		if strings.Contains(d.output(), "left out") {
			t.Errorf("the device refused messages\n%s", d.output())
		}
		t.Logf("%d epochs", epochs)
	}
	if info.Device != "cam-py" || info.Sent == 0 || info.ByReason[gk.ReasonProof]+info.ByReason[gk.ReasonSource] != 0 {
		t.Errorf("the service knows of the stream %+v", info)
	}
	if strings.Contains(server.output(), "message refused") {
		t.Errorf("the service refused messages\n%s", server.output())
	}
}

// TestDeviceInAnotherLanguageOverAForeignBroker: the broker is somebody else's, named
// by URL and known by a CA of its own when the device joins.
func TestDeviceInAnotherLanguageOverAForeignBroker(t *testing.T) {
	needPython(t)
	need(t, "mosquitto_passwd")
	dir := t.TempDir()
	f := newForeign(t)
	s := newSite(t, "--allow-x25519", "--mqtt-broker", "mqtts://"+f.byCert, "--mqtt-ca", f.file("broker.pem"), "--output", "file:"+filepath.Join(dir, "{stream}.out.ts"))
	s.serve() // before the broker is there, whose listener wants the CA that is made now
	f.start(s)
	clip, sent := filepath.Join(dir, "clip.ts"), transportStream(200<<10)
	if err := os.WriteFile(clip, sent, 0o600); err != nil {
		t.Fatal(err)
	}
	d := pythonDevice(t, clip, filepath.Join(dir, "state"), "--join", tokenFile(t, s, "cam-py"))
	d.wait()
	out := filepath.Join(dir, "cam-py.out.ts")
	until(t, "everything sent was delivered", func() bool { return size(out) >= int64(len(sent)) })
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes were sent, %d arrived, and they differ first at %d (%v)", len(sent), len(got), firstDifference(sent, got), err)
	}
}

// What is negotiated, with the real service: a suite or version that it does not
// take ends the device with words that say so, and an older version works.
func TestNegotiationInAnotherLanguage(t *testing.T) {
	needPython(t)
	for _, row := range []struct {
		name   string
		server []string
		device []string
		want   string
	}{
		{"classical suite without the operator's word", nil, nil, "unsupported-suite"},
		{"older version", []string{"--allow-x25519"}, []string{"--versions", "0"}, "accepted: version 0"},
		{"both versions", []string{"--allow-x25519"}, nil, "accepted: version 1"},
		{"older version below the minimum", []string{"--allow-x25519", "--min-protocol-version=1"}, []string{"--versions", "0"}, "unsupported-version: minor versions 1 to 3 are spoken here [1, 2, 3]"},
		{"a version to come", []string{"--allow-x25519"}, []string{"--versions", "4"}, "unsupported-version"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			s := newSite(t, append(row.server, "--output", "file:"+filepath.Join(dir, "{stream}.out.ts"))...)
			s.serve()
			clip, sent := filepath.Join(dir, "clip.ts"), transportStream(200<<10)
			if err := os.WriteFile(clip, sent, 0o600); err != nil {
				t.Fatal(err)
			}
			d := pythonDevice(t, clip, filepath.Join(dir, "state"), append([]string{"--join", tokenFile(t, s, "cam-py")}, row.device...)...)
			<-d.done
			if !strings.Contains(d.output(), row.want) || (d.err == nil) != strings.HasPrefix(row.want, "accepted") {
				t.Fatalf("%v, want %q\n%s", d.err, row.want, d.output())
			}
			if d.err != nil {
				return
			}
			out := filepath.Join(dir, "cam-py.out.ts")
			until(t, "everything sent was delivered", func() bool { return size(out) >= int64(len(sent)) })
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes were sent, %d arrived, and they differ first at %d (%v)", len(sent), len(got), firstDifference(sent, got), err)
			}
		})
	}
}

// The example reads the protocol's vectors as this project does.
func TestVectorsInAnotherLanguage(t *testing.T) {
	needPython(t)
	out, err := exec.Command(debianPython, "-B", "../../examples/python-device/check_vectors.py", "../../gkrp/testdata/vectors").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// The server is killed and started again while the device sends: it finds the
// broker again by itself, and its session and its keys go on.
func TestDeviceInAnotherLanguageOutlivesTheServer(t *testing.T) {
	needPython(t)
	dir := t.TempDir()
	s := newSite(t, "--allow-x25519", "--rotate-every=400ms", "--output", "file:"+filepath.Join(dir, "{stream}.out.ts"))
	server := s.serve()
	clip := filepath.Join(dir, "clip.ts")
	if err := os.WriteFile(clip, transportStream(4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d := pythonDevice(t, clip, filepath.Join(dir, "state"), "--join", tokenFile(t, s, "cam-py"))
	epochs := func() int { return strings.Count(d.output(), "\nepoch ") }
	until(t, "keys change", func() bool { return epochs() >= 3 })
	server.kill()
	before := epochs()
	server = s.serve()
	until(t, "keys change again", func() bool { return epochs() >= before+3 })
	d.wait()
	if n := strings.Count(d.output(), "accepted"); n != 1 {
		t.Errorf("%d sessions\n%s", n, d.output())
	}
	server.stop()
}
