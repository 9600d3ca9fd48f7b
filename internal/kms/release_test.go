package kms

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

func TestReleaseReachesBothEndsWithOneKey(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	tr := s.newRelay("tr-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	key, prekey := c.prekey("cam-1", sid(1))
	req := bus.KMSReleaseRequest{Device: c.id, Stream: "cam-1", Session: sid(1), Epoch: epoch, Prekey: prekey, Transports: []bus.TransportReceiver{tr.word}}
	rep, err := s.release(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	e1, m1 := opened(t, c.kms, key, rep.Device)
	e2, m2 := opened(t, c.kms, tr.key, rep.Transports["tr-1"])
	if !m1.Equal(m2) {
		t.Error("the ends have different keys")
	}
	if e1.Receiver != "device/cam-1" || e2.Receiver != "transport/tr-1" || e1.SSRC != 7 || e1.Epoch != epoch || e1.Session != sid(1) || e1.Stream != "cam-1" {
		t.Errorf("envelopes say %+v, %+v", e1, e2)
	}
	if confirm := m1.Confirm("cam-1", sid(1), epoch, "device/cam-1"); !bytes.Equal(rep.Confirm, confirm[:]) {
		t.Error("the expected confirmation is not the device's")
	}
	again, err := s.release(t.Context(), req)
	if err != nil || !bytes.Equal(again.Device, rep.Device) || !bytes.Equal(again.Transports["tr-1"], rep.Transports["tr-1"]) {
		t.Errorf("asked again, the envelopes differ: %v", err)
	}
	s.settle()
	s.restart()
	later, err := s.release(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, m := opened(t, c.kms, key, later.Device); !m.Equal(m1) {
		t.Error("after a restart the key is another")
	}
}

func TestReleaseRefuses(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c, other := s.enrolled("cam-1", "cam-1", "cam-1b"), s.enrolled("cam-2")
	tr, tr2 := s.newRelay("tr-1"), s.newRelay("tr-2")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	s.mustOpen(c, "cam-1b", sid(1), 0)
	_, prekey := c.prekey("cam-1", sid(1))
	good := bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch, Prekey: prekey, Transports: []bus.TransportReceiver{tr.word}}

	stranger := newSite(t, store.NewMemory())
	foreign := stranger.newRelay("tr-1")
	processing, procCert := s.certified(roleProcessing, "tr-1")
	weak, err := keyring.GenerateReceiverKey(keyring.SuiteX25519)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(p gkrp.Prekey) []byte {
		p.Suite, p.Public = gkrp.SuiteX25519, weak.Public()
		return c.sign(&p)
	}
	for name, tc := range map[string]struct {
		change func(*bus.KMSReleaseRequest)
		code   bus.Code
		words  []string
	}{
		"unknown device":  {func(r *bus.KMSReleaseRequest) { r.Device = "cam-9" }, bus.CodeNotFound, []string{"run gaitkeeper enroll cam-9"}},
		"bad device":      {func(r *bus.KMSReleaseRequest) { r.Device = "a/b" }, bus.CodeBadRequest, nil},
		"stream not its":  {func(r *bus.KMSReleaseRequest) { r.Stream = "cam-2" }, bus.CodeUnauthorized, []string{"does not belong"}},
		"unknown session": {func(r *bus.KMSReleaseRequest) { r.Session = sid(9) }, bus.CodeUnauthorized, nil},
		"no such session": {func(r *bus.KMSReleaseRequest) { r.Session, r.Prekey = sid(9), nil }, bus.CodeNotFound, []string{"start a new one"}},
		"after the last":  {func(r *bus.KMSReleaseRequest) { r.Epoch, r.After = 0, epoch+9 }, bus.CodeNotFound, nil},
		"epoch not due":   {func(r *bus.KMSReleaseRequest) { r.Epoch = epoch + 1 }, bus.CodeConflict, []string{"not due"}},
		"epoch far off":   {func(r *bus.KMSReleaseRequest) { r.Epoch = epoch + 5 }, bus.CodeNotFound, []string{"the next one"}},
		"prekey garbage":  {func(r *bus.KMSReleaseRequest) { r.Prekey = []byte("x") }, bus.CodeUnauthorized, []string{"prekey"}},
		"prekey of another device": {func(r *bus.KMSReleaseRequest) {
			_, r.Prekey = other.prekey("cam-1", sid(1))
		}, bus.CodeUnauthorized, []string{"signature"}},
		"prekey for another device": {func(r *bus.KMSReleaseRequest) {
			r.Prekey = sealed(gkrp.Prekey{Device: "cam-2", Stream: "cam-1", Session: sid(1)})
		}, bus.CodeUnauthorized, []string{"not for this request"}},
		"prekey for another stream": {func(r *bus.KMSReleaseRequest) {
			r.Prekey = sealed(gkrp.Prekey{Device: "cam-1", Stream: "cam-1b", Session: sid(1)})
		}, bus.CodeUnauthorized, []string{"not for this request"}},
		"prekey for another session": {func(r *bus.KMSReleaseRequest) {
			r.Prekey = sealed(gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: sid(2)})
		}, bus.CodeUnauthorized, []string{"not for this request"}},
		"unknown suite": {func(r *bus.KMSReleaseRequest) {
			r.Prekey = c.sign(&gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: sid(1), Suite: 9, Public: weak.Public()})
		}, bus.CodeBadRequest, []string{"suite 9"}},
		"key of another suite": {func(r *bus.KMSReleaseRequest) {
			r.Prekey = c.sign(&gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: sid(1), Suite: gkrp.SuiteMLKEM768X25519, Public: weak.Public()})
		}, bus.CodeBadRequest, nil},
		"another CA":            {func(r *bus.KMSReleaseRequest) { r.Transports[0] = foreign.word }, bus.CodeUnauthorized, []string{"certificate"}},
		"certificate garbage":   {func(r *bus.KMSReleaseRequest) { r.Transports[0].Certificate = []byte("x") }, bus.CodeUnauthorized, nil},
		"another's certificate": {func(r *bus.KMSReleaseRequest) { r.Transports[0].Certificate = tr2.word.Certificate }, bus.CodeUnauthorized, nil},
		"another's name":        {func(r *bus.KMSReleaseRequest) { r.Transports[0].Transport = "tr-2" }, bus.CodeUnauthorized, nil},
		"a processing service": {func(r *bus.KMSReleaseRequest) {
			r.Transports[0].Certificate = procCert
			r.Transports[0].Key = receiverWord(t, processing, &gkrp.ReceiverKey{Transport: "tr-1", Suite: gkrp.SuiteX25519, Public: weak.Public()})
		}, bus.CodeUnauthorized, []string{"gaitkeeper:processing/tr-1", "want a transport"}},
		"too many transports": {func(r *bus.KMSReleaseRequest) { r.Transports = make([]bus.TransportReceiver, 17) }, bus.CodeBadRequest, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := good
			req.Transports = []bus.TransportReceiver{tr.word}
			tc.change(&req)
			rep, err := s.release(t.Context(), req)
			refused(t, err, tc.code, tc.words...)
			if rep.Device != nil || rep.Transports != nil || rep.Confirm != nil {
				t.Error("a refusal brought something")
			}
		})
	}
	if _, err := s.release(t.Context(), good); err != nil {
		t.Errorf("the good request: %v", err)
	}
}

