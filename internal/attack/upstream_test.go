package attack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// reel is a source that plays units as fast as they are read, by their own clock.
type reel struct {
	ts    []byte
	clock media.PCRClock
	time  uint32
}

func (*reel) Probe(context.Context) (gkrp.Payload, error) {
	return gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90_000}, nil
}

func (r *reel) Read(_ context.Context, b *device.Batch) error {
	const size = media.TSPerRTP * media.TSPacketSize
	if len(r.ts) < size {
		return io.EOF
	}
	for i := 0; i < size; i += media.TSPacketSize {
		if tick, ok := r.clock.Next(r.ts[i : i+media.TSPacketSize]); ok {
			r.time = uint32(tick.Elapsed.Seconds() * ticksPerSecond)
		}
	}
	b.Units, b.Break = append(b.Units[:0], device.Unit{Payload: r.ts[:size], Timestamp: r.time, Type: 33}), ""
	r.ts = r.ts[size:]
	return nil
}

func (*reel) Dropped() uint64 { return 0 }
func (*reel) Close() error    { return nil }

// read takes n units, or what there is.
func read(t *testing.T, u *Upstream, n int) (out []device.Unit) {
	t.Helper()
	for len(out) < n {
		var b device.Batch
		if err := u.Read(t.Context(), &b); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		for _, x := range b.Units {
			x.Payload = bytes.Clone(x.Payload)
			out = append(out, x)
		}
	}
	return out
}

// seams checks what a receiver could see of a splice: counters, and clocks that jump.
func seams(t *testing.T, units []device.Unit) (jumps, breaks int) {
	t.Helper()
	next := map[uint16]uint8{}
	last := int64(-1)
	for _, u := range units {
		if !media.ValidTS(u.Payload) || len(u.Payload) != media.TSPerRTP*media.TSPacketSize {
			t.Fatalf("a unit of %d bytes is no seven packets", len(u.Payload))
		}
		for p := u.Payload; len(p) > 0; p = p[media.TSPacketSize:] {
			pid, cc := media.PID(p), p[3]&15
			if want, known := next[pid]; known && p[3]&0x10 != 0 && cc != want && pid != media.PIDNull {
				breaks++
			}
			next[pid] = (cc + 1) & 15
			if p[3]&0x10 == 0 {
				next[pid] = cc
			}
			if pcr, ok := media.ParsePCR(p[:media.TSPacketSize]); ok {
				if step := int64(pcr) - last; last >= 0 && (step < 0 || step > 27_000_000) {
					jumps++
				}
				last = int64(pcr)
			}
		}
	}
	return jumps, breaks
}

// Whatever is done before the device, counters and clocks go on; but for a flood,
// which is somebody's who does not know them.
func TestUpstreamLeavesNoSeam(t *testing.T) {
	ts := clip.Bytes()
	for _, how := range []Tamper{Swap, LoopInput, Exfil, Drift, FloodInput} {
		t.Run(string(how), func(t *testing.T) {
			u, err := NewUpstream(&reel{ts: ts[:3_000_000/188*188]}, how, ts[4_000_000/188*188:])
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if _, err := u.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := read(t, u, 1000)
			for i, x := range before {
				if !bytes.Equal(x.Payload, ts[i*1316:(i+1)*1316]) {
					t.Fatalf("unit %d was changed before the attack", i)
				}
			}
			u.Begin()
			during := read(t, u, 60)
			u.End()
			after := read(t, u, 60)
			if st := u.Stats(); st.Sent == 0 || st.Began.IsZero() {
				t.Errorf("%+v", st)
			}
			source := map[string]bool{}
			for i := 0; i+188 <= 3_000_000; i += 188 {
				source[string(ts[i+20:i+188])] = true
			}
			foreign := 0
			for _, x := range during {
				for p := x.Payload; len(p) > 0; p = p[188:] {
					if !source[string(p[20:188])] {
						foreign++
					}
				}
			}
			if how != LoopInput && how != FloodInput && foreign == 0 {
				t.Error("nothing was changed by the attack")
			}
			jumps, breaks := seams(t, append(append(before, during...), after...))
			if clean := jumps == 0 && breaks == 0; clean == (how == FloodInput) {
				t.Errorf("%d jumps of the clock, %d breaks of counters", jumps, breaks)
			}
		})
	}
	if _, err := NewUpstream(&reel{}, "bribe", nil); err == nil {
		t.Error("a way that is none")
	}
	if _, err := NewUpstream(&reel{}, Swap, []byte("film")); err == nil {
		t.Error("a film that is no transport stream")
	}
}

// A reel has to be long enough, and the error says so.
func TestLoopNeedsAReel(t *testing.T) {
	u, err := NewUpstream(&reel{ts: clip.Bytes()[:188*7*40]}, LoopInput, nil)
	if err != nil {
		t.Fatal(err)
	}
	read(t, u, 20)
	u.Begin()
	var b device.Batch
	if err := u.Read(t.Context(), &b); err == nil {
		t.Error("a loop of nothing")
	}
}
