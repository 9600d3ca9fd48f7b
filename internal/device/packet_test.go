package device

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// catcher is a network that keeps what is sent.
type catcher struct {
	pkts [][]byte
	fail error
}

func (c *catcher) Send(pkts [][]byte) (int, error) {
	if c.fail != nil {
		return 0, c.fail
	}
	for _, p := range pkts {
		c.pkts = append(c.pkts, bytes.Clone(p))
	}
	return len(pkts), nil
}

// granter gives a packet path keys, and remembers them as a receiver would.
type granter struct {
	link  *link
	epoch gk.Epoch
	open  map[gk.Epoch]*media.Opener
}

func newGranter(t testing.TB, payload gkrp.Payload, outs ...sender) *granter {
	t.Helper()
	return &granter{link: &link{ssrc: 0xfeedbeef, outs: outs, payload: payload}, open: map[gk.Epoch]*media.Opener{}}
}

type failer interface{ Fatal(args ...any) }

func (g *granter) next(t failer) key {
	m, err := keyring.NewMediaKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.epoch++
	s, err := media.NewSealer(m, g.link.ssrc, g.epoch)
	if err != nil {
		t.Fatal(err)
	}
	if g.open[g.epoch], err = media.NewOpener(m, g.link.ssrc, g.epoch); err != nil {
		t.Fatal(err)
	}
	return key{sealer: s, link: g.link, epoch: g.epoch}
}

// rotate installs the next key and tells its opener where it begins.
func (g *granter) rotate(t failer, p *packetPath) gk.Index {
	k := g.next(t)
	first := p.install(time.Now(), k)
	g.open[g.epoch].Begin(first)
	if before := g.open[g.epoch-1]; before != nil {
		before.End(first)
	}
	return first
}

// receive opens a packet by the epoch that it names.
func (g *granter) receive(t failer, pkt []byte) media.Opened {
	e, ok := media.PacketEpoch(pkt)
	if !ok || g.open[e] == nil {
		t.Fatal("packet of epoch ", e)
	}
	o, v := g.open[e].Open(nil, pkt)
	if v != media.OK {
		t.Fatal("packet of epoch ", e, ": ", v)
	}
	return o
}

func tsBatch(m *tsMaker, units, packets int) *Batch {
	var b Batch
	for range units {
		b.Units = append(b.Units, Unit{Payload: m.packets(nil, packets), Timestamp: uint32(m.n), Type: media.PayloadTypeTS})
	}
	return &b
}

