package clip

import (
	"crypto/sha256"
	"io"
	"testing"
	"time"
)

const (
	packetSize = 188
	maxSize    = 6 << 20
	pcrHz      = 27_000_000
)

// pcrOf returns the clock reference of one TS packet (ISO 13818-1 §2.4.3.5).
func pcrOf(p []byte) (ticks int64, ok bool) {
	if p[3]&0x20 == 0 || p[4] < 7 || p[5]&0x10 == 0 {
		return 0, false
	}
	base := int64(p[6])<<25 | int64(p[7])<<17 | int64(p[8])<<9 | int64(p[9])<<1 | int64(p[10])>>7
	return base*300 + int64(p[10]&1)<<8 + int64(p[11]), true
}

func TestClipIsWholeTransportStreamPackets(t *testing.T) {
	b := Bytes()
	if len(b) == 0 || len(b) > maxSize {
		t.Fatalf("%d bytes, want 1 to %d", len(b), maxSize)
	}
	if len(b)%packetSize != 0 {
		t.Fatalf("%d bytes are no whole number of packets", len(b))
	}
	for i := 0; i < len(b); i += packetSize {
		if b[i] != 0x47 {
			t.Fatalf("no sync byte at offset %d", i)
		}
	}
	fromReader, err := io.ReadAll(Open())
	if err != nil || sha256.Sum256(fromReader) != sha256.Sum256(b) {
		t.Fatalf("Open and Bytes differ (err %v)", err)
	}
}

func TestClipPlaysItsDurationWithoutRepeating(t *testing.T) {
	b := Bytes()
	first, last := int64(-1), int64(-1)
	second, start := int64(0), 0
	seen := map[[32]byte]int64{}
	for i := 0; i < len(b); i += packetSize {
		pcr, ok := pcrOf(b[i : i+packetSize])
		if !ok {
			continue
		}
		if first < 0 {
			first = pcr
		}
		if pcr < last {
			t.Fatalf("clock reference falls at offset %d: %d after %d", i, pcr, last)
		}
		last = pcr
		if s := (pcr - first) / pcrHz; s > second {
			sum := sha256.Sum256(b[start:i])
			if before, dup := seen[sum]; dup {
				t.Errorf("seconds %d and %d are the same bytes", before, second)
			}
			seen[sum] = second
			second, start = s, i
		}
	}
	length := time.Duration((last - first) / 27 * int64(time.Microsecond))
	if length < 150*time.Second {
		t.Errorf("%v long, want at least 150 s", length)
	}
	if d := Duration - length; d < -time.Second || d > time.Second {
		t.Errorf("%v long, Duration says %v", length, Duration)
	}
	if len(seen) < 149 {
		t.Errorf("only %d whole seconds compared", len(seen))
	}
}
