package synth

import (
	"fmt"
	"math"
	"time"
)

// An attack changes a stream between two times. Those before the path work on what
// the sender sent and may number it anew; those behind it on what arrives.
type attack struct {
	behind bool
	apply  func(a *assault) (out []packet, detail string)
}

// assault is one attack being carried out.
type assault struct {
	d        dice
	in       []packet // all of the stream, in order
	from, to time.Duration
	ts       bool
	codec    string
	mean     float64         // bits/s
	other    func() []packet // another encoder's stream
	sibling  func() []packet // the same encoder's, of another film
	still    func() []packet // the same encoder's, of a picture that stands
	network  *network
}

// AttackKinds are the attacks in the order in which they are dealt out.
var AttackKinds = []string{
	"encoder_swap", "inject_1%", "inject_5%", "inject_30%", "loop_replay", "frozen_feed", "mitm_relay", "exfil_append",
	"exfil_extra", "slow_drift", "throttle", "flood", "inject_valid_1%", "inject_valid_5%", "sibling_swap", "substitute_2%",
	"substitute_20%", "drop_renumber_2%", "exfil_covert",
}

var attacks = map[string]attack{
	"encoder_swap":     {false, (*assault).encoderSwap},
	"sibling_swap":     {false, (*assault).siblingSwap},
	"frozen_feed":      {false, (*assault).frozen},
	"loop_replay":      {false, (*assault).loop},
	"inject_1%":        {false, injecting(0.01)},
	"inject_5%":        {false, injecting(0.05)},
	"inject_30%":       {false, injecting(0.30)},
	"inject_valid_1%":  {false, injectingValid(0.01)},
	"inject_valid_5%":  {false, injectingValid(0.05)},
	"substitute_2%":    {false, substituting(0.02)},
	"substitute_20%":   {false, substituting(0.20)},
	"drop_renumber_2%": {false, (*assault).dropRenumber},
	"exfil_append":     {false, (*assault).exfilAppend},
	"exfil_extra":      {false, (*assault).exfilExtra},
	"exfil_covert":     {false, (*assault).exfilCovert},
	"slow_drift":       {false, (*assault).slowDrift},
	"mitm_relay":       {true, (*assault).relay},
	"throttle":         {true, (*assault).throttle},
	"flood":            {true, (*assault).flood},
}

func (a *assault) spanned() (i, j int) { return at(a.in, a.from), at(a.in, a.to) }

// takeOver puts another stream in the place of in[i:j]: time, timestamps, payload
// type and the transport stream's clocks and counters go on.
func (a *assault) takeOver(i, j int, with []packet) []packet {
	out := append([]packet{}, a.in[:i]...)
	if len(with) == 0 || i >= len(a.in) || i == 0 {
		return append(out, a.in[i:]...)
	}
	base := a.in[i]
	shift := base.at - with[0].at
	tick := base.ts - with[0].ts
	var clocks int64
	if a.ts {
		clocks = mediaTime(a.in[i:]) - mediaTime(with)
	}
	for _, p := range with {
		if p.at += shift; p.at >= a.to.Nanoseconds() || j < len(a.in) && p.at >= a.in[j].at {
			break
		}
		p.ts += tick
		p.pt = base.pt
		if a.ts {
			p.payload = restamp(p.payload, clocks)
		}
		out = append(out, p)
	}
	return append(out, a.in[j:]...)
}

func (a *assault) swap(with []packet) []packet {
	i, j := a.spanned()
	if k := keyAt(a.in, a.from); k >= 0 && k < j {
		i = k
	}
	a.from = time.Duration(a.in[min(i, len(a.in)-1)].at)
	return continued(a.takeOver(i, j, with), a.ts, i)
}

func (a *assault) encoderSwap() ([]packet, string) {
	return a.swap(a.other()), "another encoder takes over; headers, counters and clocks go on"
}

func (a *assault) siblingSwap() ([]packet, string) {
	return a.swap(a.sibling()), "the same encoder with the same settings takes over with another film; headers, counters and clocks go on"
}