func TestSuitesAreAPolicy(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	s.cfg.Suites = []gkrp.Suite{gkrp.SuiteMLKEM768X25519}
	_, prekey := c.prekey("cam-1", sid(1))
	req := bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch, Prekey: prekey}
	_, err := s.release(t.Context(), req)
	refused(t, err, bus.CodeBadRequest, "not allowed here")
	key, err := keyring.GenerateReceiverKey(keyring.SuiteMLKEM768X25519)
	if err != nil {
		t.Fatal(err)
	}
	req.Prekey = c.sign(&gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: sid(1), Suite: gkrp.SuiteMLKEM768X25519, Public: key.Public()})
	rep, err := s.release(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	opened(t, c.kms, key, rep.Device)
	t.Logf("envelope: %d bytes", len(rep.Device))
}

func TestPrekeyServesOneEpoch(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	_, prekey := c.prekey("cam-1", sid(1))
	req := bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch, Prekey: prekey}
	if _, err := s.release(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		req.Epoch = epoch + 1
		_, err := s.release(t.Context(), req)
		refused(t, err, bus.CodeUsed, "serves one epoch")
		s.settle()
		s.restart()
	}
	req.Epoch = epoch
	for range maxKeyPrekeys - 1 {
		_, req.Prekey = c.prekey("cam-1", sid(1))
		if _, err := s.release(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	_, req.Prekey = c.prekey("cam-1", sid(1))
	_, err := s.release(t.Context(), req)
	refused(t, err, bus.CodeConflict, "rotate")
}

func TestRevokedDeviceGetsNothing(t *testing.T) {
	s := newSite(t, store.NewMemory())
	heard := s.listen(t)
	c := s.enrolled("cam-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	s.mustRelease(c, "cam-1", sid(1), epoch)
	if _, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"}); err != nil {
		t.Fatal(err)
	}
	_, prekey := c.prekey("cam-1", sid(1))
	req := bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch + 1, Prekey: prekey}
	_, err := s.release(t.Context(), req)
	refused(t, err, bus.CodeRevoked, "run gaitkeeper enroll cam-1")
	_, err = s.open(t.Context(), bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(2)})
	refused(t, err, bus.CodeRevoked)
	s.restart()
	_, err = s.release(t.Context(), req)
	refused(t, err, bus.CodeRevoked)
	_, err = s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-9"})
	refused(t, err, bus.CodeNotFound)
	list := heard.until(t, 6)
	if last := list[len(list)-1]; last.Kind != gk.EventDeviceRevoked || last.Device != "cam-1" {
		t.Errorf("last event: %+v", last)
	}

	// Enrolled anew, the device is trusted again, its old identity is not.
	old := c
	c = s.enrolled("cam-1")
	epoch = s.mustOpen(c, "cam-1", sid(3), epoch)
	s.mustRelease(c, "cam-1", sid(3), epoch)
	_, prekey = old.prekey("cam-1", sid(3))
	_, err = s.release(t.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(3), Epoch: epoch, Prekey: prekey})
	refused(t, err, bus.CodeUnauthorized)
}

