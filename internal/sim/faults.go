package sim

import (
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// misfortune brings one thing after another about, as the seed has it, until the
// quiet begins.
func (w *world) misfortune() {
	if w.quiet {
		return
	}
	w.strike()
	w.after(w.between(200*time.Millisecond, 1500*time.Millisecond), w.misfortune)
}

func (w *world) strike() {
	switch n := w.rng.IntN(100); {
	case n < 18:
		w.changeWeather()
	case n < 26:
		e := w.encoders[w.rng.IntN(len(w.encoders))]
		w.crash(e.p, e.start)
	case n < 33:
		t := w.transports[w.rng.IntN(len(w.transports))]
		w.crash(t.p, t.start)
	case n < 40:
		w.crash(w.kms.p, w.kms.start)
	case n < 47:
		i := w.processing.instance
		if w.config.turns {
			i = w.processing.any()
		}
		w.crash(i.p, i.start)
	case n < 50:
		w.stall()
	case n < 56:
		w.isolate()
	case n < 68:
		w.operator()
	case n < 74:
		e := w.encoders[w.rng.IntN(len(w.encoders))]
		if !e.p.dead && e.ended == "" {
			e.media("the encoder restarted")
		}
	case n < 76:
		w.crash(w.audit.p, func() { w.audit.lose(); w.audit.start() })
	default:
		w.adversary()
	}
}

// changeWeather draws how bad the networks and the store are for a while.
func (w *world) changeWeather() {
	x := calm
	foul := func(p path, reach time.Duration) path {
		switch w.rng.IntN(4) {
		case 0:
			return p
		case 1:
			p.loss = w.rng.Float64() * 0.1
		case 2:
			p.loss, p.twice = w.rng.Float64()*0.3, w.rng.Float64()*0.3
			p.far += w.between(0, 50*time.Millisecond)
		case 3:
			p.late, p.later = w.rng.Float64()*0.3, w.between(50*time.Millisecond, reach)
			p.twice = w.rng.Float64() * 0.2
		}
		return p
	}
	x.bus, x.mqtt, x.media = foul(x.bus, 3*time.Second), foul(x.mqtt, 8*time.Second), foul(x.media, 400*time.Millisecond)
	if w.chance(0.4) {
		x.disk.slow, x.disk.delay = w.rng.Float64(), w.between(time.Millisecond, 100*time.Millisecond)
	}
	if w.chance(0.2) {
		x.disk.fail = w.rng.Float64() * 0.2
	}
	w.trace("weather %+v", x)
	w.weather = x
	w.fault(10 * time.Second)
	if w.chance(0.5) {
		w.after(w.between(500*time.Millisecond, 4*time.Second), func() {
			if !w.quiet {
				w.weather = calm
			}
		})
	}
}

// crash stops a role now, or at one of the next things that it does, and starts
// it again.
func (w *world) crash(p *process, start func()) {
	if p == nil || p.dead || p.doomed {
		return
	}
	p.doomed = true
	w.fault(3 * time.Second)
	revive := func() {
		w.crashes++
		if !p.inherit() {
			return
		}
		w.after(w.between(10*time.Millisecond, 3*time.Second), func() {
			w.trace("%s starts again", p.name)
			start()
		})
	}
	if w.chance(0.6) {
		w.trace("%s crashes", p.name)
		p.kill()
		revive()
		return
	}
	p.fuse.left = 1 + w.rng.IntN(12)
	w.every(time.Millisecond, 20*time.Millisecond, func() bool {
		if p.dead {
			revive()
			return false
		}
		p.doomed = p.fuse.left > 0
		return p.doomed
	})
}

func (w *world) stall() {
	d := w.between(time.Second, 10*time.Second)
	if w.chance(0.5) {
		d = 10 * time.Second
	}
	w.trace("the store stalls for %v", d)
	w.disk.stalled = w.engine.now + d
	w.fault(d)
}

// isolate cuts a role off the bus, or off the broker.
func (w *world) isolate() {
	d := w.between(100*time.Millisecond, 8*time.Second)
	all := slices.DeleteFunc(w.everybody(), func(p *process) bool { return p.dead })
	p := all[w.rng.IntN(len(all))]
	w.fault(d)
	if w.chance(0.5) {
		w.trace("%s is cut off the bus for %v", p.name, d)
		w.isolated[p.name] = w.engine.now + d
		if w.config.turns { // where there are several of a role, the store is reached over the bus
			w.stranded[p.name] = w.engine.now + d
		}
		return
	}
	w.trace("%s is cut off the broker for %v", p.name, d)
	w.away[p.name] = w.engine.now + d
}

// operator asks for rotations, often for several at a time.
func (w *world) operator() {
	if w.processing.svc == nil || w.processing.serving.dead {
		return
	}
	e := w.encoders[w.rng.IntN(len(w.encoders))]
	reason := gk.ReasonOperator
	if w.chance(0.2) {
		reason = gk.ReasonSource
	}
	for range 1 + w.rng.IntN(3) {
		w.trace("order: rotate %s for %s", e.stream(), reason)
		if reason == gk.ReasonSource {
			w.check.sources[e.stream()]++
		}
		w.processing.svc.Order(e.stream(), reason)
	}
}

// heal ends all faults and adversaries.
func (w *world) heal() {
	w.quiet = true
	w.trace("quiet begins")
	w.weather = calm
	clear(w.isolated)
	clear(w.away)
	clear(w.stranded)
	w.withhold = nil
	w.bus.denied = nil
	clear(w.liars)
	w.disk.stalled = 0
	for _, p := range w.everybody() {
		p.fuse.left = 0
	}
	w.adversariesLeave()
}

// rule is something that the broker keeps to itself.
type rule struct {
	until     time.Duration
	direction gkrp.Direction
	kind      gkrp.Type // empty: every message
	stream    gk.StreamID
}

// withheld reports whether the broker keeps a message.
func (w *world) withheld(l letter) bool {
	if w.broken(breakReturn) && w.engine.now > breakAfter {
		w.withhold = []rule{{w.engine.now + 1, gkrp.Up, gkrp.TypeAck, w.encoders[0].stream()}}
	}
	for _, r := range w.withhold {
		if r.until <= w.engine.now {
			continue
		}
		_, stream, direction, err := gkrp.ParseTopic(l.topic)
		if err != nil || direction != r.direction || r.stream != "" && r.stream != stream {
			continue
		}
		if r.kind == "" {
			return true
		}
		if m, err := gkrp.Parse(l.payload, direction); err == nil && m.Type == r.kind {
			return true
		}
	}
	return false
}
