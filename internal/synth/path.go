package synth

import (
	"fmt"
	"math"
)

// network is a model of the way from the sender to the receiver: what it is like
// all the time. Times are in seconds.
type network struct {
	Class string

	Rate   float64 // bits/s of the narrowest link
	Buffer float64 // s of queue in front of it; what does not fit is lost

	Base   float64 // delay
	Wander float64 // slow changes of the delay, standard deviation
	Pace   float64 // over which they forget themselves
	Jitter float64 // of each packet, exponential

	Access     float64 // wait for the medium, mean; what comes meanwhile goes along
	Contention float64 // share of waits that are many times as long

	Grant  float64 // grid on which a radio network lets a device send
	Resend float64 // share of grants that fail and are made good after 8 ms

	Loss      float64 // share lost for itself
	BurstRate float64 // bursts an hour of Gilbert's and Elliott's model
	BurstLoss float64 // loss in them
	BurstTime float64 // their mean length

	Reorder  float64 // share held back
	Hold     float64 // for how long, at most
	Double   float64 // share doubled
	Coalesce float64 // the receiver's interrupts wait so long for more
	Skew     float64 // of the sender's clock against the receiver's
}

func (n *network) String() string {
	return fmt.Sprintf("%s: %.1f Mb/s, %.0f ms ± %.1f, jitter %.2f ms, loss %.3f %%, reordered %.3f %%, doubled %.3f %%, skew %.0f ppm",
		n.Class, n.Rate/1e6, n.Base*1e3, n.Wander*1e3, n.Jitter*1e3, n.Loss*100, n.Reorder*100, n.Double*100, n.Skew*1e6)
}

// Networks are the classes that can be drawn.
var Networks = []string{"lan", "wan", "wifi", "lte"}

// drawNetwork draws a network of a class for a stream of the given mean rate in bits/s.
func drawNetwork(d dice, class string, mean float64) *network {
	n := &network{Class: class, Buffer: d.between(0.1, 1), Skew: 40e-6 * d.NormFloat64()}
	switch class {
	case "lan":
		n.Rate, n.Base, n.Wander, n.Pace = pick(d, 1e8, 1e9), d.logBetween(0.0001, 0.001), 2e-5, 1
		n.Jitter = d.logBetween(5e-6, 1e-4)
	case "wan":
		n.Rate, n.Base, n.Wander, n.Pace = d.logBetween(8, 100)*mean, d.between(0.005, 0.08), d.logBetween(0.0001, 0.003), d.logBetween(0.5, 20)
		n.Jitter, n.Loss = d.logBetween(5e-5, 2e-3), pick(d, 0.0, 0, 1e-5, 1e-4, 1e-3)
		n.BurstRate, n.BurstLoss, n.BurstTime = pick(d, 0.0, 0, 2, 10), d.between(0.1, 0.8), d.logBetween(0.02, 0.5)
		n.Reorder, n.Hold = pick(d, 0.0, 0, 1e-4, 1e-3, 0.005), d.logBetween(0.0005, 0.02)
		n.Double = pick(d, 0.0, 0, 0, 1e-4, 1e-3)
	case "wifi":
		n.Rate, n.Base, n.Wander, n.Pace = d.logBetween(10, 80)*mean, d.between(0.001, 0.004), d.logBetween(0.0003, 0.004), d.logBetween(0.3, 10)
		n.Access, n.Contention = d.logBetween(0.0003, 0.004), d.logBetween(0.001, 0.03)
		n.Jitter, n.Loss = d.logBetween(2e-5, 5e-4), pick(d, 0.0, 1e-5, 3e-4, 2e-3)
		n.BurstRate, n.BurstLoss, n.BurstTime = pick(d, 0.0, 2, 10, 30), d.between(0.05, 0.6), d.logBetween(0.02, 0.4)
		n.Reorder, n.Hold = pick(d, 0.0, 0, 1e-4), 0.003
		n.Double = pick(d, 0.0, 0, 1e-4)
	default: // lte
		n.Class = "lte"
		n.Rate, n.Base, n.Wander, n.Pace = d.logBetween(3, 20)*mean, d.between(0.02, 0.06), d.logBetween(0.001, 0.008), d.logBetween(0.5, 10)
		n.Grant, n.Resend = pick(d, 0.001, 0.004, 0.005, 0.01), d.between(0.02, 0.15)
		n.Jitter, n.Loss = d.logBetween(5e-5, 5e-4), pick(d, 0.0, 0, 1e-4, 1e-3)
		n.BurstRate, n.BurstLoss, n.BurstTime = pick(d, 0.0, 2, 10), d.between(0.1, 0.6), d.logBetween(0.02, 0.3)
		n.Double = pick(d, 0.0, 0, 0, 1e-4)
	}
	n.Coalesce = pick(d, 0.0, 0, 50e-6, 125e-6, 250e-6)
	return n
}

