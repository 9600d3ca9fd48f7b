package device

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	retryFirst = 250 * time.Millisecond // of an unanswered HELLO; doubles
	retryMost  = 2 * time.Second
	// againAfter is the pause before a new session follows one that the service ended.
	againAfter = time.Second
	// byeTwice is how long after it a BYE is sent once more: nothing answers it.
	byeTwice = 100 * time.Millisecond
	// stale is how long live media may pile up before the first key is there;
	// older pictures are not worth sending.
	stale = 2 * time.Second
	// A service speaks rarely. What comes faster is dropped before any signature
	// is checked.
	messagesPerSecond = 200
	messagesBurst     = 400
	inboxSize         = 256
)

// ErrStopped means that the service ended the stream: the text says why.
var ErrStopped = errors.New("the service ended the stream")

// dialer makes a sender to a host:port.
type dialer func(ctx context.Context, address string) (sender, error)

func udpDialer(sock *media.UDPSocket) dialer {
	return func(ctx context.Context, address string) (sender, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("transport address %q is not host:port: %w", address, err)
		}
		n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
		if err != nil {
			return nil, fmt.Errorf("transport address %q: %w", address, err)
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("transport address %q: %w", address, err)
		}
		return sock.NewSender(netip.AddrPortFrom(ips[0].Unmap(), uint16(n)), maxBatch), nil
	}
}

// stream is one stream of the agent. Two goroutines run it:
//
//	media    source → packet path; never waits for the service once it has a key
//	control  the device's half of GKRP; owns everything of the session
//
// They meet in the packet path, which has its own lock, and in the channels.
type stream struct {
	agent  *Agent
	id     gk.StreamID
	source Source
	path   *packetPath
	signer gkrp.Signer
	kms    gkrp.Verifier
	kid    []byte
	dial   dialer
	beside func(func())      // runs what may wait for others
	good   map[string]sender // where transports were found last, by address; control's

	inbox  chan []byte
	hurry  chan struct{} // a report is due at once: the source broke off, or the report is filling up
	ended  chan error    // the source's end
	high   chan gk.Epoch // epochs to write down
	mem    gk.Epoch      // high-water mark of this run
	lastID atomic.Pointer[gk.SessionID]

	rotations, sessions atomic.Uint64
}

func newStream(a *Agent, c StreamConfig, signer gkrp.Signer, kms gkrp.Verifier) *stream {
	return &stream{
		agent: a, id: c.ID, source: c.Source, path: newPacketPath(c.Tap), signer: signer, kms: kms,
		beside: func(f func()) { go f() },
		kid:    gkrp.KeyID(a.cfg.Identity.Key.Public().(ed25519.PublicKey)),
		inbox:  make(chan []byte, inboxSize), hurry: make(chan struct{}, 1), ended: make(chan error, 1), high: make(chan gk.Epoch, 1),
	}
}

func (s *stream) stats() StreamStats {
	c, epoch, _ := s.path.snapshot()
	st := StreamStats{
		Stream: s.id, Epoch: epoch, Next: s.path.end(), Packets: c.Packets, Bytes: c.Bytes, Unkeyed: c.Unkeyed,
		SendErrors: c.SendErrors, NotMedia: s.source.Dropped(), Rotations: s.rotations.Load(), Sessions: s.sessions.Load(),
	}
	if id := s.lastID.Load(); id != nil {
		st.Session = *id
	}
	return st
}

