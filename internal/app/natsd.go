package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// The broker keeps devices and services in accounts of their own: a device has
// no path to the services' subjects or state even if a permission were wrong.
// The processing service reaches devices as they reach it, by MQTT.
const (
	accountDevices  = "devices"
	accountServices = "services"
)

// brokerConfig says how the embedded NATS server runs.
type brokerConfig struct {
	Dir      string   // JetStream's files
	MQTTAddr string   // host:port; port 0 takes a free one; empty: no devices here
	TLS      *lateTLS // server certificate, and the CA that issues client certificates
	// Transport is the instance whose subjects the transport role may serve.
	Transport gk.TransportID
	// SyncAlways makes every state write reach the disk before it is answered.
	SyncAlways bool
	Log        *slog.Logger
}

// broker is the embedded NATS server: the service bus and its state over
// connections inside the process, and MQTT over mutual TLS for devices.
type broker struct {
	server *server.Server
	gate   *gate
	log    *serverLog
}

// mqtt are the settings of the listener for devices; none is opened without an
// address.
func (cfg brokerConfig) mqtt() (server.MQTTOpts, error) {
	if cfg.MQTTAddr == "" {
		return server.MQTTOpts{}, nil
	}
	host, portText, err := net.SplitHostPort(cfg.MQTTAddr)
	if err != nil {
		return server.MQTTOpts{}, fmt.Errorf("mqtt-listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return server.MQTTOpts{}, fmt.Errorf("mqtt-listen: port %q is not a number", portText)
	}
	if port == 0 {
		port = -1 // the server's way to say "any"
	} else if err := probeTCP("mqtt-listen", cfg.MQTTAddr); err != nil {
		return server.MQTTOpts{}, err
	}
	return server.MQTTOpts{Host: host, Port: port, TLSConfig: cfg.TLS.config(), TLSTimeout: 5, AuthTimeout: 5}, nil
}

// startBroker returns when the server accepts connections.
func startBroker(cfg brokerConfig) (*broker, error) {
	mqtt, err := cfg.mqtt()
	if err != nil {
		return nil, err
	}
	b := &broker{gate: &gate{log: cfg.Log, known: map[gk.DeviceID]*admitted{}}, log: &serverLog{log: cfg.Log}}
	services, devices := server.NewAccount(accountServices), server.NewAccount(accountDevices)
	opts := &server.Options{
		ServerName: "gaitkeeper",
		DontListen: true,
		NoSigs:     true,
		Accounts:   []*server.Account{services, devices},

		JetStream:          true,
		StoreDir:           cfg.Dir,
		SyncAlways:         cfg.SyncAlways,
		JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore:  16 << 30,

		MaxPayload:                 bus.MaxPayload,
		MQTT:                       mqtt,
		CustomClientAuthentication: b.gate,
	}
	b.server, err = server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	b.gate.server = b.server
	b.gate.admit(cfg.Transport)
	b.server.SetLoggerV2(b.log, false, false, false)
	b.server.Start()
	if err := b.log.failure(); err != nil {
		b.stop()
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	for _, name := range []string{accountServices, accountDevices} {
		account, err := b.server.LookupAccount(name)
		if err == nil {
			err = account.EnableJetStream(nil, nil)
		}
		if err != nil {
			b.stop()
			return nil, fmt.Errorf("embedded bus: account %s: %w", name, err)
		}
		if name == accountServices {
			b.gate.services = account
		} else {
			b.gate.devices = account
		}
	}
	b.gate.open.Store(true)
	if !b.server.ReadyForConnections(10 * time.Second) {
		err := b.log.failure()
		b.stop()
		return nil, fmt.Errorf("embedded bus did not start within 10 s: %w", err)
	}
	return b, nil
}

// mqttAddr is the address that the MQTT listener has taken.
func (b *broker) mqttAddr() (string, error) {
	v, err := b.server.Varz(nil)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(v.MQTT.Host, strconv.Itoa(v.MQTT.Port)), nil
}

// connect opens a connection inside the process with a role's permissions.
func (b *broker) connect(role bus.Role) (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(b.server), nats.Name(string(role)),
		nats.UserInfo(string(role), b.gate.password(role)), bus.InboxOption(role),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
}

// disconnect cuts the MQTT connections of a device, those that are just being
// made too, and gives their number. Whether it may come back is the gate's
// question to the key management service.
func (b *broker) disconnect(device gk.DeviceID) (int, error) {
	b.gate.forget(device)
	conns, err := b.server.Connz(&server.ConnzOptions{MQTTClient: string(device), Account: accountDevices})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range conns.Conns {
		if b.server.DisconnectClientByID(c.Cid) == nil {
			n++
		}
	}
	return n, nil
}

// stop ends the server after what is stored has been written.
func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// probeTCP tells a taken or forbidden address apart in words, before a server
// that would only log it is given the address.
func probeTCP(setting, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return listenError(setting, addr, err)
	}
	return l.Close()
}

// listenError says which setting to change when an address cannot be had.
func listenError(setting, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is in use by another program: stop it or choose another address with --%s", setting, addr, setting)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %s may not be opened by this user: choose a port above 1023 with --%s", setting, addr, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this machine: choose another with --%s", setting, addr, setting)
	}
	return fmt.Errorf("%s: %s cannot be opened: %w", setting, addr, err)
}

// serverLog hands the server's messages to slog, and keeps a fatal one instead
// of ending the process.
type serverLog struct {
	log   *slog.Logger
	mu    sync.Mutex
	fatal error
}

func (l *serverLog) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...), "part", "nats")
}

func (l *serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.say(slog.LevelWarn, format, v) }
func (l *serverLog) Debugf(string, ...any)           {}
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = fmt.Errorf(format, v...)
}

func (l *serverLog) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
