package feature

import (
	"fmt"
	"math"
)

// Words names a number of the vector.
func (f Feature) Words() string {
	if f < 0 || f >= Features {
		return ""
	}
	return featureWords[f]
}

var featureWords = [Features]string{
	PacketRate: "packet rate", ByteRate: "bit rate", PeakRate: "peak bit rate over 50 ms",
	SizeMean: "mean packet size", SizeDeviation: "deviation of packet sizes", SizeRange: "range of packet sizes",
	IATMean: "mean time between packets", IATDeviation: "deviation of the time between packets",
	IATLow: "shortest tenth of the times between packets", IATMedian: "median time between packets",
	FrameRate: "picture rate", FrameSize: "mean picture size", FrameVariation: "variation of picture sizes", FramePackets: "packets a picture",
	PaceMedian: "median pace", PaceSpread: "spread of the pace", MediaRate: "speed of the media clock", LossShare: "loss",
}

// Say puts a value of the vector in the unit that people use for it.
func (f Feature) Say(x float64) string {
	switch f {
	case PacketRate, FrameRate:
		return digits(math.Exp2(x)) + "/s"
	case ByteRate, PeakRate:
		return BitRate(math.Exp2(x))
	case SizeMean, SizeDeviation, SizeRange:
		return fmt.Sprintf("%.0f bytes", x)
	case IATMean, IATDeviation, IATLow, IATMedian:
		return Microseconds(math.Exp2(x))
	case FrameSize:
		return Bytes(math.Exp2(x))
	case FramePackets:
		return digits(math.Exp2(x))
	case PaceMedian: // ns a byte, of a histogram that begins at a half
		return Microseconds(math.Exp2(x-1)/1000) + " a byte"
	case PaceSpread:
		return "a factor of " + digits(math.Exp2(x))
	case FrameVariation, LossShare:
		return digits(100*x) + " %"
	case MediaRate:
		return fmt.Sprintf("%.3g of real time", x)
	}
	return ""
}

// digits says a number in three digits, or more where it has more before its point.
func digits(x float64) string {
	if math.Abs(x) >= 999.5 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// BitRate says bytes a second as bits a second.
func BitRate(bytesPerSecond float64) string {
	switch bits := 8 * bytesPerSecond; {
	case bits >= 999.5e3:
		return digits(bits/1e6) + " Mb/s"
	case bits >= 999.5:
		return fmt.Sprintf("%.3g kb/s", bits/1e3)
	default:
		return fmt.Sprintf("%.0f b/s", bits)
	}
}

// Bytes says a size.
func Bytes(n float64) string {
	if n >= 9999.5 {
		return digits(n/1000) + " kB"
	}
	return fmt.Sprintf("%.0f bytes", n)
}

// Microseconds says a time of so many microseconds.
func Microseconds(us float64) string {
	switch {
	case us >= 999.5e3:
		return digits(us/1e6) + " s"
	case us >= 999.5:
		return fmt.Sprintf("%.3g ms", us/1e3)
	case us >= 0.9995:
		return fmt.Sprintf("%.3g µs", us)
	default:
		return fmt.Sprintf("%.3g ns", us*1000)
	}
}
