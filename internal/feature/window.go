package feature

import "math"

// Hop is the length of the shortest window, in nanoseconds.
const Hop = 250e6

// Sizes of a window's histograms.
const (
	IATBuckets  = 48        // inter-arrival time, two an octave from 1 µs
	SizeBuckets = 24        // wire length, 64 bytes each
	GapBuckets  = 64        // time per byte, four an octave
	tickPeriod  = 1_000_000 // ns
)

// noDelay marks a window without a delay.
const noDelay = math.MaxInt64

// SizeCount is a wire length and how many packets had it.
type SizeCount struct{ Size, Count uint32 }

// Window is the summary of one stretch of a stream: its numbers and its words. Both add
// exactly, so that [Window.Add] is associative.
type Window struct {
	Sums
	Tokens TokenSet
}

// Sums are the numbers of a window. Every field adds exactly (sums of integers, minima,
// maxima, highest few), so that [Sums.Add] is associative. Times are nanoseconds on the
// packets' clock. Whoever adds a field adds it to walk as well.
type Sums struct {
	Start, End int64
	Hops       uint32 // hops summed; 0 is the empty window

	Packets, Bytes   uint64 // of the stream itself; bytes on the wire above UDP
	SizeSq           uint64
	SizeMin, SizeMax uint32 // zero where there is no packet
	PeakBytes        uint64 // most bytes in one slot of 50 ms
	Top              [4]SizeCount
	Sizes            [SizeBuckets]uint32

	Gaps    uint64 // packets with a predecessor
	IATSum  uint64 // ns
	IATSq   uint64 // µs²
	MaxGap  uint64 // ns
	IATs    [IATBuckets]uint32
	PerByte [GapBuckets]uint32 // time since the packet before, per byte, log-spaced
	// Sum of unit vectors of the arrival phase in a period of 1 ms, times 1024,
	// over packets that followed another within 20 ms.
	TickCos, TickSin int64
	TickCount        uint64

	Frames, FrameBytes, FramePackets uint64 // frames ended in the window
	FrameSq                          uint64 // bytes²
	Markers                          uint64
	MediaTicks                       uint64 // by how much the RTP timestamp's maximum rose

	// Smallest and second smallest arrival time minus media time, µs on an origin
	// of the stream's own; noDelay without one.
	Delay, Delay2 int64

	// What the path did, by sequence number.
	Lost, Reordered, Duplicates, Jumps uint64

	// What a path does not do.
	TwoContents uint64 // a sequence number a second time with other content
	Stale       uint64 // a second copy after a second and more, or a number over 1024 behind
	Aliens      uint64 // packets of the flow that are not the stream's
	Violations  uint64 // fragments, markers and continuity counters out of order
	Hashed      uint64 // payloads of the sample that is remembered
	Echoes      uint64 // TS: payloads sent under 3 s before, alone among fresh ones; picture times sent twice
	Repeats     uint64 // of Hashed, those last sent longer before
	// Frames with a payload of the sample, and with one sent longer before.
	HashedFrames, RepeatFrames uint64
	LoopFrames                 uint64 // hidden payload: runs of frame sizes that can be told apart
	LoopHits                   uint64 // of them, runs seen before

	SameTimes          uint64 // TS: packets with the timestamp of the packet before
	TSPackets, TSNulls uint64 // visible TS packets with content, and those that only fill
	// TS, as far as it is visible: packets that begin a picture, and that go on with one and
	// are no stuffing.
	TSStarts, TSGoes uint64
	CutPackets       uint64 // packets of which payload bytes are missing
}

// Add merges the later window o into w.
func (w *Window) Add(o *Window) {
	switch {
	case o.Hops == 0:
	case w.Hops == 0:
		*w = *o
	default:
		w.Sums.Add(&o.Sums)
		w.Tokens.Add(&o.Tokens)
	}
}

