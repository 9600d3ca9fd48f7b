package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/attack"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The acts of a story, in their order.
const (
	ActLearning = "learning"
	ActClean    = "clean"
	ActAttack   = "attack"
	ActCalm     = "calm"
)

const (
	// storySensitivity makes up for some of what so short a baseline leaves unsure.
	storySensitivity = 0.8
	storyPathAfter   = 3 * time.Second

	learnPatience = 50 * time.Second // beyond the time to learn
	calmSlack     = time.Second
	aftermath     = 10 * time.Second // after the attack in which an alert still belongs to it
	floodFor      = 5 * time.Second
	poll          = 20 * time.Millisecond

	throttleShare = 0.8
	throttleQueue = 800 * time.Millisecond
)

// relax is what a story changes in the settings of `gaitkeeper serve`.
func (s *story) relax(cfg *app.Config) {
	cfg.LearnFor, cfg.ProvisionalAfter = s.tempo.Learn, s.tempo.Learn
	cfg.Sensitivity = storySensitivity
	cfg.PathAlertAfter = storyPathAfter
}

// story is a demonstration with an attacker: a camera is learned and runs clean,
// the attacker comes, and what follows is held against what is promised.
type story struct {
	demo    *demo
	kind    kind
	place   string
	tempo   Tempo
	footage footage
	account *account
	loot    attack.Loot
	hand    atomic.Pointer[func(pkt []byte, forward func(pkt []byte))]

	// The attacker: one of these.
	thief    *attack.Attack
	up       *attack.Upstream
	middle   *attack.Middle
	outsider *attack.Outsider
	frozen   atomic.Bool // the source reached the frozen picture

	mu      sync.Mutex
	act     string
	news    []Line
	learned time.Time
	froze   time.Time
	over    time.Time // the attack's end
	alerts  []alertNews
	rotated []gk.Event // completed rotations after the start
	ready   map[gk.Epoch]time.Time
	opened  map[gk.Epoch]time.Time
	held    int
	faults  []string
	// finished tells that the story came to its end.
	finished bool
}

// Line is a piece of news.
type Line struct {
	At   time.Duration // since the first packet
	Text string
	Loud bool
}

// alertNews is an alert as its events told it.
type alertNews struct {
	at                                time.Time
	id, class, kind, evidence, answer string
	score                             string
	closed                            bool
}

func newStory(d *demo, k kind, place string) *story {
	tempo := d.cfg.Tempo.withDefaults()
	tempo.Learn = max(tempo.Learn, k.learn)
	return &story{demo: d, kind: k, place: place, tempo: tempo, account: newAccount(), ready: map[gk.Epoch]time.Time{}, opened: map[gk.Epoch]time.Time{}}
}

// prepare makes the footage. The services run already, so that a port in use was
// told before. told is called with news.
func (s *story) prepare(ctx context.Context, told func()) (err error) {
	s.footage, err = shoot(ctx, s.demo.cfg, s.kind, s.place, s.tempo, s.demo.dir, func(what string) {
		s.say(false, "%s", what)
		told()
	})
	s.demo.open = func(o device.SourceOptions) (device.Source, error) { return s.footage.open(s.demo.cfg.Input, o) }
	return err
}

// upstream puts an attacker before the device.
func (s *story) upstream(inner device.Source) (device.Source, error) {
	if s.place != Input || s.footage.frozen > 0 {
		return inner, nil
	}
	up, err := attack.NewUpstream(inner, attack.Tamper(s.kind.name), s.footage.other)
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	s.up = up
	return up, nil
}

// intercept is the path's: whoever stands there.
func (s *story) intercept(pkt []byte, forward func(pkt []byte)) {
	if hand := s.hand.Load(); hand != nil {
		(*hand)(pkt, forward)
		return
	}
	forward(pkt)
}

