package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/kms"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// leaseKey is the lease of the instance that serves, in a service's own bucket.
const leaseKey = "owner"

func (n *Node) startKMS(ctx context.Context) error {
	nc, err := n.connect(bus.RoleKMS)
	if err != nil {
		return err
	}
	kek, err := n.kek()
	if err != nil {
		return err
	}
	kv, err := n.openStore(nc, bus.BucketKMS, kms.History)
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	unsure, err := n.leadKMS(ctx, kv)
	if err != nil {
		return err
	}
	cfg := kms.Config{KEK: kek, Lease: n.cfg.Lease, Unsure: unsure, Suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519}, Log: n.log("kms")}
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
	return nil
}

// leadKMS waits until no other key management service serves the same store, and
// ends this process when another takes over: what it has in memory is then old. It
// gives how long that may have been so without being known here.
func (n *Node) leadKMS(ctx context.Context, kv store.KV) (unsure func() time.Duration, err error) {
	if !n.cfg.external() {
		return nil, nil // the data directory's lock sees to it
	}
	log := n.log("kms")
	lease := store.NewLease(kv, leaseKey, n.cfg.ID)
	if err := lease.Acquire(ctx, n.standingBy(log)); err != nil {
		return nil, fmt.Errorf("key management: %w", err)
	}
	n.stages.start("kms lease", lease.Hold)
	return lease.Unsure, nil
}

// standingBy says for whom an instance waits. If it is for its own name, it was killed
// a moment ago, or there are two of that name.
func (n *Node) standingBy(log *slog.Logger) func(holder string) {
	return func(holder string) {
		if holder == n.cfg.ID {
			log.Warn("standing by: this process's last run did not give its lease back, or another process has the same --id", "serving", holder)
			return
		}
		log.Info("standing by", "serving", holder)
	}
}

// openGate has the broker's gate ask the key management service about devices,
// and cut those that were revoked.
func (n *Node) openGate(ctx context.Context) error {
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
	if _, err = bus.BrokerCut.Serve(conn, func(_ context.Context, r bus.CutRequest) (bus.CutReply, error) {
		cut, err := n.broker.disconnect(r.Device)
		return bus.CutReply{Connections: cut}, err
	}); err != nil {
		return err
	}
	if n.server == nil {
		if err := n.certifyServer(ctx, nc); err != nil {
			return err
		}
	}
	n.admission.admit(n.server)
	return nil
}

// certifyServer waits until the key management service answers, and gets the
// certificate that devices and players are shown.
func (n *Node) certifyServer(ctx context.Context, nc *nats.Conn) (err error) {
	hosts := []string{n.cfg.Advertise, "localhost", "127.0.0.1", "::1"}
	n.server, err = n.certify(ctx, nc, "server", hosts...)
	return err
}

// meetKMS leaves the CA's certificate and the key that audit heads are verified
// with in the data directory. A process apart pins that key: it is what tells it
// that a media key comes from the key management service, whoever owns the bus.
func (n *Node) meetKMS(ctx context.Context, nc *nats.Conn) error {
	if n.met {
		return nil
	}
	var info bus.KMSInfoReply
	err := n.untilThere(ctx, "key management", func(ctx context.Context) (err error) {
		info, err = bus.KMSInfo.Do(ctx, bus.NewNATS(nc), bus.Empty{})
		return err
	})
	if err != nil {
		return err
	}
	key, err := kmsKeyPEM(info.Public)
	if err != nil {
		return err
	}
	path := n.dir.file(kmsKeyFile)
	if n.cfg.external() && !n.cfg.runs(roleKMS) {
		pinned, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(pinned, key) {
			return fmt.Errorf("the key management service shows another key than before: it was set up anew, or somebody else answers in its place: when you know that it was you, remove %s", path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("key of the key management service: %w", err)
		}
	}
	if err := os.WriteFile(path, key, 0o644); err != nil {
		return fmt.Errorf("key of the key management service: %w", err)
	}
	if err := os.WriteFile(n.dir.file(caFile), certificatePEM(info.CA), 0o644); err != nil {
		return fmt.Errorf("CA certificate: %w", err)
	}
	n.met = true
	return nil
}

// certify gets a role's certificate over its own connection.
func (n *Node) certify(ctx context.Context, nc *nats.Conn, role string, hosts ...string) (*credentials, error) {
	if err := n.meetKMS(ctx, nc); err != nil {
		return nil, err
	}
	var c *credentials
	err := n.untilThere(ctx, "key management", func(ctx context.Context) (err error) {
		c, err = certify(ctx, bus.NewNATS(nc), role, n.cfg.ID, hosts...)
		return err
	})
	return c, err
}
