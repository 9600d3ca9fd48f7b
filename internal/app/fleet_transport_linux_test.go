package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/capture"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// recorded is what the real meter made of a capture, window by window, as it goes
// onto the bus.
type recorded struct {
	form    feature.Form
	windows [][]byte
}

// meterCapture has the meter of transports read a capture.
func meterCapture(t testing.TB, path string) recorded {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := capture.Open(file, capture.Flow{})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	out := recorded{form: r.Form()}
	m := feature.NewLiveMeter(r.Form())
	var p feature.Packet
	var w feature.Window
	for end := int64(feature.Hop); ; {
		err := r.Next(&p)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for ; p.At >= end; end += feature.Hop {
			m.Roll(&w, end)
			out.windows = append(out.windows, w.AppendTo(nil))
		}
		m.Observe(&p)
	}
}

// standIn takes the transport's place: it confirms what it is ordered, announces
// itself, and tells recorded windows and counts of every stream, as the transport does
// of what it opens.
type standIn struct {
	t       testing.TB
	conn    bus.Conn
	here    bus.TransportAnnouncement
	plays   func(n int) recorded // what the stream of that number sends
	foreign func(n int) recorded // what replaces it
	mu      sync.Mutex
	streams map[gk.StreamID]*played
	order   []*played
	told    uint64
}

// played is a stream at the stand-in.
type played struct {
	n        int
	id       gk.StreamID
	session  gk.SessionID
	epoch    gk.Epoch
	source   recorded
	at       int            // window of the source
	due      time.Time      // of the next window
	sent     [256]time.Time // when the last ones were due
	foreign  *recorded      // another source that has come, from
	since    time.Time      // then on
	vouched  uint64
	accepted uint64
}

func newStandIn(t testing.TB, n *Node, plays func(int) recorded) *standIn {
	t.Helper()
	nc, err := n.connect(bus.RoleTransport)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	creds, err := n.certify(t.Context(), nc, "transport")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gkrp.NewSigner(creds.key.(ed25519.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyring.HPKE{}.Generate(uint16(gkrp.SuiteMLKEM768X25519))
	if err != nil {
		t.Fatal(err)
	}
	id := n.cfg.transportID()
	signed, err := gkrp.SignReceiverKey(signer, []byte(id), &gkrp.ReceiverKey{Transport: id, Suite: gkrp.SuiteMLKEM768X25519, Public: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{t: t, conn: bus.NewNATS(nc), plays: plays, streams: map[gk.StreamID]*played{}, here: bus.TransportAnnouncement{
		TransportReceiver: bus.TransportReceiver{Transport: id, Key: signed, Certificate: creds.cert.Raw},
		Address:           "127.0.0.1:9", Started: time.Now(), Mark: []byte("a beat of the stand-in, 32 bytes"),
	}}
	stands(s, bus.TransportAssign, s.assign)
	stands(s, bus.TransportArm, s.arm)
	stands(s, bus.TransportSwitch, func(bus.SwitchRequest) {})
	stands(s, bus.TransportRelease, func(bus.ReleaseStream) {})
	stands(s, bus.TransportLease, func(bus.LeaseRequest) {})
	stands(s, bus.TransportDisarm, func(bus.DisarmRequest) {})
	stands(s, bus.TransportHold, func(bus.HoldRequest) {})
	stands(s, bus.TransportReport, s.report)
	return s
}

func stands[Req any](s *standIn, c interface {
	Serve(bus.Conn, string, func(context.Context, Req) (bus.Empty, error)) (bus.Subscription, error)
}, take func(Req)) {
	if _, err := c.Serve(s.conn, string(s.here.Transport), func(_ context.Context, r Req) (bus.Empty, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		take(r)
		return bus.Empty{}, nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *standIn) assign(r bus.AssignRequest) {
	p := s.streams[r.Stream]
	if p == nil {
		n := len(s.order)
		p = &played{n: n, id: r.Stream, source: s.plays(n)}
		s.streams[r.Stream] = p
		s.order = append(s.order, p)
	}
	p.session = r.Session
}

// arm begins the windows of a stream with its first key. Streams begin whenever their
// devices do, so that their windows end at all times.
func (s *standIn) arm(r bus.ArmRequest) {
	p := s.streams[r.Stream]
	if p == nil || p.session != r.Session {
		return
	}
	p.epoch = max(p.epoch, r.Epoch)
	if p.due.IsZero() {
		p.due = time.Now().Add(feature.Hop)
	}
}

func (s *standIn) report(r bus.ReportRequest) {
	if p := s.streams[r.Report.Stream]; p != nil {
		p.vouched += uint64(r.Report.To - r.Report.From)
	}
}

// run tells until ctx ends: windows when they are due, counts every second, itself
// every two.
func (s *standIn) run(ctx context.Context) {
	windows, status, here := time.NewTicker(5*time.Millisecond), time.NewTicker(time.Second), time.NewTicker(2*time.Second)
	defer windows.Stop()
	defer status.Stop()
	defer here.Stop()
	s.announce()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-windows.C:
			s.tellWindows(now)
		case <-status.C:
			s.tellStatus()
		case <-here.C:
			s.announce()
		}
	}
}

func (s *standIn) announce() {
	here := s.here
	here.Beat = time.Since(here.Started)
	_ = bus.TransportHere.Tell(s.conn, here)
}

func (s *standIn) tellWindows(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.order {
		for ; !p.due.IsZero() && !p.due.After(now); p.due = p.due.Add(feature.Hop) {
			from := &p.source
			if p.foreign != nil {
				from = p.foreign
				if p.since.IsZero() {
					p.since = now
				}
			}
			_ = bus.TransportWindow.Tell(s.conn, bus.StreamWindow{
				Transport: s.here.Transport, Stream: p.id, Session: p.session, Epoch: p.epoch, Form: uint8(from.form), Window: from.windows[p.at%len(from.windows)],
			})
			p.sent[p.at%len(p.sent)] = p.due
			p.at++
			p.accepted += fleetRate / 4
			s.told++
		}
	}
}

func (s *standIn) tellStatus() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.order {
		if p.due.IsZero() {
			continue
		}
		_ = bus.TransportStatus.Tell(s.conn, bus.StreamStatus{
			Transport: s.here.Transport, Stream: p.id, Session: p.session, Epoch: p.epoch, Highest: gk.Index(p.accepted),
			Delivered: p.accepted, Bytes: p.accepted * 1316, Sent: p.accepted, Vouched: p.vouched, SilentMs: 3,
		})
	}
}

// newest is the number of the newest window of a stream, and gives when those before it
// were due.
func (s *standIn) newest(id gk.StreamID) (n int, due func(n int) time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.streams[id]
	sent := p.sent
	return p.at - 1, func(n int) time.Time { return sent[n%len(sent)] }
}

// windows is how many were told.
func (s *standIn) windows() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// replace has another source come in a stream's place.
func (s *standIn) replace(n int) *played {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.order[n]
	other := s.foreign(n)
	p.foreign = &other
	return p
}

// replaced is when the other source's first window was told.
func (s *standIn) replaced(p *played) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.since
}

// captures gives the recordings in a directory whose names fit a pattern.
func captures(t testing.TB, pattern string) (all []recorded) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures are named %s: %v", pattern, err)
	}
	for _, name := range names {
		all = append(all, meterCapture(t, name))
	}
	return all
}
