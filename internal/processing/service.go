// Package processing decides. It answers the devices' protocol messages, orders
// rotations, and brings restarted services back to the epochs in use. It never
// holds a media key: it carries sealed envelopes between the key management
// service, the transports and the devices.
//
// A message passes, in order: front door (size, rate, structure, enrolment,
// signature), the stream's own goroutine (session, candidate), the protocol's
// state machine (gkrp.Session), and the execution of its effects (rotate.go).
//
// Locking: everything of a stream is touched only by that stream's goroutine.
// The service's mutex guards the maps of streams, transports and SSRCs, is held
// for look-ups only, and never while anything is sent or waited for.
package processing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Config is what the service needs to know.
type Config struct {
	ID            string        // instance name, as in its certificate
	RotateEvery   time.Duration // age at which a key is changed; 0: never
	RotatePackets uint64        // packets after which a key is changed; 0: never
	SilentAfter   time.Duration // a session without media for so long may be replaced
	ReportEvery   time.Duration // what devices are asked for
	RejectAfter   time.Duration // the longest that a key may be used
	AllowX25519   bool          // accept devices that offer only the classical suite
	MinVersion    gkrp.Version  // lowest minor version of the protocol that is accepted
	ReportTags    bool          // ask devices that can for the tag of every packet in their reports
	Urgent        gkrp.Budget   // rotations that evidence may cause, for each stream
	UrgentSite    gkrp.Budget   // the same for all streams together
	Behaviour     Behaviour     // how streams are learned, judged and answered

	// What a simulation replaces; the zero values are the real things.
	Host     host.Host
	Verifier func(ed25519.PublicKey) (gkrp.Verifier, error)
}

// Defaults are the values that a Config starts from.
func Defaults() Config {
	return Config{
		ID:            "processing-1",
		RotateEvery:   10 * time.Minute,
		RotatePackets: 1 << 23,
		SilentAfter:   1500 * time.Millisecond,
		ReportEvery:   time.Second,
		RejectAfter:   24 * time.Hour,
		MinVersion:    gkrp.MinVersion,
		ReportTags:    true,
		Urgent:        gkrp.Budget{Burst: 6, Every: 10 * time.Minute},
		UrgentSite:    gkrp.Budget{Burst: 60, Every: 10 * time.Second},
		Behaviour:     DefaultBehaviour(),
	}
}

// The protocol's own times. They are properties of the protocol's exchange, not
// of a site, and so no settings.
const (
	retryFirst     = 100 * time.Millisecond
	retryMax       = 2 * time.Second
	candidateLife  = 30 * time.Second
	lingerAfterBye = time.Second
	callTimeout    = 5 * time.Second
	helloBusyRetry = 400 * time.Millisecond
)

// Service is the processing service.
type Service struct {
	cfg        Config
	conn       bus.Conn
	courier    bus.Courier
	records    store.KV
	signer     gkrp.Signer
	controller []byte // the key management service's word for signer
	log        *slog.Logger
	protocol   gkrp.StreamConfig
	site       lockedBudget
	tuning     chan struct{} // whoever tunes a stream holds it
	opens      gate          // of sessions
	keeps      gate          // of records that no key waits for

	fleetRefused atomic.Uint64 // what was told to be refused of the fleet's settings: the revision and one
	strangers    *siteWatch
	door         *door

	mu         sync.Mutex
	streams    map[gk.StreamID]*stream
	transports map[gk.TransportID]transport
	outranked  chan struct{}           // closed when a later term has to be taken
	liars      map[gk.TransportID]bool // told of
	raised     map[uint64]bool         // terms that this instance tried to write down for that
	ssrcs      map[uint32]gk.StreamID
	wg         sync.WaitGroup
	ctx        context.Context
	news       *turnstile
}

// transport is a transport as it last announced itself.
type transport struct {
	bus.TransportAnnouncement
	heard time.Time
}

// transportGoneAfter is how long a transport that says nothing counts as there.
const transportGoneAfter = 7 * time.Second

