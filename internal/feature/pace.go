package feature

import "math"

// tickTurn makes a time into a phase: a period of 1 ms is a full turn of 64 bits.
const tickTurn = (1<<64 - 1) / tickPeriod

// tickTable holds cos and sin of 256 phases, times 1024.
var tickTable = func() (t [256][2]int16) {
	for i := range t {
		s, c := math.Sincos(2 * math.Pi * (float64(i) + 0.5) / 256)
		t[i] = [2]int16{int16(math.Round(c * 1024)), int16(math.Round(s * 1024))}
	}
	return t
}()

const (
	peakSlot = 50e6 // ns
	tickGap  = 20e6 // ns
)

// arrival records the time since the packet before. The length of the packet is known.
func (m *Meter) arrival(at int64) {
	w := &m.w
	gap := max(at-m.last, 0)
	us := gap / 1000
	w.IATSum += uint64(gap)
	w.IATSq += uint64(us) * uint64(us)
	if uint64(gap) > w.MaxGap {
		w.MaxGap = uint64(gap)
	}
	w.IATs[logBucket(float64(us), 1, 0, IATBuckets)]++
	w.PerByte[logBucket(float64(gap*16)*m.perByte, 2, 12, GapBuckets)]++
	if gap < tickGap {
		t := &tickTable[uint64(at)*tickTurn>>56]
		w.TickCos += int64(t[0])
		w.TickSin += int64(t[1])
		w.TickCount++
	}
}

// perByte is what a time in sixteenths of a nanosecond is multiplied with to be one per
// byte of packets of size bytes, and to be in the bucket of the exact quotient, to the
// edge of which it may be equal: so it is 4 units of the last digit greater. The next
// smaller quotient is further away than that, up to the last bucket.
func perByte(size uint32) float64 {
	return (1 + 0x1p-50) / float64(max(size, 1))
}

// logBucket is the bucket of v ≥ 0 in a log-spaced histogram with 1<<fraction buckets an
// octave from 1 on, the first offset of them cut off: exponent and first digits of a
// binary number are its logarithm, with straight lines between the octaves.
func logBucket(v float64, fraction, offset, buckets int) int {
	const digits, bias = 52, 1023 // IEEE 754 binary64
	i := int(math.Float64bits(v)>>(digits-fraction)) - bias<<fraction - offset
	return min(max(i, 0), buckets-1)
}

// size follows the lengths of packets. Most have that of the one before: they enter the
// window together.
func (m *Meter) size(at int64, size uint32) {
	if size != m.length {
		m.endLength()
		m.length, m.perByte = size, perByte(size)
	}
	if at-m.slotStart >= peakSlot {
		m.endSlot()
		m.slotStart, m.slotBytes = at, m.bytes
	}
	m.packets++
	m.bytes += uint64(size)
}

// endLength takes the packets of one length into the window.
func (m *Meter) endLength() {
	w, size, n := &m.w, m.length, m.packets-m.lengthPackets
	if n == 0 {
		return
	}
	m.lengthPackets = m.packets
	if w.Packets == 0 {
		w.SizeMin = size
	}
	w.Packets += n
	w.Bytes += n * uint64(size)
	w.SizeSq += n * uint64(size) * uint64(size)
	w.SizeMin = min(w.SizeMin, size)
	w.SizeMax = max(w.SizeMax, size)
	w.Sizes[min(size/64, SizeBuckets-1)] += uint32(n)
	addTop(&w.Top, SizeCount{size, uint32(n)})
}

// endSlot takes the slot into the window, if one of its packets came in it.
func (m *Meter) endSlot() {
	if m.packets != m.windowPackets {
		m.w.PeakBytes = max(m.w.PeakBytes, m.bytes-m.slotBytes)
	}
}
