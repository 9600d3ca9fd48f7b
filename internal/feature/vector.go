package feature

import "math"

// Feature names one number of a window's vector.
type Feature int

// The vector. Order and meaning are part of stored profiles.
const (
	PacketRate Feature = iota
	ByteRate
	PeakRate
	SizeMean
	SizeDeviation
	SizeRange
	IATMean
	IATDeviation
	IATLow
	IATMedian
	FrameRate
	FrameSize
	FrameVariation
	FramePackets
	PaceMedian
	PaceSpread
	MediaRate
	LossShare
	Features
)

// Description says what a feature is.
type Description struct {
	Name, Unit, Formula string
	// Path is set where the network alone can move the number.
	Path bool
}

// Descriptions holds every feature in the order of the vector.
var Descriptions = [Features]Description{
	PacketRate:     {"packet-rate", "log2(1/s)", "packets / time", true},
	ByteRate:       {"byte-rate", "log2(B/s)", "bytes on the wire / time", true},
	PeakRate:       {"peak-rate", "log2(B/s)", "most bytes in a slot of 50 ms / 50 ms", true},
	SizeMean:       {"size-mean", "B", "Σ size / packets", false},
	SizeDeviation:  {"size-deviation", "B", "√(Σ size² / packets − mean²)", false},
	SizeRange:      {"size-range", "B", "max − min", false},
	IATMean:        {"iat-mean", "log2(µs)", "Σ gap / gaps", true},
	IATDeviation:   {"iat-deviation", "log2(µs)", "√(Σ gap² / gaps − mean²)", true},
	IATLow:         {"iat-p10", "log2(µs)", "10 % quantile of the gap histogram", true},
	IATMedian:      {"iat-p50", "log2(µs)", "median of the gap histogram", true},
	FrameRate:      {"frame-rate", "log2(1/s)", "changes of the RTP timestamp / time", true},
	FrameSize:      {"frame-size", "log2(B)", "Σ frame bytes / frames", false},
	FrameVariation: {"frame-variation", "1", "deviation / mean of frame bytes", false},
	FramePackets:   {"frame-packets", "log2(1)", "packets of ended frames / frames", false},
	PaceMedian:     {"pace-p50", "octave", "median of log2(gap / byte)", true},
	PaceSpread:     {"pace-spread", "octave", "p80 − p20 of log2(gap / byte)", true},
	MediaRate:      {"media-rate", "1", "rise of the RTP timestamp's maximum / 90 kHz / time", true},
	LossShare:      {"loss", "1", "missing sequence numbers / (packets + missing)", true},
}

// Vector is a window in numbers, in the order of the features.
type Vector [Features]float64

func lg(x float64) float64 { return math.Log2(math.Max(x, 1e-3)) }

// Vector computes the numbers of w. ok is false where too few packets came for them
// to mean anything.
func (w *Sums) Vector() (v Vector, ok bool) {
	n, seconds := float64(w.Packets), w.Seconds()
	if w.Packets < 4 || w.Gaps < 3 {
		return v, false
	}
	mean := float64(w.Bytes) / n
	v[PacketRate] = lg(n / seconds)
	v[ByteRate] = lg(float64(w.Bytes) / seconds)
	v[PeakRate] = lg(float64(w.PeakBytes) / (peakSlot / 1e9))
	v[SizeMean] = mean
	v[SizeDeviation] = math.Sqrt(math.Max(float64(w.SizeSq)/n-mean*mean, 0))
	v[SizeRange] = float64(w.SizeMax - w.SizeMin)
	g := float64(w.Gaps)
	gap := float64(w.IATSum) / g / 1e3
	v[IATMean] = lg(gap)
	v[IATDeviation] = lg(math.Sqrt(math.Max(float64(w.IATSq)/g-gap*gap, 0)))
	v[IATLow] = quantile(w.IATs[:], 0.1) / 2
	v[IATMedian] = quantile(w.IATs[:], 0.5) / 2
	if w.Frames > 0 {
		f := float64(w.Frames)
		size := float64(w.FrameBytes) / f
		v[FrameRate] = lg(f / seconds)
		v[FrameSize] = lg(size)
		v[FrameVariation] = math.Sqrt(math.Max(float64(w.FrameSq)/f-size*size, 0)) / math.Max(size, 1)
		v[FramePackets] = lg(float64(w.FramePackets) / f)
	}
	v[PaceMedian] = quantile(w.PerByte[:], 0.5) / 4
	v[PaceSpread] = (quantile(w.PerByte[:], 0.8) - quantile(w.PerByte[:], 0.2)) / 4
	v[MediaRate] = float64(w.MediaTicks) / 90000 / seconds
	v[LossShare] = float64(w.Lost) / (n + float64(w.Lost))
	return v, true
}

// quantile walks a histogram to its q-quantile, in buckets, interpolated.
func quantile(h []uint32, q float64) float64 {
	total := uint64(0)
	for _, c := range h {
		total += uint64(c)
	}
	if total == 0 {
		return 0
	}
	want, sum := q*float64(total), 0.0
	for i, c := range h {
		if s := sum + float64(c); s >= want && c > 0 {
			return float64(i) + (want-sum)/float64(c)
		}
		sum += float64(c)
	}
	return float64(len(h))
}
