package synth

import (
	"math"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// sendTS puts a transport stream into RTP (RFC 2250 §2): seven packets each, either
// at the time that the clock references give them, or when the frame that they
// carry is encoded.
func (e *encoding) sendTS(d dice, s sending, length time.Duration) []packet {
	ts := e.ts[:len(e.ts)/media.TSPacketSize*media.TSPacketSize]
	n := len(ts) / media.TSPacketSize
	times := references(ts)
	if !s.Paced {
		times = e.frameTimes(d, s, ts)
	}
	var out []packet
	for i := 0; i < n; {
		m := min(media.TSPerRTP, n-i)
		if s.Flush && !s.Paced {
			for k := 1; k < m; k++ {
				if times[i+k].frame != times[i].frame {
					m = k
					break
				}
			}
		}
		last := times[i+m-1]
		if s.Paced {
			last = times[i]
		}
		if last.media >= length.Seconds() {
			break
		}
		p := packet{at: last.leave, pt: s.Payload, payload: ts[i*media.TSPacketSize : (i+m)*media.TSPacketSize]}
		switch {
		case s.Paced:
			// A timer wakes the sender a little late, and serves a millisecond at once.
			p.at = int64(last.media*1e9)/1e6*1e6 + int64(d.exponential(60_000)) + int64(s.Latency*1e9)
			p.ts = uint32(int64(math.Round(last.media * 90_000)))
		case s.Stamp == "pts":
			p.ts = uint32(int64(math.Round(last.pts * 90_000)))
		case s.Stamp == "dts":
			p.ts = uint32(int64(math.Round(last.media * 90_000)))
		default:
			p.ts = uint32(p.at / 1000 * 9 / 100)
		}
		for k := 0; k < m; k++ {
			if q := p.payload[k*media.TSPacketSize:]; media.VideoStart(q) && media.RandomAccess(q) {
				p.key = true
			}
			p.first = p.first || media.VideoStart(p.payload[k*media.TSPacketSize:])
		}
		if k := len(out); k > 0 {
			gap := s.Gap.Nanoseconds() + int64(d.exponential(0.3*float64(s.Gap))) + int64(float64(8*(len(p.payload)+rtpHeader+wireOverhead))/s.LineRate*1e9)
			p.at = max(p.at, out[k-1].at+gap)
		}
		out = append(out, p)
		i += m
	}
	return out
}

// tsTime is when one TS packet leaves, and of which media time it is, in seconds.
type tsTime struct {
	leave int64
	media float64 // decoding time, or the clock's
	pts   float64
	frame int
}

// references times packets evenly between the clock references around them, as
// ISO/IEC 13818-1 §2.4.2.2 has it.
func references(ts []byte) []tsTime {
	n := len(ts) / media.TSPacketSize
	out := make([]tsTime, n)
	var c media.PCRClock
	since, at, each := 0, 0.0, 0.0
	for i := range n {
		tick, ok := c.Next(ts[i*media.TSPacketSize : (i+1)*media.TSPacketSize])
		if !ok {
			continue
		}
		now := tick.Elapsed.Seconds()
		if i > since {
			each = (now - at) / float64(i-since)
		}
		for k := since; k < i; k++ {
			out[k].media = at + each*float64(k-since)
		}
		since, at = i, now
	}
	for k := since; k < n; k++ {
		out[k].media = at + each*float64(k-since)
	}
	return out
}

// frameTimes times packets by the frames that they belong to, as a sender does that
// multiplexes each frame when the encoder hands it out.
func (e *encoding) frameTimes(d dice, s sending, ts []byte) []tsTime {
	n := len(ts) / media.TSPacketSize
	out := make([]tsTime, n)
	var now tsTime
	start := math.Inf(1)
	var sizes []int // bytes of each frame
	streams := map[uint16]bool{}
	for i := range n {
		q := ts[i*media.TSPacketSize : (i+1)*media.TSPacketSize]
		if dts, _, ok := pesTimes(q); ok {
			start = math.Min(start, dts)
			sizes = append(sizes, 0)
			streams[media.PID(q)] = true
		}
		if len(sizes) > 0 {
			sizes[len(sizes)-1] += media.TSPacketSize
		}
	}
	c := clock{d: d, s: s}
	frame, tables := 0, 0
	for i := range n {
		q := ts[i*media.TSPacketSize : (i+1)*media.TSPacketSize]
		if dts, pts, ok := pesTimes(q); ok {
			now.media = math.Max(now.media, dts-start)
			now.pts = pts - start
			now.leave = c.leave(now.media, sizes[frame])
			frame++
			now.frame = frame
			for ; tables > 0; tables-- { // what describes the stream goes with what follows it
				out[i-tables] = now
			}
		}
		if tables++; streams[media.PID(q)] {
			tables = 0
		}
		out[i] = now
	}
	return out
}

// pesTimes are the decoding and presentation times, in seconds, of the elementary
// stream's packet that begins in a TS packet (ISO/IEC 13818-1 §2.4.3.7).
func pesTimes(ts []byte) (dts, pts float64, ok bool) {
	b := pesHeader(ts)
	if len(b) < 14 || b[7]&0x80 == 0 {
		return 0, 0, false
	}
	pts = float64(stamp(b[9:])) / 90_000
	if dts = pts; b[7]&0x40 != 0 && len(b) >= 19 {
		dts = float64(stamp(b[14:])) / 90_000
	}
	return dts, pts, true
}

// pesHeader is a TS packet's payload where an elementary stream's packet begins;
// empty for any other.
func pesHeader(ts []byte) []byte {
	if ts[1]&0x40 == 0 || ts[3]&0x10 == 0 {
		return nil
	}
	off := 4
	if ts[3]&0x20 != 0 {
		off += 1 + int(ts[4])
	}
	if off+9 > len(ts) || ts[off] != 0 || ts[off+1] != 0 || ts[off+2] != 1 || ts[off+6]>>6 != 2 {
		return nil
	}
	return ts[off:]
}

// stamp reads 33 bits of 90 kHz.
func stamp(b []byte) uint64 {
	return uint64(b[0]>>1&7)<<30 | uint64(b[1])<<22 | uint64(b[2]>>1)<<15 | uint64(b[3])<<7 | uint64(b[4]>>1)
}

func putStamp(b []byte, v uint64) {
	b[0] = b[0]&0xf1 | byte(v>>30&7)<<1
	b[1] = byte(v >> 22)
	b[2] = byte(v>>15)<<1 | 1
	b[3] = byte(v >> 7)
	b[4] = byte(v)<<1 | 1
}
