package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const testSSRC = 0x1234abcd

// mediaKey is a fixed key for an epoch.
func mediaKey(t testing.TB, e gk.Epoch) keyring.MediaKey {
	t.Helper()
	b := make([]byte, keyring.MediaKeySize)
	for i := range b {
		b[i] = byte(i) + byte(e)*31
	}
	k, err := keyring.MediaKeyFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rtpHeader(i gk.Index) []byte {
	return media.Header{PayloadType: media.PayloadTypeTS, Seq: i.Seq(), Timestamp: uint32(i) * 90, SSRC: testSSRC}.AppendTo(nil)
}

// sealAs makes a packet with a sealer of its own, as a second holder of the key could.
func sealAs(t testing.TB, e gk.Epoch, i gk.Index, payload []byte) []byte {
	t.Helper()
	s, err := media.NewSealer(mediaKey(t, e), testSSRC, e)
	if err != nil {
		t.Fatal(err)
	}
	pkt, err := s.Seal(nil, rtpHeader(i), payload, i)
	if err != nil {
		t.Fatal(err)
	}
	return pkt
}

// slotWorld runs the commands of a test table against slots.
type slotWorld struct {
	t   *testing.T
	k   slots
	now time.Time
}

// do runs one command and tells its outcome:
//
//	arm EPOCH [REASON]    error, or nothing
//	packet EPOCH INDEX    the verdict; "first" where it is the epoch's first
//	thief EPOCH INDEX     the same, with other contents
//	tell EPOCH FIRST      leaps found
//	wait DURATION         epochs that went
func (w *slotWorld) do(command string) string {
	f := strings.Fields(command)
	var e gk.Epoch
	var i gk.Index
	if f[0] != "wait" {
		fmt.Sscan(f[1], &e)
	}
	if len(f) > 2 {
		fmt.Sscan(f[2], &i)
	}
	switch f[0] {
	case "arm":
		open, err := media.NewOpener(mediaKey(w.t, e), testSSRC, e)
		if err != nil {
			w.t.Fatal(err)
		}
		reason := gk.ReasonSchedule
		if len(f) > 2 {
			reason = gk.Reason(f[2])
		}
		if err := w.k.arm(w.now, e, reason, open); err != nil {
			return err.Error()
		}
		return ""
	case "tell":
		w.k.tell(w.now, e, i)
		return w.leaps()
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
		w.k.expire(w.now)
		var gone []string
		for _, s := range w.k.takeDropped() {
			gone = append(gone, fmt.Sprint(s.epoch))
		}
		return strings.Join(gone, " ")
	}
	s := w.k.find(e)
	if s == nil {
		return "unknown"
	}
	opened, v := s.open.Open(nil, sealAs(w.t, e, i, []byte(f[0])))
	if s.watching {
		return "watched " + v.String()
	}
	if v != media.OK {
		return v.String()
	}
	out := "ok"
	if first, _ := w.k.seen(w.now, s, opened.Index); first {
		out = "first"
	}
	if l := w.leaps(); l != "" {
		out += " " + l
	}
	return out
}

func (w *slotWorld) leaps() (out string) {
	for s := w.k.leap(); s != nil; s = w.k.leap() {
		out += fmt.Sprintf("proof %d", s.epoch)
	}
	return out
}

func (w *slotWorld) state() string {
	list := func(ss []*slot) (out []gk.Epoch) {
		for _, s := range ss {
			out = append(out, s.epoch)
		}
		return out
	}
	current := gk.Epoch(0)
	if w.k.current != nil {
		current = w.k.current.epoch
	}
	return fmt.Sprintf("%v %d %v", list(w.k.retiring), current, list(w.k.armed))
}

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps string // COMMAND -> OUTCOME, one a line
		state string // [retiring] current [armed]
	}{
		{"armed, then used", `
			arm 1 start ->
			packet 1 100 -> first
			packet 1 101 -> ok
			packet 1 101 -> duplicate`, "[] 1 []"},
		{"promoted by the first packet", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			packet 1 101 -> ok
			packet 2 103 -> first
			packet 1 102 -> ok
			wait 399ms ->
			packet 1 99 -> ok
			wait 1ms -> 1
			packet 1 98 -> unknown`, "[] 2 []"},
		{"promoted by the device's word", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			tell 2 103 ->
			packet 1 102 -> ok
			packet 1 103 -> past-end
			packet 2 102 -> before-first
			packet 2 103 -> first
			wait 400ms -> 1`, "[] 2 []"},
		{"grace counts from the earlier of the two", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			packet 2 101 -> first
			wait 300ms ->
			tell 2 101 ->
			wait 100ms -> 1`, "[] 2 []"},
		{"first packets out of order", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			packet 2 105 -> first
			packet 2 103 -> ok
			packet 1 104 -> past-end
			packet 1 102 -> ok
			tell 2 103 ->
			packet 2 104 -> ok`, "[1] 2 []"},
		{"an old key used past the switch before it was known", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			thief 1 5000 -> ok
			packet 2 103 -> first proof 1
			thief 1 5001 -> past-end
			packet 2 104 -> ok`, "[1] 2 []"},
		{"the same, shown by the device's word", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			thief 1 103 -> ok
			tell 2 103 -> proof 1
			tell 2 103 ->`, "[1] 2 []"},
		{"a new key used before the switch", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			thief 2 90 -> first proof 1
			tell 2 103 -> proof 2
			packet 2 103 -> ok`, "[1] 2 []"},
		{"two writers", `
			arm 1 ->
			packet 1 100 -> first
			thief 1 100 -> two-writers
			packet 1 100 -> duplicate`, "[] 1 []"},
		{"an epoch never used", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 proof ->
			arm 3 proof ->
			packet 3 103 -> first
			tell 2 102 ->
			packet 2 102 -> first
			packet 2 103 -> past-end
			packet 1 102 -> past-end
			packet 1 101 -> ok`, "[1 2] 3 []"},
		{"a device that does not answer after proof", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 proof ->
			wait 1999ms ->
			packet 1 101 -> ok
			wait 1ms ->
			packet 1 102 -> watched ok
			wait 59s ->
			wait 1s -> 1
			packet 1 103 -> unknown
			packet 2 102 -> first`, "[] 2 []"},
		{"a scheduled rotation waits for the device", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 ->
			wait 10m ->
			packet 1 101 -> ok`, "[] 1 [2]"},
		{"watched after an anomaly", `
			arm 1 ->
			packet 1 100 -> first
			arm 2 source ->
			packet 2 101 -> first
			wait 400ms ->
			packet 1 100 -> watched duplicate
			thief 1 100 -> watched two-writers
			thief 1 101 -> watched past-end
			wait 60s -> 1`, "[] 2 []"},
		{"no key outlives its life", `
			arm 1 ->
			packet 1 100 -> first
			wait 1h -> 1
			packet 1 101 -> unknown
			arm 1 -> epoch was armed before and has retired: its key is gone
			arm 2 ->
			packet 2 200 -> first`, "[] 2 []"},
		{"arming again changes nothing", `
			arm 1 ->
			arm 1 ->
			packet 1 100 -> first
			arm 1 ->
			packet 1 100 -> duplicate`, "[] 1 []"},
		{"armed in any order after a restart", `
			arm 2 ->
			packet 2 200 -> first
			arm 1 ->
			packet 1 199 -> first
			packet 1 200 -> past-end
			arm 3 ->
			wait 400ms -> 1`, "[] 2 [3]"},
		{"a sequence wrap at the switch", `
			arm 1 ->
			packet 1 65534 -> first
			arm 2 ->
			tell 2 65536 ->
			packet 2 65536 -> first
			packet 1 65535 -> ok`, "[1] 2 []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &slotWorld{t: t, now: time.Unix(1000, 0), k: slots{times: keyTimes{
				grace: 400 * time.Millisecond, watch: time.Minute, proofLife: 2 * time.Second, life: time.Hour,
			}}}
			for _, line := range strings.Split(strings.TrimSpace(c.steps), "\n") {
				command, want, _ := strings.Cut(line, "->")
				if got := w.do(strings.TrimSpace(command)); got != strings.TrimSpace(want) {
					t.Fatalf("%s -> %q", strings.TrimSpace(line), got)
				}
			}
			if got := w.state(); got != c.state {
				t.Errorf("slots are %s, want %s", got, c.state)
			}
		})
	}
}