// Every byte that goes in comes out under the key of its epoch, at rising
// indices, with each epoch beginning at exactly the index that was announced.
func TestPacketPathRoundTrip(t *testing.T) {
	net := &catcher{}
	type tapped struct {
		index   gk.Index
		payload []byte
	}
	var taps []tapped
	p := newPacketPath(func(i gk.Index, b []byte) { taps = append(taps, tapped{i, bytes.Clone(b)}) })
	if p.next >= 1<<15+1 || p.next < 1 {
		t.Fatalf("begins at index %d", p.next)
	}
	g := newGranter(t, payloadMP2T, net)
	m := newTS(0, time.Millisecond, 10)
	var want []byte
	firsts := map[gk.Epoch]gk.Index{}
	p.next = 65000 // so that the sequence number wraps on the way
	for i := range 300 {
		if i%7 == 0 { // and sometimes with nothing sent in between
			for range 1 + (i/7+1)%2 {
				first := g.rotate(t, p)
				firsts[g.epoch] = first
			}
		}
		b := tsBatch(m, 1+i%40, 1+i%7)
		for _, u := range b.Units {
			want = append(want, u.Payload...)
		}
		p.send(time.Now(), b)
	}
	var got []byte
	last := gk.Index(64999)
	for i, pkt := range net.pkts {
		o := g.receive(t, pkt)
		if o.Index != last+1 {
			t.Fatalf("index %d after %d", o.Index, last)
		}
		last = o.Index
		e, _ := media.PacketEpoch(pkt)
		if o.Index < firsts[e] || firsts[e+1] != 0 && o.Index >= firsts[e+1] {
			t.Fatalf("index %d under epoch %d, which is %d to %d", o.Index, e, firsts[e], firsts[e+1])
		}
		if o.Header.PayloadType != 33 || o.Header.SSRC != g.link.ssrc || o.Header.Marker {
			t.Fatalf("header %+v", o.Header)
		}
		if taps[i].index != o.Index || !bytes.Equal(taps[i].payload, o.Payload) {
			t.Fatalf("the tap saw something else at index %d", o.Index)
		}
		got = append(got, o.Payload...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came out, %d went in, or they differ", len(got), len(want))
	}
	r := p.report(time.Now())
	if r.To != last+1 || r.Packets != uint64(len(net.pkts)) || r.Bytes != uint64(len(want)) || r.Renew {
		t.Errorf("report %+v", r)
	}
	if again := p.report(time.Now()); again.From != r.To || again.To != r.To {
		t.Errorf("second report %+v", again)
	}
}

func TestNothingLeavesWithoutAValidKey(t *testing.T) {
	net := &catcher{}
	p := newPacketPath(nil)
	m := newTS(0, time.Millisecond, 10)
	now := time.Unix(1000, 0)
	p.send(now, tsBatch(m, 3, 7))
	g := newGranter(t, payloadMP2T, net)
	g.link.reject = time.Minute
	p.install(now, g.next(t))
	p.send(now.Add(time.Minute), tsBatch(m, 2, 7))
	p.send(now.Add(time.Minute+1), tsBatch(m, 4, 7)) // past the key's life
	p.install(now.Add(2*time.Minute), g.next(t))
	p.send(now.Add(2*time.Minute), tsBatch(m, 5, 7))
	p.close()
	p.send(now.Add(2*time.Minute), tsBatch(m, 6, 7))
	if c, epoch, _ := p.snapshot(); len(net.pkts) != 7 || c.Unkeyed != 13 || c.Packets != 7 || c.Refused != 0 || epoch != 2 {
		t.Errorf("%d packets left, counts %+v, epoch %d", len(net.pkts), c, epoch)
	}
}

func TestBreakMarksOnePacketAndAsksForAKey(t *testing.T) {
	net := &catcher{}
	p := newPacketPath(nil)
	g := newGranter(t, payloadMP2T, net)
	g.rotate(t, p)
	m := newTS(0, time.Millisecond, 10)
	p.send(time.Now(), tsBatch(m, 2, 7))
	b := tsBatch(m, 2, 7)
	b.Break = "jump"
	p.send(time.Now(), b)
	if !p.report(time.Now()).Renew || !p.report(time.Now()).Renew {
		t.Error("a report after a break does not ask for a new key")
	}
	g.rotate(t, p)
	if p.report(time.Now()).Renew {
		t.Error("a report under the new key asks for another")
	}
	var marks []bool
	for _, pkt := range net.pkts {
		marks = append(marks, g.receive(t, pkt).Header.Marker)
	}
	if len(marks) != 4 || marks[0] || marks[1] || !marks[2] || marks[3] {
		t.Errorf("markers %v", marks)
	}
}

func TestNativeRTPKeepsItsHeader(t *testing.T) {
	net := &catcher{}
	p := newPacketPath(nil)
	g := newGranter(t, gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90000}, net)
	first := g.rotate(t, p)
	p.send(time.Now(), &Batch{Break: "jump", Units: []Unit{
		{Payload: []byte("a"), Timestamp: 7, Type: 96},
		{Payload: []byte("b"), Timestamp: 8, Type: 97, Marker: true, Skip: 3},
	}})
	a, b := g.receive(t, net.pkts[0]), g.receive(t, net.pkts[1])
	if a.Header.Timestamp != 7 || a.Header.PayloadType != 96 || a.Header.Marker || a.Index != first {
		t.Errorf("first: %+v at %d", a.Header, a.Index)
	}
	if b.Header.Timestamp != 8 || b.Header.PayloadType != 97 || !b.Header.Marker || b.Index != first+4 {
		t.Errorf("second: %+v at %d, the first is %d", b.Header, b.Index, first)
	}
}

