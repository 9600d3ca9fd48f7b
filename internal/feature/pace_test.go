package feature

import (
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

// naiveBucket is the bucket of a whole number by shifting.
func naiveBucket(v uint64, fraction, offset, buckets int) int {
	if v == 0 {
		return 0
	}
	octave := bits.Len64(v) - 1
	i := octave<<fraction | int(v<<fraction>>octave)&(1<<fraction-1)
	return min(max(i-offset, 0), buckets-1)
}

// Times and times per byte fall into the buckets of whole numbers, at their very edges too.
func TestBucketsAreThoseOfWholeNumbers(t *testing.T) {
	check := func(t *rapid.T, gap int64, size uint32) {
		us, per := uint64(gap/1000), uint64(gap*16)/uint64(size)
		if got, want := logBucket(float64(us), 1, 0, IATBuckets), naiveBucket(us, 1, 0, IATBuckets); got != want {
			t.Fatalf("%d µs: bucket %d, want %d", us, got, want)
		}
		if got, want := logBucket(float64(gap*16)*perByte(size), 2, 12, GapBuckets), naiveBucket(per, 2, 12, GapBuckets); got != want {
			t.Fatalf("%d ns for %d bytes: bucket %d, want %d", gap, size, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint32Range(1, 65535).Draw(t, "size")
		check(t, rapid.Int64Range(0, 1<<rapid.IntRange(1, 45).Draw(t, "digits")).Draw(t, "gap"), size)
		edge := (4 + rapid.Int64Range(0, 3).Draw(t, "quarter")) << rapid.IntRange(0, 20).Draw(t, "octave") // ns·16 a byte
		for d := range int64(3) {
			check(t, max(edge*int64(size)/16+d-1, 0), size)
		}
	})
}
