package app

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/api"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/kms"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

// startTimeout is how long the parts have to find one another at the start.
const startTimeout = 20 * time.Second

// Options are what a [Node] needs beyond its settings.
type Options struct {
	Log     *slog.Logger
	Version string
	// Tap sees every delivered packet; see [transport.Config].
	Tap func(stream gk.StreamID, index gk.Index, payload []byte)
	// MediaAdvertise is the host:port told to devices instead of the media
	// address itself.
	MediaAdvertise string
}

// Node is all services in one process. They are separated against mistakes, not
// against code that runs in the same memory.
type Node struct {
	cfg    Config
	opts   Options
	dir    *dataDir
	stages *stages
	broker *broker
	mqtt   string // the address that the broker has taken
	media  *transport.Service

	apiListener, joinListener net.Listener
	admission                 lateTLS // of the MQTT listener
	server                    *credentials
}

// Start brings the services up in the order in which they need one another:
// data directory, sockets, bus with its store, audit trail, key management,
// processing, transport, API. When it returns, devices can join.
func Start(ctx context.Context, cfg Config, opts Options) (*Node, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, opts: opts, stages: newStages()}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, step := range []func(context.Context) error{
		n.openData, n.openSockets, n.startBus, n.startAudit, n.startKMS, n.startProcessing, n.startTransport, n.startAPI,
	} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, n.stages.stop())
		}
	}
	return n, nil
}

// Run returns when ctx has ended and everything has been stopped, in the order
// sockets, services, bus, store; or with the error of a part that failed.
func (n *Node) Run(ctx context.Context) error {
	err := n.stages.wait(ctx)
	return errors.Join(err, n.stages.stop())
}

func (n *Node) openData(context.Context) (err error) {
	if n.dir, err = openDataDir(n.cfg.Data); err != nil {
		return err
	}
	n.stages.closer("data directory", n.dir.Close)
	return nil
}

// openSockets opens what people and devices connect to, so that a port in use
// is told before anything else has been touched. Nobody is served yet.
func (n *Node) openSockets(context.Context) (err error) {
	if n.apiListener, err = n.listen("listen", n.cfg.Listen); err != nil {
		return err
	}
	n.joinListener, err = n.listen("join-listen", n.cfg.JoinListen)
	return err
}

func (n *Node) listen(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, listenError(setting, addr, err)
	}
	n.stages.closer(setting, func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

func (n *Node) startBus(context.Context) error {
	listen := n.cfg.MQTTListen
	if n.cfg.MQTTBroker != "" {
		listen = ""
	}
	b, err := startBroker(brokerConfig{
		Dir: n.dir.file("nats"), MQTTAddr: listen, TLS: &n.admission, Transport: gk.TransportID(n.cfg.ID), SyncAlways: true, Log: n.opts.Log,
	})
	if err != nil {
		return err
	}
	n.broker = b
	n.stages.closer("bus", func() error { b.stop(); return nil })
	if listen != "" {
		n.mqtt, err = b.mqttAddr()
	}
	return err
}

// connect opens a role's connection, which its stage closes.
func (n *Node) connect(role bus.Role) (*nats.Conn, error) {
	nc, err := n.broker.connect(role)
	if err != nil {
		return nil, fmt.Errorf("bus connection of %s: %w", role, err)
	}
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		n.opts.Log.Error("bus", "role", role, "error", err)
	})
	return nc, nil
}

func (n *Node) startAudit(ctx context.Context) error {
	trail, err := openAudit(n.dir.file(auditFile), cmp.Or(n.cfg.AuditExport, n.dir.file(headsFile)), n.opts.Log)
	if err != nil {
		return err
	}
	nc, err := n.connect(bus.RoleAudit)
	if err != nil {
		return err
	}
	if err := trail.Listen(ctx, bus.NewNATS(nc)); err != nil {
		return err
	}
	n.stages.start("audit", func(ctx context.Context) error {
		defer nc.Close()
		return trail.Run(ctx, bus.NewNATS(nc))
	})
	return nil
}

func (n *Node) openStore(nc *nats.Conn, bucket string, history int) (store.KV, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	return store.OpenJetStream(js, bucket, history)
}

func (n *Node) startKMS(ctx context.Context) error {
	nc, err := n.connect(bus.RoleKMS)
	if err != nil {
		return err
	}
	kek := kms.KEK{URI: n.cfg.KEK}
	if kek.URI == "" {
		kek.URI = "file:" + n.dir.file("kek")
	}
	if kek.Passphrase, err = readPassphrase(n.cfg.KEKPassphrase); err != nil {
		return err
	}
	kv, err := n.openStore(nc, bus.BucketKMS, kms.History)
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	cfg := kms.Config{KEK: kek, Lease: n.cfg.Lease, Suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519}, Log: n.log("kms")}
	if n.cfg.AllowX25519 {
		cfg.Suites = append(cfg.Suites, gkrp.SuiteX25519)
	}
	service, err := kms.New(ctx, cfg, kv, bus.NewNATS(nc))
	if err != nil {
		return err
	}
	n.stages.start("kms", func(ctx context.Context) error {
		defer nc.Close()
		return service.Run(ctx)
	})
	if err := n.openGate(); err != nil {
		return err
	}
	return n.certifyServer(ctx)
}

