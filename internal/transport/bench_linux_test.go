package transport

import (
	"runtime"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
	"golang.org/x/sys/unix"
)

// BenchmarkPacketPath is the path from route to fan out, with nobody to hand to,
// beside the opening of the same packets alone; in turns, in one run.
func BenchmarkPacketPath(b *testing.B) {
	s, _ := bareService(b, 1, 1)
	opener, err := media.NewOpener(mediaKey(b, 1), testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	feed := newFeed(b)
	out := make([]byte, 0, datagramSize)
	var path, open time.Duration
	now := time.Unix(1, 0)
	b.ReportAllocs()
	rounds := 0
	for b.Loop() {
		rounds++
		batch := feed.next()
		t0 := time.Now()
		for i := range batch {
			if _, v := opener.Open(out, batch[i].Data); v != media.OK {
				b.Fatal(v)
			}
		}
		t1 := time.Now()
		s.process(batch, now)
		open += t1.Sub(t0)
		path += time.Since(t1)
	}
	packets := float64(rounds * batchSize)
	b.ReportMetric(float64(path.Nanoseconds())/packets, "path-ns")
	b.ReportMetric(float64(open.Nanoseconds())/packets, "open-ns")
	b.ReportMetric(float64(path)/float64(open), "path/open")
}

// feed seals batches of packets, one after the other.
type feed struct {
	b      testing.TB
	sealer *media.Sealer
	index  gk.Index
	batch  []media.Datagram
	pkts   [][]byte
	bufs   []byte
	body   []byte
	hdr    []byte
}

func newFeed(b testing.TB) *feed {
	sealer, err := media.NewSealer(mediaKey(b, 1), testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	return &feed{
		b: b, sealer: sealer, index: 1, batch: make([]media.Datagram, batchSize), pkts: make([][]byte, batchSize),
		bufs: make([]byte, batchSize*datagramSize), body: tsPayload(1), hdr: make([]byte, 0, 12),
	}
}

func (f *feed) next() []media.Datagram {
	for i := range f.batch {
		f.hdr = media.Header{PayloadType: media.PayloadTypeTS, Seq: f.index.Seq(), SSRC: testSSRC}.AppendTo(f.hdr[:0])
		pkt, err := f.sealer.Seal(f.bufs[i*datagramSize:i*datagramSize], f.hdr, f.body, f.index)
		if err != nil {
			f.b.Fatal(err)
		}
		f.batch[i].Data, f.pkts[i] = pkt, pkt
		f.index++
	}
	return f.batch
}

// BenchmarkRelay is the transport between two loopback sockets, SRTP in and clear
// MPEG-TS over UDP out, beside plain relays of the same packets: one datagram a
// system call, and batched like the transport. What counts is the processor time
// of the thread in the middle; the three take turns in one run.
func BenchmarkRelay(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	in := benchSocket(b)
	sink := benchSocket(b)
	from := benchSocket(b).NewSender(in.LocalAddr(), batchSize)
	sinkReceiver := sink.NewReceiver(batchSize, datagramSize)
	receiver := in.NewReceiver(batchSize, datagramSize)
	single := in.NewReceiver(1, datagramSize)
	plain := benchSocket(b).NewSender(sink.LocalAddr(), batchSize)

	s, ses := bareService(b, 1, 1)
	to, err := newUDPOutput(sink.LocalAddr())
	if err != nil {
		b.Fatal(err)
	}
	defer to.close()
	ses.stream.outputs = []output{to}
	feed := newFeed(b)

	// turn sends a batch, lets the middle move it, and takes it off the sink.
	turn := func(spent *time.Duration, middle func() int) {
		feed.next()
		if _, err := from.Send(feed.pkts); err != nil {
			b.Fatal(err)
		}
		before := threadTime(b)
		for n := 0; n < batchSize; {
			n += middle()
		}
		*spent += threadTime(b) - before
		for n := 0; n < batchSize; {
			batch, err := sinkReceiver.Receive()
			if err != nil {
				b.Fatal(err)
			}
			n += len(batch)
		}
	}
	relay := func(r *media.Receiver) func() int {
		pkts := make([][]byte, 0, batchSize)
		return func() int {
			batch, err := r.Receive()
			if err != nil {
				b.Fatal(err)
			}
			pkts = pkts[:0]
			for i := range batch {
				pkts = append(pkts, batch[i].Data)
			}
			if _, err := plain.Send(pkts); err != nil {
				b.Fatal(err)
			}
			return len(batch)
		}
	}
	one, many := relay(single), relay(receiver)
	transport := func() int {
		batch, err := receiver.Receive()
		if err != nil {
			b.Fatal(err)
		}
		s.process(batch, time.Unix(1, 0)) // within the session's lease
		return len(batch)
	}
	var single1, batched, opened time.Duration
	rounds := 0
	b.ReportAllocs()
	for b.Loop() {
		rounds++
		turn(&opened, transport)
		turn(&single1, one)
		turn(&batched, many)
		// The plain relays moved packets that the session never saw.
		ses.order.next = feed.index
	}
	perGB := func(d time.Duration) float64 {
		return d.Seconds() / (float64(rounds*batchSize*media.TSPerRTP*media.TSPacketSize) / 1e9)
	}
	b.ReportMetric(perGB(opened), "transport-s/GB")
	b.ReportMetric(perGB(single1), "plain-s/GB")
	b.ReportMetric(perGB(batched), "batched-s/GB")
	b.ReportMetric(float64(opened)/float64(single1), "transport/plain")
	b.ReportMetric(float64(opened)/float64(batched), "transport/batched")
}

func benchSocket(b *testing.B) *media.UDPSocket {
	b.Helper()
	s, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{ReceiveBuffer: 4 << 20, SendBuffer: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// threadTime is the processor time that the calling thread has used.
func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkMemory holds 1000 live streams, each with a current and an armed key,
// and prints what one of them takes.
func BenchmarkMemory(b *testing.B) {
	const streams = 1000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, _ := bareService(b, 1)
		for i := range streams {
			_, ses := bareService(b, 1, 1, 2)
			s.routes[uint32(i)] = ses
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/streams, "B/stream")
}