// entered watches what the device is given for the picture that stands still.
func (s *story) entered(b *device.Batch) {
	if s.footage.frozen == 0 || s.frozen.Load() {
		return
	}
	if u := b.Units[len(b.Units)-1]; u.Timestamp >= uint32(s.footage.frozen.Seconds()*90_000) {
		s.frozen.Store(true)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.froze = time.Now()
	}
}

// aside opens a place beside the path: another socket that reaches the transport.
func (s *story) aside() (func(pkt []byte) error, error) {
	sock, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{SendBuffer: 4 << 20})
	if err != nil {
		return nil, err
	}
	s.demo.start(func(ctx context.Context) error { <-ctx.Done(); return sock.Close() })
	snd := sock.NewSender(s.demo.target, 1)
	var mu sync.Mutex
	return func(pkt []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := snd.Send([][]byte{pkt})
		return err
	}, nil
}

// play tells the story and returns at its end.
func (s *story) play(ctx context.Context) {
	err := s.acts(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil: // conclude tells it
	case err != nil:
		s.faults = append(s.faults, strings.TrimSpace(err.Error()))
	default:
		s.finished = true
	}
}

func (s *story) acts(ctx context.Context) error {
	if s.kind.name == "outsider" {
		if err := s.listen(); err != nil {
			return err
		}
	}
	s.begin(ActLearning, "the camera shows "+s.footage.words)
	s.say(false, "learning it for %v, with relaxed limits: in earnest 90 s are learned", s.tempo.Learn)
	if s.kind.learn > 0 {
		s.say(false, "that long, because what comes slowly shows only against what the picture does by itself")
	}
	if !s.await(ctx, s.tempo.Learn+learnPatience, func() bool { return !s.learned.IsZero() }) {
		return errors.New("the camera's behaviour was not learned")
	}
	s.begin(ActClean, "its behaviour is learned: clean")
	if s.footage.frozen == 0 {
		s.await(ctx, s.tempo.Clean, func() bool { return false })
	}
	if err := s.attack(ctx); err != nil {
		return err
	}
	s.begin(ActCalm, "the attack is over")
	s.await(ctx, s.tempo.Calm, s.closed)
	s.await(ctx, calmSlack, func() bool { return false })
	return nil
}

// attack lets the attacker in and has him go again.
func (s *story) attack(ctx context.Context) error {
	if s.footage.frozen > 0 && !s.await(ctx, s.footage.frozen, s.frozen.Load) {
		return errors.New("the footage did not come to the picture that stands still")
	}
	s.begin(ActAttack, fmt.Sprintf("ATTACK %s from %s: %s", s.kind.name, s.place, s.kind.words[s.place]))
	end, err := s.enter(ctx)
	if err != nil {
		return err
	}
	s.await(ctx, s.kind.within, s.answered)
	if s.footage.frozen == 0 {
		s.await(ctx, s.tempo.Linger, func() bool { return false })
	}
	err = end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = time.Now()
	return err
}

// enter starts the attack. end ends it and tells an error that the attacker met.
func (s *story) enter(ctx context.Context) (end func() error, err error) {
	var send func(pkt []byte) error
	if s.outsider == nil && s.place == Aside || s.kind.name == "mitm" || s.kind.name == "throttle" {
		if send, err = s.aside(); err != nil {
			return nil, err
		}
	}
	switch {
	case s.footage.frozen > 0:
		began := time.Now()
		return func() error {
			s.await(ctx, time.Until(began.Add(frozenFor)), func() bool { return false })
			return nil
		}, nil
	case s.up != nil:
		s.up.Begin()
		return func() error { s.up.End(); return nil }, nil
	case s.outsider != nil:
		return s.enterOutsider(ctx)
	case s.kind.name == "mitm", s.kind.name == "throttle":
		pace := attack.Relayed()
		if s.kind.name == "throttle" {
			pace = attack.Throttled(throttleShare*s.demo.meter.rate(), throttleQueue)
		}
		m := attack.NewMiddle(pace, send, s.demo.meter.dropped)
		s.cast(func() { s.middle = m })
		s.demo.start(s.middle.Run)
		s.middle.Begin()
		s.install(s.middle.Intercept)
		return func() error {
			s.middle.End()
			_, err := s.middle.Stats()
			return err
		}, nil
	}
	return s.enterThief(send)
}

