package app

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// fleetVariable names the file of identities in the process that is the devices of
// [BenchmarkFleet]: what they take is theirs, and not the service's.
const fleetVariable = "GAITKEEPER_FLEET"

func TestMain(m *testing.M) {
	if path := os.Getenv(fleetVariable); path != "" {
		if err := runFleet(path); err != nil {
			fmt.Fprintln(os.Stderr, "fleet:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// enlisted is an enrolled device as its process is told of it.
type enlisted struct {
	Device    gk.DeviceID
	Key       ed25519.PrivateKey
	Cert, CA  []byte
	KMSPublic ed25519.PublicKey
	Broker    string
}

// The devices of a fleet begin fleetPace apart, and say in their reports that they
// send fleetRate packets a second, which is 2 Mb/s.
const (
	fleetPace = 50 * time.Millisecond
	fleetRate = 190
)

// runFleet is the devices, one after the other, until standard input ends: every one
// connected for itself, with the real protocol, keys and cryptography, and no media.
func runFleet(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var all []enlisted
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	failed := make(chan error, len(all))
	for _, e := range all {
		d := &fleetDevice{enlisted: e, inbox: make(chan gkrp.Heard, 64)}
		go func() { failed <- d.run(ctx) }()
		select {
		case <-ctx.Done():
		case <-time.After(fleetPace):
		}
	}
	for range all {
		if err := <-failed; err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// fleetDevice is a device without a source.
type fleetDevice struct {
	enlisted
	courier  bus.Courier
	signer   gkrp.Signer
	kms      gkrp.Verifier
	inbox    chan gkrp.Heard
	d        *gkrp.Device
	session  gk.SessionID
	ssrc     uint32
	prekeys  map[string]keyring.Receiver
	high     gk.Epoch
	began    time.Time
	reported gk.Index
}

func (d *fleetDevice) scope() gkrp.Scope {
	return gkrp.Scope{Device: d.Device, Stream: gk.StreamID(d.Device)}
}

func (d *fleetDevice) run(ctx context.Context) (err error) {
	if d.signer, err = gkrp.NewSigner(d.Key); err != nil {
		return err
	}
	if d.kms, err = gkrp.NewVerifier(d.KMSPublic); err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(d.CA)
	if err != nil {
		return err
	}
	for d.courier == nil {
		d.courier, err = bus.DialMQTT(ctx, bus.MQTTConfig{
			Address: d.Broker, ServerName: "localhost", ClientID: string(d.Device), CA: bus.Pool([]*x509.Certificate{ca}),
			Certificate: tls.Certificate{Certificate: [][]byte{d.Cert}, PrivateKey: d.Key},
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			time.Sleep(time.Second)
		}
	}
	defer d.courier.Close()
	s := d.scope()
	if err := d.courier.Listen(gkrp.Topic(s.Device, s.Stream, gkrp.Down), d.receive); err != nil {
		return err
	}
	if err := d.begin(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if at := d.d.Deadline(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		var in gkrp.Input = gkrp.Tick{}
		select {
		case <-ctx.Done():
			return nil
		case in = <-d.inbox:
		case <-timer.C:
		}
		if err := d.step(in); err != nil {
			return fmt.Errorf("device %s: %w", d.Device, err)
		}
	}
}

func (d *fleetDevice) begin() (err error) {
	if d.session, err = gk.NewSessionID(nil); err != nil {
		return err
	}
	d.prekeys, d.began, d.reported = map[string]keyring.Receiver{}, time.Time{}, 1
	h := gkrp.Hello{
		Device: d.Device, Stream: d.scope().Stream, Session: d.session, Versions: []gkrp.Version{gkrp.CurrentVersion}, Suites: []gkrp.Suite{gkrp.SuiteMLKEM768X25519},
		Payload: gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90000, Encoding: "MP2T"}, HighWater: d.high,
	}
	if h.Prekeys, err = d.offer(4); err != nil {
		return err
	}
	var effects []gkrp.Effect
	d.d, effects = gkrp.NewDevice(time.Now(), h, 200*time.Millisecond, 2*time.Second)
	return d.do(effects)
}

// offer makes prekeys, as many as wanted.
func (d *fleetDevice) offer(n int) (signed [][]byte, err error) {
	for range n {
		r, err := keyring.HPKE{}.Generate(uint16(gkrp.SuiteMLKEM768X25519))
		if err != nil {
			return nil, err
		}
		p, err := gkrp.SignPrekey(d.signer, []byte(d.Device), &gkrp.Prekey{
			Device: d.Device, Stream: d.scope().Stream, Session: d.session, Suite: gkrp.SuiteMLKEM768X25519, Public: r.Public(),
		})
		if err != nil {
			return nil, err
		}
		id := r.ID()
		d.prekeys[string(id[:])], signed = r, append(signed, p)
	}
	return signed, nil
}

// receive takes what the service says.
func (d *fleetDevice) receive(_ string, wire []byte) {
	r, err := gkrp.Parse(wire, gkrp.Down)
	if err != nil {
		return
	}
	_, verifier, err := gkrp.OpenController(d.kms, r.Controller)
	if err != nil {
		return
	}
	if m, err := r.Verify(verifier, d.scope()); err == nil {
		d.inbox <- gkrp.Heard{Message: m, Payload: append([]byte(nil), r.Payload...)}
	}
}

func (d *fleetDevice) step(in gkrp.Input) error { return d.do(d.d.Step(time.Now(), in)) }

// index is the next that the device would send.
func (d *fleetDevice) index() gk.Index {
	return 1 + gk.Index(time.Since(d.began).Seconds()*fleetRate)
}

func (d *fleetDevice) do(effects []gkrp.Effect) error {
	for _, fx := range effects {
		var err error
		switch fx := fx.(type) {
		case gkrp.Send:
			var wire []byte
			if wire, err = gkrp.Sign(d.signer, []byte(d.Device), nil, d.scope(), fx.Message); err == nil {
				_ = d.courier.Send(gkrp.Topic(d.Device, d.scope().Stream, gkrp.Up), wire) // what is lost is said again
			}
		case gkrp.Start:
			d.ssrc = fx.SSRC
		case gkrp.Install:
			err = d.install(fx)
		case gkrp.WantReport:
			err = d.step(gkrp.Sent{Report: d.report()})
		case gkrp.WantPrekeys:
			var keys [][]byte
			if keys, err = d.offer(4); err == nil {
				err = d.do([]gkrp.Effect{gkrp.Send{Message: &gkrp.Refill{Stream: d.scope().Stream, Session: d.session, Prekeys: keys}}})
			}
		case gkrp.Over:
			if fx.Code.Final() {
				return fmt.Errorf("session ended: %v", fx.Code)
			}
			err = d.begin()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// install opens a key as a device does, and confirms it.
func (d *fleetDevice) install(fx gkrp.Install) error {
	e, err := gkrp.OpenKeyEnvelope(d.kms, fx.Envelope)
	if err != nil {
		return err
	}
	prekey := d.prekeys[string(e.KeyID)]
	if prekey == nil || e.SSRC != d.ssrc {
		return errors.New("an envelope of somebody else")
	}
	m, err := prekey.OpenMediaKey(e.Info(), e.Sealed)
	if err != nil {
		return err
	}
	defer m.Wipe()
	delete(d.prekeys, string(e.KeyID))
	fresh, err := d.offer(1)
	if err != nil {
		return err
	}
	d.high = fx.Epoch
	if d.began.IsZero() {
		d.began = time.Now()
	}
	c := m.Confirm(d.scope().Stream, d.session, fx.Epoch, "device/"+string(d.Device))
	return d.step(gkrp.Installed{Epoch: fx.Epoch, Confirm: c[:], First: d.index(), Prekeys: fresh})
}

// report is what a device at 2 Mb/s says every second.
func (d *fleetDevice) report() gkrp.Report {
	to := d.index()
	const most = 20 * fleetRate // what is older is not listed
	r := gkrp.Report{From: max(d.reported, to-min(most, to-1)), To: to, Packets: uint64(to), Bytes: uint64(to) * 1316}
	n := uint64(r.To - r.From)
	r.Tags = make([]byte, gkrp.TagPrefix*n)
	for i := range r.Tags {
		r.Tags[i] = byte(mrand.Uint32())
	}
	r.Ingress = &gkrp.Ingress{SpanMs: 1000, Packets: n, Bytes: n * 1316, GapMs: 8, Frames: 25, Marks: []byte("marks of this one")[:16]}
	d.reported = to
	return r
}
