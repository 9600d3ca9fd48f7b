package transport

import (
	"context"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// cycle is how many indices one rollover counter has.
const cycle = gk.Index(1 << 16)

// armAs arms an epoch as the processing service does for a stream that sends:
// with the reason, and with the index that the device reported last.
func (w *world) armAs(e gk.Epoch, reason gk.Reason, near gk.Index, joining bool) {
	w.t.Helper()
	req := w.armRequest(e)
	req.Reason, req.Near, req.Joining = reason, near, joining
	if _, err := bus.TransportArm.Do(context.Background(), w.conn, string(w.here.Transport), req); err != nil {
		w.t.Fatal(err)
	}
}

// source sends the packets of an epoch from one index up to before another.
func (w *world) source(e gk.Epoch, from, to gk.Index) {
	w.t.Helper()
	s := w.sealer(e)
	for i := from; i < to; i++ {
		w.send(w.packet(s, i, tsPayload(i)))
	}
}

// wantSource wants the source's packets, in order and alone, at the end of what
// was delivered.
func (w *world) wantSource(from, to gk.Index) {
	w.t.Helper()
	got := w.delivered()
	if len(got) < int(to-from) {
		w.t.Fatalf("%d packets delivered, %d to %d wanted", len(got), from, to-1)
	}
	for k, p := range got[len(got)-int(to-from):] {
		if i := from + gk.Index(k); p.index != i || p.payload != string(tsPayload(i)) {
			w.t.Fatalf("index %d where %d was to come, or not the source's", p.index, i)
		}
	}
}

// TestLeapUnderTheOldKey: whoever has the key of epoch 1 drives the receiver's
// index many rollovers ahead. The packets of epoch 2 are opened and delivered from
// the first on, though they come before anybody told where the epoch begins, and
// in disorder; and so is every epoch after it.
func TestLeapUnderTheOldKey(t *testing.T) {
	const first, change = 9*cycle + 100, 9*cycle + 120
	cfg := testConfig()
	cfg.RoundTrip = 20 * time.Second
	w := newWorld(t, cfg)
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, first)
	w.source(1, first, change)
	w.until("the first epoch", func() bool { return w.status().Delivered == 20 })
	thief := w.sealer(1)
	for i := range gk.Index(12) {
		to := change + (i+1)*(1<<15-2000)
		w.send(w.packet(thief, to, tsPayload(9999)))
	}
	w.until("the leap", func() bool { return w.status().Delivered == 32 })

	w.armAs(2, gk.ReasonProof, first, false)
	s := w.sealer(2)
	var pkts [][]byte
	for i := gk.Index(change); i < change+40; i++ {
		pkts = append(pkts, w.packet(s, i, tsPayload(i)))
	}
	pkts[0], pkts[3] = pkts[3], pkts[0]
	pkts[1], pkts[2] = pkts[2], pkts[1]
	w.send(pkts...)
	w.until("the second epoch", func() bool { return w.status().Delivered == 72 })
	w.wantSource(change, change+40)
	w.begin(2, change)
	w.source(2, change+40, change+50)
	w.until("more of it", func() bool { return w.status().Delivered == 82 })
	w.armAs(3, gk.ReasonSchedule, change, false)
	w.source(3, change+50, change+60)
	w.until("the third epoch", func() bool { return w.status().Delivered == 92 })
	w.wantSource(change, change+60)
	if d := w.status().Dropped; len(d) != 0 {
		t.Errorf("packets were refused: %v", d)
	}
	if n := w.status().Lost; n != 0 {
		t.Errorf("%d packets count as lost that nobody sent", n)
	}
}