// cast gives the attacker his part.
func (s *story) cast(give func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	give()
}

func (s *story) install(hand func(pkt []byte, forward func(pkt []byte))) { s.hand.Store(&hand) }

// enterThief has the key in use stolen.
func (s *story) enterThief(send func(pkt []byte) error) (func() error, error) {
	key, err := s.loot.Latest()
	if err != nil {
		return nil, err
	}
	mode := map[string]attack.Mode{"inject": attack.Inject, "replay": attack.Replay, "flood": attack.Flood}[s.kind.name]
	if mode == "" {
		mode = attack.Replace
		if send != nil {
			mode = attack.FirstWriter
		}
	}
	thief, err := attack.New(mode, key, send)
	if err != nil {
		return nil, err
	}
	s.cast(func() { s.thief = thief })
	switch s.kind.name {
	case "loop", "flood":
		s.thief.Show(attack.Loop())
	case "freeze":
		s.thief.Show(attack.Still())
	case "swap":
		s.thief.Show(attack.Other(s.footage.other))
	}
	s.install(s.thief.Intercept)
	return func() error {
		s.hand.Store(nil)
		_, err := s.thief.Stats()
		return err
	}, nil
}

// listen has somebody without a key record from the story's beginning.
func (s *story) listen() (err error) {
	var send func(pkt []byte) error
	if s.place == Aside {
		if send, err = s.aside(); err != nil {
			return err
		}
	}
	s.cast(func() { s.outsider = attack.NewOutsider(send) })
	s.install(s.outsider.Intercept)
	return nil
}

func (s *story) enterOutsider(ctx context.Context) (func() error, error) {
	s.outsider.Flood()
	s.await(ctx, floodFor, func() bool { return false })
	s.outsider.Replay()
	return func() error {
		s.await(ctx, s.kind.within, func() bool {
			st, _ := s.outsider.Stats()
			return st.Left == 0
		})
		s.outsider.Leave()
		_, err := s.outsider.Stats()
		return err
	}, nil
}

// onset is when the attacker's first packet was there.
func (s *story) onset() (at time.Time) {
	switch {
	case s.footage.frozen > 0:
		return s.froze
	case s.up != nil:
		return s.up.Stats().Began
	case s.thief != nil:
		st, _ := s.thief.Stats()
		return st.Began
	case s.middle != nil:
		st, _ := s.middle.Stats()
		return st.Began
	case s.outsider != nil:
		st, _ := s.outsider.Stats()
		return st.Began
	}
	return at
}

// due finds the attack's alert: the first of a class that is promised, or else the
// first that may be. The caller holds mu.
func (s *story) due() (first *alertNews) {
	onset := s.onset()
	for i := range s.alerts {
		a := &s.alerts[i]
		switch {
		case onset.IsZero() || a.at.Before(onset):
		case slices.Contains(s.kind.classes[s.place], bus.Class(a.class)):
			return a
		case first == nil && s.kind.allowed(s.place, bus.Class(a.class)):
			first = a
		}
	}
	return first
}

// change is the rotation that the attack caused. The caller holds mu.
func (s *story) change() *gk.Event {
	onset := s.onset()
	for i := range s.rotated {
		e := &s.rotated[i]
		if !onset.IsZero() && !e.At.Before(onset) && (e.Reason == gk.ReasonProof || e.Reason == gk.ReasonSource) {
			return e
		}
	}
	return nil
}