func TestSendErrorsAreCountedAndTheIndexGoesOn(t *testing.T) {
	net := &catcher{fail: errors.New("network is unreachable")}
	p := newPacketPath(nil)
	g := newGranter(t, payloadMP2T, net)
	g.rotate(t, p)
	m := newTS(0, time.Millisecond, 10)
	begin := p.end()
	p.send(time.Now(), tsBatch(m, 3, 7))
	net.fail = nil
	p.send(time.Now(), tsBatch(m, 1, 7))
	c, _, err := p.snapshot()
	if c.SendErrors != 3 || err == nil || p.end() != begin+4 || len(net.pkts) != 1 {
		t.Errorf("counts %+v, err %v, index %d after %d, %d packets", c, err, p.end(), begin, len(net.pkts))
	}
	if o := g.receive(t, net.pkts[0]); o.Index != begin+3 {
		t.Errorf("index %d", o.Index)
	}
}

// Rotations, new sessions, breaks, gaps and failed sends in any order: no index is
// ever sealed twice, and every packet opens under the epoch that it names.
func TestIndexIsNeverUsedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		net := &catcher{}
		p := newPacketPath(nil)
		p.next = gk.Index(rapid.Uint64Range(0, 1<<20).Draw(t, "start"))
		m := newTS(0, time.Millisecond, 10)
		grants := []*granter{}
		session := func() {
			g := &granter{link: &link{ssrc: 1 + uint32(len(grants)), outs: []sender{net}, payload: payloadMP2T}, open: map[gk.Epoch]*media.Opener{}}
			if len(grants) > 0 {
				g.epoch = grants[len(grants)-1].epoch
			}
			grants = append(grants, g)
			g.rotate(t, p)
		}
		session()
		seen := map[gk.Index]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				session()
			case 1, 2, 3:
				grants[len(grants)-1].rotate(t, p)
			case 4:
				net.fail = errors.New("no")
				p.send(time.Now(), tsBatch(m, 1, 1))
				net.fail = nil
			default:
				b := tsBatch(m, rapid.IntRange(1, 70).Draw(t, "units"), 1)
				for i := range b.Units {
					b.Units[i].Skip = uint16(rapid.IntRange(0, 20).Draw(t, "skip"))
				}
				p.send(time.Now(), b)
			}
			for _, pkt := range net.pkts {
				h, err := media.ParseHeader(pkt)
				if err != nil {
					t.Fatal(err)
				}
				o := grants[h.SSRC-1].receive(t, pkt)
				if seen[o.Index] {
					t.Fatalf("index %d sealed twice", o.Index)
				}
				seen[o.Index] = true
			}
			net.pkts = net.pkts[:0]
		}
		if c, _, _ := p.snapshot(); c.Refused != 0 {
			t.Fatalf("%d packets refused by the sealer", c.Refused)
		}
	})
}

func TestPacketPathDoesNotAllocate(t *testing.T) {
	p := newPacketPath(func(gk.Index, []byte) {})
	g := newGranter(t, payloadMP2T, nullSender{})
	g.link.tags = true
	g.rotate(t, p)
	b := tsBatch(newTS(0, time.Millisecond, 10), maxBatch, 7)
	now := time.Now()
	if n := testing.AllocsPerRun(gkrp.MaxTags/maxBatch-2, func() { p.send(now, b) }); n > 0 {
		t.Errorf("%v allocations for a batch of %d packets", n, maxBatch)
	}
}

type nullSender struct{}

func (nullSender) Send(pkts [][]byte) (int, error) { return len(pkts), nil }

