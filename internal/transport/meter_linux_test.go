package transport

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// BenchmarkMeter is the packet path as it is beside the same with the RTP header
// measured alone and with everything measured, and beside decryption; in turns,
// in one run. It counts all that runs where packets come in: every packet, and the closing
// of a window by the first packet behind it. What is done with a closed window apart from
// them (the meter is tidied, the window encoded) is told apart, by packet. The clip has a picture in every packet or two; the stream has
// as many as one of its rate has. Where the body begins again so do the meters: a source
// that repeats itself is not what is measured.
func BenchmarkMeter(b *testing.B) {
	b.Run("stream-2Mbps", func(b *testing.B) { benchmarkMeter(b, streamOf(2e6), 2e6) })
	b.Run("stream-10Mbps", func(b *testing.B) { benchmarkMeter(b, streamOf(10e6), 10e6) })
	b.Run("clip-250kbps", func(b *testing.B) { benchmarkMeter(b, clip.Bytes(), 250e3) })
}

func benchmarkMeter(b *testing.B, body []byte, rate float64) {
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
	feed := newTSFeed(b, body, rate)
	out := make([]byte, 0, datagramSize)
	var buf []byte
	const (
		open = 3
		tell = 4
	)
	// Of each, the processor time of a second of packets at a time. What counts is the
	// lower quartile: who else uses the machine empties caches.
	var spent [5][]float64
	var sum [5]time.Duration
	now := time.Unix(1, 0)
	rounds, since := 0, now
	// Each leaves the caches to the next: all orders come equally often.
	orders := [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}, {1, 0, 2}}
	for b.Loop() {
		batch := feed.next()
		if feed.wrapped {
			metered(header, headerSes, feature.Hidden)
			metered(full, fullSes, feature.TS)
		}
		now = now.Add(feed.lasts)
		for i := range batch {
			batch[i].At = now.UnixNano() - int64(len(batch)-1-i)*int64(feed.lasts)/int64(len(batch))
		}
		t0 := threadTime(b)
		for i := range batch {
			if _, v := opener.Open(out, batch[i].Data); v != media.OK {
				b.Fatal(v)
			}
		}
		sum[open] += threadTime(b) - t0
		for _, k := range orders[rounds%len(orders)] {
			s := [3]*Service{plain, header, full}[k]
			t0 := threadTime(b)
			s.process(batch, now)
			t1 := threadTime(b)
			sum[k] += t1 - t0
			for _, r := range s.rolled {
				r.ses.gauge.meter.Tidy(r.window.End)
				buf = r.window.AppendTo(buf[:0])
			}
			if k == 2 {
				sum[tell] += threadTime(b) - t1
			}
			s.windows, s.rolled = takeBack(s)
		}
		rounds++
		if now.Sub(since) >= time.Second && rounds%len(orders) == 0 {
			packets := float64(now.Sub(since)/feed.lasts) * float64(len(batch))
			for i := range sum {
				spent[i] = append(spent[i], float64(sum[i].Nanoseconds())/packets)
			}
			sum, since = [5]time.Duration{}, now
		}
	}
	if len(spent[0]) == 0 {
		return // a trial run
	}
	var ns [5]float64
	for i := range spent {
		slices.Sort(spent[i])
		ns[i] = spent[i][len(spent[i])/4]
	}
	b.ReportMetric(ns[open], "open-ns")
	b.ReportMetric(ns[0], "path-ns")
	b.ReportMetric(ns[1]-ns[0], "header-ns")
	b.ReportMetric(ns[2]-ns[0], "all-ns")
	b.ReportMetric(ns[tell], "tell-ns")
	b.ReportMetric((ns[1]-ns[0])/ns[open], "header/open")
	b.ReportMetric((ns[2]-ns[0])/ns[open], "all/open")
}

