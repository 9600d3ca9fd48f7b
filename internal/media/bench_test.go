package media

import (
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper"
)

// The packets of these benchmarks carry 1316 bytes of transport stream, and
// walk a ring wider than the processor's first cache.
const ringSize = 512

// BenchmarkSRTP prints seal and open beside the bare cipher, measured in turns
// within one run, so that a change of the machine's speed hits all alike.
func BenchmarkSRTP(b *testing.B) {
	key, salt := testKey(1)
	bare, err := newGCM(key)
	if err != nil {
		b.Fatal(err)
	}
	sealer, _ := newSealer(key, salt, testSSRC, 1)
	opener, _ := newOpener(key, salt, testSSRC, 1)
	payload := make([]byte, TSPerRTP*TSPacketSize)
	var ring [ringSize][]byte
	for i := range ring {
		ring[i] = make([]byte, 0, 2048)
	}
	var bareSeal, seal, bareOpen, open time.Duration
	index := gaitkeeper.Index(0)
	hdr := header(0)
	out := make([]byte, 0, 2048)
	sealOnce := func(i int) {
		hdr = Header{PayloadType: PayloadTypeTS, Seq: index.Seq(), SSRC: testSSRC}.AppendTo(hdr[:0])
		ring[i], err = sealer.Seal(ring[i][:0], hdr, payload, index)
		if err != nil {
			b.Fatal(err)
		}
		index++
	}
	rounds := 0
	b.SetBytes(ringSize * TSPerRTP * TSPacketSize)
	b.ReportAllocs()
	for b.Loop() {
		rounds++
		bareOpen += timed(func(i int) {
			ring[i] = append(ring[i][:0], hdr...)
			ring[i] = bare.Seal(ring[i], salt, payload, ring[i][:rtpFixedSize])
		}, &bareSeal, func(i int) {
			if _, err := bare.Open(out, salt, ring[i][rtpFixedSize:], ring[i][:rtpFixedSize]); err != nil {
				b.Fatal(err)
			}
		})
		open += timed(sealOnce, &seal, func(i int) {
			if _, v := opener.Open(out, ring[i]); v != OK {
				b.Fatal(v)
			}
		})
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(rounds*ringSize) }
	b.ReportMetric(per(seal), "seal-ns")
	b.ReportMetric(per(open), "open-ns")
	b.ReportMetric(per(seal)/per(bareSeal), "seal/gcm")
	b.ReportMetric(per(open)/per(bareOpen), "open/gcm")
}

// timed runs two passes over the ring, adds the first one's time to first and
// returns the second one's.
func timed(a func(i int), first *time.Duration, b func(i int)) time.Duration {
	t0 := time.Now()
	for i := range ringSize {
		a(i)
	}
	t1 := time.Now()
	for i := range ringSize {
		b(i)
	}
	*first += t1.Sub(t0)
	return time.Since(t1)
}
