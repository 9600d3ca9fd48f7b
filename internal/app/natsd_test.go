package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// testCA issues certificates for tests of the broker alone.
type testCA struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey

	mu      sync.Mutex
	records map[gk.DeviceID]bus.DeviceRecord // of the last certificate for each device
}

func (ca *testCA) record(_ context.Context, id gk.DeviceID) (bus.DeviceRecord, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	r, ok := ca.records[id]
	if !ok {
		return r, bus.Refuse(bus.CodeNotFound, "device %s is not enrolled", id)
	}
	return r, nil
}

func (ca *testCA) enrol(identity string, public ed25519.PublicKey) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if id, ok := strings.CutPrefix(identity, "gaitkeeper:device/"); ok {
		ca.records[gk.DeviceID(id)] = bus.DeviceRecord{Device: gk.DeviceID(id), Public: public}
	}
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert: cert, key: key, records: map[gk.DeviceID]bus.DeviceRecord{}}
}

func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func (ca *testCA) issue(t *testing.T, identity string) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(identity)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: identity},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{u}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	ca.enrol(identity, public)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type testBroker struct {
	*broker
	ca   *testCA
	addr string
}

func newTestBroker(t *testing.T) *testBroker {
	t.Helper()
	ca := newTestCA(t)
	leaf := ca.issue(t, "gaitkeeper:server/main")
	cert, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	late := &lateTLS{}
	b, err := startBroker(brokerConfig{
		Dir: t.TempDir(), MQTTAddr: "127.0.0.1:0", Transport: "main", TLS: late, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	late.admit(&credentials{key: leaf.PrivateKey.(ed25519.PrivateKey), cert: cert, ca: ca.cert})
	addr, err := b.mqttAddr()
	if err != nil {
		t.Fatal(err)
	}
	records := recordSource(ca.record)
	b.gate.records.Store(&records)
	return &testBroker{b, ca, addr}
}

// dial connects as clientID with the certificates given, without reconnecting.
func (b *testBroker) dial(t *testing.T, clientID string, certs ...tls.Certificate) (mqtt.Client, error) {
	t.Helper()
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + b.addr).SetClientID(clientID).
		SetAutoReconnect(false).SetConnectRetry(false).SetProtocolVersion(4).
		SetTLSConfig(&tls.Config{RootCAs: b.ca.pool(), Certificates: certs, MinVersion: tls.VersionTLS13}))
	token := client.Connect()
	token.Wait()
	t.Cleanup(func() { client.Disconnect(0) })
	return client, token.Error()
}

func (b *testBroker) device(t *testing.T, id string) mqtt.Client {
	t.Helper()
	c, err := b.dial(t, id, b.ca.issue(t, "gaitkeeper:device/"+id))
	if err != nil {
		t.Fatalf("device %s: %v", id, err)
	}
	return c
}

func subscribe(t *testing.T, c mqtt.Client, topic string) (<-chan string, bool) {
	t.Helper()
	got := make(chan string, 16)
	token := c.Subscribe(topic, 0, func(_ mqtt.Client, m mqtt.Message) { got <- m.Topic() + " " + string(m.Payload()) })
	if token.Wait(); token.Error() != nil {
		t.Fatal(token.Error())
	}
	return got, token.(*mqtt.SubscribeToken).Result()[topic] != 0x80
}

func TestBrokerCarriesBothDirections(t *testing.T) {
	b := newTestBroker(t)
	device := b.device(t, "cam-1")
	service, err := b.dial(t, "processing:main", b.ca.issue(t, "gaitkeeper:processing/main"))
	if err != nil {
		t.Fatal(err)
	}
	up, ok := subscribe(t, service, "gkrp/1/+/+/up")
	if !ok {
		t.Fatal("service may not hear devices")
	}
	down, ok := subscribe(t, device, "gkrp/1/cam-1/+/down")
	if !ok {
		t.Fatal("device may not hear the service")
	}
	device.Publish("gkrp/1/cam-1/front/up", 0, false, "hello")
	if got := <-up; got != "gkrp/1/cam-1/front/up hello" {
		t.Errorf("service got %q", got)
	}
	service.Publish("gkrp/1/cam-1/front/down", 0, false, "welcome")
	if got := <-down; got != "gkrp/1/cam-1/front/down welcome" {
		t.Errorf("device got %q", got)
	}
}

