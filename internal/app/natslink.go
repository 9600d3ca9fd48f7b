package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	linkRetry   = time.Second
	linkPing    = 5 * time.Second // a server that is gone without a word is noticed after two
	waitingTold = 10 * time.Second
)

// busCAFile is the CA of the NATS servers and their users, in the directory of
// bus credentials; each role's certificate and key lie beside it.
const busCAFile = "bus-ca.pem"

func credentialFiles(role bus.Role) (cert, key string) {
	return string(role) + ".pem", string(role) + "-key.pem"
}

// busDir is where the bus credentials are.
func (c Config) busDir() string {
	if c.BusCredentials != "" {
		return c.BusCredentials
	}
	return filepath.Join(c.Data, "bus")
}

// busTLS is who a role is to the NATS servers, and whom it trusts.
func (c Config) busTLS(role bus.Role) (*tls.Config, error) {
	dir := c.busDir()
	absent := func(err error) error {
		return fmt.Errorf("bus-credentials: %w: gaitkeeper bus-setup makes a directory for each process: copy that of %q to %s", err, c.ID, dir)
	}
	ca, err := bus.ReadCAFile("bus-credentials", filepath.Join(dir, busCAFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent(errors.Unwrap(err))
	}
	if err != nil {
		return nil, err
	}
	cert, key := credentialFiles(role)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, cert), filepath.Join(dir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent(err)
	}
	if err != nil {
		return nil, fmt.Errorf("bus-credentials: certificate and key of %s in %s: %w", role, dir, err)
	}
	if want := (bus.User{Role: role, ID: c.transportID()}).URI(); len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].String() != want {
		return nil, fmt.Errorf("bus-credentials: %s is for %v, and this process is %s: copy the directory that was made for it, or mend id", filepath.Join(dir, cert), pair.Leaf.URIs, want)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: bus.Pool(ca)}, nil
}

// dialBus opens a role's connection to the external servers. Servers that cannot
// be reached are waited for until ctx ends; a refusal is an error.
func (n *Node) dialBus(ctx context.Context, role bus.Role) (*nats.Conn, error) {
	servers, err := n.cfg.busServers()
	if err != nil {
		return nil, err
	}
	secure, err := n.cfg.busTLS(role)
	if err != nil {
		return nil, err
	}
	log := n.opts.Log.With("part", "bus", "role", role)
	told := time.Time{}
	for {
		nc, err := nats.Connect(strings.Join(servers, ","),
			nats.Name(string(role)+" "+n.cfg.ID), nats.Secure(secure), bus.InboxOption(role),
			nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
			nats.PingInterval(linkPing), nats.MaxPingsOutstanding(2), nats.Timeout(linkPing),
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("no connection to the bus", "error", err)
				}
			}),
			nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to the bus again", "server", nc.ConnectedUrlRedacted()) }),
		)
		if err == nil {
			return nc, nil
		}
		if why := refusedByBus(err); why != "" {
			return nil, fmt.Errorf("bus: %s: %w: %s", n.cfg.Bus, err, why)
		}
		if time.Since(told) > waitingTold {
			told = time.Now()
			log.Warn("the bus cannot be reached yet", "servers", n.cfg.Bus, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("bus: %s cannot be reached: %w: is the NATS server running there, and the port open?", n.cfg.Bus, err)
		case <-time.After(linkRetry):
		}
	}
}

// refusedByBus is what to do about an error that waiting does not mend.
func refusedByBus(err error) string {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return "its certificate is not from the CA in bus-credentials, or not for this host name"
	case errors.Is(err, nats.ErrAuthorization), strings.Contains(strings.ToLower(err.Error()), "authorization violation"):
		return "it does not know this process: give it the accounts.conf that bus-setup wrote, with this process in it"
	case strings.Contains(err.Error(), "remote error: tls"):
		return "it does not accept our certificate: is bus-ca.pem the CA in its configuration?"
	case errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired):
		return "it does not speak TLS: use the configuration that bus-setup wrote"
	}
	return ""
}