// TestOutputGoesOnAfterALeap: where delivery goes back to the new key's first
// index, an RTP output's sequence numbers go on, so that its receiver does not
// take the source's packets for old ones.
func TestOutputGoesOnAfterALeap(t *testing.T) {
	addr, next := receiver(t)
	cfg := testConfig()
	cfg.RoundTrip = 20 * time.Second
	cfg.Outputs = []Output{{testStream, "rtp://" + addr}}
	w := newWorld(t, cfg)
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	w.source(1, 100, 110)
	w.send(w.packet(w.sealer(1), 110, tsPayload(9999)), w.packet(w.sealer(1), 111, tsPayload(9999)), w.packet(w.sealer(1), 9000, tsPayload(9999)))
	w.until("the thief's packets", func() bool { return w.status().Delivered == 13 })
	w.arm(2)
	w.begin(2, 110)
	w.source(2, 110, 120)
	w.until("the source's packets", func() bool { return w.status().Delivered == 23 })
	var last media.Header
	for n := range 23 {
		pkt := next()
		h, err := media.ParseHeader(pkt)
		if err != nil {
			t.Fatal(err)
		}
		// The leap itself is a gap like any other.
		if n > 0 && n != 12 && h.Seq != last.Seq+1 {
			t.Fatalf("packet %d has sequence number %d after %d", n, h.Seq, last.Seq)
		}
		if i := gk.Index(97 + n); n >= 13 && string(pkt[h.Size:]) != string(tsPayload(i)) {
			t.Fatalf("packet %d is not the source's %d", n, i)
		}
		last = h
	}
}

// TestLatePacketAfterTheSwitch: what the network held back of the old epoch is
// delivered if its index is below the new one's first, as long as the grace
// lasts; at or past it, never.
func TestLatePacketAfterTheSwitch(t *testing.T) {
	cfg := testConfig()
	cfg.Latency, cfg.RoundTrip = 20*time.Second, 20*time.Second
	w := newWorld(t, cfg)
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	s1 := w.sealer(1)
	late := w.packet(s1, 104, tsPayload(104))
	past := w.packet(s1, 110, tsPayload(9999))
	w.source(1, 100, 104)
	w.source(1, 105, 110)
	w.arm(2)
	w.source(2, 110, 120)
	w.begin(2, 110)
	w.send(past)
	w.until("the packet past the end", func() bool { return w.status().Dropped["past-end"] == 1 })
	if n := w.status().Delivered; n != 4 {
		t.Errorf("%d packets passed a gap", n)
	}
	w.send(late)
	w.until("all of both epochs", func() bool { return w.status().Delivered == 20 })
	w.wantSource(100, 120)
}

// TestTransportRestartedAfterNineWraps: a transport that starts anew is armed
// with the epoch in use and the device's last reported index, and finds the
// rollover counter from that. What an outsider recorded of the epoch before is
// not taken for new.
func TestTransportRestartedAfterNineWraps(t *testing.T) {
	const start, reported = 9*cycle + 5, 9*cycle + 4000
	before := newWorld(t, testConfig())
	before.assign(mp2t)
	before.arm(7)
	before.begin(7, start)
	recorded := [][]byte{}
	s := before.sealer(7)
	for i := gk.Index(start); i < start+100; i++ {
		recorded = append(recorded, before.packet(s, i, tsPayload(i)))
	}
	before.send(recorded...)
	before.until("the packets before", func() bool { return before.status().Delivered == 100 })

	after := newWorld(t, testConfig())
	after.session = before.session
	after.assign(mp2t)
	after.armAs(7, gk.ReasonStart, reported, true)
	after.send(recorded...)
	after.until("the replay", func() bool { return after.status().Dropped["too-old"] == 100 })
	after.source(7, reported+900, reported+1000)
	after.until("the packets after", func() bool { return after.status().Delivered == 100 })
	after.wantSource(reported+900, reported+1000)
}