func TestBrokerRefusesConnections(t *testing.T) {
	b := newTestBroker(t)
	stranger := newTestCA(t)
	victim := b.device(t, "cam-1")

	for _, c := range []struct {
		name, clientID string
		certs          []tls.Certificate
	}{
		{"no certificate", "cam-2", nil},
		{"another CA's certificate", "cam-2", []tls.Certificate{stranger.issue(t, "gaitkeeper:device/cam-2")}},
		{"another device's client id", "cam-1", []tls.Certificate{b.ca.issue(t, "gaitkeeper:device/cam-2")}},
		{"no client id", "", []tls.Certificate{b.ca.issue(t, "gaitkeeper:device/cam-2")}},
		{"a service's client id", "processing:main", []tls.Certificate{b.ca.issue(t, "gaitkeeper:device/cam-2")}},
		{"a device's client id for a service", "cam-1", []tls.Certificate{b.ca.issue(t, "gaitkeeper:processing/cam-1")}},
		{"a transport's certificate", "main", []tls.Certificate{b.ca.issue(t, "gaitkeeper:transport/main")}},
		{"the server's own certificate", "main", []tls.Certificate{b.ca.issue(t, "gaitkeeper:server/main")}},
		{"an identity with a wildcard", "+", []tls.Certificate{b.ca.issue(t, "gaitkeeper:device/+")}},
		{"a foreign scheme", "cam-2", []tls.Certificate{b.ca.issue(t, "spiffe:device/cam-2")}},
	} {
		if _, err := b.dial(t, c.clientID, c.certs...); err == nil {
			t.Errorf("%s: connected", c.name)
		}
	}
	if !victim.IsConnectionOpen() {
		t.Error("a refused connection took the device's session over")
	}
}

func TestBrokerRefusesForeignTopics(t *testing.T) {
	b := newTestBroker(t)
	service, err := b.dial(t, "processing:main", b.ca.issue(t, "gaitkeeper:processing/main"))
	if err != nil {
		t.Fatal(err)
	}
	heard, _ := subscribe(t, service, "gkrp/1/+/+/up")

	device := b.device(t, "cam-1")
	for _, topic := range []string{
		"gkrp/1/cam-2/+/down", "gkrp/1/+/+/down", "gkrp/1/cam-1/+/up", "gkrp/1/+/+/up", "gkrp/#", "#", "gk/#", "$SYS/#", "$KV/#", "$MQTT/#",
	} {
		if _, ok := subscribe(t, device, topic); ok {
			t.Errorf("device may subscribe to %s", topic)
		}
	}
	if _, ok := subscribe(t, service, "gkrp/1/cam-1/+/down"); ok {
		t.Error("the processing service may hear what is meant for a device")
	}
	// What is refused on publishing is dropped without a word: the permitted
	// message behind the forbidden ones has to be the first that arrives.
	for _, topic := range []string{"gkrp/1/cam-2/front/up", "gkrp/1/cam-1/front/down", "gk/events", "$KV/gk-kms/x"} {
		device.Publish(topic, 0, false, "forged").Wait()
	}
	device.Publish("gkrp/1/cam-1/front/up", 0, false, "mine").Wait()
	select {
	case got := <-heard:
		if got != "gkrp/1/cam-1/front/up mine" {
			t.Errorf("heard %q", got)
		}
	case <-time.After(sceneWait):
		t.Error("permitted message did not arrive")
	}
}

func TestBrokerCutsADevice(t *testing.T) {
	b := newTestBroker(t)
	gone, other := b.device(t, "cam-1"), b.device(t, "cam-2")
	b.disconnect("cam-1")
	for deadline := time.Now().Add(sceneWait); gone.IsConnectionOpen(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("device is still connected")
		}
	}
	if !other.IsConnectionOpen() {
		t.Error("the wrong device was cut")
	}
}

