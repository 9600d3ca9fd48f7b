package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// foreign is Mosquitto as docs/mosquitto sets it up, with its certificate from a
// CA of its own.
type foreign struct {
	t                  *testing.T
	dir                string
	byCert, byPassword string // host:port
}

func newForeign(t *testing.T) *foreign {
	t.Helper()
	f := &foreign{t: t, dir: t.TempDir(), byCert: freeTCP(t), byPassword: freeTCP(t)}
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	// Its own CA, and its own certificate at once.
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f.write("broker.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	f.write("broker-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	f.write("password", []byte("open sesame\n"))
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", f.file("passwords"), "cam-2", "open sesame").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	conf := "user root\n" // started by root it would be another user, who may not read here
	for _, name := range []string{"gaitkeeper.conf", "passwords.conf", "gaitkeeper.acl"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", "mosquitto", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".acl") {
			f.write(name, b)
		} else {
			conf += string(b)
		}
	}
	listener := func(addr string) string {
		host, port, _ := net.SplitHostPort(addr)
		return "listener " + port + " " + host
	}
	f.write("mosquitto.conf", []byte(strings.NewReplacer("@DIR@", f.dir, "listener 8883", listener(f.byCert), "listener 8884", listener(f.byPassword)).Replace(conf)))
	return f
}

func (f *foreign) file(name string) string { return filepath.Join(f.dir, name) }

func (f *foreign) write(name string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.file(name), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// start runs the broker for devices of the site.
func (f *foreign) start(s *site) *process {
	f.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data, "ca.pem"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("ca.pem", b)
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // Debian keeps it off most users' path
	}
	p := start(f.t, path, "-c", f.file("mosquitto.conf"))
	until(f.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", f.byPassword)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

// TestForeignBroker: two devices live over somebody else's broker, one by
// certificate and one by password; keys change, media survives the broker's
// restart, and a revoked device goes dark though the broker lets it be.
func TestForeignBroker(t *testing.T) {
	need(t, "ffmpeg", "mosquitto_passwd")
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	clip, err := filepath.Abs("../clip/demo.ts")
	if err != nil {
		t.Fatal(err)
	}
	f := newForeign(t)
	one, two := newPicture(t), newPicture(t)
	s := newSite(t, "--rotate-every=100ms", "--mqtt-broker", "mqtts://"+f.byCert, "--mqtt-ca", f.file("broker.pem"),
		"--output", "cam-1=udp://"+one.conn.LocalAddr().String(), "--output", "cam-2=udp://"+two.conn.LocalAddr().String())
	server := s.serve() // before the broker is there, whose listener wants the CA that is made now
	broker := f.start(s)

	send := func(name string, args ...string) *process {
		t.Helper()
		in := freeUDP(t)
		start(t, "ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-f", "mpegts", "udp://"+in+"?pkt_size=1316")
		return start(t, program, append(s.device(name, "udp://"+in), args...)...)
	}
	first := send("cam-1")
	second := send("cam-2", "--mqtt-broker", "mqtts://"+f.byPassword, "--mqtt-ca", f.file("broker.pem"), "--mqtt-user", "cam-2", "--mqtt-password-file", f.file("password"))
	keys := func(p *process) int { return len(granted.FindAllString(p.output(), -1)) }
	more := func(p *process, n int) {
		t.Helper()
		had := keys(p)
		until(t, "keys change", func() bool { return keys(p) >= had+n })
	}
	began := time.Now()
	one.back(t, began)
	two.back(t, began)
	more(first, 5)
	more(second, 5)

	broker.kill()
	second.says("broker lost")
	lost := time.Now()
	one.back(t, lost.Add(500*time.Millisecond))
	two.back(t, lost.Add(500*time.Millisecond))
	broker = f.start(s)
	more(first, 20)
	more(second, 5)
	checkKeys(t, s, first)

	var done bus.Revocation
	s.ask(&done, "revoke", "cam-1")
	revoked := time.Now()
	if done.How != bus.RevokedByDisarming || done.Cut {
		t.Errorf("revocation: %+v: want disarmed transports, and no word of a broker that nobody can tell", done)
	}
	select {
	case <-first.done:
	case <-time.After(patience):
		t.Error("the revoked device goes on")
	}
	more(second, 3)
	two.back(t, revoked.Add(time.Second))
	one.mu.Lock()
	if after := one.last.Sub(revoked); after > time.Second {
		t.Errorf("media of the revoked device %v after the revocation", after)
	}
	one.mu.Unlock()
	server.stop()
	broker.kill()
}