// TestArrivalIsTheKernels: packets that waited in the socket and are read at once still
// came when they came.
func TestArrivalIsTheKernels(t *testing.T) {
	own, _ := signer(t)
	_, kms := signer(t)
	s, err := New(testConfig(), bus.NewMemory().Conn(), Identity{Signer: own, KMS: kms}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.sock.Close()
	if !s.sock.Granted().Timestamps {
		t.Fatal("Linux gives receive timestamps, and none were asked for")
	}
	_, ses := bareService(t, 1, 1)
	metered(s, ses, feature.TS)
	s.routes[testSSRC], s.streams[testStream] = ses, ses.stream
	feed := newFeed(t)
	feed.next()
	from, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to := from.NewSender(s.sock.LocalAddr(), 1)
	const pause = 30 * time.Millisecond
	for i := range 3 {
		if i > 0 {
			time.Sleep(pause)
		}
		if _, err := to.Send(feed.pkts[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	receiver := s.sock.NewReceiver(batchSize, datagramSize)
	for got := 0; got < 3; {
		batch, err := receiver.Receive()
		if err != nil {
			t.Fatal(err)
		}
		s.process(batch, time.Now())
		got += len(batch)
	}
	var w feature.Window
	ses.gauge.meter.Roll(&w, ses.gauge.end)
	for _, r := range s.rolled {
		w.Add(r.window)
	}
	if w.Packets != 3 || w.Gaps != 2 || w.IATSum < 2*uint64(pause-time.Millisecond) {
		t.Errorf("%d packets, %d gaps of %v in all; want 3, 2, and at least %v", w.Packets, w.Gaps, time.Duration(w.IATSum), 2*pause)
	}
}

// takeBack returns windows to their pool, as telling them does.
func takeBack(s *Service) ([]*feature.Window, []rolled) {
	for _, r := range s.rolled {
		s.windows = append(s.windows, r.window)
	}
	return s.windows, s.rolled[:0]
}

// BenchmarkMemoryMeasured holds 1000 live streams, each with a key, a ledger and a meter,
// ten seconds into a stream of its rate, and prints what one takes.
func BenchmarkMemoryMeasured(b *testing.B) {
	for _, rate := range []float64{2e6, 10e6} {
		b.Run(fmt.Sprintf("%.0fMbps", rate/1e6), func(b *testing.B) { benchmarkMemory(b, rate) })
	}
}

func benchmarkMemory(b *testing.B, rate float64) {
	const streams = 1000
	body := streamOf(rate)
	var heap [4]uint64
	read := func(i int) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		heap[i] = m.HeapAlloc
	}
	for b.Loop() {
		read(0)
		sessions := make([]*session, streams)
		for i := range sessions {
			_, sessions[i] = bareService(b, 1, 1)
		}
		read(1)
		for _, ses := range sessions {
			ses.ledger.accepted(1, 1, 1, 1200)
			if places := 4 * rate / 8 / (media.TSPerRTP * media.TSPacketSize); places > ledgerFirst {
				ses.ledger.grow(int(places))
			}
		}
		read(2)
		var w feature.Window
		p := feature.Packet{Wire: 12 + media.TSPerRTP*media.TSPacketSize, HeaderLen: 12, Header: feature.Header{Flags: 0x80, PayloadType: 33}}
		gap := int64(float64(len(p.Payload)+media.TSPerRTP*media.TSPacketSize) * 8e9 / rate)
		for _, ses := range sessions {
			metered(&Service{}, ses, feature.TS)
			p.At, p.Seq = 0, 0
			for end := int64(feature.Hop); p.At < 10e9; p.At += gap {
				for ; p.At >= end; end += feature.Hop {
					ses.gauge.meter.Roll(&w, end)
				}
				at := int(p.Seq) * media.TSPerRTP * media.TSPacketSize
				p.Payload = body[at : at+media.TSPerRTP*media.TSPacketSize]
				p.Timestamp = uint32(p.At * 9 / 1e5)
				ses.gauge.meter.Observe(&p)
				p.Seq++
			}
			p.Payload = nil
		}
		read(3)
		runtime.KeepAlive(sessions)
	}
	b.ReportMetric(float64(heap[1]-heap[0])/streams, "base-B/stream")
	b.ReportMetric(float64(heap[2]-heap[1])/streams, "ledger-B/stream")
	b.ReportMetric(float64(heap[3]-heap[2])/streams, "meter-B/stream")
	b.ReportMetric(float64(heap[3]-heap[0])/streams, "B/stream")
}

// tsFeed seals a transport stream, over and over. A batch lasts less than maxStamp, so that
// every packet keeps its time.
type tsFeed struct {
	feed
	body  []byte
	at    int
	lasts time.Duration // a batch, at the stream's rate

	wrapped bool // the last batch began again
}

func newTSFeed(b testing.TB, body []byte, rate float64) *tsFeed {
	packet := float64(media.TSPerRTP*media.TSPacketSize*8) / rate * 1e9
	f := &tsFeed{feed: *newFeed(b), body: body}
	f.batch = f.batch[:max(1, min(batchSize, int(float64(maxStamp/2)/packet)))]
	f.lasts = time.Duration(float64(len(f.batch)) * packet)
	return f
}

func (f *tsFeed) next() []media.Datagram {
	const size = media.TSPerRTP * media.TSPacketSize
	f.wrapped = false
	for i := range f.batch {
		if f.at+size > len(f.body) {
			f.at, f.wrapped = 0, true
		}
		h := media.Header{
			PayloadType: media.PayloadTypeTS, Seq: f.index.Seq(), SSRC: testSSRC,
			Timestamp: uint32(uint64(f.index) * uint64(f.lasts) / uint64(len(f.batch)) * 9 / 100_000),
		}
		f.hdr = h.AppendTo(f.hdr[:0])
		pkt, err := f.sealer.Seal(f.bufs[i*datagramSize:i*datagramSize], f.hdr, f.body[f.at:f.at+size], f.index)
		if err != nil {
			f.b.Fatal(err)
		}
		f.batch[i].Data, f.pkts[i] = pkt, pkt
		f.index++
		f.at += size
	}
	return f.batch
}

// streamOf is 16 s of a transport stream of rate bit/s: 25 pictures and as many units of
// sound a second, each with its time, tables ten times a second. What they hold is noise.
func streamOf(rate float64) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var out []byte
	counters := map[uint16]byte{}
	packet := func(pid uint16, start bool, body []byte) []byte {
		p := [media.TSPacketSize]byte{0x47, byte(pid >> 8), byte(pid), 0x10 | counters[pid]&15}
		counters[pid]++
		if start {
			p[1] |= 0x40
		}
		n := 4
		if short := len(p) - 4 - len(body); short > 0 { // an adaptation field fills
			p[3] |= 0x20
			p[4] = byte(short - 1)
			for i := 6; i < 4+short; i++ {
				p[i] = 0xff
			}
			n += short
		}
		k := copy(p[n:], body)
		out = append(out, p[:]...)
		return body[k:]
	}
	unit := func(pid uint16, head string, size int) {
		b := append([]byte(head), make([]byte, size)...)
		for i := len(head); i < len(b); i++ {
			b[i] = byte(rng.Uint32())
		}
		for first := true; len(b) > 0; first = false {
			b = packet(pid, first, b)
		}
	}
	const sound = 128e3 / 8 / 25
	for i := range 16 * 25 {
		if i%5 < 2 {
			packet(0, true, make([]byte, 184))
			packet(0x1000, true, make([]byte, 184))
		}
		clock := string([]byte{0x21, byte(i >> 13), byte(i>>6) | 1, byte(i << 2), 1})
		unit(0x100, "\x00\x00\x01\xe0\x00\x00\x80\x80\x05"+clock+"\x00\x00\x00\x01\x09\xf0\x00\x00\x01\x41\x9a\x24", int(rate/8/25-sound)*17/18)
		unit(0x101, "\x00\x00\x01\xc0\x02\x88\x80\x80\x05"+clock, sound)
	}
	return out
}