// trouble is something that a network does at a time.
type trouble struct {
	kind     string
	from, to float64 // s
	size     float64 // what it means depends on the kind
}

// deliver sends packets, in the order of their times, over the network.
func (n *network) deliver(d dice, in []packet, troubles []trouble) []packet {
	out := make([]packet, 0, len(in)+len(in)/100)
	var (
		link     float64       // when the link is free
		access   float64       // when the medium was won
		wander   float64       // now
		before   float64       // time of the packet before
		last     float64       // arrival of the packet before
		burst    float64       // end of a loss burst
		next     = math.Inf(1) // begin of the next one
		phase    = d.Float64() * n.Grant
		lossDice = dice{d.Rand}
	)
	if n.BurstRate > 0 {
		next = lossDice.exponential(3600 / n.BurstRate)
	}
	for i := range in {
		p := in[i]
		now := float64(p.at) / 1e9
		bits := float64(8 * (p.length() + wireOverhead))
		extra, jitter, loss, reorder, double := 0.0, n.Jitter, n.Loss, n.Reorder, n.Double
		rate, ready, drop := n.Rate, now, false
		hold := n.Hold
		for _, t := range troubles {
			if now < t.from || now >= t.to {
				continue
			}
			switch t.kind {
			case "jitter_step":
				jitter += t.size
			case "outage_burst", "handover", "stall": // the queue waits
				ready = math.Max(ready, t.to)
			case "outage_loss":
				drop = true
			case "loss_burst":
				loss += t.size
			case "reroute":
				extra += t.size
			case "bufferbloat": // others fill the queue, and it empties again
				half := (t.to - t.from) / 2
				extra += t.size * (1 - math.Abs(now-t.from-half)/half)
			case "rate_drop":
				rate = math.Min(rate, t.size)
			case "reorder_burst":
				reorder, hold = reorder+t.size, math.Max(hold, 0.012)
			case "double_burst":
				double += t.size
			case "rebind":
				p.port++
			}
		}
		// The narrowest link, first come first served.
		start := math.Max(ready, link)
		if start-ready > n.Buffer {
			drop = true
		}
		if d.Float64() < loss {
			drop = true
		}
		if now >= next {
			burst, next = now+d.exponential(n.BurstTime), now+d.exponential(3600/n.BurstRate)
		}
		if now < burst && d.Float64() < n.BurstLoss {
			drop = true
		}
		if drop {
			continue
		}
		link = start + bits/rate
		t := link
		if n.Access > 0 {
			if t > access {
				wait := d.exponential(n.Access)
				if d.chance(n.Contention) {
					wait += d.exponential(20 * n.Access)
				}
				access = t + wait
			}
			t = access
		}
		if n.Grant > 0 {
			t = math.Ceil((t-phase)/n.Grant)*n.Grant + phase
			if t > access {
				access = t
				if d.chance(n.Resend) {
					access += 0.008
				}
			}
			t = access
		}
		keep := math.Exp(-(now - before) / math.Max(n.Pace, 1e-3))
		wander = keep*wander + math.Sqrt(1-keep*keep)*n.Wander*d.NormFloat64()
		before = now
		t += n.Base + extra + math.Max(wander, -n.Base/2) + d.exponential(jitter)
		// Packets of one flow stay in order, but for those that took another way.
		if d.Float64() < reorder {
			t += d.between(0.1, 1) * hold
		} else {
			gap := bits / math.Max(rate, 1e9)
			if extra == 0 || t > last {
				t = math.Max(t, last+gap)
			}
			last = t
		}
		t *= 1 + n.Skew
		if n.Coalesce > 0 {
			t = math.Ceil(t/n.Coalesce) * n.Coalesce
		}
		p.at = int64(t * 1e9)
		out = append(out, p)
		if d.Float64() < double {
			p.at += int64(d.logBetween(10e-6, 5e-3) * 1e9)
			out = append(out, p)
		}
	}
	return spaced(inOrder(out))
}

