// Package kms is the key management service: it alone allocates epochs and
// makes media keys, keeps them wrapped, releases them sealed and signed to
// receivers that it verified itself, and destroys them. It is the site's
// certificate authority too.
package kms

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// Config is what the service needs to know.
type Config struct {
	// Lease is how long armed keys may serve without this service's word that
	// their device is in good standing; 0: one minute.
	Lease time.Duration
	// Unsure is how long it may be that another instance serves in this one's place,
	// and knows of revocations that this one does not. Leases are shorter by it. nil:
	// there is no other.
	Unsure func() time.Duration

	KEK    KEK
	Suites []gkrp.Suite // HPKE suites that keys may be sealed with; none: MLKEM768X25519 alone
	Log    *slog.Logger // nil: nothing is logged

	// What a simulation replaces; the zero values are the real things.
	Host     host.Host
	KEM      keyring.KEM
	Sign     func(key ed25519.PrivateKey, content []byte) []byte
	Verifier func(ed25519.PublicKey) (gkrp.Verifier, error)
}

// Service is a key management service over one store.
type Service struct {
	cfg    Config
	kv     store.KV
	conn   bus.Conn
	vault  *vault
	ca     *authority
	signer *signer
	wake   chan struct{} // capacity 1: unsaved has something

	mu        sync.Mutex // guards the maps, is never held over a call
	streams   map[gk.StreamID]*stream
	devices   map[gk.DeviceID]cachedDevice
	receivers map[[32]byte]*receiver
	unsaved   map[*stream]struct{}
	obeyed    []obeyed // the last revocations, oldest first
}

// New opens the key store, or makes one in an empty store: data-encryption key,
// CA and signing key. It reads every key that is not destroyed, so that later
// releases come from memory. kv must keep [History] revisions.
func New(ctx context.Context, cfg Config, kv store.KV, conn bus.Conn) (*Service, error) {
	if len(cfg.Suites) == 0 {
		cfg.Suites = []gkrp.Suite{gkrp.SuiteMLKEM768X25519}
	}
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Host == nil {
		cfg.Host = host.Real{}
	}
	if cfg.KEM == nil {
		cfg.KEM = keyring.HPKE{}
	}
	if cfg.Sign == nil {
		cfg.Sign = ed25519.Sign
	}
	if cfg.Verifier == nil {
		cfg.Verifier = gkrp.NewVerifier
	}
	s := &Service{
		cfg: cfg, kv: kv, conn: conn, wake: make(chan struct{}, 1),
		streams: map[gk.StreamID]*stream{}, devices: map[gk.DeviceID]cachedDevice{},
		receivers: map[[32]byte]*receiver{}, unsaved: map[*stream]struct{}{},
	}
	var err error
	if s.vault, err = openVault(ctx, kv, cfg.KEK); err != nil {
		return nil, err
	}
	if s.ca, err = openAuthority(ctx, kv, s.vault, cfg.Host.Now()); err != nil {
		return nil, err
	}
	if s.signer, err = openSigner(ctx, kv, s.vault, cfg.Sign); err != nil {
		return nil, err
	}
	return s, s.load(ctx)
}

// load reads the whole store into memory.
func (s *Service) load(ctx context.Context) error {
	devices, err := s.kv.List(ctx, "device")
	if err != nil {
		return fmt.Errorf("cannot read the key store: %w", err)
	}
	for _, e := range devices {
		d := cachedDevice{rev: e.Revision}
		if err := s.vault.open(e, &d.deviceRecord); err != nil {
			return err
		}
		s.remember(d.Device, d)
	}
	sessions, err := s.byStream(ctx, "session")
	if err != nil {
		return err
	}
	keys, err := s.byStream(ctx, "key")
	if err != nil {
		return err
	}
	for id := range sessions {
		gone, _, err := s.readGone(ctx, id)
		if err != nil {
			return err
		}
		st := s.stream(id)
		if err := s.take(st, sessions[id], keys[id], gone); err != nil {
			return err
		}
		// A crash may have left a session without a reserved key, or one that
		// ended and is not yet cleared away.
		s.saveLater(st)
	}
	return nil
}

func (s *Service) byStream(ctx context.Context, prefix string) (map[gk.StreamID][]store.Entry, error) {
	entries, err := s.kv.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key store: %w", err)
	}
	out := map[gk.StreamID][]store.Entry{}
	for _, e := range entries {
		id, _, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix+"."), ".")
		out[gk.StreamID(id)] = append(out[gk.StreamID(id)], e)
	}
	return out, nil
}

