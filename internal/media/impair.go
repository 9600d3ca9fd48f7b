package media

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// ImpairConfig is what a path does to its packets. The zero value does nothing.
type ImpairConfig struct {
	Loss    float64 // share of packets dropped, 0 to 1
	Reorder float64 // share of packets held back by ReorderHold more, 0 to 1
	Delay   time.Duration
	// Jitter varies the delay of each packet for itself, evenly over ±Jitter, and
	// so reorders neighbours, as netem does. It may not be above Delay.
	Jitter      time.Duration
	ReorderHold time.Duration // 0 means 10 ms
	Seed        uint64        // equal seeds treat the same packets alike
}

const defaultReorderHold = 10 * time.Millisecond

func (c ImpairConfig) validate() error {
	switch {
	case !(c.Loss >= 0 && c.Loss <= 1) || !(c.Reorder >= 0 && c.Reorder <= 1):
		return fmt.Errorf("loss %v and reorder %v must lie between 0%% and 100%%", c.Loss, c.Reorder)
	case c.Delay < 0 || c.Jitter < 0 || c.ReorderHold < 0:
		return errors.New("delay and jitter of a path must not be negative")
	case c.Jitter > c.Delay:
		return fmt.Errorf("jitter %v is above the delay %v: no packet arrives before it was sent", c.Jitter, c.Delay)
	}
	return nil
}

// ImpairCounters tell what an [Impairment] did. Received = Dropped + Forwarded +
// those still held, but for what somebody in the path adds or takes away.
type ImpairCounters struct {
	Received  uint64
	Dropped   uint64 // by the dice
	Forwarded uint64
	Reordered uint64 // held back; part of Forwarded in the end
	Failed    uint64 // could not be sent on; part of Forwarded
}

// Impairment relays UDP one way and does to it what a bad network does. It
// stands in for netem, which needs a kernel that has it and the rights to use it.
type Impairment struct {
	cfg    ImpairConfig
	dice   *rand.Rand
	onDrop func(pkt []byte)
	// intercept stands for somebody in the path.
	intercept func(pkt []byte, forward func(pkt []byte))
	sock      *UDPSocket
	rcv       *Receiver
	snd       *Sender

	held  heldQueue
	order uint64
	free  [][]byte
	one   [1][]byte

	received, dropped, forwarded, reordered, failed atomic.Uint64
}

const (
	impairBatch  = 64
	impairBuffer = 4 << 20
	maxDatagram  = 65535
)

// NewImpairment opens a relay at listen (host:port, port 0 for any) that sends
// on to target. onDrop may be nil; it is called, from Run, with every dropped
// packet, which it must not keep.
func NewImpairment(listen string, target netip.AddrPort, cfg ImpairConfig, onDrop func(pkt []byte)) (*Impairment, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.ReorderHold == 0 {
		cfg.ReorderHold = defaultReorderHold
	}
	sock, err := ListenUDP(listen, SocketOptions{ReceiveBuffer: impairBuffer, SendBuffer: impairBuffer})
	if err != nil {
		return nil, err
	}
	return &Impairment{
		cfg: cfg, onDrop: onDrop, sock: sock,
		dice: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)),
		rcv:  sock.NewReceiver(impairBatch, maxDatagram),
		snd:  sock.NewSender(target, 1),
	}, nil
}

// Addr is where the relay listens.
func (p *Impairment) Addr() netip.AddrPort { return p.sock.LocalAddr() }

// Counters may be read at any time.
func (p *Impairment) Counters() ImpairCounters {
	return ImpairCounters{
		Received: p.received.Load(), Dropped: p.dropped.Load(), Forwarded: p.forwarded.Load(),
		Reordered: p.reordered.Load(), Failed: p.failed.Load(),
	}
}

// Intercept puts somebody into the path: f is called, from Run, with every packet
// that comes in, and what it forwards goes on from there, in that order: the
// packet, others before or after it, or nothing. Neither f nor forward may keep a
// packet. It is to be called before Run.
func (p *Impairment) Intercept(f func(pkt []byte, forward func(pkt []byte))) { p.intercept = f }

// Run relays until ctx ends; then what the relay still holds goes out at once, so
// that nothing is lost but by the dice. Run closes the socket.
func (p *Impairment) Run(ctx context.Context) error {
	defer p.sock.Close()
	stop := context.AfterFunc(ctx, func() { _ = p.sock.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var wake time.Time
		if len(p.held) > 0 {
			wake = p.held[0].due
		}
		if err := p.sock.SetReadDeadline(wake); err != nil {
			return err
		}
		// The deadline that the end of ctx sets may just have been overwritten.
		if ctx.Err() != nil {
			p.release(func(heldPacket) bool { return true })
			return nil
		}
		batch, err := p.rcv.Receive()
		now := time.Now()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("impairment relay: %w", err)
		}
		for i := range batch {
			p.received.Add(1)
			if p.intercept == nil {
				p.take(batch[i].Data, now)
				continue
			}
			p.intercept(batch[i].Data, func(pkt []byte) { p.take(pkt, now) })
		}
		p.release(func(h heldPacket) bool { return !h.due.After(now) })
	}
}

// take throws the dice for one packet.
func (p *Impairment) take(pkt []byte, now time.Time) {
	drop, delay, reordered := p.cfg.throw(p.dice)
	if drop {
		p.dropped.Add(1)
		if p.onDrop != nil {
			p.onDrop(pkt)
		}
		return
	}
	if reordered {
		p.reordered.Add(1)
	}
	if delay == 0 {
		p.send(pkt)
		return
	}
	var buf []byte
	if n := len(p.free); n > 0 {
		buf, p.free = p.free[n-1], p.free[:n-1]
	}
	p.order++
	heap.Push(&p.held, heldPacket{due: now.Add(delay), order: p.order, data: append(buf[:0], pkt...)})
}

// throw decides about one packet. It always uses the same number of throws, so
// that a seed means the same whatever the settings.
func (c ImpairConfig) throw(dice *rand.Rand) (drop bool, delay time.Duration, reordered bool) {
	drop = dice.Float64() < c.Loss
	reordered = dice.Float64() < c.Reorder && !drop
	delay = c.Delay + time.Duration((2*dice.Float64()-1)*float64(c.Jitter))
	if reordered {
		delay += c.ReorderHold
	}
	return drop, delay, reordered
}

func (p *Impairment) release(due func(heldPacket) bool) {
	for len(p.held) > 0 && due(p.held[0]) {
		h := heap.Pop(&p.held).(heldPacket)
		p.send(h.data)
		p.free = append(p.free, h.data)
	}
}

func (p *Impairment) send(pkt []byte) {
	p.one[0] = pkt
	if _, err := p.snd.Send(p.one[:]); err != nil {
		p.failed.Add(1)
	}
	p.forwarded.Add(1)
}

// heldPacket waits for its time. Packets due at once leave in order of arrival.
type heldPacket struct {
	due   time.Time
	order uint64
	data  []byte
}

type heldQueue []heldPacket

func (q heldQueue) Len() int { return len(q) }
func (q heldQueue) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	return q[i].order < q[j].order
}
func (q heldQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *heldQueue) Push(x any)   { *q = append(*q, x.(heldPacket)) }
func (q *heldQueue) Pop() any {
	old := *q
	n := len(old) - 1
	h := old[n]
	old[n] = heldPacket{}
	*q = old[:n]
	return h
}
