package demo

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const demoStream gk.StreamID = "demo"

const (
	// settleSlack is waited beyond what the path and the reorder buffer may hold a
	// packet, before the last ones are counted.
	settleSlack = 300 * time.Millisecond
	// patience is how long the device looks for its broker.
	patience = 20 * time.Second
)

// Run runs all services and one device on real sockets in this process, streams
// until the story, the input, the duration or ctx ends, and gives what came of it.
// watch is called about four times a second with the state so far.
//
// The summary tells whether the run passed; the error tells why there is none.
func Run(ctx context.Context, cfg Config, opts app.Options, watch func(State)) (sum Summary, err error) {
	name, place, err := cfg.Attacked()
	if err != nil {
		return sum, err
	}
	if err := cfg.drawn(name); err != nil {
		return sum, err
	}
	dir := cfg.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gaitkeeper-demo-"); err != nil {
			return sum, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	d := &demo{cfg: cfg, opts: opts, dir: dir, meter: newMeter()}
	d.open = func(o device.SourceOptions) (device.Source, error) { return footage{}.open(cfg.Input, o) }
	if name != None {
		k, err := find(name)
		if err != nil {
			return sum, err
		}
		d.story = newStory(d, k, place)
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.startNode(ctx); err != nil {
		return sum, err
	}
	if d.story != nil {
		if err := d.story.prepare(ctx, func() { watch(d.state()) }); err != nil {
			return sum, err
		}
	}
	return d.run(ctx, watch)
}

// demo is the assembly: services, relay, device.
type demo struct {
	cfg   Config
	opts  app.Options
	dir   string
	meter *meter
	story *story // nil without an attacker
	trace *trace // nil unless a picture is wanted
	open  func(device.SourceOptions) (device.Source, error)

	parts  []*part // stopped in reverse: relay, services
	ended  chan error
	node   *app.Node
	target netip.AddrPort
	relay  *media.Impairment
}

// part is something that runs until it is stopped.
type part struct {
	stop context.CancelFunc
	done chan error
}

func (d *demo) start(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{cancel, make(chan error, 1)}
	d.parts = append(d.parts, p)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			select {
			case d.ended <- err:
			default:
			}
		}
		p.done <- err
	}()
}

func (d *demo) stop() (err error) {
	for i := len(d.parts) - 1; i >= 0; i-- {
		d.parts[i].stop()
		err = errors.Join(err, <-d.parts[i].done)
	}
	return err
}

// startNode starts the services, and before them the relay that stands between
// them and the device if the path is to be a bad one or an attacker's.
func (d *demo) startNode(ctx context.Context) error {
	d.ended = make(chan error, 1)
	cfg, err := app.DefaultConfig()
	if err != nil {
		return err
	}
	cfg.Data = d.dir
	cfg.Listen = d.cfg.Listen
	cfg.JoinListen, cfg.MQTTListen, cfg.MediaListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	switch {
	case d.story != nil:
		d.story.relax(&cfg)
	case d.cfg.RotateEvery != 0:
		cfg.RotateEvery = d.cfg.RotateEvery
	default:
		cfg.RotateEvery = defaultRotate
	}
	opts := d.opts
	opts.Untold = true
	opts.Tap = func(_ gk.StreamID, i gk.Index, payload []byte) {
		d.meter.delivered(payload)
		if d.story != nil {
			d.story.account.delivered(i, payload)
		}
	}
	if d.cfg.impaired() || d.story != nil {
		if err := d.openRelay(); err != nil {
			return err
		}
		cfg.MediaListen, opts.MediaAdvertise = d.target.String(), d.relay.Addr().String()
	}
	if d.node, err = app.Start(ctx, cfg, opts); err != nil {
		return err
	}
	d.start(d.node.Run)
	if d.relay != nil {
		d.start(d.relay.Run)
	}
	return nil
}

