package transport

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

func (w *world) hold(held bool, term uint64) error {
	_, err := bus.TransportHold.Do(context.Background(), w.conn, string(w.here.Transport), bus.HoldRequest{Stream: testStream, Held: held, Why: "a test", Term: term})
	return err
}

func testSlate(t testing.TB) *Slate {
	s, err := ParseSlate(clip.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHold: what outputs and viewers get of a held stream, in each mode, and that
// they get all of it before and after, in one numbering.
func TestHold(t *testing.T) {
	for _, row := range []struct {
		mode OnHold
		want func(ts []byte) bool // of what comes meanwhile; nil: nothing comes
	}{
		{HoldPass, func(ts []byte) bool { return len(ts) == 1316 }},
		{HoldFreeze, func(ts []byte) bool { return media.PID(ts) == 0x1fff && len(ts) == 188 }},
		{HoldSlate, func(ts []byte) bool { return media.ValidTS(ts) && len(ts) <= 1316 }},
		{HoldStop, nil},
	} {
		t.Run(string(row.mode), func(t *testing.T) {
			addr, next := receiver(t)
			cfg := testConfig()
			cfg.OnHold, cfg.Slate = row.mode, testSlate(t)
			cfg.Outputs = []Output{{testStream, "rtp://" + addr}}
			w := newWorld(t, cfg)
			w.assign(mp2t)
			w.arm(1)
			w.begin(1, 100)
			var last media.Header
			n := 0
			get := func() []byte {
				t.Helper()
				pkt := next()
				h, err := media.ParseHeader(pkt)
				// What was stopped is a gap like any other.
				if err != nil || n > 0 && h.Seq != last.Seq+1 && (row.mode != HoldStop || h.Seq != last.Seq+21) {
					t.Fatalf("packet %d: %+v after %+v, %v", n, h, last, err)
				}
				n, last = n+1, h
				return pkt[h.Size:]
			}
			source := func(from, to gk.Index) {
				w.source(1, from, to)
				for i := from; i < to; i++ {
					if got := get(); !bytes.Equal(got, tsPayload(i)) {
						t.Fatalf("%d bytes of PID %x instead of packet %d", len(got), media.PID(got), i)
					}
				}
			}
			source(100, 110)
			w.svc.mu.Lock()
			v := w.svc.streams[testStream].viewers
			w.svc.mu.Unlock()
			viewer, err := v.join(func() {})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := w.hold(true, 1); err != nil {
					t.Fatal(err)
				}
			}
			w.source(1, 110, 130)
			if row.mode != HoldPass {
				w.until("held packets", func() bool { return w.status().Dropped["held"] == 20 })
			}
			if row.want != nil {
				for range 20 {
					if ts := get(); !row.want(ts) {
						t.Fatalf("%d bytes of PID %x come from a held stream", len(ts), media.PID(ts))
					}
				}
			}
			_, joined := v.join(func() {})
			if stopped := row.mode == HoldStop; stopped != viewer.over() || stopped != errors.Is(joined, errHeld) {
				t.Errorf("a viewer who was there is cut off: %v, another gets %v", viewer.over(), joined)
			}
			if err := w.hold(false, 0); bus.CodeOf(err) != bus.CodeConflict {
				t.Errorf("who was replaced in command has a stream shown again: %v", err)
			}
			if err := w.hold(false, 1); err != nil {
				t.Fatal(err)
			}
			w.source(1, 130, 140)
			for got := 0; got < 10; { // behind what was on its way when the hold ended
				if ts := get(); bytes.Equal(ts, tsPayload(130+gk.Index(got))) {
					got++
				} else if got > 0 {
					t.Fatalf("after packet %d comes PID %x", 129+got, media.PID(ts))
				}
			}
			if _, err := v.join(func() {}); err != nil {
				t.Errorf("nobody may join afterwards: %v", err)
			}
			for _, kind := range []gk.EventKind{gk.EventStreamHeld, gk.EventStreamFreed} {
				w.until("the event", func() bool { return len(w.seen(kind)) > 0 })
				if e := w.seen(kind); len(e) != 1 || e[0].Detail["shown"] != string(row.mode) {
					t.Errorf("%s: %+v", kind, e)
				}
			}
			if st := w.status(); st.Highest != 139 || st.SilentMs > 5000 {
				t.Errorf("what is held is not followed any more: %+v", st)
			}
		})
	}
}

func TestHoldIsConfigured(t *testing.T) {
	for _, row := range []struct {
		mode OnHold
		want string
	}{{"", ""}, {HoldPass, ""}, {HoldStop, ""}, {HoldSlate, "needs a clip"}, {"blank", "none of pass, freeze, slate and stop"}} {
		cfg := testConfig()
		cfg.OnHold = row.mode
		if err := cfg.checkHold(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v", row.mode, err)
		}
	}
}

// TestSlatePlaysOnTime: over several loops the clip keeps its pace, every PID's
// counter goes on, and each loop says that its clock begins anew.
func TestSlatePlaysOnTime(t *testing.T) {
	s := testSlate(t)
	now := time.Unix(1000, 0)
	p := newSlatePlayer(s, now)
	counters := map[uint16]byte{}
	marks, bytesOut := 0, 0
	const loops = 3
	for end := now.Add(loops * s.length); now.Before(end); now = now.Add(10 * time.Millisecond) {
		for b := p.due(now); len(b) > 0; b = p.due(now) {
			bytesOut += len(b)
			for ts := range slices.Chunk(b, media.TSPacketSize) {
				if c, ok := counters[media.PID(ts)]; ok && ts[3]&0x10 != 0 && ts[3]&0x0f != (c+1)&0x0f {
					t.Fatalf("PID %x: counter %d after %d", media.PID(ts), ts[3]&0x0f, c)
				}
				counters[media.PID(ts)] = ts[3] & 0x0f
				if media.Discontinuity(ts) {
					marks++
				}
			}
		}
	}
	if want := loops * len(s.ts); bytesOut < want*99/100 || bytesOut > want*101/100 || marks != loops {
		t.Errorf("%d bytes in %d loops of %d, %d marks", bytesOut, loops, len(s.ts), marks)
	}
	now = now.Add(time.Hour)
	n := 0
	for b := p.due(now); len(b) > 0 && n < len(s.ts); b = p.due(now) {
		n += len(b)
	}
	if n > 7*media.TSPacketSize {
		t.Errorf("after a pause %d bytes come at once", n)
	}
}

func TestSlateRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"no MPEG-TS":    bytes.Repeat([]byte("x"), 5000),
		"association":   bytes.Repeat(nullPacket[:], 50),
		"does not run":  clip.Bytes()[:188*12],
		"longer than 1": make([]byte, maxSlate+1),
	} {
		path := filepath.Join(dir, "slate.ts")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSlate(path); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "ffmpeg") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadSlate(filepath.Join(dir, "none.ts")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func FuzzSlate(f *testing.F) {
	f.Add(clip.Bytes()[:188*400])
	f.Add(bytes.Repeat(nullPacket[:], 20))
	f.Add([]byte{0x47})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSlate(b)
		if err != nil {
			return
		}
		now := time.Unix(1000, 0)
		p := newSlatePlayer(s, now)
		for range 50 {
			now = now.Add(s.length / 10)
			n := 0
			for b := p.due(now); len(b) > 0; b = p.due(now) {
				if !media.ValidTS(b) {
					t.Fatal("a slate gives no MPEG-TS")
				}
				if n += len(b); n > len(s.ts)+1316 {
					t.Fatal("a tenth of the clip gives more than all of it")
				}
			}
		}
	})
}
