package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// DemoConfig is what `gaitkeeper demo` can be told. Its tags are read by kong.
type DemoConfig struct {
	Duration    time.Duration `placeholder:"TIME" help:"How long to send. Default: the whole input once."`
	RotateEvery time.Duration `default:"5s" placeholder:"TIME" help:"Age at which the key is changed."`
	Input       string        `placeholder:"FILE.ts" help:"MPEG-TS to send at its own pace, or any source that gaitkeeper device takes. Default: a clip of 160 s that the program carries."`
	Listen      string        `default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address that serves the decrypted stream."`
	Data        string        `type:"path" placeholder:"DIR" help:"Directory to keep the run's data in. Default: a temporary one, removed at the end."`

	Loss    Percent       `group:"path" default:"0%" placeholder:"SHARE" help:"Share of packets that the media path drops, for example 2%."`
	Delay   time.Duration `group:"path" placeholder:"TIME" help:"How long the media path delays packets."`
	Jitter  time.Duration `group:"path" placeholder:"TIME" help:"How far the delay of each packet varies to either side."`
	Reorder Percent       `group:"path" default:"0%" placeholder:"SHARE" help:"Share of packets that the media path holds back, so that later ones overtake them."`
	Seed    uint64        `group:"path" default:"1" placeholder:"N" help:"Seed of the media path's dice: equal seeds treat the same packets alike."`
}

// impaired reports whether the media path does anything to packets.
func (c DemoConfig) impaired() bool {
	return c.Loss > 0 || c.Delay > 0 || c.Jitter > 0 || c.Reorder > 0
}

func (c DemoConfig) check() error {
	if c.Duration < 0 {
		return fmt.Errorf("duration: %v is negative", c.Duration)
	}
	return nil
}

const demoStream gk.StreamID = "demo"

// demoSettleSlack is waited beyond what the path and the reorder buffer may hold
// a packet, before the last ones are counted.
const demoSettleSlack = 300 * time.Millisecond

// RunDemo runs all services and one device on real sockets in this process,
// streams until the input or the duration ends or ctx does, and gives what came
// of it. watch is called about four times a second with the state so far.
//
// The summary tells whether the run passed; the error tells why there is none.
func RunDemo(ctx context.Context, cfg DemoConfig, opts Options, watch func(DemoState)) (sum DemoSummary, err error) {
	if err := cfg.check(); err != nil {
		return sum, err
	}
	dir := cfg.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gaitkeeper-demo-"); err != nil {
			return sum, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	d := &demo{cfg: cfg, opts: opts, dir: dir, meter: newDemoMeter(), parts: newStages()}
	defer func() { err = errors.Join(err, d.parts.stop()) }()
	if err := d.startNode(ctx); err != nil {
		return sum, err
	}
	return d.run(ctx, watch)
}

type demo struct {
	cfg   DemoConfig
	opts  Options
	dir   string
	meter *demoMeter
	parts *stages // stopped in reverse: device, relay, services
	node  *Node
	relay *media.Impairment
}

// startNode starts the services, and before them the relay that stands between
// them and the device if the path is to be a bad one.
func (d *demo) startNode(ctx context.Context) error {
	cfg, err := DefaultConfig()
	if err != nil {
		return err
	}
	cfg.Data = d.dir
	cfg.Listen = d.cfg.Listen
	cfg.JoinListen, cfg.MQTTListen, cfg.MediaListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.RotateEvery = d.cfg.RotateEvery
	opts := d.opts
	opts.Tap = func(_ gk.StreamID, _ gk.Index, payload []byte) { d.meter.delivered(payload) }
	if d.cfg.impaired() {
		target, err := freeUDP()
		if err != nil {
			return err
		}
		d.relay, err = media.NewImpairment("127.0.0.1:0", target, media.ImpairConfig{
			Loss: float64(d.cfg.Loss), Reorder: float64(d.cfg.Reorder), Delay: d.cfg.Delay, Jitter: d.cfg.Jitter, Seed: d.cfg.Seed,
		}, d.meter.dropped)
		if err != nil {
			return err
		}
		cfg.MediaListen, opts.MediaAdvertise = target.String(), d.relay.Addr().String()
	}
	if d.node, err = Start(ctx, cfg, opts); err != nil {
		return err
	}
	d.parts.start("services", d.node.Run)
	if d.relay != nil {
		d.parts.start("media path", d.relay.Run)
	}
	return nil
}

// freeUDP finds a port for the transport, which the relay has to know before.
func freeUDP() (netip.AddrPort, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return netip.AddrPort{}, err
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), c.Close()
}

