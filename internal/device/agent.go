// Package device is the encoder's agent: it takes the encoder's output, seals it
// as SRTP under keys that it is granted over GKRP, sends it, and reports what it
// sent.
//
// One packet's way is in packet.go, one key's in keys.go, one session's in
// session.go. The media path and the session share nothing but the install of a
// key and the making of a report: media goes on under the current key whatever
// becomes of the broker.
package device

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// Config is what an [Agent] runs with.
type Config struct {
	Identity Identity
	Streams  []StreamConfig

	// State keeps the epoch high-water mark; nil keeps it in memory only.
	State *State
	// Log takes what happens once in a while; never a packet. Nil means none.
	Log *slog.Logger
	// Tell is called with every event of a session, one call at a time for each
	// stream. It must not block. Nil means nobody listens.
	Tell func(gk.Event)
	// Software is told to the service: name and version.
	Software string

	// OnKey is called with every media key that a stream takes up. The key is wiped
	// when it returns. It is there so that tests and demonstrations can have a key
	// stolen; no flag and no setting reaches it. Nil, as it must be anywhere else,
	// hands nothing out.
	OnKey func(stream gk.StreamID, ssrc uint32, epoch gk.Epoch, key keyring.MediaKey)

	// What a simulation replaces; the zero values are the real things.
	Host     host.Host
	KEM      keyring.KEM
	Random   io.Reader // of session ids
	Signer   func(ed25519.PrivateKey) (gkrp.Signer, error)
	Verifier func(ed25519.PublicKey) (gkrp.Verifier, error)
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tell == nil {
		c.Tell = func(gk.Event) {}
	}
	if c.Host == nil {
		c.Host = host.Real{}
	}
	if c.KEM == nil {
		c.KEM = keyring.HPKE{}
	}
	if c.Signer == nil {
		c.Signer = gkrp.NewSigner
	}
	if c.Verifier == nil {
		c.Verifier = gkrp.NewVerifier
	}
	return c
}

// StreamConfig is one stream of an agent.
type StreamConfig struct {
	ID     gk.StreamID // empty: the device's own name
	Source Source      // closed by Run
	Tap    Tap         // nil for none
}

// Agent sends the streams of one device.
type Agent struct {
	cfg     Config
	courier bus.Courier
	streams []*stream
}

// StreamStats counts what became of a stream. Packets and Bytes begin anew with
// each session.
type StreamStats struct {
	Stream     gk.StreamID  `json:"stream"`
	Session    gk.SessionID `json:"session"`
	Epoch      gk.Epoch     `json:"epoch"`
	Next       gk.Index     `json:"next_index"`
	Packets    uint64       `json:"packets"`
	Bytes      uint64       `json:"bytes"`       // of RTP payload
	Unkeyed    uint64       `json:"unkeyed"`     // left out for want of a valid key
	SendErrors uint64       `json:"send_errors"` // that the system would not send
	NotMedia   uint64       `json:"not_media"`   // input left out: datagrams, or bytes of a byte stream
	Rotations  uint64       `json:"rotations"`   // keys taken after a session's first
	Sessions   uint64       `json:"sessions"`
}

// New makes an agent that talks to its service over courier, which it does not
// close.
func New(cfg Config, courier bus.Courier) (*Agent, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Streams) == 0 {
		return nil, errors.New("nothing to send: give a source with --source")
	}
	signer, err := cfg.Signer(cfg.Identity.Key)
	if err != nil {
		return nil, fmt.Errorf("the device's key cannot sign: %w", err)
	}
	kms, err := cfg.Verifier(cfg.Identity.KMSPublic)
	if err != nil {
		return nil, fmt.Errorf("the key management service's key cannot verify: %w", err)
	}
	a := &Agent{cfg: cfg, courier: courier}
	seen := map[gk.StreamID]bool{}
	for _, c := range cfg.Streams {
		if c.ID == "" {
			c.ID = gk.StreamID(cfg.Identity.Device)
		}
		if _, err := gk.ParseStreamID(string(c.ID)); err != nil {
			return nil, err
		}
		if seen[c.ID] {
			return nil, fmt.Errorf("stream %s has two sources: give each its own --stream", c.ID)
		}
		seen[c.ID] = true
		a.streams = append(a.streams, newStream(a, c, signer, kms))
	}
	return a, nil
}

