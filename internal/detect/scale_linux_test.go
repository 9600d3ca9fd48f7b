package detect

import (
	"crypto/aes"
	"crypto/cipher"
	"runtime"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"golang.org/x/sys/unix"
)

// BenchmarkThousandStreams scores 1000 streams in turn, from windows as they come off the
// bus, so that none finds its memory in a cache: what one core does for a processing
// instance. It prints the share of a core, in processor time, at four windows a second
// from each, the same beside the decryption of what 2 Mb/s bring in a window, and what a
// stream takes.
func BenchmarkThousandStreams(b *testing.B) {
	const streams = 1000
	m, teacher := feature.NewLiveMeter(feature.H264), NewEngine(feature.H264, Settings{})
	ps := newSource(2).run(100)
	var w feature.Window
	var coded [][]byte
	end := int64(feature.Hop)
	for i := range ps {
		for ; ps[i].At >= end; end += feature.Hop {
			m.Roll(&w, end)
			if teacher.Learning() {
				teacher.Observe(&w)
				if end >= learn*1e9 {
					teacher.Settle()
				}
			} else {
				coded = append(coded, w.AppendTo(nil))
			}
		}
		m.Observe(&ps[i])
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	engines := make([]*Engine, streams)
	for i := range engines {
		engines[i] = Resume(teacher.Profile(), Settings{})
	}
	memory := float64(heap()-before) / streams
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			b.Fatal(err)
		}
		return time.Duration(ts.Nano())
	}
	open := opener(b)
	var scored, opened time.Duration
	rounds := 0
	for b.Loop() {
		start := used()
		for i, e := range engines {
			if err := w.Decode(coded[(rounds+i)%len(coded)]); err != nil {
				b.Fatal(err)
			}
			e.Observe(&w)
		}
		scored += used() - start
		start = used()
		for range streams / 10 {
			open()
		}
		opened += (used() - start) * 10
		rounds++
	}
	perSecond := scored.Seconds() / float64(rounds) * hopsPerSecond
	b.ReportMetric(100*perSecond, "%core/1000streams")
	b.ReportMetric(10*perSecond, "%core/100streams")
	b.ReportMetric(float64(scored)/float64(opened), "scoring/opening")
	b.ReportMetric(memory/1024, "KiB/stream")
}

// opener makes what decrypts the packets of a window at 2 Mb/s.
func opener(b *testing.B) func() {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	const size = 7 * 188
	const packets = 2_000_000 / 8 / hopsPerSecond / size
	nonce := make([]byte, gcm.NonceSize())
	sealed, out := gcm.Seal(nil, nonce, make([]byte, size), nil), make([]byte, 0, size)
	return func() {
		for range packets {
			if _, err := gcm.Open(out, nonce, sealed, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}
