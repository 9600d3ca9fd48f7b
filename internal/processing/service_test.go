package processing

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func testConfig() Config {
	c := Defaults()
	c.RotateEvery = 0
	return c
}

// tampering loses, doubles and reorders control messages by the given shares.
func tampering(seed uint64, lose, double, delay float64) func(string, []byte) []bus.Delivery {
	rng := mrand.New(mrand.NewPCG(seed, seed))
	var mu sync.Mutex
	return func(_ string, p []byte) []bus.Delivery {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() < lose {
			return nil
		}
		out := []bus.Delivery{{Payload: p}}
		if rng.Float64() < delay {
			out[0].After = time.Duration(rng.IntN(400)) * time.Millisecond
		}
		if rng.Float64() < double {
			out = append(out, bus.Delivery{Payload: p, After: time.Duration(rng.IntN(3000)) * time.Millisecond})
		}
		return out
	}
}

func TestThousandRotationsOverALossyBroker(t *testing.T) {
	for _, row := range []struct {
		name                string
		lose, double, delay float64
	}{
		{"clean", 0, 0, 0},
		{"lossy", 0.2, 0, 0},
		{"doubling", 0, 0.5, 0},
		{"reordering", 0, 0, 0.5},
		{"all at once", 0.2, 0.3, 0.5},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.RotateEvery = 500 * time.Millisecond
				w := newWorld(t, cfg)
				w.memory.Tamper(tampering(7, row.lose, row.double, row.delay))
				d := w.enroll("cam-1")
				d.run()
				deadline := time.Now().Add(2 * time.Hour)
				for w.count(gk.EventRotationDone) < 1001 && time.Now().Before(deadline) {
					time.Sleep(time.Second)
				}
				d.kill()
				w.close()
				if n := w.count(gk.EventRotationDone); n < 1001 {
					t.Errorf("%d rotations completed", n)
				}
				if d.unopened != 0 {
					t.Errorf("%d of %d packets were sent that the transport could not open", d.unopened, d.sent)
				}
				if n := w.count(gk.EventSessionStarted); n != 1 {
					t.Errorf("%d sessions", n)
				}
			})
		})
	}
}

func TestServiceKilledInMidRotation(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			rng := mrand.New(mrand.NewPCG(seed, 99))
			cfg := testConfig()
			cfg.RotateEvery = 50 * time.Millisecond
			w := newWorld(t, cfg)
			w.memory.Tamper(tampering(seed, 0.1, 0.1, 0.9))
			d := w.enroll("cam-1")
			d.run()
			time.Sleep(3 * time.Second)
			for range 10 {
				w.crash()
				if rng.IntN(2) == 0 {
					w.tr.restart()
				}
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				w.start()
				time.Sleep(time.Duration(500+rng.IntN(2000)) * time.Millisecond)
			}
			w.memory.Tamper(nil)
			time.Sleep(5 * time.Second)
			var unopened int
			d.look(func() { unopened = d.unopened })
			before := w.count(gk.EventRotationDone)
			time.Sleep(10 * time.Second)
			d.kill()
			w.close()
			if after := w.count(gk.EventRotationDone); after < before+100 {
				t.Errorf("seed %d: %d rotations in the 10 s after recovery", seed, after-before)
			}
			if d.unopened != unopened {
				t.Errorf("seed %d: %d packets could not be opened after recovery", seed, d.unopened-unopened)
			}
			if n := w.count(gk.EventSessionStarted); n > 2 {
				t.Errorf("seed %d: the session was begun %d times", seed, n)
			}
		})
	}
}

func TestDeviceRestartIsANewSessionWithNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		d := w.enroll("cam-1")
		for range 5 {
			d.run()
			time.Sleep(4 * time.Second)
			d.kill()
		}
		w.close()
		if n := w.count(gk.EventSessionStarted); n != 5 {
			t.Errorf("%d sessions for 5 starts", n)
		}
		if len(d.used) != 5 || d.unopened != 0 {
			t.Errorf("%d keys used, %d packets could not be opened", len(d.used), d.unopened)
		}
	})
}

func TestNewcomerIsHeldWhileMediaIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(3 * time.Second)
		clone := &fakeDevice{w: w, scope: d.scope, signer: d.signer, rng: d.rng, used: map[gk.Epoch]gk.SessionID{}, offer: d.offer, suites: d.suites, high: 1}
		clone.run()
		time.Sleep(20 * time.Second)
		clone.look(func() {
			if clone.epoch != 0 {
				t.Error("the newcomer was given a key while the incumbent was sending")
			}
			if len(clone.refusals) == 0 || clone.refusals[0] != gkrp.CodeBusy {
				t.Errorf("refusals: %v", clone.refusals)
			}
		})
		d.kill()
		if d.unopened != 0 || d.epoch != 1 {
			t.Errorf("the incumbent was disturbed: epoch %d, %d unopened", d.epoch, d.unopened)
		}
		time.Sleep(4 * time.Second)
		clone.kill()
		if clone.epoch == 0 {
			t.Error("a silent incumbent was not replaced")
		}
		w.close()
	})
}

func TestWhatARefusedHelloIsTold(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(w *world, d *fakeDevice)
		want   gkrp.Code
	}{
		{"version", func(_ *world, d *fakeDevice) { d.offer = []gkrp.Version{gkrp.CurrentVersion + 1} }, gkrp.CodeUnsupportedVersion},
		{"suite", func(_ *world, d *fakeDevice) { d.suites = []gkrp.Suite{gkrp.SuiteX25519} }, gkrp.CodeUnsupportedSuite},
		{"stream", func(w *world, d *fakeDevice) { d.scope.Stream = "other" }, gkrp.CodeNotYours},
		{"revoked", func(w *world, d *fakeDevice) {
			r := w.kms.devices["cam-1"]
			r.Revoked = true
			w.kms.devices["cam-1"] = r
		}, gkrp.CodeRevoked},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, testConfig())
				d := w.enroll("cam-1")
				row.change(w, d)
				d.run()
				time.Sleep(2 * time.Second)
				d.kill()
				w.close()
				if len(d.overs) != 1 || d.overs[0] != row.want {
					t.Errorf("the device was told %v, want %s", d.overs, row.want)
				}
				if d.epoch != 0 {
					t.Error("it was given a key")
				}
			})
		})
	}
}

func TestOperatorsRotationIsAnsweredWhenConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		conn := w.memory.Conn()
		rep, err := bus.ProcessingRotate.Do(context.Background(), conn, bus.RotateRequest{Stream: "cam-1", Wait: true})
		if err != nil || !rep.Done || rep.Epoch != 2 {
			t.Errorf("%+v, %v", rep, err)
		}
		d.look(func() {
			if d.epoch != 2 {
				t.Errorf("the device is at epoch %d", d.epoch)
			}
		})
		_, err = bus.ProcessingRotate.Do(context.Background(), conn, bus.RotateRequest{Stream: "cam-9", Wait: true})
		if bus.CodeOf(err) != bus.CodeNotFound {
			t.Errorf("unknown stream: %v", err)
		}
		list, err := bus.ProcessingStreams.Do(context.Background(), conn, bus.Empty{})
		if err != nil || len(list.Streams) != 1 || list.Streams[0].Epoch != 2 || list.Streams[0].ByReason[gk.ReasonOperator] != 1 || list.Streams[0].State != "live" {
			t.Errorf("%+v, %v", list, err)
		}
		d.kill()
		w.close()
	})
}

// TestRotationAskedForAgain: where the answer to an order was lost, asking for it again
// tells what came of it and orders nothing more.
func TestRotationAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		for _, c := range []struct {
			asking string
			wait   bool
			epoch  gk.Epoch // in the answer
		}{{"a", true, 2}, {"a", true, 2}, {"b", true, 3}, {"a", false, 1}, {"b", true, 3}, {"c", false, 3}, {"c", false, 3}, {"c", true, 4}} {
			rep, err := w.svc.serveRotate(bus.WithAsking(context.Background(), c.asking), bus.RotateRequest{Stream: "cam-1", Wait: c.wait})
			if err != nil || rep.Done != c.wait || rep.Epoch != c.epoch {
				t.Errorf("%+v: %+v, %v", c, rep, err)
			}
		}
		time.Sleep(2 * time.Second)
		list, err := bus.ProcessingStreams.Do(context.Background(), w.memory.Conn(), bus.Empty{})
		if err != nil || list.Streams[0].ByReason[gk.ReasonOperator] != 3 {
			t.Errorf("three orders: %+v, %v", list, err)
		}
		d.kill()
		w.close()
	})
}

func TestPacketCountRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.RotatePackets = 1000 // 5 s at a packet every 5 ms
		w, d := newCamera(t, cfg)
		time.Sleep(61 * time.Second)
		d.kill()
		w.close()
		w.mu.Lock()
		defer w.mu.Unlock()
		n := 0
		for _, e := range w.events {
			if e.Kind == gk.EventRotationDone && e.Reason == gk.ReasonPackets {
				n++
			}
		}
		if n < 9 || n > 12 {
			t.Errorf("%d rotations by packet count in 60 s", n)
		}
	})
}

func TestAnotherInstanceFencesThisOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		first := w.cancel
		firstDone := w.done
		w.cfg.ID = "processing-2"
		w.start() // takes the stream over while the first still believes to own it
		time.Sleep(time.Second)
		for range 5 {
			_, _ = bus.ProcessingRotate.Do(context.Background(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: true})
			time.Sleep(time.Second)
		}
		d.kill()
		first()
		<-firstDone
		w.close()
		if d.unopened != 0 {
			t.Errorf("%d packets could not be opened", d.unopened)
		}
	})
}

// TestFencedStreamAnswersWhoWaits: who waits for a rotation of a stream that another
// instance took over is told so at once.
func TestFencedStreamAnswersWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		d.kill()
		ended := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := bus.ProcessingRotate.Do(context.Background(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: true})
			ended <- err
		}()
		time.Sleep(time.Second)
		st := w.svc.find("cam-1")
		st.post(st.fenced)
		err := <-ended
		if took := time.Since(began); bus.CodeOf(err) != bus.CodeUnavailable || !strings.Contains(err.Error(), "another instance") || took > 2*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		w.close()
	})
}

func TestProofRotatesAtOnceAndWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Urgent = gkrp.Budget{Burst: 3, Every: time.Minute}
		w, d := newCamera(t, cfg)
		time.Sleep(2 * time.Second)
		conn := w.memory.Conn()
		accuse := func(session gk.SessionID, e gk.Epoch) {
			_ = bus.TransportProof.Tell(conn, bus.Proof{Transport: "t1", Stream: "cam-1", Session: session, Epoch: e})
			time.Sleep(100 * time.Millisecond)
		}
		epoch := func() (e gk.Epoch) {
			d.look(func() { e = d.epoch })
			return e
		}
		session := func() (s gk.SessionID) {
			d.look(func() { s = d.session })
			return s
		}()
		accuse(session, 1)
		if e := epoch(); e != 2 {
			t.Errorf("proof against epoch 1: the device is at %d", e)
		}
		accuse(session, 1)
		accuse(gk.SessionID{9}, 2)
		if e := epoch(); e != 2 {
			t.Errorf("proof against an old epoch or another session: the device is at %d", e)
		}
		for range 1000 {
			accuse(session, epoch())
		}
		// 100 s of accusations: 2 tokens were left, and 1 came back.
		if e := epoch(); e < 5 || e > 6 {
			t.Errorf("1000 accusations led to epoch %d", e)
		}
		if n := w.count(gk.EventBudgetSpent); n == 0 || n > 3 {
			t.Errorf("the spent budget was told of %d times in 100 s", n)
		}
		d.kill()
		w.close()
		if d.unopened != 0 {
			t.Errorf("%d packets could not be opened", d.unopened)
		}
	})
}

func TestStoreRestoredFromABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		for range 5 {
			_, _ = bus.ProcessingRotate.Do(context.Background(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1", Wait: true})
		}
		// Yesterday's backup: the records and the key service know epoch 2 at most.
		w.crash()
		w.tr.restart()
		w.kms.mu.Lock()
		w.kms.last["cam-1"] = 1
		w.kms.forgotten = 6
		w.kms.mu.Unlock()
		w.start()
		time.Sleep(10 * time.Second)
		d.kill()
		w.close()
		if d.epoch <= 6 {
			t.Errorf("the device is at epoch %d: it must go on above what it ever used", d.epoch)
		}
		if len(d.overs) == 0 || d.overs[0] != gkrp.CodeUnknownSession {
			t.Errorf("the device was told %v", d.overs)
		}
	})
}