// TestSlotsAreBounded rotates without letting anything retire.
func TestSlotsAreBounded(t *testing.T) {
	w := &slotWorld{t: t, now: time.Unix(1000, 0), k: slots{times: keyTimes{grace: time.Hour, watch: time.Hour, proofLife: time.Hour, life: time.Hour}}}
	for e := 1; e <= maxRetiring+1; e++ {
		w.do(fmt.Sprintf("arm %d", e))
		if got := w.do(fmt.Sprintf("packet %d %d", e, 100*e)); got != "first" {
			t.Fatalf("epoch %d: %s", e, got)
		}
	}
	full := maxRetiring + 2
	if got := w.do(fmt.Sprintf("arm %d operator", full)); got != errSlotsFull.Error() {
		t.Fatalf("a rotation that can wait: %q", got)
	}
	if got := w.do(fmt.Sprintf("arm %d proof", full)); got != "" {
		t.Fatalf("a rotation that cannot wait: %q", got)
	}
	w.do(fmt.Sprintf("packet %d %d", full, 100*full))
	if got := w.do("wait 0s"); got != "1" || len(w.k.retiring) != maxRetiring {
		t.Fatalf("evicted %q, %d retire", got, len(w.k.retiring))
	}
	if got := w.do("packet 1 101"); got != "unknown" {
		t.Fatalf("evicted epoch: %q", got)
	}
	for e := full + 1; e <= full+maxArmed; e++ {
		w.do(fmt.Sprintf("arm %d proof", e))
	}
	if got := w.do(fmt.Sprintf("arm %d proof", full+maxArmed+1)); got != errSlotsFull.Error() {
		t.Fatalf("armed without end: %q", got)
	}
}

// TestKeyMadeAnewIsArmedAnew: a key service whose store was restored makes another
// key for an epoch that is armed already. It counts as long as nothing was sent.
func TestKeyMadeAnewIsArmedAnew(t *testing.T) {
	opener := func(key keyring.MediaKey) *media.Opener {
		o, err := media.NewOpener(key, testSSRC, 1)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	k := slots{times: keyTimes{grace: time.Second, watch: time.Second, proofLife: time.Second, life: time.Hour}}
	now := time.Unix(1, 0)
	yesterdays := mediaKey(t, 9)
	for _, key := range []keyring.MediaKey{yesterdays, mediaKey(t, 1)} {
		if err := k.arm(now, 1, gk.ReasonSchedule, opener(key)); err != nil {
			t.Fatal(err)
		}
	}
	s := k.find(1)
	o, v := s.open.Open(nil, sealAs(t, 1, 100, tsPayload(100)))
	if v != media.OK {
		t.Fatalf("under the new key: %v", v)
	}
	k.seen(now, s, o.Index)
	if err := k.arm(now, 1, gk.ReasonSchedule, opener(yesterdays)); err != nil {
		t.Fatal(err)
	}
	if _, v := s.open.Open(nil, sealAs(t, 1, 101, tsPayload(101))); v != media.OK {
		t.Errorf("a key in use was replaced: %v", v)
	}
}
