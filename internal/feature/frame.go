package feature

import "math"

// clockRestart is how far, in ticks, a timestamp of the same clock moves: 30 s.
const clockRestart = 30 * 90000

// frame follows the RTP timestamp: frames, their step, rhythm and delay.
func (m *Meter) frame(p *Packet, consecutive bool) {
	step := int64(int32(p.Timestamp - m.lastTS))
	m.sameTime = step == 0
	if step != 0 {
		m.step(p, step, consecutive)
	}
	if p.Marker {
		m.w.Markers++
	}
	if p.At*9-m.mediaTime*100_000 < m.nearDelay {
		m.delay(p.At)
	}
	// A marker ends a frame (RFC 6184 §5.1): the next packet has another time, and
	// no other packet has.
	if m.marker == (step == 0) && consecutive && m.form != TS {
		m.w.Violations++
	}
}

// step is a new timestamp: the frame before has ended.
func (m *Meter) step(p *Packet, step int64, consecutive bool) {
	m.lastTS = p.Timestamp
	if !m.clocked {
		m.clocked, m.nearDelay = true, math.MaxInt64
	}
	// A clock that begins anew says nothing about the delay: time goes on as it came.
	if step > clockRestart || step < -clockRestart {
		m.mediaTime += (p.At - m.last) * 9 / 1e5
	} else {
		m.mediaTime += step
	}
	m.hashedFrame, m.repeatedFrame = false, false
	if m.inFrame {
		m.endFrame(p)
	}
	m.inFrame = true
	if m.mediaTime > m.mediaHigh {
		m.w.MediaTicks += uint64(min(m.mediaTime-m.mediaHigh, 1<<26))
		m.mediaHigh = m.mediaTime
	}
	if consecutive {
		m.tokens.add(token(FamilyStep, uint32(min(max(step, -1<<26), 1<<26))), p.At)
	}
}

// endFrame takes the frame before p, which is counted already, into the window.
func (m *Meter) endFrame(p *Packet) {
	w := &m.w
	packets, bytes := m.packets-1, m.bytes-uint64(uint32(p.Wire))
	size := bytes - m.frameBytes
	w.Frames++
	w.FrameBytes += size
	w.FrameSq += size * size
	w.FramePackets += packets - m.framePackets
	m.framePackets, m.frameBytes = packets, bytes
	if m.runs != nil {
		eligible, seen := m.runs.add(uint32(size), p.At)
		if eligible {
			w.LoopFrames++
		}
		if seen {
			w.LoopHits++
		}
	}
}

// delay takes the delay of a packet at the time at into the window. Both times are cut to
// whole µs, so that it is less than 2 away from their difference: where that is 2 above
// the second smallest, which nearDelay says in units of 1/9 ns, nothing would change.
func (m *Meter) delay(at int64) {
	w := &m.w
	addDelay(&w.Delay, &w.Delay2, at/1000-m.mediaTime*100/9-m.origin) // 90 kHz ticks to µs
	if w.Delay2 != noDelay {
		m.nearDelay = (w.Delay2 + m.origin + 2) * 9000
	}
}
