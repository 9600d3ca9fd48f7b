// Package sim runs device, transport, processing, key management and bus of one
// to many streams in one goroutine on virtual time, breaks everything that can
// break in the order that a seed gives, and checks after every event that what
// must hold does hold. The services are the real ones: they meet the simulation
// where they meet the machine ([host.Host]), the bus, the store and the network.
//
// A run is a function of its seed and options alone, so a failure can be looked
// at again as often as wanted.
package sim

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/host"
)

// engine is the event queue. Time moves from one event to the next. What has to
// wait in the middle of a call does so in a coroutine, of which one runs at a
// time and only where the engine resumes it.
type engine struct {
	now     time.Duration // since the run began
	queue   events
	serial  uint64
	rng     *rand.Rand
	cur     *coroutine
	idle    []*coroutine
	fired   uint64
	settled func() // called after every event
}

type event struct {
	at     time.Duration
	serial uint64 // events of one moment keep their order
	do     func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1].do = nil
	*q = old[:len(old)-1]
	return e
}

// after has do run when d has passed.
func (e *engine) after(d time.Duration, do func()) {
	e.serial++
	heap.Push(&e.queue, event{e.now + max(d, 0), e.serial, do})
}

// every has do run again and again until it is false.
func (e *engine) every(first, d time.Duration, do func() bool) {
	e.after(first, func() {
		if do() {
			e.every(d, d, do)
		}
	})
}

// run works through the queue until the time is up or stop says so.
func (e *engine) run(until time.Duration, stop func() bool) {
	for len(e.queue) > 0 && e.queue[0].at <= until && !stop() {
		ev := heap.Pop(&e.queue).(event)
		e.now = ev.at
		e.fired++
		ev.do()
		e.settled()
	}
	e.now = max(e.now, until)
}

// chance is true with probability p.
func (e *engine) chance(p float64) bool { return p > 0 && e.rng.Float64() < p }

// between draws a duration.
func (e *engine) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(e.rng.Int64N(int64(hi-lo)))
}

// coroutine runs one job after another, because a stack that has grown once is
// worth keeping.
type coroutine struct {
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	job    func() // nil while it has none
}

// coroutine gives one that has nothing to do.
func (e *engine) coroutine() *coroutine {
	if n := len(e.idle); n > 0 {
		c := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return c
	}
	c := &coroutine{}
	c.resume, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		for {
			c.job()
			c.job = nil
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return c
}

// process is one run of a role, from its start to its crash. It is the host of
// the role's service.
type process struct {
	*engine
	name   string
	dead   bool
	began  time.Duration
	wall   time.Time // what its clock showed when it began
	drift  float64   // how much faster than time its clock goes
	live   []*coroutine
	fuse   fuse
	doomed bool // it is going to crash
	heir   bool // somebody sees to it that it is started again
}

// inherit makes the caller the one who starts a process again: a supervisor starts
// one for one.
func (p *process) inherit() bool {
	if p.heir {
		return false
	}
	p.heir = true
	return true
}

var errCrashed = errors.New("sim: the process crashed")

func (e *engine) process(name string, wall time.Time, drift float64) *process {
	return &process{engine: e, name: name, began: e.now, wall: wall, drift: drift}
}

// Now implements [host.Host].
func (p *process) Now() time.Time { return p.wall.Add(p.own(p.engine.now - p.began)) }

// own is how long the process takes d to be.
func (p *process) own(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)*p.drift)
}

// real is the time that passes while the process's clock shows d to pass.
func (p *process) real(d time.Duration) time.Duration {
	return time.Duration(float64(d)/(1+p.drift)) + 1
}

// until is the time from now to when the process's clock shows t.
func (p *process) until(t time.Time) time.Duration { return p.real(t.Sub(p.Now())) }

// Go implements [host.Host].
func (p *process) Go(f func()) {
	p.after(0, func() { p.start(f) })
}

// start runs f in a coroutine until it waits for the first time.
func (p *process) start(f func()) {
	if p.dead {
		return
	}
	c := p.coroutine()
	c.job = f
	p.live = append(p.live, c)
	p.step(c)
}

func (p *process) step(c *coroutine) {
	before := p.cur
	p.cur = c
	c.resume()
	p.cur = before
	if c.job == nil {
		p.idle = append(p.idle, c)
		for i, o := range p.live {
			if o == c {
				p.live = append(p.live[:i], p.live[i+1:]...)
				break
			}
		}
	}
}

// park waits until somebody calls the function that arrange is given. It is
// false when the process crashes instead.
func (p *process) park(arrange func(wake func())) bool {
	c := p.cur
	if c == nil {
		panic("sim: something waits outside of a coroutine")
	}
	if p.dead {
		return false
	}
	woken := false
	arrange(func() {
		if woken || p.dead {
			return
		}
		woken = true
		p.step(c)
	})
	return c.yield(struct{}{})
}