// TestAllAcksWithheld: nobody tells where the new epoch begins. After a scheduled
// change the old key serves on until the first packet of the new one; after proof
// it has a hard end, whether the device answers or not.
func TestAllAcksWithheld(t *testing.T) {
	for _, row := range []struct {
		name   string
		reason []gk.Reason
		serves bool
	}{
		{"schedule", []gk.Reason{gk.ReasonSchedule}, true},
		{"proof", []gk.Reason{gk.ReasonProof}, false},
		{"proof that came when the epoch was armed", []gk.Reason{gk.ReasonSchedule, gk.ReasonProof}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.ProofLife = 200 * time.Millisecond
			w := newWorld(t, cfg)
			w.assign(mp2t)
			w.arm(1)
			w.begin(1, 100)
			w.source(1, 100, 110)
			w.until("the first epoch", func() bool { return w.status().Delivered == 10 })
			for _, reason := range row.reason {
				w.armAs(2, reason, 100, false)
			}
			if row.serves {
				time.Sleep(3 * cfg.ProofLife)
				w.source(1, 110, 120)
				w.until("more of the first epoch", func() bool { return w.status().Delivered == 20 })
			} else {
				thief := w.sealer(1)
				next := gk.Index(110)
				w.until("the end of the stolen key", func() bool {
					w.send(w.packet(thief, next, tsPayload(9999)))
					next++
					return w.status().Dropped["stale-proven"] > 0
				})
				before := w.status().Delivered
				w.send(w.packet(thief, next, tsPayload(9999)))
				w.until("one more of the thief's", func() bool { return w.status().Dropped["stale-proven"] > 1 })
				if after := w.status().Delivered; after != before {
					t.Errorf("a stolen key delivered %d packets past its end", after-before)
				}
			}
			from := w.status().Highest + 1
			w.source(2, from, from+10)
			w.until("the second epoch", func() bool { return w.status().Epoch == 2 })
			w.until("all of it", func() bool { g := w.delivered(); return g[len(g)-1].index == from+9 })
			w.wantSource(from, from+10)
		})
	}
}

// TestSSRCCollision: a second stream that comes with the SSRC of one that is here
// is refused, whoever sends it, and takes nothing from the first.
func TestSSRCCollision(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	w.source(1, 100, 110)
	other, _ := gk.NewSessionID(nil)
	req := bus.AssignRequest{Stream: "cam-2", Session: other, SSRC: w.ssrc, Payload: mp2t, Term: 1}
	if _, err := bus.TransportAssign.Do(context.Background(), w.conn, "transport-1", req); bus.CodeOf(err) != bus.CodeConflict {
		t.Errorf("an SSRC twice: %v", err)
	}
	arm := w.armRequest(1)
	arm.Stream, arm.Session = "cam-2", other
	if _, err := bus.TransportArm.Do(context.Background(), w.conn, "transport-1", arm); err == nil {
		t.Error("a key for a stream that was refused was taken")
	}
	w.source(1, 110, 120)
	w.until("the first stream", func() bool { return w.status().Delivered == 20 })
	w.wantSource(100, 120)
	req.SSRC++
	if _, err := bus.TransportAssign.Do(context.Background(), w.conn, "transport-1", req); err != nil {
		t.Errorf("with an SSRC of its own: %v", err)
	}
}

// TestReplayOfTheLastMinute sends a minute of a 4 Mb/s stream once more, over a
// change of the key: nothing is delivered twice, nobody is accused, and whoever
// watches is told once.
func TestReplayOfTheLastMinute(t *testing.T) {
	const minute, change, batch = gk.Index(22_800), gk.Index(12_000), 500
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 1)
	w.arm(2)
	var recorded [][]byte
	s := w.sealer(1)
	for i := gk.Index(1); i <= minute; i++ {
		if i == change {
			s = w.sealer(2)
		}
		recorded = append(recorded, w.packet(s, i, tsPayload(i)))
	}
	play := func(arrived func() uint64) {
		for n := 0; n < len(recorded); n += batch {
			w.send(recorded[n:min(n+batch, len(recorded))]...)
			at := uint64(min(n+batch, len(recorded)))
			w.until("a batch", func() bool { return arrived() >= at })
		}
	}
	play(func() uint64 { return w.status().Delivered })
	play(func() (n uint64) {
		for _, d := range w.status().Dropped {
			n += d
		}
		return n
	})
	if st := w.status(); st.Delivered != uint64(minute) || st.Lost != 0 {
		t.Errorf("status %+v", st)
	}
	if e := w.seen(gk.EventProof); len(e) != 0 {
		t.Errorf("a replay accused: %+v", e)
	}
	w.until("an alert", func() bool { return len(w.seen(gk.EventOutsider)) > 0 })
	time.Sleep(2 * statusEvery)
	if e := w.seen(gk.EventOutsider); len(e) != 1 {
		t.Errorf("%d alerts: %+v", len(e), e)
	}
	t.Logf("dropped %v", w.status().Dropped)
}
