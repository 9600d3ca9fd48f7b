package transport

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// An output that does not open, here a pipe that nobody reads, holds up nobody's
// packets; and when it opens it gets what its stream brings from then on.
func TestOutputsAreOpenedApartFromPackets(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.ts")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.Outputs = []Output{{"slow", "file:" + pipe}}
	w := newWorld(t, cfg)
	slow := bus.AssignRequest{Stream: "slow", Session: gk.SessionID{9}, SSRC: 0x9999, Payload: mp2t, Term: 1}
	assigned := make(chan error, 2)
	go func() { _, err := w.svc.assign(t.Context(), slow); assigned <- err }()
	lively := make(chan struct{})
	go func() {
		defer close(lively)
		for known := false; !known; { // until the output is about to be opened
			w.svc.mu.Lock()
			known = w.svc.streams["slow"] != nil
			w.svc.mu.Unlock()
		}
		w.newSession()
		w.assign(mp2t)
		w.arm(1)
		w.begin(1, 100)
		w.send(w.packet(w.sealer(1), 100, tsPayload(100)))
		w.until("delivered", func() bool { return len(w.delivered()) == 1 })
		// Asked again, the service does not try the same once more.
		_, err := w.svc.assign(t.Context(), slow)
		assigned <- err
	}()
	select {
	case <-lively:
	case <-time.After(time.Minute):
		t.Fatal("everything waits for an output that does not open")
	}
	r, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		if err := <-assigned; err != nil {
			t.Error(err)
		}
	}
	w.svc.mu.Lock()
	defer w.svc.mu.Unlock()
	if n := len(w.svc.streams["slow"].outputs); n != 1 {
		t.Errorf("%d outputs", n)
	}
}

// An output that failed is tried again with the next session.
func TestOutputIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mounted-later")
	cfg := testConfig()
	cfg.Outputs = []Output{{testStream, "file:" + dir + "/out.ts"}}
	w := newWorld(t, cfg)
	for n := range 2 {
		w.newSession()
		w.ssrc += uint32(n)
		w.assign(mp2t)
		if have := len(w.svc.streams[testStream].outputs); have != n {
			t.Errorf("session %d: %d outputs", n, have)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}
