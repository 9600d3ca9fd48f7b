package transport

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// leased is a world without sockets, on virtual time, whose source sends one
// packet whenever it is asked for.
type leased struct {
	*world
	d     *Detached
	seal  *media.Sealer
	index gk.Index
}

func newLeased(t *testing.T, first time.Duration) *leased {
	t.Helper()
	memory := bus.NewMemory()
	t.Cleanup(memory.Close)
	w := &world{t: t, conn: memory.Conn(), ssrc: testSSRC}
	own, _ := signer(t)
	kms, verifier := signer(t)
	w.kms = kms
	cfg := testConfig()
	cfg.Tap = w.tap
	d, err := NewDetached(cfg, memory.Conn(), Identity{Signer: own, KMS: verifier}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.svc, w.here = d.s, d.s.here
	if _, err := bus.Events.Hear(w.conn, func(e gk.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}); err != nil {
		t.Fatal(err)
	}
	l := &leased{world: w, d: d}
	l.session = gk.SessionID{1}
	l.assign(mp2t)
	if err := l.armOn(1, l.lease(first)); err != nil {
		t.Fatal(err)
	}
	l.seal = w.sealer(1)
	l.begin(1, 1)
	return l
}

func (l *leased) armOn(e gk.Epoch, lease bus.Lease) error {
	req := l.armRequest(e)
	req.Lease, req.Term = lease, max(1, l.svc.streams[testStream].term)
	_, err := bus.TransportArm.Do(context.Background(), l.conn, string(l.here.Transport), req)
	return err
}

// second lets a second pass with a packet in it, and tells whether it was delivered.
func (l *leased) second() bool {
	before := len(l.delivered())
	l.index++
	l.d.Packet(time.Now(), l.packet(l.seal, l.index, tsPayload(l.index)))
	time.Sleep(time.Second)
	l.d.Tick(time.Now())
	synctest.Wait()
	return len(l.delivered()) > before
}

func (l *leased) renewOn(lease bus.Lease, term uint64) error {
	_, err := bus.TransportLease.Do(context.Background(), l.conn, string(l.here.Transport), bus.LeaseRequest{
		Lease: lease, Term: term, Sessions: []bus.SessionRef{{Stream: testStream, Session: l.session}, {Stream: "other", Session: l.session}},
	})
	return err
}

func (l *leased) disarmOn(term uint64) error {
	_, err := bus.TransportDisarm.Do(context.Background(), l.conn, string(l.here.Transport), bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: term})
	return err
}

func TestKeysServeOnALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t, 10*time.Second)
		for i := range 10 {
			if !l.second() {
				t.Errorf("packet %d was not delivered within the lease", i)
			}
		}
		for range 5 {
			if l.second() {
				t.Error("delivered after the lease")
			}
		}
		if n := len(l.seen(gk.EventLeaseLapsed)); n != 1 {
			t.Errorf("told %d times that the lease is over", n)
		}
		if n := l.status().Dropped["lease-over"]; n != 5 {
			t.Errorf("%d packets counted", n)
		}

		// A renewal that took 9 s of its 10 on the way gives one.
		beat := l.svc.announcement().Beat
		time.Sleep(9 * time.Second)
		if err := l.renewOn(l.leaseFrom(beat, 10*time.Second), 1); err != nil {
			t.Fatal(err)
		}
		if !l.second() || l.second() {
			t.Error("a late renewal counts from when it came")
		}
		if n := len(l.seen(gk.EventLeaseRenewed)); n != 1 {
			t.Errorf("told %d times that the lease was renewed", n)
		}
		// One from before the end of the last changes nothing.
		if err := l.renewOn(l.leaseFrom(beat, 10*time.Second), 1); err != nil || l.second() {
			t.Errorf("an old renewal was taken up: %v", err)
		}
		if err := l.renewOn(l.lease(10*time.Second), 7); err != nil || !l.second() {
			t.Errorf("a fresh renewal: %v", err)
		}
		// A service whose store forgot that term has to be told, or it is refused for ever.
		if got := l.svc.announcement().Term; got != 7 {
			t.Errorf("term %d is announced, 7 is obeyed", got)
		}
		// Whoever was replaced in command renews nothing any more.
		time.Sleep(20 * time.Second)
		fresh := l.lease(10 * time.Second)
		if err := l.renewOn(fresh, 6); err != nil || l.second() {
			t.Errorf("renewed under a lower term: %v", err)
		}
		word, err := gkrp.OpenLease(l.svc.kms, fresh.Word)
		if err != nil {
			t.Fatal(err)
		}
		other, _ := signer(t)
		with := func(f func(bare *bus.Lease, word *gkrp.Lease)) bus.Lease {
			bare, changed := fresh, *word
			f(&bare, &changed)
			return l.worded(l.kms, bare, changed)
		}
		longer := fresh
		longer.Beat += 5 * time.Second
		longer.Mark = bytes.Clone(fresh.Mark)
		for name, bad := range map[string]bus.Lease{
			"of another start":           with(func(b *bus.Lease, _ *gkrp.Lease) { b.Started = b.Started.Add(time.Nanosecond) }),
			"of no start":                with(func(b *bus.Lease, _ *gkrp.Lease) { b.Started = time.Time{} }),
			"to come":                    l.leaseFrom(fresh.Beat+time.Hour, time.Minute),
			"without end":                l.leaseFrom(fresh.Beat, maxLease+time.Second),
			"that is nobody's word":      func() bus.Lease { b := fresh; b.Word = nil; return b }(),
			"that is another's word":     l.worded(other, fresh, *word),
			"with a beat that was moved": longer,
			"with a mark that was made up": with(func(b *bus.Lease, w *gkrp.Lease) {
				b.Mark = make([]byte, 32)
				w.Mark = b.Mark
			}),
			"with an older word for a newer beat": func() bus.Lease {
				old := l.leaseFrom(fresh.Beat-20*time.Second, time.Minute)
				b := fresh
				b.Word = old.Word
				return b
			}(),
			"of another transport": with(func(_ *bus.Lease, w *gkrp.Lease) { w.Transport = "transport-2" }),
			"for another session": with(func(_ *bus.Lease, w *gkrp.Lease) {
				w.Sessions = []gkrp.LeaseSession{{Stream: testStream, Session: gk.SessionID{9}}}
			}),
		} {
			if err := l.renewOn(bad, 7); bus.CodeOf(err) != bus.CodeConflict || l.second() {
				t.Errorf("a lease %s: %v", name, err)
			}
			if err := l.armOn(2, bad); bus.CodeOf(err) != bus.CodeConflict {
				t.Errorf("armed on a lease %s: %v", name, err)
			}
		}
		if err := l.renewOn(fresh, 7); err != nil {
			t.Error(err)
		}
	})
}