// openGate has the broker's gate ask the key management service about devices,
// and cut those that were revoked.
func (n *Node) openGate() error {
	nc, err := n.connect(bus.RoleBroker)
	if err != nil {
		return err
	}
	n.stages.closer("gate", func() error { nc.Close(); return nil })
	conn := bus.NewNATS(nc)
	ask := recordSource(func(ctx context.Context, id gk.DeviceID) (bus.DeviceRecord, error) {
		return bus.KMSDevice.Do(ctx, conn, bus.KMSDeviceRequest{Device: id})
	})
	n.broker.gate.records.Store(&ask)
	if n.mqtt == "" {
		return nil // a broker of somebody else's cannot be told to cut
	}
	_, err = bus.BrokerCut.Serve(conn, func(_ context.Context, r bus.CutRequest) (bus.CutReply, error) {
		cut, err := n.broker.disconnect(r.Device)
		return bus.CutReply{Connections: cut}, err
	})
	return err
}

// readPassphrase reads the first line of the file, if one is named.
func readPassphrase(path string) (keyring.Secret, error) {
	if path == "" {
		return keyring.Secret{}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return keyring.Secret{}, fmt.Errorf("kek-passphrase-file: %w", err)
	}
	defer clear(b)
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return keyring.Secret{}, fmt.Errorf("kek-passphrase-file: the first line of %s is empty", path)
	}
	return keyring.NewSecret([]byte(line)), nil
}

// certifyServer waits until the key management service answers, gets this
// process's certificate and lets devices connect.
func (n *Node) certifyServer(ctx context.Context) (err error) {
	hosts := []string{n.cfg.Advertise, "localhost", "127.0.0.1", "::1"}
	if n.server, err = n.certify(ctx, "server", hosts...); err != nil {
		return err
	}
	n.admission.admit(n.server)
	if err := os.WriteFile(n.dir.file(caFile), n.server.caPEM(), 0o644); err != nil {
		return fmt.Errorf("CA certificate: %w", err)
	}
	return n.writeKMSKey(ctx)
}

// writeKMSKey leaves the key that audit heads are verified with.
func (n *Node) writeKMSKey(ctx context.Context) error {
	nc, err := n.connect(bus.RoleAssembly)
	if err != nil {
		return err
	}
	defer nc.Close()
	info, err := bus.KMSInfo.Do(ctx, bus.NewNATS(nc), bus.Empty{})
	if err != nil {
		return err
	}
	b, err := kmsKeyPEM(info.Public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.dir.file(kmsKeyFile), b, 0o644); err != nil {
		return fmt.Errorf("key of the key management service: %w", err)
	}
	return nil
}

func (n *Node) certify(ctx context.Context, role string, hosts ...string) (*credentials, error) {
	nc, err := n.connect(bus.RoleAssembly)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	var c *credentials
	err = untilThere(ctx, func() (err error) {
		c, err = certify(ctx, bus.NewNATS(nc), role, n.cfg.ID, hosts...)
		return err
	})
	return c, err
}

func (n *Node) startTransport(ctx context.Context) error {
	nc, err := n.connect(bus.RoleTransport)
	if err != nil {
		return err
	}
	conn := bus.NewNATS(nc)
	creds, err := n.certify(ctx, "transport")
	if err != nil {
		return err
	}
	signer, err := gkrp.NewSigner(creds.key.(ed25519.PrivateKey))
	if err != nil {
		return err
	}
	info, err := bus.KMSInfo.Do(ctx, conn, bus.Empty{})
	if err != nil {
		return err
	}
	verifier, err := gkrp.NewVerifier(info.Public)
	if err != nil {
		return err
	}
	cfg := transport.Defaults()
	cfg.ID = gk.TransportID(n.cfg.ID)
	cfg.Listen = n.cfg.MediaListen
	cfg.Advertise = n.cfg.Advertise
	if n.opts.MediaAdvertise != "" {
		cfg.Advertise = n.opts.MediaAdvertise
	}
	cfg.ReceiveBuffer = int(n.cfg.MediaBuffer)
	cfg.Latency = n.cfg.Latency
	if cfg.OnHold, cfg.Slate, err = n.cfg.onHold(); err != nil {
		return err
	}
	cfg.Tap = n.opts.Tap
	for _, text := range n.cfg.Output {
		o, err := transport.ParseOutput(text)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		cfg.Outputs = append(cfg.Outputs, o)
	}
	n.media, err = transport.New(cfg, conn, transport.Identity{Signer: signer, Certificate: creds.cert.Raw, KMS: verifier}, n.log("transport"))
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return listenError("media-listen", n.cfg.MediaListen, op)
	} else if err != nil {
		return err
	}
	n.stages.start("transport", func(ctx context.Context) error {
		defer nc.Close()
		return n.media.Run(ctx)
	})
	return nil
}

