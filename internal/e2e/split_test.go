package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// natsServer is an external NATS server as bus-setup configures it.
func natsServer(t *testing.T, dir, name string) *server.Server {
	t.Helper()
	opts, err := server.ProcessConfigFile(filepath.Join(dir, "server-"+name, "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog, opts.Host = true, true, "127.0.0.1"
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server did not start")
	}
	return s
}

// command runs the program to its end.
func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("gaitkeeper %v: %v\n%s", args, err, out)
	}
}

// TestRolesInProcessesApart runs key management, two processing services and a
// transport as processes of their own on a foreign NATS server, and kills them
// one after the other under a live stream.
func TestRolesInProcessesApart(t *testing.T) {
	need(t, "ffmpeg")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	clip, err := filepath.Abs("../clip/demo.ts")
	if err != nil {
		t.Fatal(err)
	}
	dir, data := filepath.Join(t.TempDir(), "bus"), t.TempDir()
	busAddr, broker, api, media := freeTCP(t), freeTCP(t), freeTCP(t), freeUDP(t)
	// The processes come first and wait for the server.
	command(t, "bus-setup", dir, "--server", busAddr, "--install", filepath.Join(dir, "server-127.0.0.1"), "--store", filepath.Join(dir, "store"),
		"--process", "main=kms,api,broker", "--process", "p1=processing", "--process", "p2=processing", "--process", "t1=transport")
	picture := newPicture(t)
	apart := func(id, roles string, args ...string) *process {
		t.Helper()
		return start(t, program, append([]string{
			"serve", "--id", id, "--roles", roles, "--bus", "nats://" + busAddr, "--bus-credentials", filepath.Join(dir, "process-"+id),
			"--data", filepath.Join(data, id), "--mqtt-broker", broker,
		}, args...)...)
	}
	rotate := "--rotate-every=100ms"
	kms := func() *process {
		return apart("main", "kms,api,broker", "--listen", api, "--join-listen", freeTCP(t), "--mqtt-listen", broker)
	}
	transport := func() *process {
		return apart("t1", "transport", "--media-listen", media, "--output", "udp://"+picture.conn.LocalAddr().String())
	}
	key, carrier := kms(), transport()
	one := apart("p1", "processing", rotate)
	key.says("cannot be reached yet")
	natsServer(t, dir, "127.0.0.1")
	key.says("msg=ready")
	carrier.says("msg=ready")
	one.says("msg=serving")
	two := apart("p2", "processing", rotate)
	two.says("standing by")

	s := &site{t: t, data: filepath.Join(data, "main"), api: api}
	in := freeUDP(t)
	start(t, "ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-f", "mpegts", "udp://"+in+"?pkt_size=1316")
	device := start(t, program, s.device("cam-1", "udp://"+in)...)
	keys := func() int { return len(granted.FindAllString(device.output(), -1)) }
	more := func(n int) {
		t.Helper()
		had := keys()
		until(t, "keys change", func() bool { return keys() >= had+n })
	}
	more(10)

	one.kill()
	began := time.Now()
	two.says("msg=serving")
	more(10)
	t.Logf("processing killed: ten keys under the other instance after %v", time.Since(began).Round(10*time.Millisecond))
	picture.back(t, time.Now())

	carrier.kill()
	began = time.Now()
	carrier = transport()
	t.Logf("transport killed: picture after %v", picture.back(t, began).Round(10*time.Millisecond))
	more(5)

	key.kill()
	picture.back(t, time.Now().Add(time.Second)) // media goes on without key management
	began = time.Now()
	key = kms()
	key.says("msg=ready")
	more(5)
	t.Logf("key management killed: keys change %v after it is back", time.Since(began).Round(10*time.Millisecond))

	again := apart("p1", "processing", rotate)
	again.says("standing by")
	two.stop() // gives its lease back
	began = time.Now()
	again.says("msg=serving")
	more(5)
	t.Logf("processing stopped: five keys under the other instance after %v", time.Since(began).Round(10*time.Millisecond))
	checkKeys(t, s, device)

	var done bus.Revocation
	s.ask(&done, "revoke", "cam-1")
	if done.How != bus.RevokedByDisarming || !done.Cut {
		t.Errorf("revocation: %+v", done)
	}
	select {
	case <-device.done:
	case <-time.After(patience):
		t.Error("the revoked device goes on")
	}
	for _, p := range []*process{again, carrier, key} {
		p.stop()
	}
}