func (b *testBroker) conn(t *testing.T, role bus.Role) *nats.Conn {
	t.Helper()
	nc, err := b.connect(role)
	if err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestBusRolesReachOnlyTheirOwn(t *testing.T) {
	b := newTestBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), sceneWait)
	defer cancel()

	kms, processing, api := b.conn(t, bus.RoleKMS), b.conn(t, bus.RoleProcessing), b.conn(t, bus.RoleAPI)
	sub, err := bus.KMSInfo.Serve(bus.NewNATS(kms), func(context.Context, bus.Empty) (bus.KMSInfoReply, error) {
		return bus.KMSInfoReply{Public: []byte("public")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := kms.Flush(); err != nil {
		t.Fatal(err)
	}
	rep, err := bus.KMSInfo.Do(ctx, bus.NewNATS(processing), bus.Empty{})
	if err != nil || string(rep.Public) != "public" {
		t.Fatalf("processing asks kms: %v %v", rep, err)
	}

	js, err := jetstream.New(kms)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bus.BucketKMS, History: 1})
	if err != nil {
		t.Fatalf("kms opens its bucket: %v", err)
	}
	if _, err := kv.Put(ctx, "a.b", []byte("x")); err != nil {
		t.Fatalf("kms writes: %v", err)
	}
	watch, err := kv.Watch(ctx, "a.>")
	if err != nil {
		t.Fatalf("kms watches: %v", err)
	}
	if e := <-watch.Updates(); e == nil || string(e.Value()) != "x" {
		t.Errorf("watch gave %v", e)
	}

	violations := make(chan string, 8)
	report := func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err.Error() }
	for _, nc := range []*nats.Conn{processing, api} {
		nc.SetErrorHandler(report)
	}
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"the api releases keys", func() error { return api.Publish("gk.kms.release", nil) }},
		{"processing signs the audit trail", func() error { return processing.Publish("gk.kms.audit-head", nil) }},
		{"processing revokes a device", func() error { return processing.Publish("gk.kms.revoke", nil) }},
		{"the api disarms a transport", func() error { return api.Publish("gk.transport.disarm.main", nil) }},
		{"processing cuts a connection", func() error { return processing.Publish("gk.broker.cut", nil) }},
		{"the api certifies services", func() error { return api.Publish("gk.kms.certify.transport.main", nil) }},
		{"processing reads the kms's bucket", func() error { return processing.Publish("$JS.API.DIRECT.GET.KV_gk-kms.$KV.gk-kms.a.b", nil) }},
		{"processing writes the kms's bucket", func() error { return processing.Publish("$KV.gk-kms.a.b", nil) }},
		{"the api hears the kms's answers", func() error { _, err := api.Subscribe("_INBOX.kms.>", func(*nats.Msg) {}); return err }},
		{"the api arms a transport", func() error { return api.Publish("gk.transport.arm.main", nil) }},
	} {
		if err := try.do(); err != nil {
			t.Fatalf("%s: %v", try.name, err)
		}
		select {
		case v := <-violations:
			if !strings.Contains(strings.ToLower(v), "permissions violation") {
				t.Errorf("%s: %s", try.name, v)
			}
		case <-ctx.Done():
			t.Fatalf("%s: permitted", try.name)
		}
	}
}

// caller is a connection as the server shows it to the gate.
type caller struct {
	server.ClientAuthentication
	opts       server.ClientOpts
	registered *server.User
}

func (c *caller) GetOpts() *server.ClientOpts                 { return &c.opts }
func (c *caller) RegisterUser(u *server.User)                 { c.registered = u }
func (c *caller) Kind() int                                   { return server.CLIENT }
func (c *caller) GetTLSConnectionState() *tls.ConnectionState { return nil }

// A refused connection inside the process ends only with the server's write
// deadline, so the gate is asked directly.
func TestBusRefusesStrangers(t *testing.T) {
	g := &gate{}
	g.admit("main")
	for _, opts := range []server.ClientOpts{
		{}, {Username: "kms"}, {Username: "kms", Password: "guess"}, {Username: "admin"}, {Token: "x"},
		{Username: "kms", Password: g.password(bus.RoleAPI)},
	} {
		if g.checkUser(&caller{opts: opts}) {
			t.Errorf("user %q got in", opts.Username)
		}
	}
	known := &caller{opts: server.ClientOpts{Username: "kms", Password: g.password(bus.RoleKMS)}}
	if !g.checkUser(known) || known.registered == nil || known.registered.Permissions == nil {
		t.Error("the right password is refused, or comes without limits")
	}
	if g.checkMQTT(known, "cam-1") {
		t.Error("an MQTT connection without TLS got in")
	}
}

func TestBrokerNamesTheTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	_, err = startBroker(brokerConfig{Dir: t.TempDir(), MQTTAddr: addr, Log: slog.New(slog.DiscardHandler), TLS: &lateTLS{}})
	if err == nil || !strings.Contains(err.Error(), addr+" is in use") || !strings.Contains(err.Error(), "--mqtt-listen") {
		t.Errorf("error is %v", err)
	}
}