// crash is kill from inside of the process.
func (p *process) crash() {
	p.dead = true
	p.after(0, p.kill)
}

// kill ends the process where it stands: nothing of it runs any more, and what
// its coroutines still do while they unwind reaches nobody.
func (p *process) kill() {
	p.dead = true
	for len(p.live) > 0 {
		c := p.live[0]
		p.live = p.live[1:]
		before := p.cur
		p.cur = c
		c.stop()
		p.cur = before
	}
}

// wait waits for d; it is the error that ends the wait early.
func (p *process) wait(ctx context.Context, d time.Duration) error {
	if p.dead {
		return errCrashed
	}
	late := false
	if left, ok := remaining(ctx); ok && left < d {
		d, late = left, true
	}
	if !p.park(func(wake func()) { p.after(d, wake) }) || p.dead {
		return errCrashed
	}
	if late {
		return context.DeadlineExceeded
	}
	return nil
}

// Sleep implements [host.Host].
func (p *process) Sleep(ctx context.Context, d time.Duration) error { return p.wait(ctx, p.real(d)) }

// Acquire implements [host.Host].
func (p *process) Acquire(ctx context.Context, token chan struct{}) error {
	for {
		if p.dead {
			return errCrashed
		}
		select {
		case token <- struct{}{}:
			return nil
		default:
		}
		if err := p.wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// scope is a context on virtual time.
type scope struct {
	p     *process
	until time.Duration // on the engine's time; 0: no end
}

type scopeKey struct{}

func (s *scope) Deadline() (time.Time, bool) { return time.Time{}, false }
func (s *scope) Done() <-chan struct{}       { return nil }
func (s *scope) Value(key any) any {
	if key == (scopeKey{}) {
		return s
	}
	return nil
}

func (s *scope) Err() error {
	switch {
	case s.p.dead:
		return context.Canceled
	case s.until != 0 && s.p.engine.now >= s.until:
		return context.DeadlineExceeded
	}
	return nil
}

// context is the context of the process's life.
func (p *process) context() context.Context { return &scope{p: p} }

// WithTimeout implements [host.Host].
func (p *process) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	until := p.engine.now + p.real(d)
	if s, ok := ctx.Value(scopeKey{}).(*scope); ok && s.until != 0 {
		until = min(until, s.until)
	}
	return &scope{p, until}, func() {}
}

// remaining is the time left to a context of the simulation.
func remaining(ctx context.Context) (time.Duration, bool) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok || s.until == 0 {
		return 0, false
	}
	return max(0, s.until-s.p.engine.now), true
}

// Loop implements [host.Host].
func (p *process) Loop(size int) host.Loop { return &loop{p: p, size: size} }

// loop runs each thing in a coroutine and begins the next when that has ended.
type loop struct {
	p        *process
	size     int
	waiting  []func()
	busy     bool
	running  bool // Run was called
	deadline func() time.Time
	tick     func()
	alarm    time.Duration // when the next tick is scheduled; 0: none is
}

func (l *loop) Post(_ context.Context, f func()) {
	if l.p.dead {
		return
	}
	l.waiting = append(l.waiting, f)
	l.next()
}

func (l *loop) Offer(f func()) bool {
	if l.p.dead || len(l.waiting) >= l.size {
		return false
	}
	l.Post(nil, f)
	return true
}

func (l *loop) Run(_ context.Context, deadline func() time.Time, tick func()) {
	l.running, l.deadline, l.tick = true, deadline, tick
	l.next()
	l.arm()
}

// next begins what waits longest.
func (l *loop) next() {
	if l.busy || !l.running || len(l.waiting) == 0 {
		return
	}
	l.busy = true
	l.p.after(0, func() {
		f := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.p.start(func() {
			f()
			l.busy = false
			if !l.p.dead {
				l.next()
				l.arm()
			}
		})
	})
}

// arm sees to it that the next tick comes in time.
func (l *loop) arm() {
	if l.deadline == nil || l.p.dead {
		return
	}
	t := l.deadline()
	if t.IsZero() {
		return
	}
	at := l.p.engine.now + max(0, l.p.until(t))
	if l.alarm != 0 && l.alarm <= at {
		return
	}
	l.alarm = at
	l.p.after(at-l.p.engine.now, func() {
		if l.p.dead || l.alarm != at {
			return
		}
		l.alarm = 0
		if t := l.deadline(); !t.IsZero() && !t.After(l.p.Now()) {
			l.Post(nil, l.tick)
			return
		}
		l.arm()
	})
}