// spaced lets what a receiver takes in at once be read one after another.
func spaced(ps []packet) []packet {
	for i := 1; i < len(ps); i++ {
		if ps[i].at <= ps[i-1].at {
			ps[i].at = ps[i-1].at + 700
		}
	}
	return ps
}

// troubleKinds are what can happen on a class of networks. A rebind goes on to the
// end, so does a new route.
var troubleKinds = map[string][]string{
	"lan":  {"jitter_step", "outage_burst", "outage_loss", "loss_burst", "stall", "double_burst", "rate_drop"},
	"wan":  {"jitter_step", "outage_burst", "outage_loss", "loss_burst", "reroute", "bufferbloat", "reorder_burst", "double_burst", "rebind", "rate_drop"},
	"wifi": {"jitter_step", "outage_burst", "outage_loss", "loss_burst", "handover", "bufferbloat", "rebind", "stall", "rate_drop"},
	"lte":  {"jitter_step", "outage_burst", "outage_loss", "loss_burst", "handover", "bufferbloat", "reroute", "rebind", "rate_drop"},
}

// drawTrouble draws one event of a network. mean is the stream's rate in bits/s,
// end the length of the capture in seconds.
func drawTrouble(d dice, n *network, kind string, from, end, mean float64) (trouble, Event) {
	t := trouble{kind: kind, from: from}
	detail := ""
	long := func(lo, hi float64) { t.to = math.Min(from+d.logBetween(lo, hi), end) }
	switch kind {
	case "jitter_step":
		t.size = d.logBetween(2, 20) * math.Max(n.Jitter, 2e-4)
		long(10, 120)
		detail = fmt.Sprintf("%.1f ms more jitter", t.size*1e3)
	case "outage_burst", "outage_loss":
		long(0.2, 8)
		detail = map[string]string{"outage_burst": "then the queue in a burst", "outage_loss": "what was sent is lost"}[kind]
	case "stall":
		long(0.03, 0.3)
		detail = "the path stands, then the queue"
	case "handover":
		long(0.05, 0.6)
		detail = "between cells, the queue is kept"
	case "loss_burst":
		t.size = d.logBetween(0.01, 0.4)
		long(0.5, 20)
		detail = fmt.Sprintf("%.0f %% loss", t.size*100)
	case "reroute":
		t.size = d.between(0.2, 1) * pick(d, -0.5*n.Base, 0.01, 0.04)
		t.to = end
		detail = fmt.Sprintf("%+.1f ms", t.size*1e3)
	case "bufferbloat":
		t.size = d.logBetween(0.03, 0.5)
		long(4, 40)
		detail = fmt.Sprintf("up to %.0f ms of queue", t.size*1e3)
	case "rate_drop":
		t.size = mean * d.between(1.05, 2.5)
		long(5, 30)
		detail = fmt.Sprintf("link of %.0f kbit/s", t.size/1e3)
	case "reorder_burst":
		t.size = d.logBetween(0.002, 0.05)
		long(5, 60)
		detail = fmt.Sprintf("%.1f %% of packets overtaken", t.size*100)
	case "double_burst":
		t.size = d.logBetween(0.002, 0.05)
		long(5, 60)
		detail = fmt.Sprintf("%.1f %% of packets doubled", t.size*100)
	case "rebind":
		t.to = end
		detail = "another source port"
	}
	t.to = math.Max(t.to, t.from+0.01)
	e := Event{Start: t.from, End: t.to, Kind: kind, Detail: detail}
	if t.to-t.from > 60 && (kind == "reroute" || kind == "rebind") {
		e.End = t.from + 10
	}
	return t, e
}
