package transport

import (
	"runtime"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// BenchmarkMeter is the packet path as it is beside the same with the RTP header
// measured alone and with everything measured, and beside decryption; in turns,
// in one run. What counts is processor time.
func BenchmarkMeter(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	plain, _ := bareService(b, 1, 1)
	header, headerSes := bareService(b, 1, 1)
	metered(header, headerSes, feature.Hidden)
	full, fullSes := bareService(b, 1, 1)
	metered(full, fullSes, feature.TS)
	opener, err := media.NewOpener(mediaKey(b, 1), testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	feed := newClipFeed(b)
	out := make([]byte, 0, datagramSize)
	var open time.Duration
	var spent [3]time.Duration
	now := time.Unix(1, 0)
	rounds := 0
	// Each leaves the caches to the next: all orders come equally often.
	orders := [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}, {1, 0, 2}}
	b.ReportAllocs()
	for b.Loop() {
		batch := feed.next()
		now = now.Add(feed.lasts)
		t0 := threadTime(b)
		for i := range batch {
			if _, v := opener.Open(out, batch[i].Data); v != media.OK {
				b.Fatal(v)
			}
		}
		open += threadTime(b) - t0
		for _, k := range orders[rounds%len(orders)] {
			s := [3]*Service{plain, header, full}[k]
			t0 := threadTime(b)
			s.process(batch, now)
			spent[k] += threadTime(b) - t0
			s.windows, s.rolled = takeBack(s)
		}
		rounds++
	}
	packets := float64(rounds * batchSize)
	b.ReportMetric(float64(open.Nanoseconds())/packets, "open-ns")
	b.ReportMetric(float64(spent[0].Nanoseconds())/packets, "path-ns")
	b.ReportMetric(float64((spent[1]-spent[0]).Nanoseconds())/packets, "header-ns")
	b.ReportMetric(float64((spent[2]-spent[0]).Nanoseconds())/packets, "all-ns")
	b.ReportMetric(float64(spent[1]-spent[0])/float64(open), "header/open")
	b.ReportMetric(float64(spent[2]-spent[0])/float64(open), "all/open")
}

// takeBack returns windows to their pool, as telling them does.
func takeBack(s *Service) ([]*feature.Window, []rolled) {
	for _, r := range s.rolled {
		s.windows = append(s.windows, r.window)
	}
	return s.windows, s.rolled[:0]
}

// clipFeed seals the demonstration clip, over and over.
type clipFeed struct {
	feed
	at    int
	lasts time.Duration // a batch, at the clip's rate
}

func newClipFeed(b testing.TB) *clipFeed {
	const bitRate = 2e6
	packet := float64(media.TSPerRTP*media.TSPacketSize*8) / bitRate
	return &clipFeed{feed: *newFeed(b), lasts: time.Duration(batchSize * packet * 1e9)}
}

func (f *clipFeed) next() []media.Datagram {
	const size = media.TSPerRTP * media.TSPacketSize
	body := clip.Bytes()
	for i := range f.batch {
		if f.at+size > len(body) {
			f.at = 0
		}
		h := media.Header{PayloadType: media.PayloadTypeTS, Seq: f.index.Seq(), Timestamp: uint32(f.index) * 474, SSRC: testSSRC}
		f.hdr = h.AppendTo(f.hdr[:0])
		pkt, err := f.sealer.Seal(f.bufs[i*datagramSize:i*datagramSize], f.hdr, body[f.at:f.at+size], f.index)
		if err != nil {
			f.b.Fatal(err)
		}
		f.batch[i].Data, f.pkts[i] = pkt, pkt
		f.index++
		f.at += size
	}
	return f.batch
}
