package synth

import (
	"fmt"
	"math"
	"time"
)

// sending is how one sender behaves: what it makes of frames and when they leave.
type sending struct {
	TS      bool // MPEG-TS, otherwise the codec's own payload format
	Pack    packing
	Paced   bool   // TS leaves at the times of its clock references, otherwise frame by frame
	Flush   bool   // TS of a frame is not held back for a full packet
	Stamp   string // what RTP timestamps of TS tell: pts, dts or arrival
	Payload uint8

	Latency  float64       // s from the camera to the network, median of a small frame
	PerByte  float64       // s more for each byte of a frame
	Noise    float64       // log-normal
	Gap      time.Duration // between packets of a frame: the system call
	LineRate float64       // bits/s
	Spread   float64       // share of a frame's time over which its packets are spread; 0: back to back
	Hiccups  []span
}

// span is a stretch of time.
type span struct{ from, to time.Duration }

func (s sending) String() string {
	switch {
	case s.TS && s.Paced:
		return "paced by PCR"
	case s.TS:
		return fmt.Sprintf("frame by frame, flush %t, timestamps from %s", s.Flush, s.Stamp)
	}
	return fmt.Sprintf("packets of %d, aggregates %t, spread %.2f", s.Pack.Room, s.Pack.Aggregate, s.Spread)
}

// drawSending draws a sender for an encoding.
func drawSending(d dice, split Split, r *Recipe, ts bool) sending {
	s := sending{
		TS: ts, Payload: 96,
		Latency: d.logBetween(0.001, 0.03), PerByte: d.logBetween(5e-9, 3e-7), Noise: d.between(0.02, 0.4),
		Gap: d.span(4*time.Microsecond, 40*time.Microsecond), LineRate: pick(d, 1e8, 1e9, 1e9),
	}
	if ts {
		s.Payload = 33
		s.Paced = r.CBR || d.chance(0.25)
		s.Flush = d.chance(0.2)
		s.Stamp = pick(d, "pts", "dts", "arrival")
		return s
	}
	s.Payload = uint8(pick(d, choose(split, []int{96, 97}, []int{96, 98, 102, 112})...))
	s.Pack = packing{Room: pick(d, choose(split, []int{1460, 1388}, []int{1188, 1300, 1436, 1400})...), Aggregate: d.chance(0.5), Config: d.chance(0.4)}
	if d.chance(0.3) {
		s.Spread = d.between(0.1, 0.8)
	}
	return s
}

// clock says when the encoder hands out its frames. Media time goes in, in order.
type clock struct {
	d    dice
	s    sending
	last int64
}

func (c *clock) leave(media float64, bytes int) int64 {
	work := c.d.spread(c.s.Latency+c.s.PerByte*float64(bytes), c.s.Noise)
	t := int64((media + work) * 1e9)
	for _, h := range c.s.Hiccups {
		if t >= h.from.Nanoseconds() && t < h.to.Nanoseconds() {
			t = h.to.Nanoseconds()
		}
	}
	// What waited is caught up with at the encoder's own speed.
	c.last = max(t, c.last+int64(c.d.between(0.3, 0.6)*c.s.Latency*1e9)+50_000)
	return c.last
}

// send makes the packets of an encoding, up to a length of film.
func (e *encoding) send(d dice, s sending, length time.Duration) []packet {
	if s.TS {
		return e.sendTS(d, s, length)
	}
	var out []packet
	c := clock{d: d, s: s}
	var config [][]byte
	start := e.pictures[0].dts
	period := 1 / e.recipe.Frame.rate()
	for n, pic := range e.pictures {
		media := pic.dts - start
		if media >= length.Seconds() {
			break
		}
		var payloads [][]byte
		if f, ok := forms[e.recipe.Codec]; ok {
			units := splitNAL(pic.data)
			if s.Pack.Config {
				if c := parameterSets(e.recipe.Codec, units); len(c) > 0 {
					config = c
				} else if pic.key {
					units = append(config[:len(config):len(config)], units...)
				}
			}
			payloads = f.payloads(units, s.Pack)
		} else {
			payloads = pieces(e.recipe.Codec, pic.data, pic.key, uint16(n), s.Pack.Room)
		}
		t := c.leave(media, len(pic.data))
		gap := s.Gap.Nanoseconds()
		if s.Spread > 0 {
			gap = max(gap, int64(s.Spread*period*1e9)/int64(len(payloads)))
		}
		for i, b := range payloads {
			out = append(out, packet{
				at: t, ts: uint32(int64(math.Round((pic.pts - start) * 90_000))), pt: s.Payload, payload: b,
				marker: i == len(payloads)-1, key: i == 0 && pic.key, first: i == 0,
			})
			t += gap + int64(d.exponential(0.3*float64(s.Gap))) + int64(float64(8*(len(b)+rtpHeader+wireOverhead))/s.LineRate*1e9)
		}
		c.last = max(c.last, t)
	}
	return inOrder(out)
}

// parameterSets are the units that describe the coding.
func parameterSets(codec string, units [][]byte) [][]byte {
	var out [][]byte
	for _, u := range units {
		kind := u[0] & 0x1f
		if codec == "hevc" {
			kind = u[0] >> 1 & 0x3f
		}
		if codec == "h264" && (kind == 7 || kind == 8) || codec == "hevc" && kind >= 32 && kind <= 34 {
			out = append(out, u)
		}
	}
	return out
}