// stream gives what memory has of a stream, and makes room for one that is new.
func (s *Service) stream(id gk.StreamID) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[id]
	if st == nil {
		st = newStream(id)
		s.streams[id] = st
	}
	return st
}

// Run answers on the bus until ctx ends. Then it stops answering, saves what is
// unsaved, and wipes every key from memory; the service cannot run again.
func (s *Service) Run(ctx context.Context) error {
	defer s.wipe()
	subs, err := s.serve()
	if err == nil {
		s.tell(gk.Event{Kind: gk.EventServiceStarted})
		g, gctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.saver(gctx) })
		g.Go(func() error { return s.followDevices(gctx) })
		err = g.Wait()
	}
	for _, sub := range subs {
		_ = sub.Close()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveRetryMax)
	defer cancel()
	s.savePending(last)
	s.tell(gk.Event{Kind: gk.EventServiceStopped})
	if err != nil {
		return fmt.Errorf("key management service: %w", err)
	}
	return nil
}

// Attach answers on the bus until the connection is closed, without the
// goroutines of [Service.Run]: the host calls [Service.SaveDue].
func (s *Service) Attach() error {
	_, err := s.serve()
	return err
}

// followDevices watches again when a watch breaks: the first news of a new
// watch is the present state, so nothing is missed.
func (s *Service) followDevices(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.watchDevices(ctx); err != nil {
			s.cfg.Log.Warn("the watch on device records broke, it is set up again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveRetryMin):
		}
	}
	return nil
}

func (s *Service) serve() ([]bus.Subscription, error) {
	var subs []bus.Subscription
	var errs error
	keep := func(sub bus.Subscription, err error) {
		errs = errors.Join(errs, err)
		if err == nil {
			subs = append(subs, sub)
		}
	}
	keep(bus.KMSInfo.Serve(s.conn, s.info))
	keep(bus.KMSOpen.Serve(s.conn, s.open))
	keep(bus.KMSRelease.Serve(s.conn, s.release))
	keep(bus.KMSSetState.Serve(s.conn, s.setState))
	keep(bus.KMSKeys.Serve(s.conn, s.keys))
	keep(bus.KMSDevice.Serve(s.conn, s.deviceInfo))
	keep(bus.KMSEnroll.Serve(s.conn, s.enroll))
	keep(bus.KMSJoin.Serve(s.conn, s.join))
	keep(bus.KMSCertify.ServeEach(s.conn, s.certify))
	keep(bus.KMSDevices.Serve(s.conn, s.listDevices))
	keep(bus.KMSRevoke.Serve(s.conn, s.revoke))
	keep(bus.KMSStanding.Serve(s.conn, s.standing))
	keep(bus.KMSSignHead.Serve(s.conn, s.signHead))
	keep(bus.KMSSeal.Serve(s.conn, s.seal))
	keep(bus.KMSUnseal.Serve(s.conn, s.unseal))
	return subs, errs
}

func (s *Service) wipe() {
	s.mu.Lock()
	streams := s.streams
	s.streams = map[gk.StreamID]*stream{}
	s.mu.Unlock()
	for _, st := range streams {
		st.mu.Lock()
		for _, ss := range st.sessions {
			for _, k := range ss.keys {
				k.media.Wipe()
			}
		}
		st.mu.Unlock()
	}
	s.ca.key.Wipe()
	s.signer.key.Wipe()
}

// tell announces an event; who listens is none of this service's business.
func (s *Service) tell(e gk.Event) {
	e.At, e.Service = s.cfg.Host.Now(), "kms"
	if err := bus.Events.Tell(s.conn, e); err != nil {
		s.cfg.Log.Warn("event was not announced", "kind", e.Kind, "err", err)
	}
}

func (s *Service) tellState(st *stream, ss *session, info bus.KeyInfo, from bus.KeyState) {
	detail := map[string]string{"state": string(info.State)}
	if from != "" {
		detail["from"] = string(from)
	}
	s.tell(gk.Event{
		Kind: gk.EventKeyState, Device: ss.rec.Device, Stream: st.id, Session: ss.id,
		Epoch: info.Epoch, Detail: detail,
	})
}

func (s *Service) tellAll(st *stream, ss *session, told []transition) {
	for _, t := range told {
		s.tellState(st, ss, t.info, t.from)
	}
}