// New makes the service. signer signs its messages to devices, and controller is
// the key management service's statement for signer's key.
func New(cfg Config, conn bus.Conn, courier bus.Courier, records store.KV, signer gkrp.Signer, controller []byte, log *slog.Logger) *Service {
	if cfg.Host == nil {
		cfg.Host = host.Real{}
	}
	if cfg.Verifier == nil {
		cfg.Verifier = gkrp.NewVerifier
	}
	s := &Service{
		cfg: cfg, conn: conn, courier: courier, records: records, signer: signer, controller: controller, log: log,
		streams:    map[gk.StreamID]*stream{},
		transports: map[gk.TransportID]transport{},
		outranked:  make(chan struct{}),
		tuning:     make(chan struct{}, 1),
		opens:      newGate(),
		keeps:      newGate(),
		strangers:  newSiteWatch(),
		liars:      map[gk.TransportID]bool{},
		raised:     map[uint64]bool{},
		ssrcs:      map[uint32]gk.StreamID{},
	}
	s.protocol = gkrp.StreamConfig{
		Timing: s.timing, Place: s.place, SSRC: s.newSSRC, Started: cfg.Host.Now(),
		SilentAfter: cfg.SilentAfter, BusyRetry: helloBusyRetry, MinVersion: cfg.MinVersion, AllowX25519: cfg.AllowX25519,
		Urgent: cfg.Urgent, Site: &s.site,
	}
	s.site.b = cfg.UrgentSite
	if _, err := rand.Read(s.protocol.NonceKey[:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return s
}

// Run serves until ctx is done. Sessions are not ended by that: devices go on
// under the keys they have, and the next instance takes the sessions up from
// their records.
func (s *Service) Run(ctx context.Context) error {
	for {
		err := s.run(ctx)
		if !errors.Is(err, errOutranked) {
			return err
		}
		s.log.Warn("the store counts terms from a backup: starting anew under a later one")
		s = s.anew()
	}
}

func (s *Service) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		s.wg.Wait()
	}()
	subs, err := s.Start(ctx)
	defer func() {
		cancel()
		for _, sub := range subs {
			_ = sub.Close() // the connection goes with the process
		}
		s.news.shut()
	}()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.outranked:
		return errOutranked
	}
}

// Start is the beginning of [Service.Run]: it takes up the recorded sessions and
// answers, until ctx is done, over the subscriptions that it gives.
func (s *Service) Start(ctx context.Context) (subs []bus.Subscription, err error) {
	s.ctx, s.news = ctx, &turnstile{}
	if err := s.raiseTerm(ctx); err != nil {
		return nil, fmt.Errorf("processing: fencing term: %w", err)
	}
	hear := func(sub bus.Subscription, err error) error {
		if err == nil {
			subs = append(subs, sub)
		}
		return err
	}
	if err := errors.Join(
		hear(bus.TransportHere.Hear(s.conn, through(s.news, s.transportHere), s.liar)),
		hear(bus.TransportFirst.Hear(s.conn, through(s.news, s.transportFirst), s.liar)),
		hear(bus.TransportStatus.Hear(s.conn, through(s.news, s.transportStatus), s.liar)),
		hear(bus.TransportProof.Hear(s.conn, through(s.news, s.transportProof), s.liar)),
		hear(bus.TransportWindow.Hear(s.conn, through(s.news, s.transportWindow), s.liar)),
		hear(bus.TransportOutsiders.Hear(s.conn, through(s.news, s.transportOutsiders), s.liar)),
	); err != nil {
		return subs, fmt.Errorf("processing: %w", err)
	}
	if err := s.recover(ctx); err != nil {
		return subs, fmt.Errorf("processing: recover sessions: %w", err)
	}
	s.door = newDoor(s)
	s.door.run()
	s.beside(s.renewLeases)
	s.beside(s.tuneByNight)
	if err := errors.Join(
		hear(bus.ProcessingRotate.Serve(s.conn, s.serveRotate)),
		hear(bus.ProcessingStreams.Serve(s.conn, s.serveStreams)),
		hear(bus.ProcessingStop.Serve(s.conn, s.serveStop)),
		hear(bus.ProcessingDisarm.Serve(s.conn, s.serveDisarm)),
		hear(bus.ProcessingAlerts.Serve(s.conn, s.serveAlerts)),
		hear(bus.ProcessingEpisode.Serve(s.conn, s.serveEpisode)),
		hear(bus.ProcessingExplain.Serve(s.conn, s.serveExplain)),
		hear(bus.ProcessingProfile.Serve(s.conn, s.serveProfile)),
		hear(bus.ProcessingPlanned.Serve(s.conn, s.servePlanned)),
		hear(bus.ProcessingFeedback.Serve(s.conn, s.serveFeedback)),
		hear(bus.ProcessingTuning.Serve(s.conn, s.serveTuning)),
		hear(bus.ProcessingFleet.Serve(s.conn, s.serveFleet)),
	); err != nil {
		return subs, fmt.Errorf("processing: %w", err)
	}
	if err := s.courier.Listen(gkrp.ServiceFilter(), s.door.knock); err != nil {
		return subs, fmt.Errorf("processing: %w", err)
	}
	s.tell(gk.Event{Kind: gk.EventServiceStarted})
	return subs, nil
}

