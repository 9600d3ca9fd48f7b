package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const testStream gk.StreamID = "cam-1"

var mp2t = gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: media.PayloadTypeTS, ClockRate: 90_000, Encoding: "MP2T"}

// world is a transport service with everybody it talks to: a key management
// service, a processing service and a device, all played by the test.
type world struct {
	t       testing.TB
	svc     *Service
	conn    bus.Conn
	kms     gkrp.Signer
	here    bus.TransportAnnouncement
	session gk.SessionID
	ssrc    uint32
	sock    *media.UDPSocket
	out     *media.Sender

	mu     sync.Mutex
	events []gk.Event
	tapped []tapped
}

type tapped struct {
	index   gk.Index
	payload string
}

func signer(t testing.TB) (gkrp.Signer, gkrp.Verifier) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gkrp.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := gkrp.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func testConfig() Config {
	cfg := Defaults()
	cfg.Listen = "127.0.0.1:0"
	return cfg
}

// newWorld starts a service. Its context ends with the test.
func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	memory := bus.NewMemory()
	w := &world{t: t, conn: memory.Conn(), ssrc: testSSRC}
	own, _ := signer(t)
	kms, kmsVerifier := signer(t)
	w.kms = kms
	cfg.Tap = w.tap
	var err error
	if w.svc, err = New(cfg, memory.Conn(), Identity{Signer: own, KMS: kmsVerifier}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	announced := make(chan bus.TransportAnnouncement, 16)
	if _, err := bus.TransportHere.Hear(w.conn, func(a bus.TransportAnnouncement) {
		select {
		case announced <- a:
		default:
		}
	}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Events.Hear(w.conn, func(e gk.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.svc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.conn.Close()
	})
	w.here = <-announced
	w.sock, err = media.ListenUDP("127.0.0.1:0", media.SocketOptions{SendBuffer: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.sock.Close() })
	w.out = w.sock.NewSender(netip.MustParseAddrPort(w.here.Address), batchSize)
	w.newSession()
	return w
}

func (w *world) newSession() {
	w.t.Helper()
	var err error
	if w.session, err = gk.NewSessionID(nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tap(_ gk.StreamID, i gk.Index, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tapped = append(w.tapped, tapped{i, string(payload)})
}

func (w *world) delivered() []tapped {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tapped)
}

// seen gives the events of a kind.
func (w *world) seen(kind gk.EventKind) (out []gk.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// until waits for something that sockets and goroutines bring about.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for %s: %+v, outsiders %v", what, w.svc.Status(time.Now()), w.svc.Outsiders())
		}
	}
}

func (w *world) assign(p gkrp.Payload) {
	w.t.Helper()
	req := bus.AssignRequest{Stream: testStream, Session: w.session, SSRC: w.ssrc, Payload: p, Term: 1}
	if _, err := bus.TransportAssign.Do(context.Background(), w.conn, string(w.here.Transport), req); err != nil {
		w.t.Fatal(err)
	}
}

// envelope is what a key management service would make of an epoch's key.
func (w *world) envelope(e gk.Epoch) gkrp.KeyEnvelope {
	w.t.Helper()
	public := w.svc.receiver.Public()
	env := gkrp.KeyEnvelope{
		Stream: testStream, Session: w.session, Epoch: e, Suite: gkrp.SuiteMLKEM768X25519,
		Receiver: "transport/" + string(w.here.Transport), KeyID: gkrp.KeyID(public), SSRC: w.ssrc,
	}
	w.sealInto(&env, e)
	return env
}

func (w *world) sealInto(env *gkrp.KeyEnvelope, e gk.Epoch) {
	w.t.Helper()
	sealed, err := keyring.SealMediaKey(uint16(gkrp.SuiteMLKEM768X25519), w.svc.receiver.Public(), env.Info(), mediaKey(w.t, e))
	if err != nil {
		w.t.Fatal(err)
	}
	env.Sealed = sealed
}

