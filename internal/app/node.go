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
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/api"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

// startTimeout is how long the parts have to find one another at the start.
const startTimeout = 20 * time.Second

// Options are what a [Node] needs beyond its settings.
type Options struct {
	Log     *slog.Logger
	Version string
	// Untold keeps what happens to streams out of the log: whoever runs the node tells it.
	Untold bool
	// Tap sees every delivered packet; see [transport.Config].
	Tap func(stream gk.StreamID, index gk.Index, payload []byte)
	// MediaAdvertise is the host:port told to devices instead of the media
	// address itself.
	MediaAdvertise string
}

// Node is the services that one process runs. They are separated against
// mistakes, not against code that runs in the same memory.
type Node struct {
	cfg      Config
	opts     Options
	starting context.Context // of Start
	dir      *dataDir
	stages   *stages
	broker   *broker // nil where bus and broker are somebody else's
	mqtt     string  // the address that our broker has taken; empty without one
	media    *transport.Service
	met      bool // the key management service, whose key is pinned

	apiListener, joinListener net.Listener
	admission                 lateTLS // of the MQTT listener
	server                    *credentials
}

// Start brings the services up in the order in which they need one another:
// data directory, sockets, bus with its store, audit trail, key management, the
// devices' broker, processing, transport, API; of these, the ones that are this
// process's. When it returns, devices can join, or, in a process apart, its
// services are there: it waits for bus and key management until ctx ends.
func Start(ctx context.Context, cfg Config, opts Options) (*Node, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, opts: opts, stages: newStages()}
	if !cfg.external() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	n.starting = ctx
	for _, step := range []struct {
		role string // none: of every process
		do   func(context.Context) error
	}{
		{"", n.openData}, {roleAPI, n.openSockets}, {"", n.startBus}, {roleKMS, n.startAudit}, {roleKMS, n.startKMS}, {roleBroker, n.openGate},
		{roleProcessing, n.startProcessing}, {roleTransport, n.startTransport}, {roleAPI, n.startAPI},
	} {
		if step.role != "" && !cfg.runs(step.role) {
			continue
		}
		if err := step.do(ctx); err != nil {
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

// startBus starts the built-in bus, or the devices' broker alone, unless both are
// somebody else's.
func (n *Node) startBus(context.Context) error {
	cfg := brokerConfig{
		Dir: n.dir.file("nats"), TLS: &n.admission, Transport: n.cfg.transportID(), SyncAlways: true, Log: n.opts.Log,
	}
	if n.cfg.external() {
		cfg.Dir = n.dir.file("mqtt")
		if !n.cfg.runs(roleBroker) {
			return nil
		}
	}
	if n.cfg.runs(roleBroker) {
		cfg.MQTTAddr = n.cfg.MQTTListen
	}
	b, err := startBroker(cfg)
	if err != nil {
		return err
	}
	n.broker = b
	n.stages.closer("bus", func() error { b.stop(); return nil })
	if cfg.MQTTAddr != "" {
		n.mqtt, err = b.mqttAddr()
	}
	return err
}

// connect opens a role's connection, which its stage closes.
func (n *Node) connect(role bus.Role) (nc *nats.Conn, err error) {
	if n.cfg.external() {
		nc, err = n.dialBus(n.starting, role)
	} else if nc, err = n.broker.connect(role); err != nil {
		err = fmt.Errorf("bus connection of %s: %w", role, err)
	}
	if err != nil {
		return nil, err
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
	if !n.opts.Untold {
		trail.told = n.opts.Log
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
	if !n.cfg.external() {
		return store.OpenJetStream(js, bucket, history)
	}
	for {
		kv, err := store.OpenJetStream(js, bucket, history, store.WithReplicas(n.cfg.replicas()))
		if !stillComing(err) || n.starting.Err() != nil {
			return kv, err
		}
		n.opts.Log.Warn("waiting for JetStream", "error", err)
		select {
		case <-n.starting.Done():
		case <-time.After(linkRetry):
		}
	}
}

// stillComing tells of an error whether it is that of a cluster whose servers are still
// coming up: it has no answer, nobody who would answer, or no place.
func stillComing(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
}

// callTimeout is how long one question at the start may take.
const callTimeout = 5 * time.Second

// untilThere asks again for as long as nobody serves what is asked for. In a
// process apart that may take long, and is told.
func (n *Node) untilThere(ctx context.Context, what string, ask func(context.Context) error) error {
	began, told := time.Now(), time.Now()
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := ask(call)
		cancel()
		if !errors.Is(err, bus.ErrNoResponder) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if time.Since(told) > waitingTold {
			told = time.Now()
			n.opts.Log.Warn("waiting for "+what, "since", time.Since(began).Round(time.Second))
		}
		pause := 5 * time.Millisecond
		if n.cfg.external() {
			pause = 200 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (n *Node) startTransport(ctx context.Context) error {
	nc, err := n.connect(bus.RoleTransport)
	if err != nil {
		return err
	}
	conn := bus.NewNATS(nc)
	creds, err := n.certify(ctx, nc, "transport")
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
	if n.server == nil {
		if err := n.certifyServer(ctx, nc); err != nil {
			return err
		}
	}
	local := isLoopback(n.cfg.Listen)
	cfg := api.Config{
		TokenHash: hash, Local: local, JoinAddress: n.JoinAddress(), TokenLife: n.cfg.TokenLife,
		Version: n.opts.Version, Log: n.log("api"),
	}
	if n.media != nil {
		cfg.Viewer = n.media
	}
	server, err := api.New(cfg, conn)
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

// Places are the addresses that this process's services have taken, as names and
// values for a log line.
func (n *Node) Places() []any {
	var out []any
	if n.cfg.runs(roleAPI) {
		out = append(out, "api", n.APIURL(), "join", n.JoinAddress())
	}
	if n.mqtt != "" || n.cfg.MQTTBroker != "" {
		out = append(out, "mqtt", n.MQTTAddress())
	}
	if n.media != nil {
		out = append(out, "media", n.MediaAddress())
	}
	if n.cfg.external() {
		out = append(out, "bus", n.cfg.Bus, "roles", n.cfg.Roles)
	}
	return append(out, "data", n.cfg.Data, "version", n.opts.Version)
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
