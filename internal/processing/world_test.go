package processing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// world is the processing service between stand-ins for its neighbours, on
// virtual time. The stand-ins keep the rules that the service relies on, and
// record every breach of the rules that the service must keep.
type world struct {
	t       *testing.T
	memory  *bus.Memory
	records store.KV
	kms     *fakeKMS
	tr      *fakeTransport
	svc     *Service // that runs at present
	cancel  context.CancelFunc
	done    chan error
	cfg     Config

	mu     sync.Mutex
	events []gk.Event
}

func newWorld(t *testing.T, cfg Config) *world {
	w := &world{t: t, memory: bus.NewMemory(), records: store.NewMemory(), cfg: cfg}
	w.kms = newFakeKMS(t, w.memory.Conn())
	w.tr = newFakeTransport(t, w, "t1")
	_, err := bus.Events.Hear(w.memory.Conn(), func(e gk.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// newCamera is a world in which the device cam-1 has begun.
func newCamera(t *testing.T, cfg Config) (*world, *fakeDevice) {
	w := newWorld(t, cfg)
	d := w.enroll("cam-1")
	d.run()
	return w, d
}

func (w *world) start() {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	signer, _ := gkrp.NewSigner(key)
	controller, err := gkrp.SignController(w.kms.signer, []byte("kms"), &gkrp.Controller{ID: w.cfg.ID, Public: key.Public().(ed25519.PublicKey)})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w.cancel, w.done = cancel, done
	s := New(w.cfg, w.memory.Conn(), w.memory.Courier(), w.records, signer, controller, slog.New(slog.NewTextHandler(io.Discard, nil)))
	w.svc = s
	courier := s.courier
	conn := s.conn
	go func() {
		err := s.Run(ctx)
		courier.Close()
		conn.Close()
		done <- err
	}()
	synctest.Wait()
	w.tr.announce()
	synctest.Wait()
}

// crash stops the service as a kill would: nothing of what it knew is left but
// what it wrote down.
func (w *world) crash() {
	w.cancel()
	if err := <-w.done; err != nil {
		w.t.Errorf("processing: %v", err)
	}
}

func (w *world) close() {
	w.crash()
	w.tr.stop()
	w.memory.Close()
	synctest.Wait()
}

func (w *world) count(kind gk.EventKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// fakeKMS allocates epochs as the real one must: the same answer for the same
// question, and never the same epoch twice.
type fakeKMS struct {
	t        *testing.T
	signer   gkrp.Signer
	verifier gkrp.Verifier
	mu       sync.Mutex
	devices  map[gk.DeviceID]bus.DeviceRecord
	first    map[gk.SessionID]gk.Epoch
	last     map[gk.StreamID]gk.Epoch
	prekeys  map[string]gk.Epoch
	states   map[gk.Epoch]bus.KeyState
	lease    time.Duration
	slow     time.Duration // before a standing is told
	mute     bool          // no standing is told
	slowRead time.Duration // before a device's record is told
	asked    time.Time     // when a standing or key was last asked for

	forgotten gk.Epoch // epochs up to it are gone, as after a restored backup

	refuse func(bus.KMSOpenRequest) error // whether a session is not opened, and why
}

func newFakeKMS(t *testing.T, conn bus.Conn) *fakeKMS {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	k := &fakeKMS{t: t, devices: map[gk.DeviceID]bus.DeviceRecord{}, first: map[gk.SessionID]gk.Epoch{}, last: map[gk.StreamID]gk.Epoch{}, prekeys: map[string]gk.Epoch{}, states: map[gk.Epoch]bus.KeyState{}, lease: time.Minute}
	k.signer, _ = gkrp.NewSigner(key)
	k.verifier, _ = gkrp.NewVerifier(pub)
	serve(t, conn, bus.KMSDevice, func(r bus.KMSDeviceRequest) (bus.DeviceRecord, error) {
		d, ok := k.devices[r.Device]
		if k.slowRead > 0 {
			k.mu.Unlock() // time stands still in a bubble while somebody waits for a lock
			time.Sleep(k.slowRead)
			k.mu.Lock()
		}
		if !ok {
			return d, bus.Refuse(bus.CodeNotFound, "no device %s", r.Device)
		}
		return d, nil
	}, &k.mu)
	serve(t, conn, bus.KMSOpen, func(r bus.KMSOpenRequest) (bus.KMSOpenReply, error) {
		if k.refuse != nil {
			if err := k.refuse(r); err != nil {
				return bus.KMSOpenReply{}, err
			}
		}
		e, ok := k.first[r.Session]
		if !ok {
			e = max(k.last[r.Stream], r.HighWater) + 1
			k.first[r.Session], k.last[r.Stream] = e, e
		}
		return bus.KMSOpenReply{Epoch: e}, nil
	}, &k.mu)
	serve(t, conn, bus.KMSRelease, func(r bus.KMSReleaseRequest) (bus.KMSReleaseReply, error) {
		if r.Epoch == 0 {
			r.Epoch = max(r.After+1, k.first[r.Session])
		}
		if r.Epoch <= k.forgotten {
			return bus.KMSReleaseReply{}, bus.Refuse(bus.CodeNotFound, "epoch %d is not known", r.Epoch)
		}
		if r.Epoch < k.first[r.Session] || r.Epoch > k.last[r.Stream]+1 {
			t.Errorf("release of epoch %d: the session's are %d to %d", r.Epoch, k.first[r.Session], k.last[r.Stream]+1)
			return bus.KMSReleaseReply{}, bus.Refuse(bus.CodeConflict, "not an epoch of this session")
		}
		k.last[r.Stream] = max(k.last[r.Stream], r.Epoch)
		if k.devices[r.Device].Revoked {
			return bus.KMSReleaseReply{}, bus.Refuse(bus.CodeRevoked, "device %s is revoked", r.Device)
		}
		k.asked = time.Now()
		rep := bus.KMSReleaseReply{Lease: k.lease, Epoch: r.Epoch, Transports: map[gk.TransportID][]byte{}}
		if r.Prekey != nil {
			if e, used := k.prekeys[string(r.Prekey)]; used && e != r.Epoch {
				return rep, bus.Refuse(bus.CodeUsed, "prekey used for epoch %d", e)
			}
			k.prekeys[string(r.Prekey)] = r.Epoch
			c := confirmOf(r.Stream, r.Session, r.Epoch)
			rep.Device, rep.Confirm = fmt.Appendf(nil, "sealed %d", r.Epoch), c[:]
		}
		rep.Words = map[gk.TransportID][]byte{}
		for id := range r.Marks {
			rep.Words[id] = []byte(k.lease.String())
		}
		for _, tr := range r.Transports {
			rep.Transports[tr.Transport] = fmt.Appendf(nil, "sealed %d for %s", r.Epoch, tr.Key)
		}
		return rep, nil
	}, &k.mu)
	if _, err := bus.KMSStanding.Serve(conn, func(_ context.Context, r bus.StandingRequest) (bus.StandingReply, error) {
		k.mu.Lock()
		slow := k.slow
		k.asked = time.Now()
		k.mu.Unlock()
		time.Sleep(slow)
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.mute {
			return bus.StandingReply{}, bus.Refuse(bus.CodeUnavailable, "no answer")
		}
		rep := bus.StandingReply{Codes: make([]bus.Code, len(r.Sessions)), Lease: k.lease}
		if r.Mark != nil {
			rep.Word = []byte(k.lease.String())
		}
		for i, x := range r.Sessions {
			switch {
			case k.devices[x.Device].Revoked:
				rep.Codes[i] = bus.CodeRevoked
			case k.first[x.Session] == 0:
				rep.Codes[i] = bus.CodeNotFound
			}
		}
		return rep, nil
	}); err != nil {
		t.Fatal(err)
	}
	serve(t, conn, bus.KMSSetState, func(r bus.KMSStateRequest) (bus.Empty, error) {
		k.states[r.Epoch] = r.State
		return bus.Empty{}, nil
	}, &k.mu)
	k.serveSeals(conn)
	return k
}

func serve[Req, Rep any](t *testing.T, conn bus.Conn, c bus.Question[Req, Rep], f func(Req) (Rep, error), mu *sync.Mutex) {
	_, err := c.Serve(conn, func(_ context.Context, r Req) (Rep, error) {
		mu.Lock()
		defer mu.Unlock()
		return f(r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func confirmOf(stream gk.StreamID, session gk.SessionID, e gk.Epoch) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", stream, session, e))
}

// fakeTransport opens what it was armed for. A packet that it cannot open is a
// breach: nothing may be sent that cannot be opened.
type fakeTransport struct {
	w       *world
	id      gk.TransportID
	conn    bus.Conn
	mu      sync.Mutex
	started time.Time
	key     string
	armed   map[gk.Epoch]bool
	joining map[gk.Epoch]bool
	session gk.SessionID
	lease   time.Time
	off     bool // cut off from the bus
	void    int  // packets that came after the lease
	holds   []bus.HoldRequest
	counts  bus.StreamStatus
	last    time.Time
	ticker  *time.Ticker
	quit    chan struct{}
}

func newFakeTransport(t *testing.T, w *world, id gk.TransportID) *fakeTransport {
	f := &fakeTransport{w: w, id: id, conn: w.memory.Conn(), quit: make(chan struct{})}
	f.restart()
	serveTo(t, f, bus.TransportAssign, func(r bus.AssignRequest) error {
		if r.Session != f.session {
			f.session, f.counts = r.Session, bus.StreamStatus{Transport: id, Stream: r.Stream, Session: r.Session}
		}
		return nil
	})
	serveTo(t, f, bus.TransportArm, func(r bus.ArmRequest) error {
		if want := fmt.Sprintf("sealed %d for %s", r.Epoch, f.key); string(r.Envelope) != want {
			return bus.Refuse(bus.CodeBadRequest, "envelope %q does not open with %q", r.Envelope, f.key)
		}
		if r.Session == f.session {
			f.armed[r.Epoch] = true
			f.take(r.Lease)
		}
		return nil
	})
	serveTo(t, f, bus.TransportLease, func(r bus.LeaseRequest) error {
		for _, x := range r.Sessions {
			if x.Session == f.session {
				f.take(r.Lease)
			}
		}
		return nil
	})
	serveTo(t, f, bus.TransportDisarm, func(r bus.DisarmRequest) error {
		if f.off {
			return bus.Refuse(bus.CodeUnavailable, "cut off")
		}
		clear(f.armed)
		return nil
	})
	serveTo(t, f, bus.TransportHold, func(r bus.HoldRequest) error {
		f.holds = append(f.holds, r)
		return nil
	})
	serveTo(t, f, bus.TransportSwitch, func(r bus.SwitchRequest) error {
		if r.Session != f.session {
			return bus.Refuse(bus.CodeNotFound, "session %s is not here", r.Session)
		}
		return nil
	})
	serveTo(t, f, bus.TransportRelease, func(r bus.ReleaseStream) error {
		if r.Session == f.session {
			clear(f.armed)
		}
		return nil
	})
	f.ticker = time.NewTicker(time.Second)
	go func() {
		for {
			select {
			case <-f.ticker.C:
				f.announce()
				f.mu.Lock()
				f.counts.Vouched++ // the device's reports list what it accepts
				u := f.counts
				u.SilentMs = uint32(time.Since(f.last).Milliseconds())
				f.mu.Unlock()
				if u.Stream != "" {
					_ = bus.TransportStatus.Tell(f.conn, u)
				}
			case <-f.quit:
				return
			}
		}
	}()
	return f
}

func serveTo[Req any](t *testing.T, f *fakeTransport, c bus.RepeatableTo[Req, bus.Empty], handle func(Req) error) {
	_, err := c.Serve(f.conn, string(f.id), func(_ context.Context, r Req) (bus.Empty, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return bus.Empty{}, handle(r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// take takes a lease, which must count from before the key management service
// was asked.
func (f *fakeTransport) take(l bus.Lease) {
	if f.off {
		return
	}
	from := l.Started.Add(l.Beat)
	f.w.kms.mu.Lock()
	defer f.w.kms.mu.Unlock()
	if !l.Started.Equal(f.started) || from.After(f.w.kms.asked) {
		f.w.t.Errorf("lease from %v of start %v: asked at %v, started %v", from, l.Started, f.w.kms.asked, f.started)
	}
	length, err := time.ParseDuration(string(l.Word))
	if err != nil || string(l.Mark) != f.key {
		f.w.t.Errorf("lease with the word %q for the mark %q: %v", l.Word, l.Mark, err)
	}
	if end := from.Add(length); end.After(f.lease) {
		f.lease = end
	}
}

func (f *fakeTransport) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started, f.armed = time.Now(), map[gk.Epoch]bool{}
	f.key = fmt.Sprintf("key %d", f.started.UnixNano())
}

func (f *fakeTransport) announce() {
	f.mu.Lock()
	a := bus.TransportAnnouncement{Mark: []byte(f.key), TransportReceiver: bus.TransportReceiver{Transport: f.id, Key: []byte(f.key)}, Address: "127.0.0.1:7004", Started: f.started, Beat: time.Since(f.started)}
	off := f.off
	f.mu.Unlock()
	if off {
		return
	}
	_ = bus.TransportHere.Tell(f.conn, a)
}

func (f *fakeTransport) stop() {
	close(f.quit)
	f.ticker.Stop()
	f.conn.Close()
}

// packet is a media packet arriving; it reports whether it could be opened.
func (f *fakeTransport) packet(session gk.SessionID, e gk.Epoch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if session != f.session || !f.armed[e] {
		return false
	}
	if !time.Now().Before(f.lease) {
		f.void++
		return true
	}
	f.counts.Delivered++
	f.counts.Epoch = e
	f.last = time.Now()
	return true
}

// fakeDevice is the protocol's real device half with make-believe keys and a
// packet every 5 ms.
type fakeDevice struct {
	w        *world
	scope    gkrp.Scope
	courier  bus.Courier
	signer   gkrp.Signer
	rng      *mrand.Rand
	inbox    chan func()
	quit     chan struct{}
	stopped  chan struct{}
	d        *gkrp.Device
	session  gk.SessionID
	high     gk.Epoch
	epoch    gk.Epoch
	index    gk.Index
	reported gk.Index // index after the last one reported
	prekeys  int
	sent     uint64
	unopened int
	used     map[gk.Epoch]gk.SessionID
	overs    []gkrp.Code
	refusals []gkrp.Code
	offer    []gkrp.Version
	suites   []gkrp.Suite
}

func (w *world) enroll(id gk.DeviceID) *fakeDevice {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	w.kms.mu.Lock()
	w.kms.devices[id] = bus.DeviceRecord{Device: id, Streams: []gk.StreamID{gk.StreamID(id)}, Public: pub}
	w.kms.mu.Unlock()
	signer, _ := gkrp.NewSigner(key)
	return &fakeDevice{
		w: w, scope: gkrp.Scope{Device: id, Stream: gk.StreamID(id)}, signer: signer, rng: mrand.New(mrand.NewPCG(1, 2)),
		used: map[gk.Epoch]gk.SessionID{}, offer: []gkrp.Version{gkrp.CurrentVersion}, suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519},
	}
}

// run starts the device; kill stops it.
func (d *fakeDevice) run() {
	d.courier = d.w.memory.Courier()
	d.inbox, d.quit, d.stopped = make(chan func(), 64), make(chan struct{}), make(chan struct{})
	if err := d.courier.Listen(gkrp.Topic(d.scope.Device, d.scope.Stream, gkrp.Down), d.receive); err != nil {
		d.w.t.Fatal(err)
	}
	go d.loop()
}

func (d *fakeDevice) kill() {
	close(d.quit)
	<-d.stopped
	d.courier.Close()
}

// look runs f on the device's goroutine, and waits for it.
func (d *fakeDevice) look(f func()) {
	done := make(chan struct{})
	d.inbox <- func() {
		f()
		close(done)
	}
	<-done
}

func (d *fakeDevice) begin() {
	d.session, _ = gk.NewSessionID(nil)
	d.epoch = 0
	h := gkrp.Hello{
		Device: d.scope.Device, Stream: d.scope.Stream, Session: d.session, Versions: d.offer, Suites: d.suites,
		Payload: gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90000}, HighWater: d.high,
	}
	for range 4 {
		h.Prekeys = append(h.Prekeys, d.prekey())
	}
	var fx []gkrp.Effect
	d.d, fx = gkrp.NewDevice(time.Now(), h, 200*time.Millisecond, 2*time.Second)
	d.execute(fx)
}

func (d *fakeDevice) prekey() []byte {
	d.prekeys++
	return fmt.Appendf(nil, "prekey %s %d", d.session, d.prekeys)
}

func (d *fakeDevice) loop() {
	defer close(d.stopped)
	d.begin()
	packets := time.NewTicker(5 * time.Millisecond)
	defer packets.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if t := d.d.Deadline(); !t.IsZero() {
			timer.Reset(time.Until(t))
		}
		select {
		case f := <-d.inbox:
			f()
		case <-timer.C:
			d.execute(d.d.Step(time.Now(), gkrp.Tick{}))
		case <-packets.C:
			d.packet()
		case <-d.quit:
			return
		}
	}
}

func (d *fakeDevice) packet() {
	if d.epoch == 0 {
		return
	}
	d.index++
	d.sent++
	if !d.w.tr.packet(d.session, d.epoch) {
		d.unopened++
	}
}

func (d *fakeDevice) receive(_ string, wire []byte) {
	r, err := gkrp.Parse(wire, gkrp.Down)
	if err != nil {
		d.w.t.Errorf("device: %v", err)
		return
	}
	_, ver, err := gkrp.OpenController(d.w.kms.verifier, r.Controller)
	if err != nil {
		d.w.t.Errorf("device: %v", err)
		return
	}
	m, err := r.Verify(ver, d.scope)
	if err != nil {
		d.w.t.Errorf("device: %v", err)
		return
	}
	select {
	case d.inbox <- func() { d.execute(d.d.Step(time.Now(), gkrp.Heard{Message: m, Payload: bytes.Clone(r.Payload)})) }:
	case <-d.quit:
	}
}

func (d *fakeDevice) execute(effects []gkrp.Effect) {
	for _, fx := range effects {
		switch fx := fx.(type) {
		case gkrp.Send:
			wire, err := gkrp.Sign(d.signer, []byte(d.scope.Device), nil, d.scope, fx.Message)
			if err != nil {
				d.w.t.Errorf("device: %v", err)
				return
			}
			_ = d.courier.Send(gkrp.Topic(d.scope.Device, d.scope.Stream, gkrp.Up), wire)
		case gkrp.Install:
			if got := string(fx.Envelope); got != fmt.Sprintf("sealed %d", fx.Epoch) {
				d.w.t.Errorf("device: envelope %q in the grant of epoch %d", got, fx.Epoch)
			}
			if s, again := d.used[fx.Epoch]; again {
				d.w.t.Errorf("epoch %d of session %s given to session %s", fx.Epoch, s, d.session)
			}
			d.used[fx.Epoch] = d.session
			if fx.Epoch <= d.high {
				d.w.t.Errorf("epoch fell from %d to %d", d.high, fx.Epoch)
			}
			d.epoch, d.high = fx.Epoch, fx.Epoch
			c := confirmOf(d.scope.Stream, d.session, fx.Epoch)
			d.execute(d.d.Step(time.Now(), gkrp.Installed{Epoch: fx.Epoch, Confirm: c[:], First: d.index + 1, Prekeys: [][]byte{d.prekey()}}))
		case gkrp.WantReport:
			r := gkrp.Report{From: d.reported, To: d.index + 1, Packets: d.sent}
			for i := r.From; i < r.To; i++ {
				r.Tags = binary.BigEndian.AppendUint32(r.Tags, uint32(i))
			}
			d.reported = r.To
			d.execute(d.d.Step(time.Now(), gkrp.Sent{Report: r}))
		case gkrp.WantPrekeys:
			var keys [][]byte
			for range gkrp.MaxPrekeys {
				keys = append(keys, d.prekey())
			}
			d.execute([]gkrp.Effect{gkrp.Send{Message: &gkrp.Refill{Stream: d.scope.Stream, Session: d.session, Prekeys: keys}}})
		case gkrp.Refused:
			d.refusals = append(d.refusals, fx.Code)
		case gkrp.Over:
			d.overs = append(d.overs, fx.Code)
			if !fx.Code.Final() {
				d.begin()
			}
		}
	}
}