// What waits behind a gap when the lease ends is not delivered afterwards.
func TestNothingHeldOutlivesTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t, 10*time.Second)
		l.second()
		time.Sleep(9*time.Second - 10*time.Millisecond)
		l.index += 2 // a gap
		l.d.Packet(time.Now(), l.packet(l.seal, l.index, tsPayload(l.index)))
		before := len(l.delivered())
		time.Sleep(200 * time.Millisecond)
		l.d.Tick(time.Now())
		if n := len(l.delivered()); n != before {
			t.Errorf("%d packets delivered after the lease", n-before)
		}
	})
}

func TestDisarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t, time.Minute)
		if !l.second() {
			t.Fatal("nothing is delivered")
		}
		stale := l.svc.announcement()
		if err := l.disarmOn(0); bus.CodeOf(err) != bus.CodeConflict {
			t.Errorf("disarmed under a lower term: %v", err)
		}
		l.index += 2 // behind a gap
		l.d.Packet(time.Now(), l.packet(l.seal, l.index, tsPayload(l.index)))
		before := len(l.delivered())
		if err := l.disarmOn(1); err != nil {
			t.Fatal(err)
		}
		l.d.Tick(time.Now())
		if l.second() || len(l.delivered()) != before {
			t.Error("delivered after disarming")
		}
		if len(l.svc.Status(time.Now())) != 0 || len(l.seen(gk.EventStreamDisarmed)) != 1 || len(l.seen(gk.EventEpochRetired)) != 1 {
			t.Errorf("%+v, %+v", l.svc.Status(time.Now()), l.events)
		}
		// Orders that were on their way bring nothing back.
		l.assign(mp2t)
		err := l.armOn(1, l.leaseFrom(stale.Beat, time.Minute))
		if bus.CodeOf(err) != bus.CodeConflict || !strings.Contains(err.Error(), "disarmed") {
			t.Errorf("armed on a lease from before: %v", err)
		}
		if l.second() {
			t.Error("delivered after disarming")
		}
		// What was asked for since counts.
		if err := l.armOn(2, l.lease(time.Minute)); err != nil {
			t.Fatal(err)
		}
		l.seal = l.sealer(2)
		if l.second(); !l.second() {
			t.Error("a stream cannot be armed again")
		}
	})
}

func TestDisarmCutsViewersOff(t *testing.T) {
	w := newWorld(t, testConfig())
	w.assign(gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: media.PayloadTypeTS, ClockRate: 90_000})
	w.arm(1)
	server := httptest.NewServer(w.svc)
	defer server.Close()
	ended := make(chan error, 1)
	go func() {
		resp, err := http.Get(server.URL + "/streams/" + string(testStream) + ".ts")
		if err == nil {
			_, err = resp.Body.Read(make([]byte, 1))
			for err == nil {
				_, err = resp.Body.Read(make([]byte, 64<<10))
			}
			resp.Body.Close()
		}
		ended <- err
	}()
	s := w.sealer(1)
	index := gk.Index(0)
	send := func() { index++; w.send(w.packet(s, index, tsPayload(index))) }
	w.until("a viewer", func() bool { send(); return w.status().Viewers == 1 })
	if _, err := bus.TransportDisarm.Do(context.Background(), w.conn, string(w.here.Transport), bus.DisarmRequest{Streams: []gk.StreamID{testStream}, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the viewer was not cut off")
	}
}