// Add merges the later numbers o into w.
func (w *Sums) Add(o *Sums) {
	if o.Hops == 0 {
		return
	}
	if w.Hops == 0 {
		*w = *o
		return
	}
	w.Start = min(w.Start, o.Start)
	w.End = max(w.End, o.End)
	w.Hops += o.Hops
	w.Bytes += o.Bytes
	w.SizeSq += o.SizeSq
	switch {
	case o.Packets == 0:
	case w.Packets == 0:
		w.SizeMin = o.SizeMin
	default:
		w.SizeMin = min(w.SizeMin, o.SizeMin)
	}
	w.Packets += o.Packets
	w.SizeMax = max(w.SizeMax, o.SizeMax)
	w.PeakBytes = max(w.PeakBytes, o.PeakBytes)
	for _, t := range o.Top {
		if t.Count > 0 {
			addTop(&w.Top, t)
		}
	}
	addAll(w.Sizes[:], o.Sizes[:])
	w.Gaps += o.Gaps
	w.IATSum += o.IATSum
	w.IATSq += o.IATSq
	w.MaxGap = max(w.MaxGap, o.MaxGap)
	addAll(w.IATs[:], o.IATs[:])
	addAll(w.PerByte[:], o.PerByte[:])
	w.TickCos += o.TickCos
	w.TickSin += o.TickSin
	w.TickCount += o.TickCount
	w.Frames += o.Frames
	w.FrameBytes += o.FrameBytes
	w.FramePackets += o.FramePackets
	w.FrameSq += o.FrameSq
	w.Markers += o.Markers
	w.MediaTicks += o.MediaTicks
	addDelay(&w.Delay, &w.Delay2, o.Delay)
	addDelay(&w.Delay, &w.Delay2, o.Delay2)
	w.Lost += o.Lost
	w.Reordered += o.Reordered
	w.Duplicates += o.Duplicates
	w.Jumps += o.Jumps
	w.TwoContents += o.TwoContents
	w.Stale += o.Stale
	w.Aliens += o.Aliens
	w.Violations += o.Violations
	w.Hashed += o.Hashed
	w.Echoes += o.Echoes
	w.Repeats += o.Repeats
	w.HashedFrames += o.HashedFrames
	w.RepeatFrames += o.RepeatFrames
	w.LoopFrames += o.LoopFrames
	w.LoopHits += o.LoopHits
	w.SameTimes += o.SameTimes
	w.TSPackets += o.TSPackets
	w.TSNulls += o.TSNulls
	w.TSStarts += o.TSStarts
	w.TSGoes += o.TSGoes
	w.CutPackets += o.CutPackets
}

func addAll(a, b []uint32) {
	for i, v := range b {
		a[i] += v
	}
}

// addTop keeps the greatest sizes: those that stay have exact counts whatever the
// order of merging, because a size that falls out once is below four others.
func addTop(top *[4]SizeCount, c SizeCount) {
	for i := range top {
		switch {
		case top[i].Count > 0 && top[i].Size == c.Size:
			top[i].Count += c.Count
			return
		case top[i].Count == 0 || top[i].Size < c.Size:
			copy(top[i+1:], top[i:])
			top[i] = c
			return
		}
	}
}

func addDelay(least, second *int64, d int64) {
	switch {
	case d < *least:
		*least, *second = d, *least
	case d < *second:
		*second = d
	}
}

// Seconds is the length of the window.
func (w *Sums) Seconds() float64 { return float64(w.Hops) * Hop / 1e9 }

// Partial reports that payload-dependent numbers come from cut packets.
func (w *Sums) Partial() bool { return w.CutPackets > 0 }

// Tick is the Rayleigh statistic (mean resultant length) of arrival phases in 1 ms:
// near 0 without a common clock tick, 1 where every packet leaves on one.
func (w *Sums) Tick() float64 {
	if w.TickCount < 16 {
		return 0
	}
	return math.Hypot(float64(w.TickCos), float64(w.TickSin)) / 1024 / float64(w.TickCount)
}

// DelayMS is the low edge of the delay in milliseconds (its second smallest value),
// on the stream's own origin; ok is false in a window without packets.
func (w *Sums) DelayMS() (ms float64, ok bool) {
	if w.Delay2 == noDelay {
		return 0, false
	}
	return float64(w.Delay2) / 1000, true
}
