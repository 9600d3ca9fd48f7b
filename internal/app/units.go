package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Percent is a share between 0 and 1, written "2%" or "0.5%".
type Percent float64

// UnmarshalText reads "0%" to "100%". The sign is required: "2" could as well
// mean everything twice over.
func (p *Percent) UnmarshalText(b []byte) error {
	digits, ok := strings.CutSuffix(strings.TrimSpace(string(b)), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok && (err != nil || v != 0) {
		return fmt.Errorf("%q is not a percentage: write for example 2%%", b)
	}
	if err != nil || math.IsNaN(v) || v < 0 || v > 100 {
		return fmt.Errorf("%q is not a percentage: write 0%% to 100%%", b)
	}
	*p = Percent(v / 100)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p Percent) String() string {
	return strconv.FormatFloat(math.Round(float64(p)*1e8)/1e6, 'f', -1, 64) + "%"
}

// Size is a number of bytes, written "512KiB", "8MiB", "1GB" or plain.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1}, {"", 1},
}

// UnmarshalText reads a number with one of the units KiB, MiB, GiB, TiB
// (powers of 1024), kB, MB, GB, TB (powers of 1000), B or none.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	digits := strings.TrimRight(text, "BKMGTikb ")
	unit := strings.TrimSpace(text[len(digits):])
	for _, u := range sizeUnits {
		if u.suffix != unit {
			continue
		}
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.bytes >= math.MaxInt64 {
			break
		}
		*s = Size(v * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size: write for example 512KiB or 8MiB", b)
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s > 0 && int64(s)%int64(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/int64(u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// BitRate is a number of bits a second, written "800k", "8M", "8Mb/s" or plain.
type BitRate int64

var rateUnits = []struct {
	suffix string
	bits   float64
}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1}}

// UnmarshalText reads a number with one of the units k, M or G (powers of
// 1000), each alone or before "b/s" or "bit/s".
func (r *BitRate) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSuffix(text, "bit/s"), "b/s"))
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(digits, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.bits >= math.MaxInt64 {
			break
		}
		*r = BitRate(v * u.bits)
		return nil
	}
	return fmt.Errorf("%q is not a bit rate: write for example 800k or 8M (bits a second)", b)
}

// MarshalText writes what UnmarshalText reads.
func (r BitRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String gives three significant digits, for people.
func (r BitRate) String() string {
	for _, u := range rateUnits {
		if float64(r) >= u.bits && u.bits > 1 {
			return strconv.FormatFloat(float64(r)/u.bits, 'g', 3, 64) + " " + u.suffix + "b/s"
		}
	}
	return strconv.FormatInt(int64(r), 10) + " b/s"
}
