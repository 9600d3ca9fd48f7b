package bus

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mosquitto starts a foreign MQTT 3.1.1 broker with arguments that make it listen
// on a loopback port, and gives a function that stops it.
func mosquitto(t *testing.T, port int, args ...string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // Debian keeps it off most users' path
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("mosquitto: %v: make test installs it", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return stop
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestForeignBroker: the couriers work over a broker that is not ours, and take
// their subscriptions up again when it was restarted. One that has patience
// needs no broker to begin with.
func TestForeignBroker(t *testing.T) {
	port := freePort(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	service, err := DialMQTT(ctx, MQTTConfig{Address: address, ClientID: "service", Plain: true, Patient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	got := make(chan string, 1000)
	if err := service.Listen("gkrp/1/+/+/up", func(topic string, p []byte) { got <- topic + " " + string(p) }); err != nil {
		t.Fatal(err)
	}
	if service.Connected() {
		t.Error("connected without a broker")
	}
	stop := mosquitto(t, port, "-p", fmt.Sprint(port))
	defer func() { stop() }()
	device, err := DialMQTT(ctx, MQTTConfig{Address: address, ClientID: "cam-1", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	// arrives sends until something comes: QoS 0 promises nothing across a restart.
	arrives := func(payload string) {
		t.Helper()
		for {
			if err := device.Send("gkrp/1/cam-1/cam-1/up", []byte(payload)); err != nil && !errors.Is(err, ErrNotConnected) {
				t.Fatal(err)
			}
			select {
			case m := <-got:
				if m == "gkrp/1/cam-1/cam-1/up "+payload {
					return
				}
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%q did not arrive", payload)
			}
		}
	}
	arrives("before")
	stop()
	stop = mosquitto(t, port, "-p", fmt.Sprint(port))
	arrives("after the restart")
}

// site is a directory with what the broker of the documentation wants: the CA
// of devices and services, and the broker's own certificate from another CA.
type site struct {
	dir      string
	ca, own  *x509.Certificate // of the broker; of devices and services
	key      ed25519.PrivateKey
	port     int // by certificate
	password int // by password
}

func (s *site) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func certificate(t *testing.T, name string, parent *x509.Certificate, by ed25519.PrivateKey) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, by, c.IsCA, c.KeyUsage = c, key, true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// documented starts Mosquitto with the files of docs/mosquitto.
func documented(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), port: freePort(t), password: freePort(t)}
	s.own, s.key = certificate(t, "devices' CA", nil, nil)
	ca, caKey := certificate(t, "broker's CA", nil, nil)
	s.ca = ca
	broker, brokerKey := certificate(t, "broker", ca, caKey)
	der, err := x509.MarshalPKCS8PrivateKey(brokerKey)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "ca.pem", certPEM(s.own))
	s.write(t, "broker.pem", certPEM(broker))
	s.write(t, "broker-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	s.write(t, "cam-3.password", []byte("open sesame\n"))
	s.write(t, "wrong.password", []byte("open barley\n"))
	passwd := exec.Command("mosquitto_passwd", "-b", "-c", filepath.Join(s.dir, "passwords"), "cam-3", "open sesame")
	if out, err := passwd.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	conf := strings.Builder{}
	conf.WriteString("user root\n") // started by root it would be another user, who may not read here
	for _, name := range []string{"gaitkeeper.conf", "passwords.conf", "gaitkeeper.acl"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", "mosquitto", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "gaitkeeper.acl" {
			s.write(t, name, b)
			continue
		}
		conf.Write(b)
	}
	s.write(t, "mosquitto.conf", []byte(strings.NewReplacer(
		"@DIR@", s.dir, "listener 8883", fmt.Sprintf("listener %d 127.0.0.1", s.port), "listener 8884", fmt.Sprintf("listener %d 127.0.0.1", s.password),
	).Replace(conf.String())))
	t.Cleanup(mosquitto(t, s.password, "-c", filepath.Join(s.dir, "mosquitto.conf")))
	return s
}

func (s *site) dial(t *testing.T, name, clientID string) (Courier, error) {
	t.Helper()
	cert, key := certificate(t, name, s.own, s.key)
	return DialMQTT(t.Context(), MQTTConfig{
		Address: fmt.Sprintf("127.0.0.1:%d", s.port), ClientID: clientID, CA: Pool([]*x509.Certificate{s.ca}), TLS12: true, Patient: true,
		Certificate: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key},
	})
}

// heard listens to everything and tells what comes.
func heard(t *testing.T, c Courier, filter string) <-chan string {
	t.Helper()
	got := make(chan string, 64)
	if err := c.Listen(filter, func(topic string, p []byte) { got <- topic + " " + string(p) }); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestDocumentedBrokerKeepsDevicesApart: with the files of docs/mosquitto a device
// neither hears nor speaks on another's topics, whatever it calls itself.
func TestDocumentedBrokerKeepsDevicesApart(t *testing.T) {
	s := documented(t)
	dial := func(name, clientID string) Courier {
		t.Helper()
		c, err := s.dial(t, name, clientID)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(c.Close)
		return c
	}
	service := dial("processing:main", "processing:main")
	one, two := dial("cam-1", "cam-1"), dial("cam-2", "cam-1") // the second claims the first's session
	three, err := DialMQTT(t.Context(), MQTTConfig{
		Address: fmt.Sprintf("127.0.0.1:%d", s.password), ClientID: "cam-1", CA: Pool([]*x509.Certificate{s.ca}), TLS12: true,
		User: "cam-3", PasswordFile: filepath.Join(s.dir, "cam-3.password"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(three.Close)

	up, down := heard(t, service, "gkrp/1/+/+/up"), heard(t, one, "gkrp/1/cam-1/+/down")
	spied := []<-chan string{heard(t, two, "#"), heard(t, three, "#"), heard(t, one, "gkrp/1/+/+/up"), heard(t, service, "gkrp/1/+/+/down")}
	own := heard(t, three, "gkrp/1/cam-3/+/down")
	send := func(c Courier, topic, text string) {
		t.Helper()
		if err := c.Send(topic, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(got <-chan string, want string) {
		t.Helper()
		select {
		case m := <-got:
			if m != want {
				t.Errorf("heard %q, want %q", m, want)
			}
		case <-time.After(2 * time.Minute):
			t.Errorf("%q did not arrive", want)
		}
	}
	// What is refused is dropped without a word: the permitted message behind it
	// has to be the first that arrives.
	for _, thief := range []Courier{two, three} {
		send(thief, "gkrp/1/cam-1/cam-1/up", "forged")
		send(thief, "gkrp/1/cam-1/cam-1/down", "forged")
	}
	send(two, "gkrp/1/cam-2/cam-2/up", "two")
	wants(up, "gkrp/1/cam-2/cam-2/up two")
	send(three, "gkrp/1/cam-3/front/up", "three")
	wants(up, "gkrp/1/cam-3/front/up three")
	send(one, "gkrp/1/cam-1/cam-1/up", "one")
	wants(up, "gkrp/1/cam-1/cam-1/up one")
	send(service, "gkrp/1/cam-1/cam-1/down", "welcome")
	wants(down, "gkrp/1/cam-1/cam-1/down welcome")
	send(service, "gkrp/1/cam-3/front/down", "welcome")
	wants(own, "gkrp/1/cam-3/front/down welcome")
	for i, got := range spied {
		for len(got) > 0 {
			if m := <-got; !strings.HasPrefix(m, "gkrp/1/cam-3/front/down") || i != 1 {
				t.Errorf("listener %d heard %q", i, m)
			}
		}
	}
	if !one.Connected() {
		t.Error("another device's client id took the session over")
	}
}

// TestRefusalsOfBrokersNameTheCause: a broker that is there and refuses is told
// of at once, with what to look at.
func TestRefusalsOfBrokersNameTheCause(t *testing.T) {
	s := documented(t)
	cert, key := certificate(t, "cam-1", nil, nil) // from nobody that the broker knows
	ca := Pool([]*x509.Certificate{s.ca})
	for name, c := range map[string]struct {
		cfg  MQTTConfig
		says string
	}{
		"another CA's broker":      {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.port), CA: Pool([]*x509.Certificate{s.own})}, "--mqtt-ca"},
		"another CA's certificate": {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.port), CA: ca, Certificate: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, "not accept our certificate"},
		"no certificate":           {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.port), CA: ca}, "not accept our certificate"},
		"no password":              {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.password), CA: ca}, "--mqtt-password-file"},
		"a wrong password":         {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.password), CA: ca, User: "cam-3", PasswordFile: filepath.Join(s.dir, "wrong.password")}, "--mqtt-password-file"},
		"a password file missing":  {MQTTConfig{Address: fmt.Sprintf("127.0.0.1:%d", s.password), CA: ca, User: "cam-3", PasswordFile: filepath.Join(s.dir, "nothing")}, "mqtt-password-file"},
	} {
		c.cfg.ClientID, c.cfg.TLS12, c.cfg.Patient = "cam-1", true, true
		courier, err := DialMQTT(t.Context(), c.cfg)
		if err == nil {
			courier.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v, want an error with %q", name, err, c.says)
		}
	}
}

func TestAbsentBrokerIsNamed(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	if _, err := DialMQTT(context.Background(), MQTTConfig{Address: address, ClientID: "cam-1", Plain: true}); !errors.Is(err, ErrBroker) {
		t.Errorf("%v, want ErrBroker", err)
	}
}
