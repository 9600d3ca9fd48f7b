package processing

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// message is one message as the broker carried it.
type message struct {
	topic   string
	kind    gkrp.Type
	payload []byte // without the signature
	wire    []byte
}

// broker decides what becomes of messages, and keeps what it saw.
type broker struct {
	mu   sync.Mutex
	seen []message
	do   func(m message) []bus.Delivery // nil: all pass
}

func newBroker(t *testing.T, w *world) *broker {
	b := &broker{}
	w.memory.Tamper(func(topic string, wire []byte) []bus.Delivery {
		_, _, dir, err := gkrp.ParseTopic(topic)
		if err != nil {
			t.Error(err)
		}
		r, err := gkrp.Parse(wire, dir)
		if err != nil {
			t.Error(err)
			return nil
		}
		m := message{topic, r.Type, bytes.Clone(r.Payload), bytes.Clone(wire)}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, m)
		if b.do != nil {
			return b.do(m)
		}
		return []bus.Delivery{{Payload: wire}}
	})
	return b
}

func (b *broker) act(do func(m message) []bus.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.do = do
}

func (b *broker) all(kind gkrp.Type) (out []message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.seen {
		if m.kind == kind {
			out = append(out, m)
		}
	}
	return out
}

func pass(m message) []bus.Delivery { return []bus.Delivery{{Payload: m.wire}} }

// rotate orders a rotation, and waits for it where wait says so.
func (w *world) rotate(wait bool) bus.RotateReply {
	w.t.Helper()
	rep, err := bus.ProcessingRotate.Do(context.Background(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: wait})
	if err != nil {
		w.t.Errorf("rotation: %v", err)
	}
	return rep
}

func (d *fakeDevice) at() (e gk.Epoch) {
	d.look(func() { e = d.epoch })
	return e
}

// end stops everything and wants that nothing was sent that could not be opened,
// and so many sessions.
func (w *world) end(d *fakeDevice, sessions int) {
	w.t.Helper()
	d.kill()
	w.close()
	if d.unopened != 0 {
		w.t.Errorf("%d of %d packets could not be opened", d.unopened, d.sent)
	}
	if n := w.count(gk.EventSessionStarted); n != sessions {
		w.t.Errorf("%d sessions, want %d", n, sessions)
	}
}

// TestGrantLost: a GRANT is sent again, byte for byte, until it arrives.
func TestGrantLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		b := newBroker(t, w)
		lost := 0
		b.act(func(m message) []bus.Delivery {
			if m.kind == gkrp.TypeGrant && lost < 4 {
				lost++
				return nil
			}
			return pass(m)
		})
		if rep := w.rotate(true); rep.Epoch != 2 || !rep.Done {
			t.Errorf("%+v", rep)
		}
		grants := b.all(gkrp.TypeGrant)
		if len(grants) != 5 {
			t.Errorf("%d GRANTs were sent, of which 4 were lost", len(grants))
		}
		for _, g := range grants {
			if !bytes.Equal(g.payload, grants[0].payload) {
				t.Error("a GRANT was repeated that is not the same")
			}
		}
		w.end(d, 1)
		if n := w.count(gk.EventRotationDone); n != 2 {
			t.Errorf("%d epochs", n)
		}
	})
}

// TestGrantDuplicated: a GRANT that comes again, at once or after the next epoch
// has begun, is answered with the ACK that was stored, and nothing else follows.
func TestGrantDuplicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		b := newBroker(t, w)
		b.act(func(m message) []bus.Delivery {
			out := pass(m)
			if m.kind == gkrp.TypeGrant {
				out = append(out, bus.Delivery{Payload: m.wire}, bus.Delivery{Payload: m.wire, After: 7 * time.Second})
			}
			return out
		})
		for want := gk.Epoch(2); want <= 6; want++ {
			if rep := w.rotate(true); rep.Epoch != want {
				t.Errorf("%+v, want epoch %d", rep, want)
			}
			time.Sleep(2 * time.Second)
		}
		time.Sleep(10 * time.Second)
		acks := map[string]int{}
		for _, a := range b.all(gkrp.TypeAck) {
			acks[string(a.payload)]++
		}
		if len(acks) != 5 {
			t.Errorf("%d different ACKs for 5 epochs", len(acks))
		}
		for _, n := range acks {
			if n != 3 {
				t.Errorf("a GRANT that came 3 times was answered %d times", n)
			}
		}
		if e := d.at(); e != 6 {
			t.Errorf("the device is at epoch %d", e)
		}
		w.end(d, 1)
		if n := w.count(gk.EventRotationDone); n != 6 {
			t.Errorf("%d epochs", n)
		}
	})
}

