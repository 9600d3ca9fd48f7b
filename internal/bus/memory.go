package bus

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a service bus and an MQTT broker inside one process, for tests on
// virtual time. The zero value is not usable; see [NewMemory].
type Memory struct {
	mu     sync.Mutex
	subs   []*memorySub
	tamper func(topic string, payload []byte) []Delivery
}

// Delivery is one arrival of a tampered-with MQTT message.
type Delivery struct {
	After   time.Duration
	Payload []byte
}

// NewMemory makes an empty bus.
func NewMemory() *Memory { return &Memory{} }

// Tamper lets f decide what becomes of every MQTT message: no delivery loses it,
// several double it, different delays reorder it.
func (m *Memory) Tamper(f func(topic string, payload []byte) []Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tamper = f
}

// Close ends every subscription there is.
func (m *Memory) Close() {
	m.mu.Lock()
	subs := slices.Clone(m.subs)
	m.mu.Unlock()
	for _, s := range subs {
		_ = s.Close()
	}
}

// Conn gives a connection to the service bus.
func (m *Memory) Conn() Conn { return &memoryConn{m: m} }

// Courier gives a connection to the broker.
func (m *Memory) Courier() Courier { return &memoryCourier{m: m, listening: map[string]Subscription{}} }

type memoryMsg struct {
	subject string
	data    []byte
	reply   chan []byte
}

type memorySub struct {
	m         *Memory
	pattern   []string
	separator string
	queue     chan memoryMsg
	responder bool
	once      sync.Once
}

func (m *Memory) subscribe(pattern, sep string, responder bool, handle func(memoryMsg)) *memorySub {
	s := &memorySub{m: m, pattern: strings.Split(pattern, sep), separator: sep, queue: make(chan memoryMsg, 4096), responder: responder}
	m.mu.Lock()
	m.subs = append(m.subs, s)
	m.mu.Unlock()
	go func() {
		for msg := range s.queue {
			handle(msg)
		}
	}()
	return s
}

// Close implements [Subscription].
func (s *memorySub) Close() error {
	s.once.Do(func() {
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		for i, o := range s.m.subs {
			if o == s {
				s.m.subs = append(s.m.subs[:i:i], s.m.subs[i+1:]...)
				break
			}
		}
		close(s.queue)
	})
	return nil
}

// deliver hands msg to every subscriber that matches; a full queue drops it, as
// a slow consumer's would be.
func (m *Memory) deliver(sep string, msg memoryMsg) (n int) {
	tokens := strings.Split(msg.subject, sep)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.subs {
		if s.separator != sep || !matches(s.pattern, tokens) || s.responder != (msg.reply != nil) {
			continue
		}
		select {
		case s.queue <- msg:
			n++
		default:
		}
		if msg.reply != nil {
			break
		}
	}
	return n
}

func matches(pattern, tokens []string) bool {
	for i, p := range pattern {
		if p == ">" || p == "#" {
			return true
		}
		if i >= len(tokens) || p != "*" && p != "+" && p != tokens[i] {
			return false
		}
	}
	return len(pattern) == len(tokens)
}

type memoryConn struct {
	m  *Memory
	mu sync.Mutex
	s  []Subscription
}

func (c *memoryConn) keep(s Subscription) Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s = append(c.s, s)
	return s
}

func (c *memoryConn) Publish(subject string, data []byte) error {
	c.m.deliver(".", memoryMsg{subject: subject, data: data})
	return nil
}

func (c *memoryConn) Subscribe(subject string, handle func(string, []byte)) (Subscription, error) {
	return c.keep(c.m.subscribe(subject, ".", false, func(msg memoryMsg) { handle(msg.subject, msg.data) })), nil
}

func (c *memoryConn) Request(ctx context.Context, subject string, data []byte, _ bool) ([]byte, error) {
	reply := make(chan []byte, 1)
	if c.m.deliver(".", memoryMsg{subject: subject, data: data, reply: reply}) == 0 {
		return nil, ErrNoResponder
	}
	select {
	case b := <-reply:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *memoryConn) Respond(subject string, handle func(context.Context, string, []byte) []byte) (Subscription, error) {
	ctx, cancel := context.WithCancel(context.Background())
	inside := newCrowd[struct{}](subject)
	s := c.m.subscribe(subject, ".", true, func(msg memoryMsg) {
		if inside.enter("", struct{}{}, nil) == refused {
			msg.reply <- busyAnswer(msg.subject)
			return
		}
		go func() {
			b := handle(ctx, msg.subject, msg.data)
			inside.leave("", struct{}{}, nil)
			msg.reply <- b
		}()
	})
	return c.keep(cancelSub{s, cancel}), nil
}

func (c *memoryConn) Flush(context.Context) error { return nil }

func (c *memoryConn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.s {
		_ = s.Close()
	}
	c.s = nil
}

type cancelSub struct {
	Subscription
	cancel context.CancelFunc
}

func (s cancelSub) Close() error {
	s.cancel()
	return s.Subscription.Close()
}

type memoryCourier struct {
	m         *Memory
	mu        sync.Mutex
	listening map[string]Subscription
}

func (c *memoryCourier) Send(topic string, payload []byte) error {
	c.m.mu.Lock()
	tamper := c.m.tamper
	c.m.mu.Unlock()
	deliveries := []Delivery{{Payload: payload}}
	if tamper != nil {
		deliveries = tamper(topic, payload)
	}
	for _, d := range deliveries {
		msg := memoryMsg{subject: topic, data: d.Payload}
		if d.After == 0 {
			c.m.deliver("/", msg)
			continue
		}
		time.AfterFunc(d.After, func() { c.m.deliver("/", msg) })
	}
	return nil
}

func (c *memoryCourier) Listen(filter string, handle func(string, []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.listening[filter]; old != nil {
		_ = old.Close()
	}
	c.listening[filter] = c.m.subscribe(filter, "/", false, func(msg memoryMsg) { handle(msg.subject, msg.data) })
	return nil
}

func (c *memoryCourier) Connected() bool { return true }

func (c *memoryCourier) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f, s := range c.listening {
		_ = s.Close()
		delete(c.listening, f)
	}
}