func (s *Service) now() time.Time { return s.cfg.Host.Now() }

// beside runs f in a goroutine that Run waits for.
func (s *Service) beside(f func()) {
	s.wg.Add(1)
	s.cfg.Host.Go(func() {
		defer s.wg.Done()
		f()
	})
}

// recover takes up every session that its record says is running.
func (s *Service) recover(ctx context.Context) error {
	entries, err := s.records.List(ctx, recordToken)
	if err != nil {
		return err
	}
	for _, e := range entries {
		r, err := decodeRecord(e.Value)
		if err != nil {
			return fmt.Errorf("record %s: %w", e.Key, err)
		}
		id := gk.StreamID(strings.TrimPrefix(e.Key, recordToken+"."))
		st := s.stream(id, r.Device, e.Revision)
		st.post(func() {
			st.lastEpoch = r.Epoch
			if r.Ended {
				return
			}
			s.claimSSRC(r.SSRC, id)
			st.execute(st.machine.Resume(s.now(), r))
		})
	}
	return nil
}

// stream gives the stream's goroutine, started when it is first needed. revision
// is that of its record, 0 where it has none yet.
func (s *Service) stream(id gk.StreamID, device gk.DeviceID, revision uint64) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[id]
	if st == nil {
		st = newStream(s, id, device, revision)
		s.streams[id] = st
		s.beside(st.run)
		s.beside(st.load)
	}
	return st
}

func (s *Service) find(id gk.StreamID) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// owns reports whether a stream is there and the device's.
func (s *Service) owns(device gk.DeviceID, id gk.StreamID) bool {
	st := s.find(id)
	return st != nil && st.device == device
}

func (s *Service) eachStream(f func(*stream)) {
	s.mu.Lock()
	all := make([]*stream, 0, len(s.streams))
	for _, st := range s.streams {
		all = append(all, st)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *stream) int { return strings.Compare(string(a.id), string(b.id)) })
	for _, st := range all {
		f(st)
	}
}