// TestAllAcksWithheld: the broker keeps every ACK for ten minutes. The device goes on
// under the key that it was granted, which the transport keeps; the service asks
// again with the same GRANT and begins no other rotation, whatever is due; and
// with the first ACK all is as it should be.
func TestAllAcksWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.RotateEvery = time.Minute
		w, d := newCamera(t, cfg)
		time.Sleep(10 * time.Second)
		b := newBroker(t, w)
		b.act(func(m message) []bus.Delivery {
			if m.kind == gkrp.TypeAck {
				return nil
			}
			return pass(m)
		})
		time.Sleep(10 * time.Minute)
		if e := d.at(); e != 2 {
			t.Errorf("the device is at epoch %d, want 2", e)
		}
		if n := w.count(gk.EventRotationDecided); n != 1 {
			t.Errorf("%d rotations were decided", n)
		}
		grants := b.all(gkrp.TypeGrant)
		for _, g := range grants {
			if !bytes.Equal(g.payload, grants[0].payload) {
				t.Fatal("the GRANT changed")
			}
		}
		b.act(nil)
		time.Sleep(5 * time.Second)
		if n := w.count(gk.EventRotationDone); n < 2 {
			t.Errorf("%d epochs are confirmed", n)
		}
		time.Sleep(5 * time.Minute)
		if e := d.at(); e < 6 {
			t.Errorf("the device is at epoch %d five minutes later", e)
		}
		w.end(d, 1)
	})
}

// TestReplayedNextDay: whoever recorded the broker plays a whole day's messages
// again on the next, to both ends, in order: HELLO, WELCOME, GRANT, ACK, REPORT,
// STOP, BYE. The session that runs then does not notice.
func TestReplayedNextDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := live(t)
		b := newBroker(t, w)
		d.kill()
		time.Sleep(3 * time.Second)
		d.run() // on record from its HELLO on
		time.Sleep(3 * time.Second)
		for range 3 {
			w.rotate(true)
		}
		conn := w.memory.Conn()
		if _, err := bus.ProcessingStop.Do(context.Background(), conn, bus.StopRequest{Stream: "cam-1"}); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		d.look(func() { d.begin() })
		time.Sleep(3 * time.Second)
		d.look(func() { d.execute(d.d.Step(time.Now(), gkrp.Finish{End: d.index + 1})) })
		time.Sleep(3 * time.Second)
		d.kill()
		b.mu.Lock()
		yesterday := b.seen
		b.mu.Unlock()
		kinds := map[gkrp.Type]int{}
		for _, m := range yesterday {
			kinds[m.kind]++
		}
		for _, k := range []gkrp.Type{gkrp.TypeHello, gkrp.TypeChallenge, gkrp.TypeWelcome, gkrp.TypeGrant, gkrp.TypeAck, gkrp.TypeReport, gkrp.TypeStop, gkrp.TypeBye} {
			if kinds[k] == 0 {
				t.Fatalf("no %v was recorded: %v", k, kinds)
			}
		}
		time.Sleep(24 * time.Hour)

		d.unopened = 0 // this device does not stop sending when it is told to
		d.run()
		time.Sleep(3 * time.Second)
		var session gk.SessionID
		var epoch gk.Epoch
		var overs int
		d.look(func() { session, epoch, overs = d.session, d.epoch, len(d.overs) })
		if epoch == 0 {
			t.Fatal("no session the day after")
		}
		events := func() (n int) {
			for _, k := range []gk.EventKind{gk.EventSessionStarted, gk.EventSessionEnded, gk.EventRotationDecided, gk.EventRotationDone, gk.EventProof, gk.EventIdentity} {
				n += w.count(k)
			}
			return n
		}
		before := events()
		b.act(nil)
		w.memory.Tamper(nil)
		attacker := w.memory.Courier()
		for _, m := range yesterday {
			if err := attacker.Send(m.topic, m.wire); err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		attacker.Close()
		d.look(func() {
			if d.session != session || d.epoch != epoch || len(d.overs) != overs {
				t.Errorf("the device went from %s, epoch %d to %s, epoch %d; ended: %v", session, epoch, d.session, d.epoch, d.overs[overs:])
			}
		})
		if after := events(); after != before {
			t.Errorf("the replay led to %d events", after-before)
		}
		if rep := w.rotate(true); rep.Epoch != epoch+1 {
			t.Errorf("after the replay: %+v", rep)
		}
		w.end(d, 5)
	})
}

