package transport

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestRotations sends a stream through 40 rotations over real sockets, with
// disorder around every switch, and every kind of packet that must not pass
// among it. What comes out is what went in.
func TestRotations(t *testing.T) {
	const (
		epochs   = 41
		perEpoch = 60
		disorder = 24
		start    = gk.Index(1<<16 - 500) // the sequence number wraps on the way
	)
	cfg := testConfig()
	cfg.RoundTrip = 20 * time.Second // nothing is late here, however slow the machine
	cfg.Latency = 10 * time.Second
	w := newWorld(t, cfg)
	w.assign(mp2t)
	dice := rand.New(rand.NewPCG(1, 2))

	var queue, noise [][]byte
	want := map[string]uint64{}
	outsiders := map[string]uint64{}
	add := func(counts map[string]uint64, cause string, pkt []byte) {
		counts[cause]++
		noise = append(noise, pkt)
	}
	damaged := func(pkt []byte, at int) []byte {
		b := bytes.Clone(pkt)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
	// flush sends what is queued but for the last keep packets, in disorder.
	flush := func(keep int) {
		for len(queue) > keep {
			n := dice.IntN(min(disorder, len(queue)))
			w.send(queue[n])
			queue = append(queue[:n], queue[n+1:]...)
		}
	}
	index := start
	for e := gk.Epoch(1); e <= epochs; e++ {
		if e > 16 {
			// Make room as time would, once the oldest epochs have nothing under way.
			w.until("the older epochs", func() bool { return w.status().Delivered >= uint64(e-8)*perEpoch })
			w.svc.mu.Lock()
			ses := w.svc.routes[w.ssrc]
			for len(ses.keys.retiring) > 8 {
				ses.keys.retiring[0].serves = time.Unix(1, 0)
				ses.keys.expire(time.Now())
			}
			w.svc.wipeDropped(ses, time.Now())
			w.svc.mu.Unlock()
		}
		w.arm(e)
		first := index
		if e == 1 || e%3 == 0 {
			w.begin(e, first) // before any packet
		}
		s := w.sealer(e)
		var sample []byte
		for range perEpoch {
			pkt := w.packet(s, index, tsPayload(index))
			queue = append(queue, pkt)
			sample = pkt
			index++
		}
		add(want, "auth-failed", damaged(w.packet(w.sealer(e), index+2000, tsPayload(index)), 100))
		add(want, "auth-failed", damaged(sample, -20)) // the beginning of its tag
		add(want, "auth-failed", damaged(sample, 3))   // its index
		add(want, "unknown-epoch", damaged(sample, -3))
		add(want, "bad-length", sample[:30])
		add(outsiders, "unknown-ssrc", damaged(sample, 9))
		version := bytes.Clone(sample)
		version[0] = 0x40
		add(outsiders, "bad-version", version)
		add(outsiders, "bad-length", sample[:7])
		flush(disorder)
		if e > 1 {
			w.send(noise...)
			noise = noise[:0]
		}
		if e%3 == 1 {
			w.begin(e, first) // after its packets
		}
	}
	flush(0)
	w.send(noise...)
	total := uint64(epochs * perEpoch)
	sum := func(m map[string]uint64) (n uint64) {
		for _, v := range m {
			n += v
		}
		return n
	}
	w.until("every packet", func() bool {
		return w.status().Delivered == total && sum(w.svc.Outsiders()) == sum(outsiders) && sum(w.status().Dropped) == sum(want)
	})
	got := w.delivered()
	for i, p := range got {
		at := start + gk.Index(i)
		if p.index != at || p.payload != string(tsPayload(at)) {
			t.Fatalf("delivery %d is packet %d, want %d", i, p.index, at)
		}
	}
	st := w.status()
	if !maps.Equal(st.Dropped, want) || !maps.Equal(w.svc.Outsiders(), outsiders) || st.Lost != 0 {
		t.Errorf("dropped %v and %v, lost %d\nwant %v and %v", st.Dropped, w.svc.Outsiders(), st.Lost, want, outsiders)
	}
	if st.Epoch != epochs || st.Highest != index-1 || st.Bytes != total*1316 {
		t.Errorf("status %+v", st)
	}
	w.until("an event for each epoch", func() bool { return len(w.seen(gk.EventEpochFirstPacket)) == epochs })
	if proof := w.seen(gk.EventProof); len(proof) != 0 {
		t.Errorf("accused an honest device: %+v", proof)
	}
}

// TestProof: every kind of evidence that a second party holds the key is counted,
// reported once and not delivered.
func TestProof(t *testing.T) {
	cfg := testConfig()
	cfg.RoundTrip = 20 * time.Second
	w := newWorld(t, cfg)
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	s1, s2 := w.sealer(1), w.sealer(2)
	for i := gk.Index(100); i < 110; i++ {
		w.send(w.packet(s1, i, tsPayload(i)))
	}
	w.until("the first epoch", func() bool { return w.status().Delivered == 10 })
	stolen := tsPayload(9999)
	thief := func(e gk.Epoch, i gk.Index) { w.send(w.packet(w.sealer(e), i, stolen)) }
	thief(1, 105)
	thief(1, 105)
	thief(1, 99)
	w.arm(2)
	w.begin(2, 110)
	for i := gk.Index(110); i < 120; i++ {
		w.send(w.packet(s2, i, tsPayload(i)))
	}
	thief(1, 110)
	thief(1, 5000)
	thief(2, 109)
	genuine := w.packet(w.sealer(1), 104, tsPayload(104))
	w.send(genuine, genuine)
	want := map[string]uint64{"two-writers": 2, "before-first": 2, "past-end": 2, "duplicate": 2}
	w.until("all of them", func() bool { return w.status().Delivered == 20 && maps.Equal(w.status().Dropped, want) })
	w.until("the accusations", func() bool { return len(w.seen(gk.EventProof)) == 2 })
	for i, e := range w.seen(gk.EventProof) {
		if e.Epoch != gk.Epoch(i+1) || e.Stream != testStream || e.Detail["evidence"] == "" {
			t.Errorf("event %+v", e)
		}
	}
	for _, p := range w.delivered() {
		if p.payload == string(stolen) {
			t.Errorf("packet %d of the thief was delivered", p.index)
		}
	}
}

// TestRetirement: an old key serves its grace, then it is gone and says so.
func TestRetirement(t *testing.T) {
	cfg := testConfig()
	cfg.Latency, cfg.RoundTrip = 20*time.Millisecond, 20*time.Millisecond
	w := newWorld(t, cfg)
	gone := make(chan bus.EpochGone, 8)
	if _, err := bus.TransportGone.Hear(w.conn, func(g bus.EpochGone) { gone <- g }, nil); err != nil {
		t.Fatal(err)
	}
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	w.send(w.packet(w.sealer(1), 100, tsPayload(100)))
	w.until("a packet", func() bool { return w.status().Delivered == 1 })
	w.arm(2)
	w.send(w.packet(w.sealer(2), 102, tsPayload(102)))
	if g := <-gone; g.Epoch != 1 || g.Session != w.session {
		t.Errorf("gone: %+v", g)
	}
	w.send(w.packet(w.sealer(1), 101, tsPayload(101)))
	w.until("the stale packet", func() bool { return w.status().Dropped["stale-epoch"] == 1 })
	w.until("the end of the gap", func() bool { return w.status().Delivered == 2 })
	if now, later := w.status().Lost, w.svc.Status(time.Now().Add(gapDoubt))[0].Lost; now != 0 || later != 1 {
		t.Errorf("%d lost before any report, %d when none came; want 0 and 1", now, later)
	}
	if _, err := bus.TransportArm.Do(context.Background(), w.conn, "transport-1", w.armRequest(1)); bus.CodeOf(err) != bus.CodeConflict {
		t.Errorf("armed again: %v", err)
	}
	if len(w.seen(gk.EventEpochRetired)) != 1 {
		t.Errorf("events %+v", w.seen(gk.EventEpochRetired))
	}
}

// TestJoinsMidStream: a transport that is told where the device is opens packets
// far from any rollover counter it could guess.
func TestJoinsMidStream(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	req := w.armRequest(7)
	req.Joining, req.Near = true, 40<<16+5
	if _, err := bus.TransportArm.Do(context.Background(), w.conn, "transport-1", req); err != nil {
		t.Fatal(err)
	}
	s := w.sealer(7)
	for i := gk.Index(40<<16 + 900); i < 40<<16+910; i++ {
		w.send(w.packet(s, i, tsPayload(i)))
	}
	w.until("the packets", func() bool { return w.status().Delivered == 10 })
}

// TestNewSession: it takes over when it has a key, and the old one's SSRC and
// keys are forgotten.
func TestNewSession(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	w.arm(1)
	w.begin(1, 100)
	old := w.packet(w.sealer(1), 100, tsPayload(100))
	w.send(old)
	w.until("the old session", func() bool { return w.status().Delivered == 1 })
	before := w.session

	w.newSession()
	w.ssrc++
	w.assign(mp2t)
	if w.status().Session != before {
		t.Error("a session without a key took over")
	}
	w.arm(2)
	w.begin(2, 1)
	w.send(old)
	w.until("the old packet", func() bool { return w.svc.Outsiders()["unknown-ssrc"] == 1 })
	w.send(w.packet(w.sealer(2), 1, tsPayload(1)))
	w.until("the new session", func() bool { return w.status().Session == w.session && w.status().Delivered == 1 })

	release := bus.ReleaseStream{Stream: testStream, Session: w.session, Term: 1}
	for range 2 {
		if _, err := bus.TransportRelease.Do(context.Background(), w.conn, "transport-1", release); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.svc.Status(time.Now()); len(got) != 0 {
		t.Errorf("after release: %+v", got)
	}
}

// TestRefusals: what a command must be refused for.
func TestRefusals(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	stranger, _ := signer(t)
	envelope := func(change func(*gkrp.KeyEnvelope)) func(*bus.ArmRequest) {
		return func(r *bus.ArmRequest) {
			env := w.envelope(r.Epoch)
			change(&env)
			w.sealInto(&env, r.Epoch)
			r.Envelope = w.signed(w.kms, env)
		}
	}
	other, _ := gk.NewSessionID(nil)
	for _, c := range []struct {
		name   string
		change func(*bus.ArmRequest)
		want   bus.Code
	}{
		{"unsigned", func(r *bus.ArmRequest) { r.Envelope = []byte("key") }, bus.CodeUnauthorized},
		{"signed by another", func(r *bus.ArmRequest) { r.Envelope = w.signed(stranger, w.envelope(1)) }, bus.CodeUnauthorized},
		{"another stream's", envelope(func(e *gkrp.KeyEnvelope) { e.Stream = "cam-2" }), bus.CodeBadRequest},
		{"another session's", envelope(func(e *gkrp.KeyEnvelope) { e.Session = other }), bus.CodeBadRequest},
		{"another epoch's", envelope(func(e *gkrp.KeyEnvelope) { e.Epoch = 2 }), bus.CodeBadRequest},
		{"another ssrc's", envelope(func(e *gkrp.KeyEnvelope) { e.SSRC++ }), bus.CodeBadRequest},
		{"another receiver's", envelope(func(e *gkrp.KeyEnvelope) { e.Receiver = "transport/other" }), bus.CodeBadRequest},
		{"another receiver key", envelope(func(e *gkrp.KeyEnvelope) { e.KeyID = make([]byte, 16) }), bus.CodeConflict},
		{"sealed for another place", func(r *bus.ArmRequest) {
			env := w.envelope(1)
			env.Sealed = w.envelope(2).Sealed
			r.Envelope = w.signed(w.kms, env)
		}, bus.CodeOf(nil)},
		{"unknown session", func(r *bus.ArmRequest) { r.Session = other }, bus.CodeNotFound},
		{"an older term", func(r *bus.ArmRequest) { r.Term = 0 }, bus.CodeConflict},
		{"no stream name", func(r *bus.ArmRequest) { r.Stream = "a/b" }, bus.CodeBadRequest},
	} {
		req := w.armRequest(1)
		c.change(&req)
		_, err := bus.TransportArm.Do(context.Background(), w.conn, "transport-1", req)
		if err == nil || c.want != bus.CodeInternal && bus.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w.svc.mu.Lock()
	if len(w.svc.routes[w.ssrc].keys.armed) != 0 {
		t.Error("a refused key was armed")
	}
	w.svc.mu.Unlock()
	req := bus.AssignRequest{Stream: "cam-2", Session: other, SSRC: w.ssrc, Payload: mp2t, Term: 1}
	if _, err := bus.TransportAssign.Do(context.Background(), w.conn, "transport-1", req); bus.CodeOf(err) != bus.CodeConflict {
		t.Errorf("an SSRC twice: %v", err)
	}
	begin := bus.SwitchRequest{Stream: testStream, Session: w.session, Epoch: 9, First: 1, Term: 1}
	if _, err := bus.TransportSwitch.Do(context.Background(), w.conn, "transport-1", begin); bus.CodeOf(err) != bus.CodeNotFound {
		t.Errorf("an epoch that is not armed: %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	w := newWorld(t, testConfig())
	cfg := testConfig()
	cfg.Listen = w.here.Address
	own, kms := signer(t)
	_, err := New(cfg, w.conn, Identity{Signer: own, KMS: kms}, nil)
	if err == nil || !strings.Contains(err.Error(), w.here.Address) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v", err)
	}
}

func TestAdvertised(t *testing.T) {
	for advertise, want := range map[string]string{
		"media.example": "media.example:%d", "2001:db8::1": "[2001:db8::1]:%d", "media.example:9": "media.example:9",
	} {
		cfg := testConfig()
		cfg.Advertise = advertise
		own, kms := signer(t)
		s, err := New(cfg, bus.NewMemory().Conn(), Identity{Signer: own, KMS: kms}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(want, "%d") {
			want = fmt.Sprintf(want, s.sock.LocalAddr().Port())
		}
		if s.Address() != want {
			t.Errorf("%s is announced as %s, want %s", advertise, s.Address(), want)
		}
		_ = s.sock.Close()
	}
}

// TestNewcomerTakesOverWithItsFirstPacket: a session that is assigned and armed
// leaves the one before alone, and what is still asked for that one leaves the
// newcomer alone.
func TestNewcomerTakesOverWithItsFirstPacket(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(mp2t)
	w.arm(1)
	w.source(1, 10, 20)
	w.until("the first session", func() bool { return w.status().Delivered == 10 })
	old, ssrc := w.session, w.ssrc
	w.newSession()
	w.ssrc++
	w.assign(mp2t)
	w.arm(2)
	newcomer := w.session
	w.session, w.ssrc = old, ssrc
	w.arm(3) // late, for the session before
	w.source(1, 20, 30)
	w.until("more of the first session", func() bool { return w.status().Delivered == 20 })
	w.session, w.ssrc = newcomer, ssrc+1
	w.source(2, 500, 510)
	w.until("the newcomer", func() bool { return w.status().Session == newcomer && w.status().Delivered == 10 })
}

// TestSessionFromBeforeTakesNothingOver: what is asked late for a session from
// before, and its packets that somebody kept, neither push out a newcomer that
// waits nor take over from it.
func TestSessionFromBeforeTakesNothingOver(t *testing.T) {
	w := newWorld(t, testConfig())
	old, ssrc := w.session, w.ssrc
	w.newSession()
	w.ssrc++
	newcomer := w.session
	w.assign(mp2t)
	w.arm(5)
	w.session, w.ssrc = old, ssrc
	w.assign(mp2t) // late
	w.arm(2)
	w.session, w.ssrc = newcomer, ssrc+1
	w.source(5, 500, 510)
	w.until("the newcomer", func() bool { return w.status().Session == newcomer && w.status().Delivered == 10 })
	w.session, w.ssrc = old, ssrc
	w.source(2, 10, 20)
	w.session, w.ssrc = newcomer, ssrc+1
	w.source(5, 510, 520)
	w.until("more of the newcomer", func() bool { return w.status().Session == newcomer && w.status().Delivered == 20 })
}