// run goes through the stream's whole life: wait for media, hold sessions, end.
func (s *stream) run(ctx context.Context) error {
	log := s.agent.cfg.Log.With("stream", s.id)
	defer s.path.close()
	topic := gkrp.Topic(s.agent.cfg.Identity.Device, s.id, gkrp.Down)
	// A broker that is away takes the subscription up when it is back.
	if err := s.agent.courier.Listen(topic, s.receive); err != nil && s.agent.courier.Connected() {
		return errors.Join(err, s.source.Close())
	}
	log.Info("waiting for the source")
	payload, err := s.source.Probe(ctx)
	if err != nil {
		err = errors.Join(err, s.source.Close())
		if ctx.Err() != nil {
			return nil
		}
		return err
	}

	s.path.ingress = newIngress(payload, time.Now(), s.source.Dropped)
	if r, ok := s.source.(runner); ok {
		s.path.encoder = &begun{said: gkrp.Encoder{Regime: r.regime()}}
	}
	mediaCtx, stopMedia := context.WithCancel(ctx)
	defer stopMedia()
	mediaDone := make(chan struct{})
	go func() { // ends with the source, or when control is done with the stream
		defer close(mediaDone)
		s.ended <- s.media(mediaCtx)
	}()
	noted := make(chan struct{})
	go func() { // ends when high is closed
		defer close(noted)
		s.note()
	}()
	err = s.control(ctx, payload)
	stopMedia()
	<-mediaDone
	close(s.high)
	<-noted
	return errors.Join(err, s.source.Close())
}