// A store that was restored from a backup counts terms from before: transports
// refuse the service, which takes a later term by itself.
func TestTermAfterABackupIsRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		if _, err := w.records.Put(context.Background(), termKey, []byte("0")); err != nil { // under its feet
			t.Fatal(err)
		}
		_ = bus.TransportHere.Tell(w.memory.Conn(), bus.TransportAnnouncement{TransportReceiver: bus.TransportReceiver{Transport: "t2"}, Term: 50})
		time.Sleep(time.Second)
		e, err := w.records.Get(context.Background(), termKey)
		if err != nil || string(e.Value) != "51" {
			t.Errorf("term %q: %v", e.Value, err)
		}
		d := w.enroll("cam-1")
		d.run()
		time.Sleep(3 * time.Second)
		var epoch gk.Epoch
		d.look(func() { epoch = d.epoch })
		if epoch == 0 {
			t.Error("no session under the new term")
		}
		d.kill()
		w.close()
	})
}

// deafStore does what it is asked and does not answer, once.
type deafStore struct {
	store.KV
	deaf atomic.Bool
}

func (d *deafStore) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	rev, err := d.KV.Update(ctx, key, value, rev)
	if key == termKey && d.deaf.CompareAndSwap(true, false) {
		return 0, errors.New("no answer")
	}
	return rev, err
}

// Where the store does not say whether the later term was written, the service
// does not take what it wrote itself for another instance's.
func TestTermIsRaisedWithoutTheStoresAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		w.crash()
		deaf := &deafStore{KV: w.records}
		w.records = deaf
		w.start()
		synctest.Wait()                                                                      // it has its term
		if _, err := w.records.Put(context.Background(), termKey, []byte("0")); err != nil { // under its feet
			t.Fatal(err)
		}
		deaf.deaf.Store(true)
		for range 2 {
			_ = bus.TransportHere.Tell(w.memory.Conn(), bus.TransportAnnouncement{TransportReceiver: bus.TransportReceiver{Transport: "t2"}, Term: 50})
			time.Sleep(time.Second)
		}
		e, err := w.records.Get(context.Background(), termKey)
		if err != nil || string(e.Value) != "51" || deaf.deaf.Load() {
			t.Errorf("term %q: %v", e.Value, err)
		}
		w.close()
	})
}

// An instance that was replaced does not answer for a stream any more: its word
// that a session is unknown would end one that runs.
func TestReplacedInstanceIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		first, firstDone := w.cancel, w.done
		w.cfg.ID = "processing-2"
		w.start()
		time.Sleep(time.Second)
		for range 6 {
			_, _ = bus.ProcessingRotate.Do(context.Background(), w.memory.Conn(), bus.RotateRequest{Stream: "cam-1"})
			time.Sleep(2 * time.Second)
		}
		d.look(func() {
			if len(d.overs) > 0 {
				t.Errorf("the session ended: %v", d.overs)
			}
		})
		d.kill()
		first()
		<-firstDone
		w.close()
	})
}

// A transport that went over to another session and came back has forgotten the
// keys of the one that runs: it is given them again, and not at the next rotation.
func TestTransportThatForgotIsGivenTheKeysAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		time.Sleep(2 * time.Second)
		w.tr.mu.Lock()
		session := w.tr.session
		w.tr.session, w.tr.armed = gk.SessionID{9}, map[gk.Epoch]bool{}
		w.tr.mu.Unlock()
		time.Sleep(3 * time.Second)
		w.tr.mu.Lock()
		if w.tr.session != session || !w.tr.armed[1] {
			t.Errorf("session %v, armed %v", w.tr.session, w.tr.armed)
		}
		w.tr.mu.Unlock()
		d.kill()
		w.close()
	})
}

// TestRefusedMessagesAreToldOnceAMinute: a broker can damage as many messages as it
// likes, and fills no audit trail with it.
func TestRefusedMessagesAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newCamera(t, testConfig())
		broker := w.memory.Courier()
		for range 150 {
			time.Sleep(time.Second)
			_ = broker.Send(gkrp.Topic("cam-1", "cam-1", gkrp.Up), []byte("damaged"))
		}
		if n := w.count(gk.EventOutsider); n != 3 {
			t.Errorf("told %d times in 150 s", n)
		}
		d.kill()
		w.close()
	})
}