func (s *Service) timing(transports []gk.TransportID) gkrp.Timing {
	t := gkrp.Timing{
		Every: s.cfg.RotateEvery, Packets: s.cfg.RotatePackets,
		Retry: retryFirst, RetryMax: retryMax, CloseAfter: candidateLife, Linger: lingerAfterBye,
		Policy:    gkrp.Policy{ReportEveryMs: uint32(s.cfg.ReportEvery.Milliseconds()), RejectAfterS: uint32(s.cfg.RejectAfter.Seconds()), Tags: s.cfg.ReportTags},
		Addresses: map[gk.TransportID]string{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range transports {
		t.Addresses[id] = s.transports[id].Address
	}
	return t
}

// place chooses where a new session's media goes: the transport with the fewest
// streams; none where no transport is there.
func (s *Service) place(now time.Time) []gk.TransportID {
	load := map[gk.TransportID]int{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		for _, x := range st.serves() {
			for _, id := range x.transports {
				load[id]++
			}
		}
	}
	var best gk.TransportID
	for id, t := range s.transports {
		if now.Sub(t.heard) < transportGoneAfter && (best == "" || load[id] < load[best] || load[id] == load[best] && id < best) {
			best = id
		}
	}
	if best == "" {
		return nil
	}
	return []gk.TransportID{best}
}

func (s *Service) receivers(ids []gk.TransportID) []bus.TransportReceiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bus.TransportReceiver
	for _, id := range ids {
		if t, ok := s.transports[id]; ok {
			out = append(out, t.TransportReceiver)
		}
	}
	return out
}

// newSSRC draws an SSRC that no other stream uses (RFC 3550 §8).
func (s *Service) newSSRC(id gk.StreamID) uint32 {
	for {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // crypto/rand does not fail
		}
		ssrc := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		if ssrc != 0 && s.claimSSRC(ssrc, id) {
			return ssrc
		}
	}
}

func (s *Service) claimSSRC(ssrc uint32, id gk.StreamID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.ssrcs[ssrc]; taken {
		return false
	}
	s.ssrcs[ssrc] = id
	return true
}

func (s *Service) freeSSRC(ssrc uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ssrcs, ssrc)
}

func (s *Service) tell(e gk.Event) {
	e.Service = s.cfg.ID
	if e.At.IsZero() {
		e.At = s.now()
	}
	if err := bus.Events.Tell(s.conn, e); err != nil {
		s.log.Warn("event was not told", "kind", e.Kind, "error", err)
	}
}

func (s *Service) serveRotate(ctx context.Context, r bus.RotateRequest) (bus.RotateReply, error) {
	st := s.find(r.Stream)
	if st == nil {
		return bus.RotateReply{}, bus.Refuse(bus.CodeNotFound, "there is no stream %q: gaitkeeper streams lists them", r.Stream)
	}
	if r.Reason == "" {
		r.Reason = gk.ReasonOperator
	}
	answer, asking := make(chan rotated, 1), bus.Asking(ctx)
	st.post(func() { st.rotate(r, asking, answer) })
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	select {
	case a := <-answer:
		return a.reply, a.err
	case <-ctx.Done():
		return bus.RotateReply{}, bus.Refuse(bus.CodeUnavailable, "stream %q: the device has not confirmed yet; the rotation goes on", r.Stream)
	}
}

func (s *Service) serveStreams(ctx context.Context, _ bus.Empty) (bus.StreamsReply, error) {
	var rep bus.StreamsReply
	var streams []*stream
	s.eachStream(func(st *stream) { streams = append(streams, st) })
	for _, st := range streams {
		c := make(chan *bus.StreamInfo, 1)
		st.post(func() { c <- st.info() })
		select {
		case i := <-c:
			if i != nil {
				rep.Streams = append(rep.Streams, *i)
			}
		case <-ctx.Done():
			return rep, ctx.Err()
		}
	}
	return rep, nil
}

func (s *Service) serveStop(_ context.Context, r bus.StopRequest) (bus.Empty, error) {
	st := s.find(r.Stream)
	if st == nil {
		return bus.Empty{}, bus.Refuse(bus.CodeNotFound, "there is no stream %q: gaitkeeper streams lists them", r.Stream)
	}
	st.post(func() { st.step(gkrp.End{Code: gkrp.CodeRevoked}) })
	return bus.Empty{}, nil
}

// lockedBudget is the budget of the whole site, which every stream's goroutine
// takes from.
type lockedBudget struct {
	mu sync.Mutex
	b  gkrp.Budget
}

func (l *lockedBudget) Take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Take(now)
}
