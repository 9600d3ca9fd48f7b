package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// natsVariable names the configuration that the test binary, started as a child,
// runs a NATS server with, so that a server can be killed.
const natsVariable = "GAITKEEPER_TEST_NATS"

// natsChild runs a NATS server for as long as the process is let live.
func natsChild(config string) int {
	opts, err := server.ProcessConfigFile(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	opts.Host, opts.Cluster.Host = "127.0.0.1", "127.0.0.1"
	s, err := server.NewServer(opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	opts.NoLog = true
	s.Start()
	s.WaitForShutdown()
	return 0
}

// natsCluster is three servers as bus-setup configures them.
type natsCluster struct {
	t       *testing.T
	dir     string
	url     string
	servers map[string]*process
}

func newNATSCluster(t *testing.T, processes ...string) *natsCluster {
	t.Helper()
	c := &natsCluster{t: t, dir: t.TempDir(), servers: map[string]*process{}}
	port := func() int {
		_, text, _ := net.SplitHostPort(freeTCP(t))
		var n int
		_, _ = fmt.Sscan(text, &n)
		return n
	}
	var all []app.BusServer
	var urls []string
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		s := app.BusServer{Host: "127.0.0.1", Name: name, Port: port(), ClusterPort: port(), Install: filepath.Join(c.dir, "server-"+name), Store: filepath.Join(c.dir, "store-"+name)}
		all = append(all, s)
		urls = append(urls, fmt.Sprintf("127.0.0.1:%d", s.Port))
	}
	c.url = "nats://" + strings.Join(urls, ",")
	var users []app.BusProcess
	for _, text := range processes {
		p, err := app.ParseBusProcess(text)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, p)
	}
	if err := app.WriteBus(c.dir, all, users, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Setenv(natsVariable, filepath.Join(s.Install, "nats-server.conf"))
		c.servers[s.Name] = start(t, os.Args[0])
	}
	if err := os.Unsetenv(natsVariable); err != nil {
		t.Fatal(err)
	}
	return c
}

// as connects as a role of a process.
func (c *natsCluster) as(process string, role bus.Role) *nats.Conn {
	c.t.Helper()
	dir := filepath.Join(c.dir, "process-"+process)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, string(role)+".pem"), filepath.Join(dir, string(role)+"-key.pem"))
	if err != nil {
		c.t.Fatal(err)
	}
	ca, err := bus.ReadCAFile("bus-ca", filepath.Join(dir, "bus-ca.pem"))
	if err != nil {
		c.t.Fatal(err)
	}
	nc, err := nats.Connect(c.url, nats.Secure(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: bus.Pool(ca), MinVersion: tls.VersionTLS13}),
		bus.InboxOption(role), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// TestLeaderIsKilled: in a cluster of three the server that leads the key store is
// killed under a live stream. Until another is elected no key can be stored; media
// goes on meanwhile, and an urgent rotation takes the key in reserve. Whoever asks for one
// is answered, whatever was on its way through the server that was killed.
func TestLeaderIsKilled(t *testing.T) {
	need(t, "ffmpeg")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	clip, err := filepath.Abs("../clip/demo.ts")
	if err != nil {
		t.Fatal(err)
	}
	c := newNATSCluster(t, "all=kms,processing,transport,api,broker")
	picture := newPicture(t)
	s := newSite(t, "--id=all", "--bus", c.url, "--bus-credentials", filepath.Join(c.dir, "process-all"), "--urgent-rotations=1000", "--site-urgent-rotations=1000",
		"--output", "udp://"+picture.conn.LocalAddr().String())
	s.serve()
	in := freeUDP(t)
	start(t, "ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-f", "mpegts", "udp://"+in+"?pkt_size=1316")
	start(t, program, s.device("cam-1", "udp://"+in)...)
	picture.back(t, time.Now())

	operator := bus.NewNATS(c.as("all", bus.RoleAPI))
	js, err := jetstream.New(c.as("all", bus.RoleKMS))
	if err != nil {
		t.Fatal(err)
	}
	urgent := func(patience time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		rep, err := bus.ProcessingRotate.Do(ctx, operator, bus.RotateRequest{Stream: "cam-1", Reason: gk.ReasonSource, Wait: true})
		if err == nil && !rep.Done {
			err = errors.New("not done")
		}
		return time.Since(began), err
	}
	until(t, "a first urgent rotation", func() bool { _, err := urgent(patience); return err == nil })
	if _, err := urgent(patience); err != nil {
		t.Fatal(err)
	}

	stream, err := js.Stream(t.Context(), "KV_"+bus.BucketKMS)
	if err != nil {
		t.Fatal(err)
	}
	info := stream.CachedInfo()
	if info.Config.Replicas != 3 || info.Cluster == nil || c.servers[info.Cluster.Leader] == nil {
		t.Fatalf("%d copies, cluster %+v", info.Config.Replicas, info.Cluster)
	}
	leader := info.Cluster.Leader
	time.Sleep(time.Second) // the next key is in reserve by then
	stalled := atomic.Bool{}
	stalled.Store(true)
	stall := make(chan time.Duration, 1)
	c.servers[leader].kill()
	killed := time.Now()
	go func() {
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			_, err := js.Publish(ctx, "$KV."+bus.BucketKMS+".probe", []byte("x"), jetstream.WithRetryAttempts(0))
			cancel()
			if err == nil || t.Context().Err() != nil {
				stalled.Store(false)
				stall <- time.Since(killed)
				return
			}
		}
	}()
	var first, gap time.Duration
	during := 0
	for next := killed; stalled.Load(); time.Sleep(10 * time.Millisecond) {
		picture.mu.Lock()
		gap = max(gap, time.Since(picture.last))
		picture.mu.Unlock()
		// Each of the old keys stays in a slot for a minute, to tell who uses it.
		if during == 10 || time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(500 * time.Millisecond)
		// What was on its way through the server that was killed is lost with it: the bus
		// asks again.
		took, err := urgent(patience)
		if err != nil && bus.CodeOf(err) == bus.CodeUnavailable && during > 0 && stalled.Load() {
			continue // one key is in reserve: the next has to be written first, which may take longer than who asks waits
		}
		if err != nil {
			t.Errorf("urgent rotation %v after the kill: %v", time.Since(killed).Round(time.Millisecond), err)
		}
		if stalled.Load() {
			if during++; during == 1 {
				first = took
			}
		}
	}
	without := <-stall
	t.Logf("leader %s killed: nothing could be written for %v; meanwhile %d urgent rotations, the first in %v; longest gap seen in the picture %v",
		leader, without.Round(10*time.Millisecond), during, first.Round(time.Millisecond), gap.Round(time.Millisecond))
	if without > 2*time.Second && during == 0 {
		t.Errorf("no urgent rotation in %v without a leader", without)
	}
	if without > 2*time.Second && gap > without/2 {
		t.Errorf("the picture stood still for %v", gap)
	}
	if _, err := urgent(patience); err != nil {
		t.Errorf("after the election: %v", err)
	}
	picture.back(t, time.Now())
}