// enrol makes the device what an operator and a device make it: token, join.
func (d *demo) enrol(ctx context.Context) (device.Identity, *device.State, error) {
	var none device.Identity
	client, err := NewClient(ClientConfig{Data: d.dir})
	if err != nil {
		return none, nil, err
	}
	var answer struct{ Token string }
	if err := client.Do(ctx, "POST", "/v1/enroll", map[string]string{"device": string(demoStream)}, &answer); err != nil {
		return none, nil, err
	}
	state, err := device.OpenState(filepath.Join(d.dir, "device"))
	if err != nil {
		return none, nil, err
	}
	id, err := device.Join(ctx, answer.Token, state)
	return id, state, err
}

func (d *demo) openSource() (device.Source, error) {
	o := device.SourceOptions{Log: d.opts.Log}
	if d.cfg.Input == "" {
		o.Stdin = clip.Open()
		return device.OpenSource("-", o)
	}
	return device.OpenSource(d.cfg.Input, o)
}

func (d *demo) run(ctx context.Context, watch func(DemoState)) (DemoSummary, error) {
	var none DemoSummary
	id, state, err := d.enrol(ctx)
	if state != nil {
		defer state.Close()
	}
	if err != nil {
		return none, err
	}
	if err := d.node.hear(d.meter.service); err != nil {
		return none, err
	}
	inner, err := d.openSource()
	if err != nil {
		return none, err
	}
	ending, end := context.WithCancel(ctx)
	defer end()
	source := &demoSource{Source: inner, demo: d, ending: ending}

	courier, err := device.Connect(ctx, id, startTimeout, slog.New(slog.DiscardHandler))
	if err != nil {
		return none, errors.Join(err, inner.Close())
	}
	defer courier.Close()
	agent, err := device.New(device.Config{
		Identity: id, State: state, Log: d.opts.Log, Tell: d.meter.device, Software: "gaitkeeper demo",
		Streams: []device.StreamConfig{{ID: demoStream, Source: source, Tap: d.meter.sealed}},
	}, courier)
	if err != nil {
		return none, errors.Join(err, inner.Close())
	}
	// The agent outlives ctx: it ends with its source, which drains the path first.
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- agent.Run(sending) }()

	redraw := time.NewTicker(time.Second / 4)
	defer redraw.Stop()
	failed := make(chan error, 1)
	go func() { failed <- d.parts.wait(ending) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				return none, err
			}
			return d.meter.summary(), nil
		case err := <-failed:
			if err != nil {
				stop()
				return none, errors.Join(err, <-done)
			}
		case <-redraw.C:
			watch(d.meter.state(d.node.APIURL() + "/streams/" + string(demoStream) + ".ts"))
		}
	}
}

// settle waits until what is on its way has arrived, and then takes the
// transport's counts, which end with the session.
func (d *demo) settle() {
	time.Sleep(d.cfg.Delay + d.cfg.Jitter + d.node.cfg.Latency + demoSettleSlack)
	var undecryptable uint64
	for cause, n := range d.node.media.Outsiders() {
		if undecryptableCauses[cause] {
			undecryptable += n
		}
	}
	for _, s := range d.node.media.Status(time.Now()) {
		for cause, n := range s.Dropped {
			if undecryptableCauses[cause] {
				undecryptable += n
			}
		}
	}
	d.meter.undecryptable(undecryptable)
}

// undecryptableCauses are the transport's words for packets that arrived and
// could not be opened.
var undecryptableCauses = map[string]bool{
	"bad-length": true, "bad-version": true, "unknown-ssrc": true, "unknown-epoch": true,
	"stale-epoch": true, "auth-failed": true, "stale-unproven": true,
}

// demoSource measures what enters the device, and ends it: after the duration
// or at the run's end nothing more is read, and the end of the media is told
// only when everything sent has had time to arrive.
type demoSource struct {
	device.Source
	demo   *demo
	ending context.Context
	limit  context.CancelFunc
}

// Read implements [device.Source].
func (s *demoSource) Read(ctx context.Context, b *device.Batch) error {
	if s.limit == nil {
		if s.demo.cfg.Duration > 0 {
			s.ending, s.limit = context.WithTimeout(s.ending, s.demo.cfg.Duration)
		} else {
			s.ending, s.limit = context.WithCancel(s.ending)
		}
		s.demo.meter.begin(time.Now())
	}
	err := s.Source.Read(s.ending, b)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.ending.Err() != nil, errors.Is(err, io.EOF):
		s.demo.settle()
		return io.EOF
	case err != nil:
		return err
	}
	for _, u := range b.Units {
		s.demo.meter.entered(u.Payload)
	}
	return nil
}

// Close implements [device.Source].
func (s *demoSource) Close() error {
	if s.limit != nil {
		s.limit()
	}
	return s.Source.Close()
}

// hear calls handle with every event of the running services.
func (n *Node) hear(handle func(gk.Event)) error {
	nc, err := n.connect(bus.RoleAudit)
	if err != nil {
		return err
	}
	n.stages.closer("event listener", func() error { nc.Close(); return nil })
	if _, err := bus.Events.Hear(bus.NewNATS(nc), handle); err != nil {
		return err
	}
	return nc.Flush()
}