// TestDeviceRestartedInMidRotation: the device dies with a GRANT on its way to it,
// or with its ACK on the way back. It comes back with a new session and a new key,
// and neither the old GRANT nor the old ACK does anything.
func TestDeviceRestartedInMidRotation(t *testing.T) {
	for _, row := range []struct {
		name string
		slow gkrp.Type
	}{{"grant under way", gkrp.TypeGrant}, {"ack under way", gkrp.TypeAck}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d := live(t)
				b := newBroker(t, w)
				slow := true
				b.act(func(m message) []bus.Delivery {
					if m.kind == row.slow && slow {
						slow = false
						return []bus.Delivery{{Payload: m.wire, After: 3 * time.Second}, {Payload: m.wire, After: 6 * time.Second}}
					}
					return pass(m)
				})
				w.rotate(false)
				time.Sleep(20 * time.Millisecond)
				d.kill()
				used := d.high
				d.run()
				time.Sleep(20 * time.Second)
				if e := d.at(); e <= used {
					t.Errorf("the device is at epoch %d after %d", e, used)
				}
				if rep := w.rotate(true); !rep.Done {
					t.Errorf("%+v", rep)
				}
				w.end(d, 2)
			})
		})
	}
}

// TestAnnouncementsOnTheWire: the device's own is heeded once. Said again by the broker,
// edited, or signed by another device it is none.
func TestAnnouncementsOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		d, other := w.enroll("cam-1"), w.enroll("cam-2")
		broker := w.memory.Courier()
		carry := func(wire []byte) {
			if err := broker.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Up), wire); err != nil {
				t.Error(err)
			}
		}
		d.run()
		other.run()
		time.Sleep(2500 * time.Millisecond)
		number := uint64(100)
		say := func(by *fakeDevice, changes uint64) []byte {
			var session gk.SessionID
			d.look(func() { session = d.session })
			number++
			m := &gkrp.Report{Stream: "cam-1", Session: session, Number: number, Epoch: 1, Packets: 1, Encoder: &gkrp.Encoder{Changes: changes, AgoMs: 10, Why: gkrp.WhyFailed}}
			scope := gkrp.Scope{Device: "cam-1", Stream: "cam-1"}
			wire, err := gkrp.Sign(by.signer, []byte(by.scope.Device), nil, scope, m)
			if err != nil {
				t.Fatal(err)
			}
			carry(wire)
			return wire
		}
		told := func(want int, what string) {
			t.Helper()
			synctest.Wait()
			if n := w.count(gk.EventPlannedChange); n != want {
				t.Errorf("%s: %d announcements were heeded, want %d", what, n, want)
			}
		}
		say(d, 0)
		told(0, "an encoder that runs")
		say(other, 1)
		told(0, "signed by another device")
		kept := say(d, 1)
		told(1, "the device's own")
		for range 5 {
			carry(kept)
		}
		told(1, "said again by the broker")
		edited := bytes.Clone(say(d, 1))
		edited[bytes.Index(edited, []byte("failed"))] ^= 1
		carry(edited)
		told(1, "edited")
		say(d, 2)
		told(2, "the next one")
		if w.count(gk.EventRotationDecided) != 0 {
			t.Error("an announcement changed a key")
		}
		broker.Close()
		d.kill()
		other.kill()
		w.close()
	})
}
