package app

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// TestLeaseIsHeldWhileTheBrokerIsDialled: a broker that accepts and says nothing takes
// longer than a lease lives. Whoever dials it must not lose the lease meanwhile.
func TestLeaseIsHeldWhileTheBrokerIsDialled(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n := &Node{cfg: Config{ID: "p1", MQTTBroker: "mqtt://" + silent.Addr().String()}, opts: Options{Log: slog.New(slog.DiscardHandler)}}
	p := processor{kv: store.NewMemory(), creds: &credentials{cert: &x509.Certificate{}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.runInTurn(ctx, p) }()
	conn, err := silent.Accept() // it dials
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	held, err := p.kv.Get(ctx, leaseKey)
	if err != nil {
		t.Fatal(err)
	}
	for tries := 0; ; tries++ {
		now, err := p.kv.Get(ctx, leaseKey)
		if err != nil {
			t.Fatal(err)
		}
		if now.Revision > held.Revision {
			break
		}
		if tries == 8 {
			t.Fatal("the lease is not renewed")
		}
		time.Sleep(store.LeaseBeat)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopped while it dials: %v", err)
	}
}