// media moves batches from the source to the packet path until either ends.
func (s *stream) media(ctx context.Context) error {
	asked := time.Now()
	select {
	case <-s.path.keyed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if f, ok := s.source.(flusher); ok && time.Since(asked) > stale {
		if n := f.flush(); n > 0 {
			s.agent.cfg.Log.Info("what the encoder sent before there was a key is left out", "stream", s.id, "datagrams", n)
		}
	}
	var b Batch
	for {
		if err := s.source.Read(ctx, &b); err != nil {
			return err
		}
		if s.path.send(time.Now(), &b) {
			select {
			case s.hurry <- struct{}{}:
			default:
			}
		}
	}
}

// note writes the epoch high-water mark down, apart from everything that hurries.
func (s *stream) note() {
	for e := range s.high {
		if st := s.agent.cfg.State; st != nil {
			if err := st.raise(s.id, e); err != nil {
				s.agent.cfg.Log.Warn("the epoch in use could not be written down", "epoch", e, "err", err)
			}
		}
	}
}

// receive takes one message from the courier.
func (s *stream) receive(_ string, payload []byte) {
	select {
	case s.inbox <- payload:
	default: // the sender repeats what matters
	}
}

// control holds one session after another until the stream ends.
func (s *stream) control(ctx context.Context, payload gkrp.Payload) error {
	limit := rate.NewLimiter(messagesPerSecond, messagesBurst)
	for {
		x, err := s.newSession(payload, limit)
		if err != nil {
			return err
		}
		again, err := x.hold(ctx)
		x.keys.wipe()
		if err != nil || !again {
			return err
		}
		t := time.NewTimer(againAfter)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// session is one run of the protocol: the pure [gkrp.Device] and what it wants done.
type session struct {
	*stream
	id      gk.SessionID
	dev     *gkrp.Device
	keys    keys
	link    *link
	limit   *rate.Limiter
	payload gkrp.Payload

	effects []gkrp.Effect
	spare   [][]byte // the prekey that the next ACK brings
	missing []string // transports that are to be looked up
	looking int      // look-ups under way
	found   chan found
	supply  supply // the last answer to a REFILL
	reject  string // text of the last refusal
	code    gkrp.Code
	over    bool
	keyed   bool
	vouched [sha256.Size]byte // hash of the controller statement that was verified last
	service gkrp.Verifier     // its key
	dropped map[string]uint64 // messages left out, by cause
	sends   uint64            // send errors told so far
	unkeyed uint64            // unkeyed packets told so far
}

func (s *stream) newSession(payload gkrp.Payload, limit *rate.Limiter) (*session, error) {
	cfg := &s.agent.cfg
	id, err := gk.NewSessionID(cfg.Random)
	if err != nil {
		return nil, err
	}
	floor := s.mem
	if cfg.State != nil {
		floor = max(floor, cfg.State.HighWater(s.id))
	}
	x := &session{stream: s, id: id, limit: limit, payload: payload, dropped: map[string]uint64{}, keys: keys{
		device: cfg.Identity.Device, stream: s.id, session: id, suite: gkrp.SuiteMLKEM768X25519,
		floor: floor, kms: s.kms, kem: cfg.KEM, signer: s.signer, kid: s.kid, onKey: cfg.OnKey,
	}}
	prekeys, err := x.keys.offer(gkrp.MaxPrekeys)
	if err != nil {
		return nil, err
	}
	x.dev, x.effects = gkrp.NewDevice(cfg.Host.Now(), gkrp.Hello{
		Device: cfg.Identity.Device, Stream: s.id, Session: id,
		Versions: []gkrp.Version{gkrp.Version0, gkrp.Version1, gkrp.Version2, gkrp.Version3}, Suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519},
		Payload: payload, HighWater: floor, Prekeys: prekeys, Software: cfg.Software, Next: s.path.end(),
	}, retryFirst, retryMost)
	s.lastID.Store(&id)
	s.sessions.Add(1)
	return x, nil
}

// hold runs the session to its end. It is true when another shall follow.
func (x *session) hold(ctx context.Context) (bool, error) {
	lookUps, cancel := context.WithCancel(ctx) // they end with the session
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		x.perform(lookUps)
		x.prepare()
		if x.over {
			return x.verdict()
		}
		if d := x.dev.Deadline(); !d.IsZero() {
			timer.Reset(time.Until(d))
		}
		select {
		case wire := <-x.inbox:
			x.hear(wire)
		case f := <-x.found:
			x.take(f)
		case <-timer.C:
			x.step(gkrp.Tick{})
		case <-x.hurry:
			x.sent()
		case err := <-x.ended:
			return false, x.finish(ctx, err)
		case <-ctx.Done():
			return false, x.finish(ctx, <-x.ended) // nothing is sent after BYE
		}
	}
}

// finish says BYE, with what was sent last.
func (x *session) finish(ctx context.Context, cause error) error {
	text := "source ended"
	switch {
	case ctx.Err() != nil:
		text, cause = "agent stopped", nil
	case errors.Is(cause, io.EOF):
		cause = nil
	case cause != nil:
		text = "source failed"
	}
	x.sent()
	x.step(gkrp.Finish{End: x.path.end(), Text: text})
	bye := x.effects
	x.perform(context.WithoutCancel(ctx))
	if x.keyed {
		// Not hurried by ctx: this is what ctx's end waits for.
		time.Sleep(byeTwice)
		x.effects, x.over = bye, false
		x.perform(context.WithoutCancel(ctx))
	}
	x.tell(gk.Event{Kind: gk.EventSessionEnded, Index: x.path.end(), Detail: map[string]string{"by": "device", "text": text}})
	return cause
}

// verdict decides what follows a session that the service ended.
func (x *session) verdict() (bool, error) {
	x.tell(gk.Event{Kind: gk.EventSessionEnded, Index: x.path.end(), Detail: map[string]string{"by": "service", "code": string(x.code), "text": x.reject}})
	switch {
	case x.code == "":
		return false, fmt.Errorf("%w: %s", ErrStopped, orElse(x.reject, "on an operator's word"))
	case x.code.Final():
		return false, fmt.Errorf("%w: %s: %s", ErrStopped, x.code, orElse(x.reject, mendOf(x.code)))
	}
	x.log("session ended by the service; a new one follows", "code", x.code, "text", x.reject)
	return true, nil
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}

func mendOf(c gkrp.Code) string {
	switch c {
	case gkrp.CodeRevoked:
		return "this device was revoked: enrol it anew, with a new state directory"
	case gkrp.CodeNotYours:
		return "the stream belongs to another device: choose another with --stream, or enrol this device for it"
	case gkrp.CodeUnsupportedVersion:
		return "the service speaks another version of the protocol: bring both to the same release"
	case gkrp.CodeUnsupportedSuite:
		return "the service accepts none of this device's algorithms: bring both to the same release"
	case gkrp.CodeEpochJump:
		return "the device's count of epochs is far from the service's: an operator has to look"
	}
	return "it cannot succeed if tried again in the same way"
}

func (x *session) log(msg string, args ...any) {
	x.agent.cfg.Log.Info(msg, append([]any{"stream", x.stream.id, "session", x.id}, args...)...)
}

func (x *session) warn(msg string, args ...any) {
	x.agent.cfg.Log.Warn(msg, append([]any{"stream", x.stream.id, "session", x.id}, args...)...)
}

func (x *session) tell(e gk.Event) {
	e.At, e.Service, e.Device, e.Stream, e.Session = x.now(), "device", x.keys.device, x.stream.id, x.id
	x.agent.cfg.Tell(e)
}

func (x *session) now() time.Time { return x.agent.cfg.Host.Now() }

func (x *session) step(in gkrp.Input) {
	x.effects = append(x.effects, x.dev.Step(x.now(), in)...)
}

// hear verifies a message and gives it to the state machine. What does not
// verify is counted, and changes nothing.
func (x *session) hear(wire []byte) {
	if !x.limit.AllowN(x.now(), 1) {
		x.dropped["flood"]++
		return
	}
	m, payload, err := x.verify(wire)
	if err != nil {
		x.dropped[causeOf(err)]++
		return
	}
	switch m := m.(type) {
	case *gkrp.Reject:
		if m.Session == x.id {
			x.reject = m.Text
			if m.Code == gkrp.CodeUnsupportedVersion {
				x.reject = fmt.Sprintf("%s (supported: %v)", orElse(m.Text, mendOf(m.Code)), m.Supported)
			}
		}
	case *gkrp.Stop:
		if m.Session == x.id {
			x.reject = m.Text
		}
	}
	x.step(gkrp.Heard{Message: m, Payload: payload})
}

func causeOf(err error) string {
	for _, c := range []struct {
		err  error
		name string
	}{
		{gkrp.ErrTooLarge, "too-large"}, {gkrp.ErrSignature, "signature"}, {gkrp.ErrUnknownMandatory, "unknown-mandatory"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "malformed"
}

// verify checks that a message is from a service that the key management service
// vouches for, and meant for this stream.
func (x *session) verify(wire []byte) (gkrp.Message, []byte, error) {
	r, err := gkrp.Parse(wire, gkrp.Down)
	if err != nil {
		return nil, nil, err
	}
	if sum := sha256.Sum256(r.Controller); x.service == nil || sum != x.vouched {
		c, _, err := gkrp.OpenController(x.kms, r.Controller)
		if err != nil {
			return nil, nil, err
		}
		v, err := x.agent.cfg.Verifier(c.Public)
		if err != nil {
			return nil, nil, err
		}
		x.service, x.vouched = v, sum
	}
	m, err := r.Verify(x.service, gkrp.Scope{Device: x.keys.device, Stream: x.stream.id})
	return m, r.Payload, err
}

// perform does what the state machine wants, and what that leads to.
func (x *session) perform(ctx context.Context) {
	for len(x.effects) > 0 {
		fx := x.effects
		x.effects = nil
		for _, f := range fx {
			x.do(ctx, f)
		}
	}
}

func (x *session) do(ctx context.Context, f gkrp.Effect) {
	switch f := f.(type) {
	case gkrp.Send:
		x.send(f.Message)
	case gkrp.Start:
		x.start(ctx, f)
	case gkrp.Install:
		x.install(f)
	case gkrp.WantReport:
		x.sent()
		x.remark()
		x.lookUp(ctx)
	case gkrp.WantPrekeys:
		x.refill()
	case gkrp.Refused:
		if f.Code == gkrp.CodeBusy && !x.keyed {
			// Our own media under the session before would keep that one alive for ever.
			x.path.close()
		}
		x.warn("the service refuses the session for now", "code", f.Code, "text", f.Text, "again_in", f.After)
		x.tell(gk.Event{Kind: gk.EventSessionRejected, Detail: map[string]string{"code": string(f.Code), "text": f.Text}})
	case gkrp.Over:
		x.over, x.code = true, f.Code
	}
}

// send signs a message and hands it to the courier. A failure needs no handling:
// what matters is sent again, and what was lost shows as that.
func (x *session) send(m gkrp.Message) {
	scope := gkrp.Scope{Device: x.keys.device, Stream: x.stream.id}
	wire, err := gkrp.Sign(x.signer, x.kid, nil, scope, m)
	if err != nil {
		x.warn("a message could not be signed", "type", m.Type(), "err", err)
		return
	}
	_ = x.agent.courier.Send(gkrp.Topic(scope.Device, scope.Stream, gkrp.Up), wire)
}

// start prepares the way to the session's transports. Packets go to each of them.
func (x *session) start(ctx context.Context, f gkrp.Start) {
	x.keys.ssrc = f.SSRC
	x.link = &link{ssrc: f.SSRC, payload: x.payload, reject: time.Duration(f.Policy.RejectAfterS) * time.Second, tags: f.Policy.Tags}
	x.reach(ctx, f.Transports)
	x.log("session accepted", "version", f.Version, "ssrc", fmt.Sprintf("%08x", f.SSRC), "transports", f.Transports)
}

// install opens a granted key and switches to it.
func (x *session) install(f gkrp.Install) {
	began := x.now()
	x.supply.made = time.Time{}
	sealer, confirm, err := x.keys.granted(f.Epoch, f.Envelope)
	if err != nil {
		x.warn("a granted key was refused", "epoch", f.Epoch, "err", err)
		x.step(gkrp.InstallFailed{Epoch: f.Epoch})
		return
	}
	first := x.path.install(began, key{sealer: sealer, link: x.link, epoch: f.Epoch})
	x.mem = max(x.mem, f.Epoch)
	x.step(gkrp.Installed{Epoch: f.Epoch, Confirm: confirm[:], First: first, Prekeys: x.spare})
	x.spare = nil
	x.writeDown(f.Epoch)
	if x.keyed {
		x.rotations.Add(1)
	} else {
		x.tell(gk.Event{Kind: gk.EventSessionStarted, Epoch: f.Epoch, Index: first})
	}
	x.keyed = true
	x.tell(gk.Event{Kind: gk.EventRotationDone, Epoch: f.Epoch, Reason: f.Reason, Index: first, Took: x.now().Sub(began)})
}

// prepare makes the prekey for the next ACK ahead of time: a rotation waits for
// that ACK.
func (x *session) prepare() {
	if x.spare != nil || x.over {
		return
	}
	var err error
	if x.spare, err = x.keys.offer(1); err != nil {
		x.warn("no new prekey could be made", "err", err)
	}
}

// writeDown leaves the epoch for note; only the newest counts.
func (x *session) writeDown(e gk.Epoch) {
	select {
	case <-x.high:
	default:
	}
	x.high <- e
}

// sent gives the state machine a report to send.
func (x *session) sent() {
	if x.keyed {
		x.step(gkrp.Sent{Report: x.path.report(x.now())})
	}
}

// remark logs, once a report, what went wrong since the last.
func (x *session) remark() {
	c, epoch, err := x.path.snapshot()
	if c.SendErrors > x.sends {
		x.warn("packets could not be sent", "packets", c.SendErrors-x.sends, "err", err)
		x.sends = c.SendErrors
	}
	if c.Unkeyed > x.unkeyed {
		x.warn("packets were left out: the key is past its life and no new one came", "packets", c.Unkeyed-x.unkeyed, "epoch", epoch)
		x.unkeyed = c.Unkeyed
	}
	for cause, n := range x.dropped {
		x.warn("messages were left out", "cause", cause, "messages", n)
		delete(x.dropped, cause)
	}
}
