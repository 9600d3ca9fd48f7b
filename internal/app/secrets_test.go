package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// record collects everything that passed somewhere.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.b.Bytes())
}

// wiretap is a courier that lets everything be read along.
type wiretap struct {
	bus.Courier
	record *record
}

func (w wiretap) Send(topic string, payload []byte) error {
	fmt.Fprintf(w.record, "%s %s\n", topic, payload)
	return w.Courier.Send(topic, payload)
}

func (w wiretap) Listen(filter string, handle func(string, []byte)) error {
	return w.Courier.Listen(filter, func(topic string, payload []byte) {
		fmt.Fprintf(w.record, "%s %s\n", topic, payload)
		handle(topic, payload)
	})
}

// insider is a transport that the key management service has certified, and so
// the one way to learn what the media keys really are.
type insider struct {
	conn     bus.Conn
	kms      gkrp.Verifier
	receiver keyring.ReceiverKey
	self     bus.TransportReceiver
}

func newInsider(t *testing.T, n *Node) *insider {
	t.Helper()
	connect := func(role bus.Role) bus.Conn {
		nc, err := n.connect(role)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return bus.NewNATS(nc)
	}
	ctx, cancel := context.WithTimeout(t.Context(), sceneWait)
	defer cancel()
	creds, err := certify(ctx, n.certifier(t), "transport", "insider")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := gkrp.NewSigner(creds.key.(ed25519.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	i := &insider{conn: connect(bus.RoleProcessing)}
	if i.receiver, err = keyring.GenerateReceiverKey(uint16(gkrp.SuiteMLKEM768X25519)); err != nil {
		t.Fatal(err)
	}
	signed, err := gkrp.SignReceiverKey(signer, []byte("insider"), &gkrp.ReceiverKey{Transport: "insider", Suite: gkrp.SuiteMLKEM768X25519, Public: i.receiver.Public()})
	if err != nil {
		t.Fatal(err)
	}
	i.self = bus.TransportReceiver{Transport: "insider", Key: signed, Certificate: creds.cert.Raw}
	info, err := bus.KMSInfo.Do(ctx, i.conn, bus.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if i.kms, err = gkrp.NewVerifier(info.Public); err != nil {
		t.Fatal(err)
	}
	return i
}

// key asks for an epoch's key as the processing service would for a transport.
func (i *insider) key(ctx context.Context, device gk.DeviceID, e gk.Event) ([]byte, error) {
	rep, err := bus.KMSRelease.Do(ctx, i.conn, bus.KMSReleaseRequest{
		Device: device, Stream: e.Stream, Session: e.Session, Epoch: e.Epoch, Transports: []bus.TransportReceiver{i.self},
	})
	if err != nil {
		return nil, err
	}
	envelope, err := gkrp.OpenKeyEnvelope(i.kms, rep.Transports["insider"])
	if err != nil {
		return nil, err
	}
	key, err := i.receiver.OpenMediaKey(envelope.Info(), envelope.Sealed)
	if err != nil {
		return nil, err
	}
	var out []byte
	key.Expose(func(k, salt []byte) { out = append(bytes.Clone(k), salt...) })
	return out, nil
}

// TestSecretsStayInMemory runs everything for a while and then looks for the
// actual bytes of keys and tokens wherever a run leaves or sends something.
func TestSecretsStayInMemory(t *testing.T) {
	logs, serviceBus, protocol := &record{}, &record{}, &record{}
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := testConfig(t)
	cfg.RotateEvery = 150 * time.Millisecond
	n, stop := startNode(t, cfg, log)

	n.broker.gate.users["spy"] = user{password: "spy", permissions: allow([]string{"spy"}, []string{">"})}
	spy, err := n.broker.connect("spy")
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	if _, err := spy.Subscribe(">", func(m *nats.Msg) { fmt.Fprintf(serviceBus, "%s %s\n", m.Subject, m.Data) }); err != nil {
		t.Fatal(err)
	}

	in := newInsider(t, n)
	secrets := map[string][]byte{}
	var mu sync.Mutex
	enough := make(chan struct{})
	if err := n.Hear(func(e gk.Event) {
		if e.Kind != gk.EventRotationDone {
			return
		}
		key, err := in.key(t.Context(), "cam-1", e)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Errorf("epoch %d: %v", e.Epoch, err)
			return
		}
		secrets[fmt.Sprintf("media key of epoch %d", e.Epoch)] = key
		if e.Epoch == 8 {
			close(enough)
		}
	}); err != nil {
		t.Fatal(err)
	}

	// The device, on its own directory, with its protocol read along.
	client, err := NewClient(ClientConfig{Data: cfg.Data})
	if err != nil {
		t.Fatal(err)
	}
	var enrolled struct{ Token string }
	if err := client.Do(t.Context(), "POST", "/v1/enroll", map[string]string{"device": "cam-1"}, &enrolled); err != nil {
		t.Fatal(err)
	}
	token, err := gkrp.ParseJoinToken(enrolled.Token)
	if err != nil {
		t.Fatal(err)
	}
	stateDir := t.TempDir()
	state, err := device.OpenState(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	id, err := device.Join(t.Context(), enrolled.Token, state)
	if err != nil {
		t.Fatal(err)
	}
	courier, err := device.Connect(t.Context(), id, 10*time.Second, log)
	if err != nil {
		t.Fatal(err)
	}
	defer courier.Close()
	source, err := device.OpenSource("-", device.SourceOptions{Stdin: clip.Open()})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := device.New(device.Config{Identity: id, State: state, Log: log, Streams: []device.StreamConfig{{Source: source}}}, wiretap{courier, protocol})
	if err != nil {
		t.Fatal(err)
	}
	sending, halt := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- agent.Run(sending) }()
	select {
	case <-enough:
	case err := <-sent:
		t.Fatalf("the device ended: %v", err)
	case <-time.After(sceneWait):
		t.Fatal("too few rotations in a minute")
	}

	places := map[string][]byte{}
	for _, path := range []string{"/metrics", "/v1/streams", "/v1/streams/cam-1/keys", "/v1/streams/cam-1"} {
		places[path] = fetch(t, client, path)
	}
	halt()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	stop()
	places["logs"], places["protocol messages"], places["service bus"] = logs.bytes(), protocol.bytes(), serviceBus.bytes()
	for name, b := range places {
		if len(b) == 0 {
			t.Fatalf("%s: nothing was recorded", name)
		}
	}
	addFiles(t, places, cfg.Data)
	addFiles(t, places, stateDir)

	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(cfg.Data, name))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSpace(b)
	}
	secrets["KEK"], secrets["API token"] = read("kek"), read(tokenFile)
	secrets["join secret"], secrets["join token"] = token.Secret, []byte(enrolled.Token)
	delete(places, filepath.Join(cfg.Data, "kek"))
	delete(places, filepath.Join(cfg.Data, tokenFile))
	mu.Lock()
	defer mu.Unlock()
	if len(secrets) < 10 {
		t.Fatalf("only %d secrets are known", len(secrets))
	}
	for what, secret := range secrets {
		for where, haystack := range places {
			if form := find(haystack, secret); form != "" {
				t.Errorf("%s lies in %s (%s)", what, where, form)
			}
		}
	}
}