// stalled is a store that answers nothing while it is held, as JetStream does
// while it elects a leader.
type stalled struct {
	store.KV
	gate sync.RWMutex
}

func (s *stalled) Get(ctx context.Context, key string) (store.Entry, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.KV.Get(ctx, key)
}

func (s *stalled) Create(ctx context.Context, key string, v []byte) (uint64, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.KV.Create(ctx, key, v)
}

func (s *stalled) Update(ctx context.Context, key string, v []byte, rev uint64) (uint64, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.KV.Update(ctx, key, v, rev)
}

func (s *stalled) List(ctx context.Context, prefix string) ([]store.Entry, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.KV.List(ctx, prefix)
}

func TestUrgentReleaseWaitsForNoStore(t *testing.T) {
	kv := &stalled{KV: store.NewMemory()}
	s := newSite(t, kv)
	c := s.enrolled("cam-1")
	tr := s.newRelay("tr-1")
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	s.mustRelease(c, "cam-1", sid(1), epoch)
	s.settle()
	kv.gate.Lock()
	saving := make(chan struct{})
	go func() { // holds the writer token for as long as the store is away
		s.saveLater(s.stream("cam-1"))
		s.savePending(context.Background())
		close(saving)
	}()
	_, prekey := c.prekey("cam-1", sid(1))
	_, err := s.release(t.Context(), bus.KMSReleaseRequest{
		Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch + 1, Prekey: prekey, Transports: []bus.TransportReceiver{tr.word},
	})
	if err != nil {
		t.Error(err)
	}
	// The one after that was never persisted, and so is not given.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	go func() {
		<-ctx.Done()
		kv.gate.Unlock()
	}()
	_, prekey = c.prekey("cam-1", sid(1))
	_, err = s.release(ctx, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch + 2, Prekey: prekey})
	if err == nil {
		if _, err := kv.KV.Get(t.Context(), mediaKey("cam-1", sid(1), epoch+2)); err != nil {
			t.Error("an epoch was released that the store does not have")
		}
	}
	<-saving
	s.mustRelease(c, "cam-1", sid(1), epoch+2)
}