func (a *assault) frozen() ([]packet, string) {
	out := a.swap(a.still())
	a.from += time.Duration(stillAfter * float64(time.Second)) // that long the film goes on
	return out, "the same encoder, shown a picture that stands"
}

func (a *assault) loop() ([]packet, string) {
	length := a.d.span(6*time.Second, 20*time.Second)
	begin := keyAt(a.in, a.d.span(20*time.Second, 60*time.Second))
	i, j := a.spanned()
	if begin < 0 {
		return a.in, "nothing to loop"
	}
	end := at(a.in, time.Duration(a.in[begin].at)+length)
	part := a.in[begin:end]
	duration := part[len(part)-1].at - part[0].at + 20e6
	ticks := part[len(part)-1].ts - part[0].ts + 1800
	var with []packet
	for k := int64(0); k*duration < (a.to - a.from).Nanoseconds(); k++ {
		for _, p := range part {
			p.at += k * duration
			p.ts += uint32(k) * ticks
			if a.ts {
				p.payload = restamp(p.payload, k*duration*9/100_000)
			}
			with = append(with, p)
		}
	}
	return continued(a.takeOver(i, j, with), a.ts, i), fmt.Sprintf("%.0f s from %.0f s on, again and again", length.Seconds(), float64(a.in[begin].at)/1e9)
}

// injecting adds a share of packets that repeat payloads from before, or hold noise.
func injecting(share float64) func(*assault) ([]packet, string) {
	return func(a *assault) ([]packet, string) {
		noise := a.d.chance(0.25)
		double := a.d.chance(0.3) // numbers are used a second time instead of numbering anew
		i, j := a.spanned()
		out := make([]packet, 0, len(a.in)*3/2)
		for k, p := range a.in {
			out = append(out, p)
			if k < i || k >= j || !a.d.chance(share) || k < 100 {
				continue
			}
			q := p
			q.at += a.d.Int64N(8e6) + 100_000
			q.payload = a.in[k-1-a.d.IntN(50)].payload
			if noise {
				q.payload = a.d.fill(len(p.payload))
			}
			q.key, q.first = false, false
			q.again = double
			out = append(out, q)
		}
		return inOrder(out), fmt.Sprintf("%.0f %% extra packets, noise %t, numbers used twice %t", share*100, noise, double)
	}
}

// injectingValid adds pieces of another film of the same encoder, with the grammar
// of what is around them, and counters that go on.
func injectingValid(share float64) func(*assault) ([]packet, string) {
	return func(a *assault) ([]packet, string) {
		with := a.sibling()
		i, j := a.spanned()
		out := make([]packet, 0, len(a.in)*3/2)
		for k, p := range a.in {
			out = append(out, p)
			if k < i || k >= j || p.marker || !a.d.chance(share) {
				continue
			}
			q := with[a.d.IntN(len(with))]
			for tries := 0; tries < 200 && !likes(&p, &q, a.ts); tries++ {
				q = with[a.d.IntN(len(with))]
			}
			if !likes(&p, &q, a.ts) {
				continue
			}
			q.at, q.ts, q.pt, q.marker, q.key, q.first = p.at+5_000, p.ts, p.pt, p.marker, false, false
			out = append(out, q)
		}
		return continued(inOrder(out), a.ts, i), fmt.Sprintf("%.0f %% extra packets from another film of the same encoder, in the grammar, counters fixed", share*100)
	}
}

// likes tells whether q can follow p without breaking the grammar: both are in the
// middle of a unit of the same kind.
func likes(p, q *packet, ts bool) bool {
	if ts {
		return middle(p.payload) && middle(q.payload) && len(p.payload) == len(q.payload) && samePIDs(p.payload, q.payload)
	}
	b, c := p.payload, q.payload
	if len(b) != len(c) || len(b) < 4 {
		return false
	}
	return b[0] == c[0] && b[1] == c[1] && !p.first && !q.first
}