// find looks for a secret, and for each half of a media key, in the forms that
// programs print bytes in.
func find(haystack, secret []byte) string {
	parts := [][]byte{secret}
	if len(secret) == keyring.MediaKeySize {
		parts = append(parts, secret[:keyring.MasterKeySize], secret[keyring.MasterKeySize:])
	}
	for _, p := range parts {
		decimal := strings.Trim(fmt.Sprint(p), "[]")
		for name, form := range map[string]string{
			"raw": string(p), "hex": hex.EncodeToString(p), "HEX": strings.ToUpper(hex.EncodeToString(p)), "decimal": decimal,
			"base64":    strings.TrimRight(base64.StdEncoding.EncodeToString(p), "="),
			"base64url": strings.TrimRight(base64.URLEncoding.EncodeToString(p), "="),
			"quoted":    strings.Trim(fmt.Sprintf("%q", p), `"`),
		} {
			if bytes.Contains(haystack, []byte(form)) {
				return name
			}
		}
	}
	return ""
}

func fetch(t *testing.T, c *Client, path string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	return b
}

func addFiles(t *testing.T, places map[string][]byte, dir string) {
	t.Helper()
	before := len(places)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		places[path] = b
		return err
	})
	if err != nil || len(places) == before {
		t.Fatalf("%s: %v", dir, err)
	}
}