func TestRunServesTheBus(t *testing.T) {
	s := newSite(t, store.NewMemory())
	heard := s.listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	heard.until(t, 1)
	conn := s.mem.Conn()
	info, err := bus.KMSInfo.Do(ctx, conn, bus.Empty{})
	if err != nil || !bytes.Equal(info.CA, s.ca.cert.Raw) || !bytes.Equal(info.KeyID, gkrp.KeyID(info.Public)) {
		t.Fatalf("%+v, %v", info, err)
	}
	hash := tokenHash()
	if _, err := bus.KMSEnroll.Do(ctx, conn, bus.EnrollRequest{Device: "cam-1", Hash: hash}); err != nil {
		t.Fatal(err)
	}
	c := newCamera(t, "cam-1")
	c.join(s.Service, hash)
	dev, err := bus.KMSDevice.Do(ctx, conn, bus.KMSDeviceRequest{Device: "cam-1"})
	if err != nil || !bytes.Equal(dev.Public, c.private.Public().(ed25519.PublicKey)) || dev.Revoked {
		t.Errorf("%+v, %v", dev, err)
	}
	_, err = bus.KMSDevice.Do(ctx, conn, bus.KMSDeviceRequest{Device: "cam-9"})
	refused(t, err, bus.CodeNotFound)
	first, err := bus.KMSOpen.Do(ctx, conn, bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), SSRC: 7})
	if err != nil {
		t.Fatal(err)
	}
	_, prekey := c.prekey("cam-1", sid(1))
	if _, err := bus.KMSRelease.Do(ctx, conn, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: first.Epoch, Prekey: prekey}); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.KMSSetState.Do(ctx, conn, bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: first.Epoch, State: bus.KeyDeactivated}); err != nil {
		t.Fatal(err)
	}
	keys, err := bus.KMSKeys.Do(ctx, conn, bus.KMSKeysRequest{Stream: "cam-1"})
	if err != nil || len(keys.Keys) != 2 || keys.Keys[1].State != bus.KeyDeactivated || keys.Keys[1].Activated.IsZero() || keys.Keys[0].State != bus.KeyPreActive {
		t.Errorf("%+v, %v", keys, err)
	}
	media := s.stream("cam-1").session(sid(1)).keys[first.Epoch+1].media
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !media.IsZero() || !s.signer.key.IsZero() || !s.ca.key.IsZero() {
		t.Error("keys are in memory after the end")
	}
	if _, err := bus.KMSInfo.Do(t.Context(), conn, bus.Empty{}); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("after the end: %v", err)
	}
	kinds := ""
	for _, e := range heard.until(t, 8) {
		kinds += string(e.Kind) + ":" + e.Detail["state"] + " "
		if e.Service != "kms" || e.At.IsZero() {
			t.Errorf("event %+v", e)
		}
	}
	want := "service-started: token-issued: device-enrolled: key-state:pre-active key-state:pre-active key-state:active key-state:deactivated service-stopped: "
	if kinds != want {
		t.Errorf("events:\n got %s\nwant %s", kinds, want)
	}
}