func (d *demo) openRelay() (err error) {
	if d.target, err = freeUDP(); err != nil {
		return err
	}
	d.relay, err = media.NewImpairment("127.0.0.1:0", d.target, media.ImpairConfig{
		Loss: float64(d.cfg.Loss), Reorder: float64(d.cfg.Reorder), Delay: d.cfg.Delay, Jitter: d.cfg.Jitter, Seed: d.cfg.Seed,
	}, d.meter.dropped)
	if err == nil && d.story != nil {
		d.relay.Intercept(d.story.intercept)
	}
	return err
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
	client, err := app.NewClient(app.ClientConfig{Data: d.dir})
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

func (d *demo) run(ctx context.Context, watch func(State)) (Summary, error) {
	var none Summary
	id, state, err := d.enrol(ctx)
	if state != nil {
		defer state.Close()
	}
	if err != nil {
		return none, err
	}
	if err := d.node.Hear(d.hear); err != nil {
		return none, err
	}
	inner, err := d.open(device.SourceOptions{Log: d.opts.Log})
	if err != nil {
		return none, err
	}
	if d.story != nil {
		if inner, err = d.story.upstream(inner); err != nil {
			return none, err
		}
	}
	ending, end := context.WithCancel(ctx)
	defer end()
	source := &measured{Source: inner, demo: d, ending: ending}

	courier, err := device.Connect(ctx, id, patience, slog.New(slog.DiscardHandler))
	if err != nil {
		return none, errors.Join(err, inner.Close())
	}
	defer courier.Close()
	dev := device.Config{
		Identity: id, State: state, Log: d.opts.Log, Tell: d.told, Software: "gaitkeeper demo",
		Streams: []device.StreamConfig{{ID: demoStream, Source: source, Tap: d.sealed}},
	}
	if d.story != nil {
		d.story.loot.Rob(&dev)
		defer d.story.loot.Wipe()
	}
	agent, err := device.New(dev, courier)
	if err != nil {
		return none, errors.Join(err, inner.Close())
	}
	// The agent outlives ctx: it ends with its source, which drains the path first.
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- agent.Run(sending) }()

	if d.story != nil {
		go func() {
			d.story.play(ending)
			end()
		}()
	}
	if d.cfg.Plot != "" {
		d.trace = &trace{}
		go d.follow(ending)
	}
	redraw := time.NewTicker(time.Second / 4)
	defer redraw.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return none, err
			}
			watch(d.state())
			return d.summary(), nil
		case err := <-d.ended:
			stop()
			return none, errors.Join(errors.New("a part of the system ended by itself"), err, <-done)
		case <-redraw.C:
			watch(d.state())
		}
	}
}

func (d *demo) hear(e gk.Event) {
	d.meter.service(e)
	if d.story != nil {
		d.story.service(e)
	}
}

func (d *demo) told(e gk.Event) {
	d.meter.device(e)
	if d.story != nil {
		d.story.device(e)
	}
}

func (d *demo) sealed(i gk.Index, payload []byte) {
	d.meter.sealed(i, payload)
	if d.story != nil {
		d.story.account.sealed(i, payload)
	}
}

func (d *demo) state() State {
	s := d.meter.state(d.node.APIURL() + "/streams/" + string(demoStream) + ".ts")
	if d.story != nil {
		s.Act, s.News = d.story.told()
	}
	return s
}

func (d *demo) summary() Summary {
	s := d.meter.summary()
	s.Attacks = []Attack{}
	if d.story != nil {
		d.story.conclude(&s)
	}
	if d.trace != nil {
		s.trace = d.trace.taken()
	}
	return s
}

// settle waits until what is on its way has arrived, and then takes the
// transport's counts, which end with the session.
func (d *demo) settle() {
	time.Sleep(d.cfg.Delay + d.cfg.Jitter + d.node.Latency() + settleSlack)
	var undecryptable uint64
	for cause, n := range d.node.Outsiders() {
		if undecryptableCauses[cause] {
			undecryptable += n
		}
	}
	for _, s := range d.node.Streams(time.Now()) {
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

// measured measures what enters the device, and ends it: after the duration or at
// the run's end nothing more is read, and the end of the media is told only when
// everything sent has had time to arrive.
type measured struct {
	device.Source
	demo   *demo
	ending context.Context
	limit  context.CancelFunc
}

// Read implements [device.Source].
func (s *measured) Read(ctx context.Context, b *device.Batch) error {
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
	if s.demo.story != nil {
		s.demo.story.entered(b)
	}
	return nil
}

// Close implements [device.Source].
func (s *measured) Close() error {
	if s.limit != nil {
		s.limit()
	}
	return s.Source.Close()
}
