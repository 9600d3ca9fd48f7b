package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/processing"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// processor is what it takes to run the processing service.
type processor struct {
	cfg    processing.Config
	conn   bus.Conn
	kv     store.KV
	creds  *credentials
	signer gkrp.Signer
}

func (n *Node) startProcessing(ctx context.Context) error {
	nc, err := n.connect(bus.RoleProcessing)
	if err != nil {
		return err
	}
	p := processor{cfg: n.processingConfig(), conn: bus.NewNATS(nc)}
	if p.creds, err = n.certify(ctx, nc, "processing"); err != nil {
		return err
	}
	if p.signer, err = gkrp.NewSigner(p.creds.key.(ed25519.PrivateKey)); err != nil {
		return err
	}
	if p.kv, err = n.openStore(nc, bus.BucketProcessing, 1); err != nil {
		return fmt.Errorf("rotation records: %w", err)
	}
	if n.cfg.external() {
		n.stages.start("processing", func(ctx context.Context) error {
			defer nc.Close()
			return n.runInTurn(ctx, p)
		})
		return nil
	}
	courier, err := n.dialBroker(ctx, p.creds)
	if err != nil {
		return err
	}
	n.stages.start("processing", func(ctx context.Context) error {
		defer nc.Close()
		return n.runProcessing(ctx, p, courier)
	})
	return n.awaitProcessing(ctx)
}

func (n *Node) processingConfig() processing.Config {
	cfg := processing.Defaults()
	cfg.ID = n.cfg.ID
	cfg.RotateEvery = n.cfg.RotateEvery
	cfg.RotatePackets = n.cfg.RotatePackets
	cfg.AllowX25519 = n.cfg.AllowX25519
	cfg.MinVersion = gkrp.Version(n.cfg.MinVersion)
	cfg.Urgent = gkrp.Budget{Burst: n.cfg.UrgentRotations, Every: n.cfg.UrgentRefill}
	cfg.UrgentSite = gkrp.Budget{Burst: n.cfg.SiteUrgentRotations, Every: n.cfg.SiteUrgentRefill}
	cfg.Behaviour = n.cfg.behaviour()
	return cfg
}

func (n *Node) runProcessing(ctx context.Context, p processor, courier bus.Courier) error {
	defer courier.Close()
	return processing.New(p.cfg, p.conn, courier, p.kv, p.signer, p.creds.controller, n.log("processing")).Run(ctx)
}

// runInTurn serves while this instance holds the lease, and stands by while
// another does. Whoever lost it without knowing is fenced: his commands carry an
// earlier term than those of the one that took over.
func (n *Node) runInTurn(ctx context.Context, p processor) error {
	log := n.log("processing")
	for {
		lease := store.NewLease(p.kv, leaseKey, n.cfg.ID)
		if lease.Acquire(ctx, n.standingBy(log)) != nil {
			return nil
		}
		log.Info("serving")
		group, held := errgroup.WithContext(ctx)
		group.Go(func() error { return lease.Hold(held) })
		// The lease is held while the broker is dialled: one that does not answer takes
		// longer than a lease lives, and instances would take it from one another for ever.
		group.Go(func() error {
			courier, err := n.dialBroker(held, p.creds)
			switch {
			case held.Err() != nil:
				if err == nil {
					courier.Close()
				}
				return nil
			case err != nil:
				return err
			}
			return n.runProcessing(held, p, courier)
		})
		if err := group.Wait(); !errors.Is(err, store.ErrLeaseLost) {
			return err
		}
		log.Warn("another instance has taken over")
	}
}

// awaitProcessing returns when the processing service hears transports announce
// themselves, so that the first device need not wait for the next announcement.
func (n *Node) awaitProcessing(ctx context.Context) error {
	nc, err := n.connect(bus.RoleAPI)
	if err != nil {
		return err
	}
	defer nc.Close()
	return n.untilThere(ctx, "processing", func(ctx context.Context) error {
		_, err := bus.ProcessingStreams.Do(ctx, bus.NewNATS(nc), bus.Empty{})
		return err
	})
}