// Another instance's revocation reaches this one by the store.
func TestRevocationCrossesInstances(t *testing.T) {
	s := newSite(t, store.NewMemory())
	s.enrolled("cam-1")
	two, err := s.another()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- two.watchDevices(ctx) }()
	if _, err := s.revoke(t.Context(), bus.RevokeRequest{Device: "cam-1"}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if d, err := two.device(ctx, "cam-1"); err == nil && d.Revoked {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the revocation did not arrive")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Whatever bytes are sent, only what the true receivers signed is believed.
func FuzzReceivers(f *testing.F) {
	s := &site{t: f, kek: "file:" + f.TempDir() + "/kek", kv: store.NewMemory(), mem: bus.NewMemory()}
	s.restart()
	c := s.enrolled("cam-1")
	tr := s.newRelay("tr-1")
	dev, err := s.device(f.Context(), "cam-1")
	if err != nil {
		f.Fatal(err)
	}
	own, prekey := c.prekey("cam-1", sid(1))
	f.Add(prekey, tr.word.Key, tr.word.Certificate)
	f.Add(tr.word.Key, prekey, tr.word.Certificate[:100])
	f.Fuzz(func(t *testing.T, pk, key, cert []byte) {
		r, err := s.checkPrekey(dev, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Prekey: pk})
		if err == nil && !bytes.Equal(r.public, own.Public()) {
			t.Error("a prekey that the device did not sign was believed")
		}
		r, err = s.verifyTransport(bus.TransportReceiver{Transport: "tr-1", Key: key, Certificate: cert}, time.Now())
		if err == nil && !bytes.Equal(r.public, tr.key.Public()) {
			t.Error("a receiver key that the transport did not sign was believed")
		}
	})
}

func BenchmarkRelease(b *testing.B) {
	s := &site{t: b, kek: "file:" + b.TempDir() + "/kek", kv: store.NewMemory(), mem: bus.NewMemory()}
	s.restart()
	c := s.enrolled("cam-1")
	private, cert := s.certified(roleTransport, "tr-1")
	hpke, err := keyring.GenerateReceiverKey(keyring.SuiteMLKEM768X25519)
	if err != nil {
		b.Fatal(err)
	}
	word := bus.TransportReceiver{Transport: "tr-1", Certificate: cert, Key: receiverWord(b, private, &gkrp.ReceiverKey{Transport: "tr-1", Suite: gkrp.SuiteMLKEM768X25519, Public: hpke.Public()})}
	epoch := s.mustOpen(c, "cam-1", sid(1), 0)
	for b.Loop() {
		b.StopTimer()
		s.settle()
		key, err := keyring.GenerateReceiverKey(keyring.SuiteMLKEM768X25519)
		if err != nil {
			b.Fatal(err)
		}
		prekey := c.sign(&gkrp.Prekey{Device: "cam-1", Stream: "cam-1", Session: sid(1), Suite: gkrp.SuiteMLKEM768X25519, Public: key.Public()})
		b.StartTimer()
		if _, err := s.release(b.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), Epoch: epoch, Prekey: prekey, Transports: []bus.TransportReceiver{word}}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := s.setState(b.Context(), bus.KMSStateRequest{Stream: "cam-1", Session: sid(1), Epoch: epoch, State: bus.KeyDestroyed}); err != nil {
			b.Fatal(err)
		}
		epoch++
		b.StartTimer()
	}
}

func TestReleaseAfterIsARepetition(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	first := s.mustOpen(c, "cam-1", sid(1), 40)
	var last bus.KMSReleaseReply
	for i, after := range []gk.Epoch{0, 0, first, first, first} {
		_, prekey := c.prekey("cam-1", sid(1))
		rep, err := s.release(t.Context(), bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), After: after, Prekey: prekey})
		if err != nil {
			t.Fatal(err)
		}
		if want := max(first, after+1); rep.Epoch != want {
			t.Errorf("request %d: epoch %d, want %d", i, rep.Epoch, want)
		}
		if rep.Epoch == last.Epoch && string(rep.Confirm) != string(last.Confirm) {
			t.Errorf("request %d: another key for epoch %d", i, rep.Epoch)
		}
		last = rep
	}
}

// A crash between the release of a key and the save of its state must not leave
// the session waiting for a key that it has.
func TestReleaseAfterACrashBeforeTheSave(t *testing.T) {
	s := newSite(t, store.NewMemory())
	c := s.enrolled("cam-1")
	first := s.mustOpen(c, "cam-1", sid(1), 0)
	var after gk.Epoch
	for range 4 {
		_, prekey := c.prekey("cam-1", sid(1))
		req := bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: sid(1), After: after, Prekey: prekey}
		rep, err := s.release(t.Context(), req)
		if err != nil {
			t.Fatalf("after epoch %d: %v", after, err)
		}
		if want := max(first, after+1); rep.Epoch != want {
			t.Fatalf("after epoch %d: epoch %d, want %d", after, rep.Epoch, want)
		}
		after = rep.Epoch
		s.restart()
	}
}