// substituting replaces payloads by noise of equal size and keeps what a packet
// begins with.
func substituting(share float64) func(*assault) ([]packet, string) {
	return func(a *assault) ([]packet, string) {
		i, j := a.spanned()
		keep := pick(a.d, 3, 8, 20)
		out := append([]packet{}, a.in...)
		for k := i; k < j; k++ {
			if !a.d.chance(share) {
				continue
			}
			p := &out[k]
			if a.ts {
				p.payload = noiseTS(a.d, p.payload)
			} else if n := min(keep, len(p.payload)); n < len(p.payload) {
				p.payload = append(p.payload[:n:n], a.d.fill(len(p.payload)-n)...)
			}
		}
		return out, fmt.Sprintf("%.0f %% of payloads replaced at equal size, %d bytes (TS: headers) kept", share*100, keep)
	}
}

func (a *assault) dropRenumber() ([]packet, string) {
	i, j := a.spanned()
	fix := a.d.chance(0.5)
	out := append([]packet{}, a.in[:i]...)
	for k := i; k < j; k++ {
		if !a.d.chance(0.02) || a.in[k].key {
			out = append(out, a.in[k])
		}
	}
	out = append(out, a.in[j:]...)
	if fix {
		out = continued(out, a.ts, i)
	}
	return out, fmt.Sprintf("2 %% dropped, the rest numbered anew, TS counters fixed %t", fix)
}

func (a *assault) exfilAppend() ([]packet, string) {
	i, j := a.spanned()
	n, share := a.d.whole(8, 48), pick(a.d, 0.03, 0.05, 0.2)
	out := append([]packet{}, a.in...)
	for k := i; k < j; k++ {
		if a.d.chance(share) {
			p := &out[k]
			p.payload = append(p.payload[:len(p.payload):len(p.payload)], a.d.fill(n)...)
		}
	}
	return out, fmt.Sprintf("%d bytes appended to %.0f %% of packets", n, share*100)
}

func (a *assault) exfilExtra() ([]packet, string) {
	rate, n := a.d.logBetween(2, 15), a.d.whole(60, 400)
	return a.insert(rate, func(p packet) packet {
		p.payload = a.d.fill(n)
		return p
	}), fmt.Sprintf("%.0f extra packets/s of %d bytes, numbered in", rate, n)
}

// exfilCovert hides data where the format has room for it.
func (a *assault) exfilCovert() ([]packet, string) {
	rate := a.d.logBetween(2, 15)
	n := a.d.whole(100, 600)
	out := a.insert(rate, func(p packet) packet {
		switch {
		case a.ts:
			p.payload = nullTS(a.d, len(p.payload)/188)
		case a.codec == "h264": // user data in an SEI message, H.264 §D.1.6
			p.payload = append([]byte{6, 5, byte(min(n, 254))}, a.d.fill(n)...)
		case a.codec == "hevc": // the same in a prefix SEI, H.265 §D.2.7
			p.payload = append([]byte{39 << 1, 1, 5, byte(min(n, 254))}, a.d.fill(n)...)
		default:
			p.payload = append(p.payload[:min(1, len(p.payload)):1], a.d.fill(n)...)
		}
		return p
	})
	return out, fmt.Sprintf("%.0f packets/s of data where the format has room: null packets, SEI", rate)
}

// insert adds packets before the first packet of frames.
func (a *assault) insert(rate float64, make func(packet) packet) []packet {
	i, j := a.spanned()
	var out []packet
	due := a.from.Seconds()
	for k, p := range a.in {
		if k >= i && k < j && (p.first || a.ts) && float64(p.at)/1e9 >= due {
			due = math.Max(due, float64(p.at)/1e9-0.2) + a.d.exponential(1/rate)
			q := make(p)
			q.marker, q.key, q.first = false, false, false
			q.at -= 1000
			out = append(out, q)
		}
		out = append(out, p)
	}
	return inOrder(out)
}

