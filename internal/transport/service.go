// Package transport receives SRTP, opens it by epoch, puts it into order and
// hands the clear media on. It holds the media keys of the streams it serves,
// takes its orders from the bus, and nothing but signed envelopes as keys.
package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"golang.org/x/sync/errgroup"
)

// Config is what the service needs to know.
type Config struct {
	ID     gk.TransportID
	Listen string // host:port, UDP; port 0 takes any
	// Advertise is the host, or host:port, at which devices reach Listen. Without
	// a port, the one listened on.
	Advertise     string
	ReceiveBuffer int           // bytes to ask the kernel for
	Latency       time.Duration // longest wait for a missing packet
	// RoundTrip bounds how much later than the control path the media path may
	// be. With Latency it makes the grace in which an old epoch's late packets
	// are still delivered.
	RoundTrip time.Duration
	ProofLife time.Duration // how long a stolen key serves on when the device does not answer
	WatchFor  time.Duration // how long an old key's misuse is watched after an anomaly
	KeyLife   time.Duration // the longest that any key is held
	Outputs   []Output
	// ViewerBuffer is how many bytes a viewer may fall behind before it is dropped.
	ViewerBuffer int
	MaxViewers   int // of one stream
	// OnHold is what a stream shows while it is held; "" is [HoldPass]. Slate is the
	// clip of [HoldSlate].
	OnHold OnHold
	Slate  *Slate
	// Meter has the behaviour of every stream measured and told every 250 ms.
	Meter bool
	// Tap, if set, is called with every packet in the order of delivery. It must
	// be fast, and must not keep payload.
	Tap func(stream gk.StreamID, index gk.Index, payload []byte)

	// What a simulation replaces; the zero values are the real things.
	Host host.Host
	KEM  keyring.KEM
}

// Defaults are the values that a Config starts from.
func Defaults() Config {
	return Config{
		ID:            "transport-1",
		Listen:        "127.0.0.1:7004",
		Advertise:     "127.0.0.1",
		ReceiveBuffer: 8 << 20,
		Latency:       120 * time.Millisecond,
		RoundTrip:     250 * time.Millisecond,
		ProofLife:     2 * time.Second,
		WatchFor:      time.Minute,
		KeyLife:       24 * time.Hour,
		ViewerBuffer:  4 << 20,
		MaxViewers:    1000,
		OnHold:        HoldPass,
		Meter:         true,
	}
}

const (
	announceEvery = 2 * time.Second
	statusEvery   = time.Second
	// tickEvery is how exactly gaps and keys meet their deadlines.
	tickEvery = 10 * time.Millisecond
	// maxNotices bounds what waits to be published.
	maxNotices = 4096
)

// Identity is who the service is on the bus, and whom it believes.
type Identity struct {
	Signer      gkrp.Signer // signs the service's HPKE key
	Certificate []byte      // DER, of Signer's key
	// KMS verifies key envelopes: no key is taken from anybody else.
	KMS gkrp.Verifier
}

// Service is the transport service.
type Service struct {
	cfg      Config
	conn     bus.Conn
	kms      gkrp.Verifier
	log      *slog.Logger
	sock     *media.UDPSocket
	receiver keyring.Receiver
	here     bus.TransportAnnouncement
	secret   [32]byte // makes the marks of beats
	notices  chan func()

	mu        sync.Mutex
	streams   map[gk.StreamID]*stream
	term      uint64              // highest that any stream was commanded under
	routes    map[uint32]*session // by SSRC
	outsiders counts              // packets that no session can be blamed for
	unsent    uint64              // notices that found no room
	ended     bool                // outputs are closed, and no more are opened

	// The packet path's own, under mu.
	touched    []*session
	deliveries []*delivery
	spare      [][]byte

	// What is measured, under mu too.
	batchAt   time.Duration // of the batch in work, since the service started
	batchWall int64         // the same by the wall clock, ns since the Unix epoch
	arrived   int64         // of the packet in work, ns since the service started
	rolled    []rolled      // windows to be told
	windows   []*feature.Window
}

// New makes the service and opens its socket. It fails with an error that names
// the address when that is in use, and one that names the output when it is wrong.
func New(cfg Config, conn bus.Conn, id Identity, log *slog.Logger) (*Service, error) {
	s, err := newService(cfg, conn, id, log)
	if err != nil {
		return nil, err
	}
	if s.sock, err = media.ListenUDP(cfg.Listen, media.SocketOptions{ReceiveBuffer: cfg.ReceiveBuffer, Timestamps: cfg.Meter}); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	s.here.Address = s.advertised()
	return s, nil
}