// Run sends until every source has ended, which is no error, or ctx ends, which
// is none either; both are told to the service with BYE. A stream that fails
// does not stop the others; its error is returned when all are done.
func (a *Agent) Run(ctx context.Context) error {
	sock, err := media.ListenUDP(":0", media.SocketOptions{SendBuffer: sendBuffer})
	if err != nil {
		return fmt.Errorf("cannot open a UDP socket to send from: %w", err)
	}
	defer sock.Close()
	var all sync.WaitGroup
	errs := make([]error, len(a.streams))
	for i, s := range a.streams {
		if s.dial == nil {
			s.dial = udpDialer(sock)
		}
		all.Go(func() {
			if errs[i] = s.run(ctx); errs[i] != nil && len(a.streams) > 1 {
				a.cfg.Log.Error("stream ended", "stream", s.id, "err", errs[i])
				errs[i] = fmt.Errorf("stream %s: %w", s.id, errs[i])
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Stats counts every stream so far. It may be called at any time.
func (a *Agent) Stats() []StreamStats {
	var out []StreamStats
	for _, s := range a.streams {
		out = append(out, s.stats())
	}
	return out
}

// sendBuffer is what a batch of large frames needs at once, in bytes.
const sendBuffer = 2 << 20

// connectPause is between attempts of [Connect].
const connectPause = time.Second

// BrokerAccess is how a device reaches its MQTT broker otherwise than its identity
// says; each empty field leaves it as it was.
type BrokerAccess struct {
	URL          string // as [bus.ParseBroker] reads it
	CA           string // file with the CA of the broker named by URL
	User         string // for brokers that want one
	PasswordFile string
}

// config is how to dial the broker.
func (a BrokerAccess) config(i Identity, log *slog.Logger) (bus.MQTTConfig, error) {
	where, ca := i.Broker, i.BrokerCA
	if a.URL != "" {
		where, ca = a.URL, nil
	}
	b, err := bus.ParseBroker(where)
	if err != nil {
		return bus.MQTTConfig{}, err
	}
	if a.CA != "" {
		if ca, err = bus.ReadCAFile("mqtt-ca", a.CA); err != nil {
			return bus.MQTTConfig{}, err
		}
	}
	c := bus.MQTTConfig{
		Address: b.Address, Plain: b.Plain, TLS12: b.Foreign, ClientID: string(i.Device), Certificate: i.Certificate(), CA: i.Roots(),
		User: a.User, PasswordFile: a.PasswordFile,
		Lost: func(err error) {
			log.Warn("broker lost; media goes on under the current key", "broker", where, "err", err)
		},
		Refused: func(err error) { log.Error("the broker refuses what it granted", "broker", where, "err", err) },
		Up:      func() { log.Info("broker connected", "broker", where) },
	}
	if b.Foreign {
		c.CA = bus.Pool(ca)
	}
	return c, nil
}

// Connect reaches the identity's MQTT broker, trying for as long as patience.
func Connect(ctx context.Context, i Identity, patience time.Duration, log *slog.Logger) (bus.Courier, error) {
	return BrokerAccess{}.Connect(ctx, i, patience, log)
}

// Connect is the function [Connect], to the broker that a names.
func (a BrokerAccess) Connect(ctx context.Context, i Identity, patience time.Duration, log *slog.Logger) (bus.Courier, error) {
	until := time.Now().Add(patience)
	cfg, err := a.config(i, log)
	if err != nil {
		return nil, err
	}
	for {
		c, err := bus.DialMQTT(ctx, cfg)
		if err == nil || ctx.Err() != nil || !time.Now().Add(connectPause).Before(until) {
			return c, err
		}
		log.Warn("broker cannot be reached yet", "broker", cfg.Address, "err", err)
		t := time.NewTimer(connectPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}
