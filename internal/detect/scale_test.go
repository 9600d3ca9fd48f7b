package detect

import (
	"runtime"
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// BenchmarkThousandStreams scores 1000 streams in turn, from windows as they come off the
// bus, so that none finds its memory in a cache: what one core does for a processing
// instance. It prints the share of a core at four windows a second from each, and what a
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
	rounds := 0
	for b.Loop() {
		for i, e := range engines {
			if err := w.Decode(coded[(rounds+i)%len(coded)]); err != nil {
				b.Fatal(err)
			}
			e.Observe(&w)
		}
		rounds++
	}
	perSecond := b.Elapsed().Seconds() / float64(rounds) * hopsPerSecond
	b.ReportMetric(100*perSecond, "%core/1000streams")
	b.ReportMetric(10*perSecond, "%core/100streams")
	b.ReportMetric(memory/1024, "KiB/stream")
}