func (n *Node) startProcessing(ctx context.Context) error {
	nc, err := n.connect(bus.RoleProcessing)
	if err != nil {
		return err
	}
	creds, err := n.certify(ctx, "processing")
	if err != nil {
		return err
	}
	signer, err := gkrp.NewSigner(creds.key.(ed25519.PrivateKey))
	if err != nil {
		return err
	}
	kv, err := n.openStore(nc, bus.BucketProcessing, 1)
	if err != nil {
		return fmt.Errorf("rotation records: %w", err)
	}
	log := n.log("processing")
	courier, err := n.dialBroker(ctx, creds)
	if err != nil {
		return err
	}
	cfg := processing.Defaults()
	cfg.ID = n.cfg.ID
	cfg.RotateEvery = n.cfg.RotateEvery
	cfg.RotatePackets = n.cfg.RotatePackets
	cfg.AllowX25519 = n.cfg.AllowX25519
	cfg.MinVersion = gkrp.Version(n.cfg.MinVersion)
	cfg.Urgent = gkrp.Budget{Burst: n.cfg.UrgentRotations, Every: n.cfg.UrgentRefill}
	cfg.UrgentSite = gkrp.Budget{Burst: n.cfg.SiteUrgentRotations, Every: n.cfg.SiteUrgentRefill}
	cfg.Behaviour = n.cfg.behaviour()
	service := processing.New(cfg, bus.NewNATS(nc), courier, kv, signer, creds.controller, log)
	n.stages.start("processing", func(ctx context.Context) error {
		defer nc.Close()
		defer courier.Close()
		return service.Run(ctx)
	})
	return n.awaitProcessing(ctx)
}

// awaitProcessing returns when the processing service hears transports announce
// themselves, so that the first device need not wait for the next announcement.
func (n *Node) awaitProcessing(ctx context.Context) error {
	nc, err := n.connect(bus.RoleAPI)
	if err != nil {
		return err
	}
	defer nc.Close()
	return untilThere(ctx, func() error {
		_, err := bus.ProcessingStreams.Do(ctx, bus.NewNATS(nc), bus.Empty{})
		return err
	})
}

// untilThere asks again for as long as nobody serves what is asked for.
func untilThere(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, bus.ErrNoResponder) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (n *Node) startAPI(ctx context.Context) error {
	hash, err := apiTokenHash(n.dir)
	if err != nil {
		return err
	}
	nc, err := n.connect(bus.RoleAPI)
	if err != nil {
		return err
	}
	conn := bus.NewNATS(nc)
	local := isLoopback(n.cfg.Listen)
	server, err := api.New(api.Config{
		TokenHash: hash, Local: local, JoinAddress: n.JoinAddress(), TokenLife: n.cfg.TokenLife,
		Viewer: n.media, Version: n.opts.Version, Log: n.log("api"),
	}, conn)
	if err != nil {
		return err
	}
	chain := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{n.server.chain()}}
	ln := n.apiListener
	if !local {
		ln = tls.NewListener(ln, chain)
	}
	if err := os.WriteFile(n.dir.file(urlFile), []byte(n.APIURL()+"\n"), 0o644); err != nil {
		return fmt.Errorf("address of the API: %w", err)
	}
	join := api.JoinConfig{TLS: chain, Broker: n.MQTTAddress(), Log: n.log("join")}
	if n.cfg.MQTTBroker != "" {
		if join.Broker, join.BrokerCA, err = n.cfg.foreignBroker(); err != nil {
			return err
		}
	}
	n.stages.start("api", func(ctx context.Context) error {
		defer nc.Close()
		return server.Run(ctx, ln)
	})
	n.stages.start("join", func(ctx context.Context) error { return api.RunJoin(ctx, join, conn, n.joinListener) })
	return nil
}

// APIURL is where the API answers.
func (n *Node) APIURL() string {
	addr := n.apiListener.Addr().String()
	if isLoopback(n.cfg.Listen) {
		return "http://" + addr
	}
	return "https://" + n.advertised(addr)
}

// JoinAddress is where devices join, MQTTAddress where they exchange keys, and
// MediaAddress where they send to: host:port as told to them.
func (n *Node) JoinAddress() string { return n.advertised(n.joinListener.Addr().String()) }

// MQTTAddress: see [Node.JoinAddress]. It is the URL of a broker of somebody
// else's where one is used.
func (n *Node) MQTTAddress() string {
	if n.cfg.MQTTBroker != "" {
		return n.cfg.MQTTBroker
	}
	return n.advertised(n.mqtt)
}

// MediaAddress: see [Node.JoinAddress].
func (n *Node) MediaAddress() string { return n.media.Address() }

// advertised is the address at which others reach a listener.
func (n *Node) advertised(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(n.cfg.Advertise, port)
}

func (n *Node) log(part string) *slog.Logger { return n.opts.Log.With("part", part) }

// localAddr is the address by which this process reaches its own listener.
func localAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// isLoopback tells whether only this machine can reach an address to listen on.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