// answered tells that everything promised has come. The caller holds mu.
func (s *story) answered() bool {
	if len(s.kind.classes[s.place]) == 0 {
		return false // nothing is: the whole time is waited for what should not be
	}
	if a := s.due(); a == nil || !slices.Contains(s.kind.classes[s.place], bus.Class(a.class)) {
		return false
	}
	if !s.kind.rotates[s.place] {
		return true
	}
	c := s.change()
	return c != nil && !s.opened[c.Epoch].IsZero()
}

// closed tells that no alert is open any more. The caller holds mu.
func (s *story) closed() bool {
	for _, a := range s.alerts {
		if !a.closed {
			return false
		}
	}
	return true
}

// await waits for what ok tells, with mu held; false if it did not come in time.
func (s *story) await(ctx context.Context, long time.Duration, ok func() bool) bool {
	t := time.NewTicker(poll)
	defer t.Stop()
	for end := time.Now().Add(long); ; {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
	}
}

// device takes the device's own events.
func (s *story) device(e gk.Event) {
	if e.Kind != gk.EventRotationDone {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready[e.Epoch] = e.At
	if e.Reason != gk.ReasonStart {
		s.tell(true, "NEW KEY, because of %s: the device sends under epoch %d from index %d on", e.Reason, e.Epoch, e.Index)
	}
}

// service takes the services' events.
func (s *story) service(e gk.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case gk.EventProfileStage:
		if s.learned.IsZero() && e.Detail["stage"] == string(bus.StageMature) {
			s.learned = e.At
		}
	case gk.EventAlertOpened:
		a := alertNews{
			at: e.At, id: e.Detail["id"], class: e.Detail["class"], kind: e.Detail["kind"], evidence: said(e), answer: e.Detail["response"],
			score: e.Detail["score"],
		}
		s.alerts = append(s.alerts, a)
		s.tell(true, "ALARM, class %s: %s", a.class, a.evidence)
	case gk.EventAlertClosed:
		for i := range s.alerts {
			if a := &s.alerts[i]; a.id == e.Detail["id"] {
				a.closed = true
			}
		}
		s.tell(false, "alert %s closed: %s", e.Detail["id"], e.Detail["outcome"])
	case gk.EventRotationDone:
		if e.Reason != gk.ReasonStart {
			s.rotated = append(s.rotated, e)
			s.tell(false, "epoch %d is confirmed, %.1f ms after it was ordered", e.Epoch, float64(e.Took)/1e6)
		}
	case gk.EventEpochFirstPacket:
		s.opened[e.Epoch] = e.At
		if c := s.change(); s.thief != nil && (c == nil || c.Epoch == e.Epoch) && s.due() != nil {
			s.tell(true, "THE THIEF IS LOCKED OUT: from index %d on only the new key opens", e.Index)
		}
	case gk.EventIdentity, gk.EventSessionRejected:
		s.held++
	}
}

// said is an alert's evidence in words. What accuses stands first: a detector that is
// raised over its limit by the story's sensitivity alone has no words of its own.
func said(e gk.Event) string {
	kind, words := e.Detail["kind"], e.Detail["evidence"]
	switch class := bus.Class(e.Detail["class"]); {
	case class != bus.ClassSource && class != bus.ClassPath, strings.HasPrefix(words, kind+":"):
		return words
	case words == "":
		return fmt.Sprintf("%s: score %s at sensitivity %g", kind, e.Detail["score"], storySensitivity)
	}
	return fmt.Sprintf("%s: score %s at sensitivity %g; %s", kind, e.Detail["score"], storySensitivity, words)
}

// begin begins an act.
func (s *story) begin(act, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act = act
	s.tell(act == ActAttack, "%s", text)
}

func (s *story) say(loud bool, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(loud, format, args...)
}

// tell adds news. The caller holds mu.
func (s *story) tell(loud bool, format string, args ...any) {
	s.news = append(s.news, Line{At: s.demo.meter.running(time.Now()), Text: fmt.Sprintf(format, args...), Loud: loud})
}

// told gives the act and all news so far.
func (s *story) told() (act string, news []Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.act, s.news[:len(s.news):len(s.news)]
}
