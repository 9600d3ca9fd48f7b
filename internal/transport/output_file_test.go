package transport

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// What a disk refuses is told, and does not end the recording: what comes later is
// tried again.
func TestFullDiskIsTold(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	o, err := newFileOutput("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	s := &Service{streams: map[gk.StreamID]*stream{testStream: {outputs: []output{o}}}}
	for n := range 2 {
		d := newDelivery()
		d.add(unit{payload: tsPayload(gk.Index(n))})
		o.deliver(nil, d)
		var told []error
		for deadline := time.Now().Add(2 * time.Minute); len(told) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			told = s.outputTroubles()
		}
		if len(told) != 1 || !errors.Is(told[0], syscall.ENOSPC) || !strings.Contains(told[0].Error(), fmt.Sprint(len(d.buf))) || !strings.Contains(told[0].Error(), "/dev/full") {
			t.Errorf("delivery %d: %v", n, told)
		}
	}
	if again := s.outputTroubles(); again != nil {
		t.Errorf("told twice: %v", again)
	}
}