func (w *world) signed(by gkrp.Signer, env gkrp.KeyEnvelope) []byte {
	w.t.Helper()
	b, err := gkrp.SignKeyEnvelope(by, []byte("kms"), &env)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) armRequest(e gk.Epoch) bus.ArmRequest {
	return bus.ArmRequest{Stream: testStream, Session: w.session, Epoch: e, Envelope: w.signed(w.kms, w.envelope(e)), Reason: gk.ReasonSchedule, Term: 1, Lease: w.lease(time.Hour)}
}

// lease is one that counts from now.
func (w *world) lease(d time.Duration) bus.Lease {
	a := w.svc.announcement()
	return w.leaseFrom(a.Beat, d)
}

// leaseFrom is a lease of the session that counts from a beat.
func (w *world) leaseFrom(beat, d time.Duration) bus.Lease {
	w.t.Helper()
	l := bus.Lease{Started: w.here.Started, Beat: beat, Mark: w.svc.mark(beat)}
	return w.worded(w.kms, l, gkrp.Lease{
		Transport: w.here.Transport, Mark: l.Mark, ForMs: uint32(d.Milliseconds()), Sessions: []gkrp.LeaseSession{{Stream: testStream, Session: w.session}},
	})
}

// worded puts somebody's word into a lease.
func (w *world) worded(by gkrp.Signer, l bus.Lease, word gkrp.Lease) bus.Lease {
	w.t.Helper()
	var err error
	if l.Word, err = gkrp.SignLease(by, []byte("kms"), &word); err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) arm(e gk.Epoch) {
	w.t.Helper()
	if _, err := bus.TransportArm.Do(context.Background(), w.conn, string(w.here.Transport), w.armRequest(e)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) begin(e gk.Epoch, first gk.Index) {
	w.t.Helper()
	req := bus.SwitchRequest{Stream: testStream, Session: w.session, Epoch: e, First: first, Term: 1}
	if _, err := bus.TransportSwitch.Do(context.Background(), w.conn, string(w.here.Transport), req); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) send(pkts ...[]byte) {
	w.t.Helper()
	if _, err := w.out.Send(pkts); err != nil {
		w.t.Fatal(err)
	}
}

// tsPayload is seven transport stream packets that name the index: a program
// association table, a map table, the beginning of a key frame, and more of it.
func tsPayload(i gk.Index) []byte {
	b := make([]byte, media.TSPerRTP*media.TSPacketSize)
	for p := 0; p < len(b); p += media.TSPacketSize {
		b[p], b[p+1], b[p+3] = 0x47, 0x01, 0x10
		binary.BigEndian.PutUint64(b[p+100:], uint64(i))
	}
	const pmt, video = media.TSPacketSize, 2 * media.TSPacketSize
	b[1] = 0x40                                                          // PAT: PID 0
	copy(b[4:], []byte{0, 0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0}) // program 1 on PID 0x1000
	b[pmt+1], b[pmt+2] = 0x50, 0
	b[video+1], b[video+3] = 0x41, 0x30
	copy(b[video+4:], []byte{1, 0x40, 0, 0, 1, 0xe0}) // random access, video stream 0
	return b
}

// sealer makes an epoch's sealer for the world's SSRC.
func (w *world) sealer(e gk.Epoch) *media.Sealer {
	w.t.Helper()
	s, err := media.NewSealer(mediaKey(w.t, e), w.ssrc, e)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) packet(s *media.Sealer, i gk.Index, payload []byte) []byte {
	w.t.Helper()
	hdr := media.Header{PayloadType: media.PayloadTypeTS, Seq: i.Seq(), Timestamp: uint32(i) * 90, SSRC: w.ssrc}.AppendTo(nil)
	pkt, err := s.Seal(nil, hdr, payload, i)
	if err != nil {
		w.t.Fatal(err)
	}
	return pkt
}

// status is that of the session which has the stream, or zero.
func (w *world) status() bus.StreamStatus {
	if all := w.svc.Status(time.Now()); len(all) > 0 {
		return all[len(all)-1]
	}
	return bus.StreamStatus{}
}