// BenchmarkDevice carries 1316-byte packets from one socket to another on
// loopback: as a plain relay, as a batched relay, and through the whole packet
// path. The ratios compare processor time of one run, so that a change of the
// machine's speed hits all alike.
func BenchmarkDevice(b *testing.B) {
	plain, batched, device := newRelayPlain(b), newRelayBatched(b), newRelayDevice(b)
	b.SetBytes(relayBurst * 1316)
	b.ReportAllocs()
	var tPlain, tBatched, tDevice time.Duration
	n := 0
	for b.Loop() {
		tPlain += plain()
		tBatched += batched()
		tDevice += device()
		n++
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(n*relayBurst) }
	gb := func(d time.Duration) float64 { return per(d) / 1316 } // s/GB and ns/B are the same number
	b.ReportMetric(gb(tDevice), "device-cpu-s/GB")
	b.ReportMetric(gb(tPlain), "relay-cpu-s/GB")
	b.ReportMetric(gb(tBatched), "batch-relay-cpu-s/GB")
	b.ReportMetric(per(tDevice)/per(tPlain), "device/relay")
	b.ReportMetric(per(tDevice)/per(tBatched), "device/batch-relay")
}

const relayBurst = 64

// feed puts a burst into a socket's buffer, outside of what is measured.
func feed(b *testing.B, to string) func() {
	c, err := net.Dial("udp", to)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ts := newTS(0, time.Millisecond, 40).packets(nil, 7)
	return func() {
		for range relayBurst {
			if _, err := c.Write(ts); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// sink is a socket that nobody reads: what is over its buffer is dropped by the
// kernel, at the same cost for every relay.
func sink(b *testing.B) netip.AddrPort {
	s, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s.LocalAddr()
}

func newRelayPlain(b *testing.B) func() time.Duration {
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close() })
	out, to := in, sink(b)
	fill, buf := feed(b, in.LocalAddr().String()), make([]byte, 2048)
	return func() time.Duration {
		fill()
		begin := cpuTime()
		for range relayBurst {
			n, _, err := in.ReadFromUDPAddrPort(buf)
			if err == nil {
				_, err = out.WriteToUDPAddrPort(buf[:n], to)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		return cpuTime() - begin
	}
}

func newRelayBatched(b *testing.B) func() time.Duration {
	in, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close() })
	recv, out := in.NewReceiver(maxBatch, maxDatagram), in.NewSender(sink(b), maxBatch)
	fill, pkts := feed(b, in.LocalAddr().String()), make([][]byte, 0, maxBatch)
	return func() time.Duration {
		fill()
		begin := cpuTime()
		for n := 0; n < relayBurst; {
			got, err := recv.Receive()
			if err != nil {
				b.Fatal(err)
			}
			pkts = pkts[:0]
			for _, d := range got {
				pkts = append(pkts, d.Data)
			}
			if _, err := out.Send(pkts); err != nil {
				b.Fatal(err)
			}
			n += len(got)
		}
		return cpuTime() - begin
	}
}

func newRelayDevice(b *testing.B) func() time.Duration {
	src, err := OpenSource("udp://127.0.0.1:0", SourceOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = src.Close() })
	sock, err := media.ListenUDP("127.0.0.1:0", media.SocketOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sock.Close() })
	p := newPacketPath(nil)
	g := newGranter(b, payloadMP2T, sock.NewSender(sink(b), maxBatch))
	g.rotate(b, p)
	fill := feed(b, src.(*datagramSource).sock.LocalAddr().String())
	var batch Batch
	return func() time.Duration {
		fill()
		begin := cpuTime()
		for n := 0; n < relayBurst; {
			if err := src.Read(b.Context(), &batch); err != nil {
				b.Fatal(err)
			}
			p.send(time.Now(), &batch)
			n += len(batch.Units)
		}
		return cpuTime() - begin
	}
}
