package sim

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// Options choose a run.
type Options struct {
	Seed   uint64
	Active time.Duration // how long faults and adversaries act; default 40 s of virtual time
	Real   bool          // HPKE and Ed25519 in place of keyed hashes
	Calm   bool          // no faults and no adversaries
	Dir    string        // where the key-encryption key lies
	Trace  io.Writer     // takes every step; nil: none are written
	Break  string        // deliberate fault, see [Breakages]
}

// Result is what came of a run.
type Result struct {
	Seed       uint64
	Rotations  uint64 // confirmed by the device
	ByReason   map[gk.Reason]uint64
	Sessions   uint64 // begun
	Packets    uint64 // of the sources, that were sent
	Delivered  uint64
	Crashes    uint64
	Events     uint64 // of the simulation
	Virtual    time.Duration
	Digest     uint64 // the same for the same seed and options
	Violations []Violation
}

// weather is how bad the networks and the store are.
type weather struct {
	bus, mqtt, media path
	disk             struct {
		slow, fail float64
		delay      time.Duration
	}
}

var calm = weather{
	bus:   path{near: 200 * time.Microsecond, far: time.Millisecond},
	mqtt:  path{near: time.Millisecond, far: 5 * time.Millisecond},
	media: path{near: 2 * time.Millisecond, far: 6 * time.Millisecond},
}

// world is one run.
type world struct {
	*engine
	opt      Options
	suite    suite
	random   io.Reader // of what may not differ from run to run
	disk     *disk
	bus      *busNet
	broker   *broker
	check    *checker
	weather  weather
	quiet    bool
	isolated map[string]time.Duration // from the bus, until
	away     map[string]time.Duration // from the broker, until
	stranded map[string]time.Duration // from the store, until
	withhold []rule
	log      *slog.Logger
	digest   uint64

	kms        *kmsRole
	transports []*transportRole
	processing *processingRole
	audit      *auditRole
	encoders   []*encoder
	clones     []*encoder
	guests     []*process                    // who has no business here
	cutOff     map[gk.DeviceID]time.Duration // devices whose packets a thief takes off the path, until
	tapes      []capture                     // what an outsider recorded
	liars      map[gk.DeviceID]time.Duration // devices that lie about their source, until
	crashes    uint64
	config     streamConfig
	lastFault  time.Duration
}

// streamConfig is what the seed chose for all streams.
type streamConfig struct {
	every   time.Duration
	packets uint64
	pace    time.Duration // between two packets
	lease   time.Duration // of keys at transports
	turns   bool          // processing services serve in turn, by a lease in the store
}

// start is what the clocks show when a run begins.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type seeded struct{ r *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