// newService is New without a socket.
func newService(cfg Config, conn bus.Conn, id Identity, log *slog.Logger) (*Service, error) {
	if cfg.Host == nil {
		cfg.Host = host.Real{}
	}
	if cfg.KEM == nil {
		cfg.KEM = keyring.HPKE{}
	}
	if _, err := gk.ParseTransportID(string(cfg.ID)); err != nil {
		return nil, err
	}
	if err := cfg.checkHold(); err != nil {
		return nil, err
	}
	receiver, err := cfg.KEM.Generate(uint16(gkrp.SuiteMLKEM768X25519))
	if err != nil {
		return nil, err
	}
	signed, err := gkrp.SignReceiverKey(id.Signer, []byte(cfg.ID), &gkrp.ReceiverKey{
		Transport: cfg.ID, Suite: gkrp.SuiteMLKEM768X25519, Public: receiver.Public(),
	})
	if err != nil {
		return nil, fmt.Errorf("transport: sign receiver key: %w", err)
	}
	s := &Service{
		cfg: cfg, conn: conn, kms: id.KMS, log: log, receiver: receiver,
		notices: make(chan func(), maxNotices),
		streams: map[gk.StreamID]*stream{},
		routes:  map[uint32]*session{},
	}
	if _, err := rand.Read(s.secret[:]); err != nil {
		return nil, err
	}
	s.here = bus.TransportAnnouncement{
		TransportReceiver: bus.TransportReceiver{Transport: cfg.ID, Key: signed, Certificate: id.Certificate},
		Address:           cfg.Advertise,
		Started:           cfg.Host.Now(),
	}
	return s, nil
}

func (s *Service) advertised() string {
	if _, _, err := net.SplitHostPort(s.cfg.Advertise); err == nil {
		return s.cfg.Advertise
	}
	return net.JoinHostPort(s.cfg.Advertise, strconv.Itoa(int(s.sock.LocalAddr().Port())))
}

// Address is where devices send to, as announced: host:port.
func (s *Service) Address() string { return s.here.Address }

// Run serves until ctx is done. It ends in this order: commands, socket, what
// waits in buffers, outputs, keys.
func (s *Service) Run(ctx context.Context) error {
	defer s.end()
	subs, err := s.serve()
	defer func() {
		for _, sub := range subs {
			_ = sub.Close() // the connection goes with the process
		}
	}()
	if err != nil {
		_ = s.sock.Close()
		return fmt.Errorf("transport: %w", err)
	}
	if short := s.sock.Shortfall(); short != "" {
		s.log.Warn(short)
	}
	s.tell(gk.Event{Kind: gk.EventServiceStarted})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(s.receive)
	g.Go(func() error { s.tick(ctx); return nil })
	g.Go(func() error { s.publish(ctx); return nil })
	g.Go(func() error { s.announce(ctx); return nil })
	g.Go(func() error {
		<-ctx.Done()
		return s.sock.Close()
	})
	err = g.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// end delivers what waits, closes the outputs and wipes the keys.
func (s *Service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, st := range s.streams {
		for _, ses := range st.sessions() {
			s.forget(ses)
		}
		for _, o := range st.outputs {
			o.close()
		}
		st.viewers.close()
	}
	s.receiver.Wipe()
	s.tell(gk.Event{Kind: gk.EventServiceStopped})
}

// tick meets the deadlines of gaps and keys.
func (s *Service) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			s.overdue(now)
			s.retire(now)
		}
	}
}

// announce tells that the service is there, and once a second what it sees.
func (s *Service) announce(ctx context.Context) {
	here, status := time.NewTicker(announceEvery), time.NewTicker(statusEvery)
	defer here.Stop()
	defer status.Stop()
	var last outsiders
	var strangers counts
	var unsent uint64
	s.say(bus.TransportHere.Tell(s.conn, s.announcement()))
	for {
		select {
		case <-ctx.Done():
			return
		case <-here.C:
			s.say(bus.TransportHere.Tell(s.conn, s.announcement()))
		case now := <-status.C:
			for _, st := range s.Status(now) {
				s.say(bus.TransportStatus.Tell(s.conn, st))
			}
			last = s.tellOutsiders(last, now)
			strangers = s.tellStrangers(strangers)
			unsent = s.warnUnsent(unsent)
			for _, err := range s.outputTroubles() {
				s.log.Error("output", "error", err)
			}
		}
	}
}

// warnUnsent says, at most once a second, that events are missing.
func (s *Service) warnUnsent(before uint64) uint64 {
	s.mu.Lock()
	n := s.unsent
	s.mu.Unlock()
	if n > before {
		s.log.Warn("events were dropped: the bus takes them too slowly", "dropped", n-before)
	}
	return n
}

// Status is every session as the service sees it at a time.
func (s *Service) Status(now time.Time) []bus.StreamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []bus.StreamStatus
	for _, st := range s.streams {
		if st.former != nil {
			all = append(all, st.former.status(s.cfg.ID, now))
		}
		if ses := st.serving(); ses != nil {
			all = append(all, ses.status(s.cfg.ID, now))
		}
	}
	return all
}

// Outsiders counts, by cause, the packets that belong to no session.
func (s *Service) Outsiders() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outsiders.names()
}
