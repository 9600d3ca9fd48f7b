package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// testBus is a NATS server as bus-setup configures it, with the processes that it
// knows.
type testBus struct {
	t    testing.TB
	dir  string
	addr string
}

func freeTCP(t testing.TB) (string, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String(), l.Addr().(*net.TCPAddr).Port
}

func newTestBus(t testing.TB, processes ...string) *testBus {
	t.Helper()
	b := &testBus{t: t, dir: t.TempDir()}
	var port int
	b.addr, port = freeTCP(t)
	s := BusServer{Host: "127.0.0.1", Port: port, Install: filepath.Join(b.dir, "server-127.0.0.1"), Store: filepath.Join(b.dir, "store")}
	var all []BusProcess
	for _, text := range processes {
		p, err := ParseBusProcess(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := WriteBus(b.dir, []BusServer{s}, all, time.Now()); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(filepath.Join(s.Install, "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog, opts.Host = true, true, "127.0.0.1"
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return b
}

// node is a process that has connected nothing yet.
func (b *testBus) node(id string) *Node {
	cfg := Config{ID: id, Bus: "nats://" + b.addr, BusCredentials: filepath.Join(b.dir, "process-"+id)}
	return &Node{cfg: cfg, opts: Options{Log: slog.New(slog.DiscardHandler)}, starting: b.t.Context()}
}

func (b *testBus) conn(id string, role bus.Role) *nats.Conn {
	b.t.Helper()
	nc, err := b.node(id).connect(role)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

func TestExternalBusKeepsRolesApart(t *testing.T) {
	b := newTestBus(t, "main=kms,api,broker", "p1=processing", "t1=transport", "t2=transport")
	ctx, cancel := context.WithTimeout(t.Context(), sceneWait)
	defer cancel()
	kms, audit, api := b.conn("main", bus.RoleKMS), b.conn("main", bus.RoleAudit), b.conn("main", bus.RoleAPI)
	processing, one, two := b.conn("p1", bus.RoleProcessing), b.conn("t1", bus.RoleTransport), b.conn("t2", bus.RoleTransport)
	all := map[string]*nats.Conn{"kms": kms, "audit": audit, "api": api, "processing": processing, "t1": one, "t2": two}

	// What is meant to pass does.
	asked := make(chan string, 64)
	if _, err := kms.Subscribe("gk.kms.>", func(m *nats.Msg) { asked <- m.Subject; _ = m.Respond([]byte("reply")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Subscribe("gk.transport.arm.t1", func(m *nats.Msg) { _ = m.Respond([]byte("armed")) }); err != nil {
		t.Fatal(err)
	}
	heard := map[string]chan *nats.Msg{}
	for name, on := range map[string]string{"audit": "gk.events", "api": "gk.events", "processing": "gk.transport-news.>"} {
		c := make(chan *nats.Msg, 64)
		heard[name] = c
		if _, err := all[name].ChanSubscribe(on, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, nc := range all {
		if err := nc.FlushWithContext(ctx); err != nil {
			t.Fatal(err)
		}
	}
	request := func(from, subject, want string) {
		t.Helper()
		m, err := all[from].RequestWithContext(ctx, subject, []byte("?"))
		if err != nil || string(m.Data) != want {
			t.Errorf("%s asks %s: %v, %v", from, subject, m, err)
		}
	}
	request("processing", "gk.kms.release", "reply")
	request("t1", "gk.kms.info", "reply")
	request("t1", "gk.kms.certify.transport.t1", "reply")
	request("api", "gk.kms.revoke", "reply")
	request("audit", "gk.kms.audit-head", "reply")
	request("processing", "gk.transport.arm.t1", "armed")
	if _, err := processing.RequestWithContext(ctx, "gk.transport.arm.t2", nil); err != nats.ErrNoResponders {
		t.Errorf("a transport that does not serve: %v, want no responders at once", err)
	}
	next := func(name string) string {
		t.Helper()
		select {
		case m := <-heard[name]:
			return m.Subject + " " + string(m.Data)
		case <-ctx.Done():
			t.Fatalf("%s hears nothing", name)
			return ""
		}
	}
	for from, nc := range map[string]*nats.Conn{"kms": kms, "processing": processing, "t1": one, "api": api} {
		if err := nc.Publish("gk.events", []byte(from)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"audit", "api"} {
			if got := next(name); got != "gk.events "+from {
				t.Errorf("%s hears %q", name, got)
			}
		}
	}
	if err := two.Publish("gk.transport-news.first.t2", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := next("processing"); got != "gk.transport-news.first.t2 x" {
		t.Errorf("processing hears %q", got)
	}
	for len(asked) > 0 {
		<-asked
	}

	// What is not meant to pass is refused by the server.
	violations := make(chan string, 64)
	for _, nc := range all {
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err.Error() })
	}
	for _, try := range []struct{ who, does, subject string }{
		{"t1", "publish", "gk.kms.release"}, {"t1", "publish", "gk.kms.revoke"}, {"t1", "publish", "gk.kms.certify.transport.t2"},
		{"t1", "publish", "gk.kms.certify.processing.p1"}, {"t1", "publish", "gk.transport.arm.t2"}, {"t1", "publish", "$KV.gk-kms.x"},
		{"t1", "publish", "gk.transport-news.here.t2"}, {"t1", "publish", "gk.transport-news.here"},
		{"t1", "subscribe", "gk.transport.arm.t2"}, {"t1", "subscribe", "gk.kms.release"}, {"t1", "subscribe", "gk.>"}, {"t1", "subscribe", ">"},
		{"t1", "subscribe", "gk.events"}, {"t1", "subscribe", "_INBOX.processing.>"},
		{"processing", "publish", "gk.kms.revoke"}, {"processing", "publish", "gk.kms.enroll"}, {"processing", "publish", "gk.kms.certify.transport.t1"},
		{"processing", "publish", "$JS.API.STREAM.MSG.GET.KV_gk-kms"}, {"processing", "subscribe", "gk.kms.>"},
		{"api", "publish", "gk.kms.release"}, {"api", "publish", "gk.transport.arm.t1"}, {"api", "subscribe", "gk.kms.>"}, {"api", "publish", "$JS.API.INFO"},
		{"audit", "publish", "gk.kms.revoke"}, {"audit", "publish", "gk.events"},
		{"kms", "publish", "gk.transport.arm.t1"}, {"kms", "subscribe", "gk.processing.>"},
	} {
		var err error
		if try.does == "publish" {
			err = all[try.who].Publish(try.subject, []byte("forged"))
		} else {
			_, err = all[try.who].Subscribe(try.subject, func(*nats.Msg) {})
		}
		if err != nil {
			t.Fatalf("%v: %v", try, err)
		}
		select {
		case v := <-violations:
			if !strings.Contains(strings.ToLower(v), "permissions violation") {
				t.Errorf("%v: %s", try, v)
			}
		case <-ctx.Done():
			t.Fatalf("%v: permitted", try)
		}
	}
	if len(asked) > 0 {
		t.Errorf("the key management service was asked %s", <-asked)
	}
}

// TestExternalStateIsNoWayAround: whoever may make streams and consumers has a
// server publish and collect for him. It must get him no further than his own
// account.
func TestExternalStateIsNoWayAround(t *testing.T) {
	b := newTestBus(t, "main=kms,api", "p1=processing")
	ctx, cancel := context.WithTimeout(t.Context(), sceneWait)
	defer cancel()
	kms, api, processing := b.conn("main", bus.RoleKMS), b.conn("main", bus.RoleAPI), b.conn("p1", bus.RoleProcessing)
	asked := make(chan string, 64)
	if _, err := kms.Subscribe("gk.kms.>", func(m *nats.Msg) { asked <- m.Subject + " " + string(m.Data); _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := kms.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	state := func(nc *nats.Conn) jetstream.JetStream {
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	secret, err := state(kms).CreateStream(ctx, jetstream.StreamConfig{Name: "KV_" + bus.BucketKMS, Subjects: []string{"$KV.gk-kms.>"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state(kms).Publish(ctx, "$KV.gk-kms.dek", []byte("wrapped")); err != nil {
		t.Fatal(err)
	}
	js := state(processing)
	// A copy of the other's state, and everything that is said on the bus.
	spy, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "KV_" + bus.BucketProcessing, Subjects: []string{"$KV.gk-processing.>", "gk.kms.revoke", "gk.kms.enroll"},
		Sources: []*jetstream.StreamSource{{Name: "KV_" + bus.BucketKMS}},
	})
	if err != nil {
		t.Logf("refused: %v", err)
		if spy, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "KV_" + bus.BucketProcessing, Subjects: []string{"$KV.gk-processing.>", "gk.kms.revoke", "gk.kms.enroll"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.RequestWithContext(ctx, "gk.kms.revoke", []byte("by the api")); err != nil {
		t.Fatal(err)
	}
	// A consumer that hands what he wrote to the key management service.
	if _, err := js.Publish(ctx, "$KV.gk-processing.x", []byte("forged")); err != nil {
		t.Fatal(err)
	}
	if _, err := processing.RequestWithContext(ctx, "$JS.API.CONSUMER.CREATE.KV_gk-processing.c.$KV.gk-processing.x",
		[]byte(`{"stream_name":"KV_gk-processing","action":"create","config":{"name":"c","filter_subject":"$KV.gk-processing.x","deliver_subject":"gk.kms.revoke","ack_policy":"none","deliver_policy":"all"}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := api.RequestWithContext(ctx, "gk.kms.revoke", []byte("by the api again")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := <-asked; !strings.HasPrefix(got, "gk.kms.revoke by the api") {
			t.Errorf("the key management service was asked %q", got)
		}
	}
	if info, err := spy.Info(ctx); err != nil || info.State.Msgs != 2 { // his own, and the one that came back to himself
		for seq := uint64(1); err == nil && seq <= info.State.LastSeq; seq++ {
			if m, err := spy.GetMsg(ctx, seq); err == nil && string(m.Data) != "forged" {
				t.Errorf("processing has %s %q", m.Subject, m.Data)
			}
		}
	}
	if info, err := secret.Info(ctx); err != nil || info.State.Msgs != 1 {
		t.Errorf("the other's state has changed: %+v, %v", info, err)
	}
}

func TestExternalBusRefusals(t *testing.T) {
	b := newTestBus(t, "main=kms,api", "p1=processing")
	other := newTestBus(t, "main=kms", "stranger=kms")
	credentials := func(from *testBus, id string) string { return filepath.Join(from.dir, "process-"+id) }
	late := filepath.Join(b.dir, "process-late")
	p, _ := ParseBusProcess("late=kms")
	if err := WriteBus(b.dir, nil, []BusProcess{p}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id, dir string
		role    bus.Role
		says    string
	}{
		"no credentials":           {"main", filepath.Join(b.dir, "nothing"), bus.RoleKMS, "gaitkeeper bus-setup"},
		"a role that is not there": {"p1", credentials(b, "p1"), bus.RoleKMS, "gaitkeeper bus-setup"},
		"another process's":        {"p2", credentials(b, "p1"), bus.RoleProcessing, "mend id"},
		"another CA's":             {"main", credentials(other, "main"), bus.RoleKMS, "bus-credentials"},
		"not in accounts.conf":     {"late", late, bus.RoleKMS, "accounts.conf"},
	} {
		n := b.node(c.id)
		n.cfg.BusCredentials = c.dir
		ctx, cancel := context.WithTimeout(t.Context(), sceneWait)
		n.starting = ctx
		nc, err := n.connect(c.role)
		if err == nil {
			nc.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || ctx.Err() != nil {
			t.Errorf("%s: %v, want at once an error with %q", name, err, c.says)
		}
		cancel()
	}
	gone := b.node("main")
	gone.cfg.Bus, _ = freeTCP(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	gone.starting = ctx
	if _, err := gone.connect(bus.RoleKMS); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestRoutesAreForServersAlone: behind the port by which servers form a cluster there
// are no permissions. A process's certificate, though of the same CA, does not open it.
func TestRoutesAreForServersAlone(t *testing.T) {
	dir := t.TempDir()
	var servers []BusServer
	for _, name := range []string{"a", "b"} {
		s := BusServer{Host: "127.0.0.1", Name: name, Install: filepath.Join(dir, "server-"+name), Store: filepath.Join(dir, "store-"+name)}
		_, s.Port = freeTCP(t)
		_, s.ClusterPort = freeTCP(t)
		servers = append(servers, s)
	}
	if err := WriteBus(dir, servers, []BusProcess{{"main", []string{roleKMS}}, {"t1", []string{roleTransport}}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	start := func(opts *server.Options) *server.Server {
		opts.NoSigs, opts.NoLog, opts.Host, opts.JetStream = true, true, "127.0.0.1", false
		srv, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		return srv
	}
	joined := func(srv *server.Server, within time.Duration) bool {
		for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if srv.NumRoutes() > 0 {
				return true
			}
		}
		return false
	}
	configured := func(s BusServer) *server.Options {
		opts, err := server.ProcessConfigFile(filepath.Join(s.Install, "nats-server.conf"))
		if err != nil {
			t.Fatal(err)
		}
		return opts
	}
	a := start(configured(servers[0]))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "process-t1", "transport.pem"), filepath.Join(dir, "process-t1", "transport-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := bus.ReadCAFile("", filepath.Join(dir, busCAFile))
	if err != nil {
		t.Fatal(err)
	}
	start(&server.Options{
		ServerName: "thief", Port: -1,
		Cluster: server.ClusterOpts{Name: "gaitkeeper", Host: "127.0.0.1", Port: -1, TLSTimeout: 10, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: bus.Pool(ca), ClientCAs: bus.Pool(ca), ServerName: "127.0.0.1"}},
		Routes:  []*url.URL{{Scheme: "nats-route", Host: fmt.Sprintf("127.0.0.1:%d", servers[0].ClusterPort)}},
	})
	if joined(a, 3*time.Second) {
		t.Error("a transport's certificate is taken for a server's")
	}
	b := start(configured(servers[1]))
	if !joined(b, 20*time.Second) {
		t.Error("the servers do not form a cluster")
	}
}

func TestBusSetupKeepsItsCA(t *testing.T) {
	dir := t.TempDir()
	s, err := ParseBusServer("nats.example:4333/6333")
	if err != nil || s.Host != "nats.example" || s.Port != 4333 || s.ClusterPort != 6333 {
		t.Fatalf("%+v, %v", s, err)
	}
	p, err := ParseBusProcess("main=kms,api")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func() {
		if err := WriteBus(dir, []BusServer{s}, []BusProcess{p}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	write()
	ca, leaf := read(busCAFile), read("process-main/kms.pem")
	write()
	if read(busCAFile) != ca || read("process-main/bus-ca.pem") != ca || read("process-main/kms.pem") == leaf {
		t.Error("a second run must keep the CA and renew the certificates")
	}
	for _, name := range []string{busCAKeyFile, "process-main/kms-key.pem", "server-nats.example/server-key.pem"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, busCAKeyFile), []byte("spoiled"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteBus(dir, []BusServer{s}, []BusProcess{p}, time.Now()); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("a spoiled CA: %v", err)
	}
	for _, text := range []string{"", "main", "main=", "=kms", "main=boss", "a.b=kms"} {
		if _, err := ParseBusProcess(text); err == nil {
			t.Errorf("process %q is taken", text)
		}
	}
	for _, text := range []string{"", "a:b", "a:1/x", "a:0", "a:1/70000", "a b"} {
		if s, err := ParseBusServer(text); err == nil {
			t.Errorf("server %q is taken as %+v", text, s)
		}
	}
}

func TestRolesThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Roles = []string{"kms"} }, "built-in bus"},
		{func(c *Config) { c.Roles = []string{"boss"} }, `"boss" is none of`},
		{func(c *Config) { c.Roles = []string{"device"} }, "gaitkeeper device"},
		{func(c *Config) { c.Bus, c.Roles = "nats://a", []string{"kms", "kms"} }, "twice"},
		{func(c *Config) { c.Bus, c.Roles = "nats://a", []string{"processing"} }, "mqtt-broker"},
		{func(c *Config) { c.Bus, c.Roles = "nats://a", []string{"api"} }, "mqtt-broker"},
		{func(c *Config) { c.Bus = "http://a" }, "scheme"},
		{func(c *Config) { c.Bus = "nats://u:secret@a" }, "bus-credentials"},
		{func(c *Config) { c.Bus = "nats://" }, "bus:"},
		{func(c *Config) { c.Bus, c.BusReplicas = "nats://a", 2 }, "1, 3 or 5"},
		{func(c *Config) { c.MQTTBroker = "10.0.0.1:8883" }, "mqtts://"},
		{func(c *Config) { c.MQTTUser = "x" }, "mqtt-broker names none"},
		{func(c *Config) { c.MQTTBroker, c.MQTTCert = "mqtts://a", "x" }, "mqtt-key"},
		{func(c *Config) { c.MQTTBroker, c.MQTTPassword = "mqtts://a", "x" }, "mqtt-user"},
	} {
		cfg := testConfig(t)
		c.change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want an error with %q", err, c.says)
		}
	}
	cfg := testConfig(t)
	cfg.Bus, cfg.Roles, cfg.MQTTBroker = "nats://a,b:4333,[2001:db8::1]", []string{"processing"}, "10.0.0.1:8883"
	servers, err := cfg.busServers()
	if got := fmt.Sprint(servers); cfg.Check() != nil || err != nil || got != "[nats://a:4222 nats://b:4333 nats://[2001:db8::1]:4222]" || cfg.replicas() != 3 {
		t.Errorf("%s, %v, %v", got, err, cfg.Check())
	}
}

// TestAnotherKeyManagementIsRefused: a process apart keeps to the key management
// service that it met first, whoever answers on the bus.
func TestAnotherKeyManagementIsRefused(t *testing.T) {
	b := newTestBus(t, "main=kms", "p1=processing")
	kms := b.conn("main", bus.RoleKMS)
	key := []byte("11111111111111111111111111111111")
	if _, err := bus.KMSInfo.Serve(bus.NewNATS(kms), func(context.Context, bus.Empty) (bus.KMSInfoReply, error) {
		return bus.KMSInfoReply{Public: key, CA: []byte("CA")}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := kms.Flush(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	meet := func() error {
		n := b.node("p1")
		n.cfg.Roles = []string{roleProcessing}
		n.dir = &dataDir{path: dir}
		return n.meetKMS(t.Context(), b.conn("p1", bus.RoleProcessing))
	}
	for range 2 {
		if err := meet(); err != nil {
			t.Fatal(err)
		}
	}
	key = []byte("22222222222222222222222222222222")
	if err := meet(); err == nil || !strings.Contains(err.Error(), "another key than before") {
		t.Errorf("another key: %v", err)
	}
}