// slowDrift lets the volume grow by inserted packets, or lets a share of the packets
// grow that have room.
func (a *assault) slowDrift() ([]packet, string) {
	i, j := a.spanned()
	rate := a.d.between(0.005, 0.015)
	grow := a.d.chance(0.5)
	with := a.sibling()
	var out []packet
	for k, p := range a.in {
		share := rate * (float64(p.at)/1e9 - a.from.Seconds())
		if k < i || k >= j || share <= 0 {
			out = append(out, p)
			continue
		}
		if grow && !a.ts {
			if room := 1180 - len(p.payload); room > 0 {
				n := min(room, int(share*float64(len(p.payload))*2))
				p.payload = append(p.payload[:len(p.payload):len(p.payload)], a.d.fill(n)...)
			}
			out = append(out, p)
			continue
		}
		out = append(out, p)
		if a.d.chance(share) && !p.marker {
			q := with[a.d.IntN(len(with))]
			for tries := 0; tries < 100 && !likes(&p, &q, a.ts); tries++ {
				q = with[a.d.IntN(len(with))]
			}
			if likes(&p, &q, a.ts) {
				q.at, q.ts, q.pt, q.marker, q.key, q.first = p.at+5_000, p.ts, p.pt, false, false, false
				out = append(out, q)
			}
		}
	}
	return continued(inOrder(out), a.ts, i), fmt.Sprintf("volume walked up by %.1f %% a second, packets grow %t", rate*100, grow && !a.ts)
}

func (a *assault) relay() ([]packet, string) {
	i, j := a.spanned()
	delay := a.d.logBetween(0.5e6, 40e6)
	tick := pick(a.d, 0, 0, 1e6, 2e6, 5e6)
	gap := pick(a.d, 0.0, 50e3, 300e3)
	out := append([]packet{}, a.in...)
	last := int64(0)
	for k := i; k < j; k++ {
		t := float64(out[k].at) + delay*(1+0.02*a.d.ExpFloat64())
		if tick > 0 {
			t = math.Ceil(t/tick) * tick
		}
		out[k].at = max(int64(t), last+int64(gap))
		last = out[k].at
	}
	return spaced(inOrder(out)), fmt.Sprintf("relay, %.1f ms, tick of %.0f ms, gap of %.0f µs", delay/1e6, tick/1e6, gap/1e3)
}

func (a *assault) throttle() ([]packet, string) {
	i, j := a.spanned()
	share, queue := a.d.between(0.5, 0.95), a.d.between(0.15, 0.5)
	out := append([]packet{}, a.in[:i]...)
	link := 0.0
	for k := i; k < j; k++ {
		p := a.in[k]
		now := float64(p.at) / 1e9
		start := math.Max(now, link)
		if start-now > queue {
			continue
		}
		link = start + float64(8*(p.length()+wireOverhead))/(share*a.mean)
		p.at = int64(link * 1e9)
		out = append(out, p)
	}
	return spaced(inOrder(append(out, a.in[j:]...))), fmt.Sprintf("rate limited to %.0f %% of the mean, queue %.0f ms", share*100, queue*1e3)
}

func (a *assault) flood() ([]packet, string) {
	rate := a.d.logBetween(300, 2000)
	style := pick(a.d, "junk", "rtp", "copies")
	i, j := a.spanned()
	out := append([]packet{}, a.in...)
	for t, k := float64(a.from), i; t < float64(a.to); t += a.d.exponential(1e9 / rate) {
		for k < j-1 && a.in[k].at < int64(t) {
			k++
		}
		p := a.in[k]
		p.at = int64(t)
		switch style {
		case "junk":
			p.junk, p.payload = true, append([]byte{byte(a.d.IntN(64))}, a.d.fill(a.d.whole(60, 1200))...)
		case "rtp":
			p.seq += uint16(a.d.whole(1, 400))
			p.payload = append(p.payload[:min(1, len(p.payload)):1], a.d.fill(a.d.whole(60, 1200))...)
		default: // old packets
			p = a.in[max(0, k-a.d.whole(200, 3000))]
			p.at = int64(t)
		}
		out = append(out, p)
	}
	return spaced(inOrder(out)), fmt.Sprintf("%.0f packets/s, %s", rate, style)
}