func newWorld(o Options) *world {
	if o.Active == 0 {
		o.Active = 40 * time.Second
	}
	e := &engine{rng: rand.New(rand.NewPCG(o.Seed, 0x6761_6974))}
	w := &world{
		engine: e, opt: o, weather: calm, log: slog.New(slog.DiscardHandler),
		isolated: map[string]time.Duration{}, stranded: map[string]time.Duration{}, away: map[string]time.Duration{}, cutOff: map[gk.DeviceID]time.Duration{}, liars: map[gk.DeviceID]time.Duration{},
		random: seeded{rand.New(rand.NewPCG(o.Seed, 0x6b65_6570))},
	}
	if o.Trace != nil {
		w.log = slog.New(slog.NewTextHandler(logged{w}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	w.suite = cheapSuite(w.random)
	if o.Real {
		w.suite = realSuite()
	}
	w.check = newChecker(w)
	w.disk = &disk{world: w}
	w.disk.entries = map[string]entry{}
	w.bus = &busNet{world: w}
	w.broker = &broker{world: w}
	e.settled = w.bus.settle
	w.config = streamConfig{
		every: w.between(100*time.Millisecond, 400*time.Millisecond),
		pace:  w.between(20*time.Millisecond, 60*time.Millisecond),
		lease: w.between(9*time.Second, 30*time.Second),
	}
	w.config.turns = w.chance(0.4) && !o.Calm || w.broken(breakTurn) || w.broken(breakTerm)
	if w.chance(0.3) {
		w.config.packets = uint64(10 + w.rng.IntN(60))
	}
	return w
}

// kem is a role's key agreement.
func (w *world) kem(role string) keyring.KEM { return &watchedKEM{w.suite.kem, w, role} }

// process begins a run of a role. No two clocks of the system agree.
func (w *world) newProcess(name string) *process {
	wall := start.Add(w.engine.now)
	drift := 0.0
	if !w.opt.Calm {
		wall = wall.Add(time.Duration(w.rng.NormFloat64() * float64(48*time.Hour)))
		drift = w.rng.NormFloat64() * 200e-6
	}
	return w.engine.process(name, wall, drift)
}

// cut reports whether two processes cannot reach each other over the bus.
func (w *world) cut(a, b *process) bool {
	return a != b && (w.isolated[a.name] > w.engine.now || w.isolated[b.name] > w.engine.now)
}

// offline reports whether a process cannot reach the broker.
func (w *world) offline(p *process) bool { return w.away[p.name] > w.engine.now }

// fault notes that something is, or was just now, out of order.
func (w *world) fault(lasts time.Duration) {
	w.lastFault = max(w.lastFault, w.engine.now+lasts)
}

// troubled reports whether something was out of order within the last d.
func (w *world) troubled(d time.Duration) bool {
	return w.lastFault > 0 && w.engine.now < w.lastFault+d
}

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		fmt.Fprintf(w.opt.Trace, "%12.6f  %s\n", w.engine.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// logged puts what services log among the steps.
type logged struct{ w *world }

func (l logged) Write(b []byte) (int, error) {
	l.w.trace("log: %s", bytes.TrimSpace(b))
	return len(b), nil
}

// mix adds to the run's digest.
func (w *world) mix(v uint64) {
	w.digest = (w.digest ^ v) * 0x100000001b3
}

// fuse crashes a process at one of the things that it is about to do.
type fuse struct{ left int }

func (f *fuse) burns() bool {
	if f.left == 0 {
		return false
	}
	f.left--
	return f.left == 0
}

// Run runs a seed to its end, or to its first violation.
func Run(o Options) Result {
	w := newWorld(o)
	defer w.stop()
	w.setUp()
	stop := func() bool { return len(w.check.violations) > 0 }
	if !o.Calm {
		w.after(2*time.Second, w.misfortune)
		w.provoke()
	}
	w.run(o.active(), stop)
	w.heal()
	w.run(w.engine.now+settleFor, stop)
	w.check.beginWatch()
	w.run(w.engine.now+watchFor, stop)
	if !stop() {
		w.check.endWatch()
	}
	return w.result()
}

func (o Options) active() time.Duration {
	if o.Active == 0 {
		return 40 * time.Second
	}
	return o.Active
}

const (
	// settleFor is how long after the last fault every stream must be alive again,
	// and watchFor how long it is then watched rotating.
	settleFor = 30 * time.Second
	watchFor  = 6 * time.Second
)

func (w *world) result() Result {
	r := Result{
		Seed: w.opt.Seed, Rotations: w.check.rotations, ByReason: w.check.byReason, Sessions: w.check.sessionCount,
		Packets: w.check.packets, Delivered: w.check.delivered, Crashes: w.crashes, Events: w.fired,
		Virtual: w.engine.now, Violations: w.check.violations,
	}
	w.mix(r.Rotations)
	w.mix(r.Packets)
	w.mix(r.Delivered)
	w.mix(r.Events)
	r.Digest = w.digest
	return r
}

// stop ends every coroutine, so that nothing of the run is left.
func (w *world) stop() {
	for _, p := range w.everybody() {
		p.kill()
	}
	for _, c := range w.idle {
		c.stop()
	}
}

func (w *world) everybody() []*process {
	var all []*process
	all = append(all, w.kms.p, w.processing.p, w.audit.p)
	for _, o := range w.processing.others {
		all = append(all, o.p)
	}
	for _, t := range w.transports {
		all = append(all, t.p)
	}
	for _, e := range w.encoders {
		all = append(all, e.p)
	}
	for _, e := range w.clones {
		all = append(all, e.p)
	}
	all = append(all, w.guests...)
	return slices.DeleteFunc(all, func(p *process) bool { return p == nil })
}

// setUp enrols everybody and starts every role, in fine weather.
func (w *world) setUp() {
	w.kms = &kmsRole{world: w}
	w.kms.start()
	w.run(50*time.Millisecond, func() bool { return w.kms.svc != nil })
	streams := 1 + w.rng.IntN(4)
	transports := 1 + w.rng.IntN(2)
	w.processing, w.audit = &processingRole{world: w}, &auditRole{world: w}
	for i := range transports {
		w.transports = append(w.transports, &transportRole{world: w, id: gk.TransportID(fmt.Sprintf("t%d", i+1))})
	}
	for i := range streams {
		w.encoders = append(w.encoders, &encoder{world: w, id: gk.DeviceID(fmt.Sprintf("cam-%d", i+1)), number: byte(i)})
	}
	enrolled := false
	office := w.newProcess("office")
	office.start(func() {
		w.enrolAll(office)
		enrolled = true
	})
	w.run(w.engine.now+time.Second, func() bool { return enrolled })
	if !enrolled {
		panic("sim: enrolment did not end")
	}
	w.audit.start()
	for _, t := range w.transports {
		t.start()
	}
	w.processing.add()
	if w.config.turns {
		w.processing.add()
	}
	for _, e := range w.encoders {
		w.after(w.between(50*time.Millisecond, 500*time.Millisecond), e.start)
	}
}

func clientPayload() gkrp.Payload {
	return gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: 33, ClockRate: 90_000, Encoding: "MP2T"}
}
