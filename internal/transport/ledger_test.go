package transport

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

type accusation struct {
	epoch gk.Epoch
	index gk.Index
	what  evidence
}

// clerk is a ledger and what it said.
type clerk struct {
	ledger
	said []accusation
}

func (c *clerk) accuse(epoch gk.Epoch, index gk.Index, what evidence) {
	c.said = append(c.said, accusation{epoch, index, what})
}

// got has packets of 1000 bytes accepted, with their index as tag.
func (c *clerk) got(epoch gk.Epoch, from, to gk.Index) {
	for i := from; i < to; i++ {
		c.accepted(epoch, i, uint32(i), 1000)
	}
}

// report is one of a device that used every index and sent 1000 bytes in each.
func report(number uint64, first, from, to gk.Index, tags bool) *bus.DeviceReport {
	r := &bus.DeviceReport{Number: number, Epoch: 1, From: from, To: to, Packets: uint64(to - first), Bytes: uint64(to-first) * 1000}
	if tags {
		for i := from; i < to; i++ {
			r.Tags = binary.BigEndian.AppendUint32(r.Tags, uint32(i))
		}
	}
	return r
}

func (c *clerk) want(t *testing.T, name string, want ...accusation) {
	t.Helper()
	if len(c.said) != len(want) {
		t.Errorf("%s: accusations %v, want %v", name, c.said, want)
		return
	}
	for i, w := range want {
		if c.said[i] != w {
			t.Errorf("%s: accusations %v, want %v", name, c.said, want)
		}
	}
}

// TestListedPackets: each way in which a packet and a report can differ, and each
// is told once.
func TestListedPackets(t *testing.T) {
	var c clerk
	c.got(1, 100, 110)
	c.accepted(1, 112, 9, 1000) // the device leaves 112 out
	c.accepted(1, 113, 9, 1000) // the device sends another packet there
	r := report(1, 100, 100, 120, true)
	clear(r.Tags[12*4 : 13*4])
	c.compare(r, c.accuse)
	c.compare(r, c.accuse)
	c.want(t, "after the report", accusation{1, 112, evidenceUnlisted}, accusation{1, 113, evidenceOtherTag})
	if what := c.accepted(1, 114, 114, 1000); what != evidenceNone {
		t.Errorf("a late packet is %q", what)
	}
	if what := c.accepted(1, 115, 9, 1000); what != evidenceOtherTag {
		t.Errorf("a thief's late packet is %q", what)
	}
	if what := c.accepted(1, 112+1024, 1, 1000); what != evidenceNone {
		t.Errorf("a packet past the report is %q", what)
	}
	if c.vouched != 11 || c.foreign != 3 {
		t.Errorf("%d vouched for, %d foreign", c.vouched, c.foreign)
	}
}

// TestCountsWithoutTags: what a device of minor version 0 says is enough to notice
// more packets, and more or other bytes, than it sent; never fewer.
func TestCountsWithoutTags(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(c *clerk, r *bus.DeviceReport)
		want   evidence
	}{
		{"as sent", func(*clerk, *bus.DeviceReport) {}, evidenceNone},
		{"an index that was not used", func(_ *clerk, r *bus.DeviceReport) { r.Packets--; r.Bytes -= 1000 }, evidenceTooMany},
		{"a longer packet", func(c *clerk, _ *bus.DeviceReport) { c.accepted(2, 105, 1, 1188) }, evidenceTooLong},
		{"a shorter packet", func(c *clerk, _ *bus.DeviceReport) { c.accepted(2, 105, 1, 812) }, evidenceDifferent},
		{"the device sent more than arrived", func(_ *clerk, r *bus.DeviceReport) { r.To += 50; r.Packets += 50; r.Bytes += 50000 }, evidenceNone},
	} {
		var c clerk
		c.got(1, 100, 150)
		r := report(1, 100, 100, 150, false)
		x.change(&c, r)
		c.compare(r, c.accuse)
		if x.want == evidenceNone && len(c.said) > 0 || x.want != evidenceNone && (len(c.said) != 1 || c.said[0].what != x.want) {
			t.Errorf("%s: %v, want %q", x.name, c.said, x.want)
		}
	}
}

// TestReportsLostAndOutOfOrder: counts go on from the report before, whichever that
// was; what only a lost report listed is not compared.
func TestReportsLostAndOutOfOrder(t *testing.T) {
	var c clerk
	c.got(1, 100, 400)
	c.compare(report(1, 100, 100, 200, true), c.accuse)
	c.compare(report(3, 100, 300, 400, true), c.accuse)
	c.compare(report(2, 100, 200, 300, true), c.accuse) // late, still good for its tags
	c.compare(report(4, 100, 400, 400, true), c.accuse)
	c.want(t, "honest")
	if c.sent != 300 || c.lost != 0 || c.vouched != 300 {
		t.Errorf("%d sent, %d lost, %d vouched for", c.sent, c.lost, c.vouched)
	}
	// One that goes back, as no device does, is no ground for anything.
	c.compare(report(5, 100, 150, 160, true), c.accuse)
	c.compare(report(6, 100, 160, 500, true), c.accuse)
	c.want(t, "a report that goes back")
}

// TestAnOldReportHidesNothing: a report of indices that the ring has forgotten
// changes nothing of newer ones.
func TestAnOldReportHidesNothing(t *testing.T) {
	var c clerk
	c.got(1, 5000, 5001)
	c.reach = 1 << 40 // reports are ahead, so that nothing grows
	c.got(1, 5001, 5000+ledgerFirst)
	old := report(1, 4000, 5000-500, 5000, true)
	for i := range old.Tags {
		old.Tags[i] = 7
	}
	c.list(old, c.accuse)
	c.list(report(2, 4000, 5000, 5000+ledgerFirst, true), c.accuse)
	c.want(t, "old")
	if c.vouched != ledgerFirst {
		t.Errorf("%d vouched for", c.vouched)
	}
}

// TestGrowingKeepsEverything, with epochs and verdicts.
func TestGrowingKeepsEverything(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const start = 1<<32 - 2000 // the lower half of the index wraps
	var c clerk
	lost := uint64(0)
	for i := gk.Index(start); i < start+4000; i++ {
		if rng.IntN(10) == 0 {
			lost++
			continue
		}
		c.accepted(gk.Epoch(70000+(i-start)/1000), i, uint32(i), 1000)
	}
	c.accepted(70003, start+4000, 1, 1000)
	c.compare(report(1, start, start, start+4001, true), c.accuse)
	c.compare(report(2, start, start+4001, start+4001, true), c.accuse)
	c.want(t, "one stranger", accusation{70003, start + 4000, evidenceOtherTag})
	if c.sent != 4001 || c.lost != lost+1 || c.vouched != 4000-lost || len(c.ring) != ledgerMost {
		t.Errorf("%d sent, %d lost of %d, %d vouched for, %d places", c.sent, c.lost, lost, c.vouched, len(c.ring))
	}
}

// TestNothingIsSentBeforeItsTime: the rule rests on cause and effect, and gives in
// where the clocks contradict them.
func TestNothingIsSentBeforeItsTime(t *testing.T) {
	const armed = time.Hour
	play := func(arrived, made, now time.Duration, to gk.Index) (*clerk, bool) {
		var c clerk
		c.got(1, 100, 110)
		c.note(armed + 20*time.Millisecond)
		c.got(1, 110, 150)
		c.note(armed + arrived)
		c.got(1, 150, 160)
		c.note(armed + arrived + 5*time.Second)
		r := report(1, 100, 100, to, false)
		r.SinceMs = uint64(made.Milliseconds())
		return &c, c.ahead(r, armed, armed+now, c.accuse)
	}
	if c, ok := play(time.Second, 2*time.Second, 2100*time.Millisecond, 149); !ok || len(c.said) != 1 || c.said[0] != (accusation{1, 149, evidenceAhead}) {
		t.Errorf("an index before its time: %v, %v", c.said, ok)
	}
	if c, ok := play(time.Second, 2*time.Second, 2100*time.Millisecond, 150); !ok || len(c.said) != 0 {
		t.Errorf("an index in its time: %v, %v", c.said, ok)
	}
	if c, ok := play(time.Second, 2*time.Second, time.Minute, 110); !ok || len(c.said) != 1 {
		t.Errorf("a report that took a minute: %v, %v", c.said, ok)
	}
	if c, ok := play(time.Second, time.Second, time.Minute, 110); !ok || len(c.said) != 0 {
		t.Errorf("a report made before, that took a minute: %v, %v", c.said, ok)
	}
	if c, ok := play(time.Second, 3*time.Second, 2100*time.Millisecond, 110); ok || len(c.said) != 0 {
		t.Errorf("a clock that cannot be: %v, %v", c.said, ok)
	}
}

// BenchmarkLedger is what the bookkeeping costs a packet, beside the opening of the
// packet; in turns, in one run. Every 256 packets a report comes.
func BenchmarkLedger(b *testing.B) {
	f := newLedgerFeed(b)
	var c clerk
	var open, book, compare time.Duration
	rounds := 0
	b.ReportAllocs()
	for b.Loop() {
		rounds++
		from := f.index
		f.seal()
		t0 := time.Now()
		f.open()
		t1 := time.Now()
		for k, tag := range f.tags {
			c.accepted(1, from+gk.Index(k), tag, 1316)
		}
		t2 := time.Now()
		c.compare(f.report(from), c.accuse)
		open += t1.Sub(t0)
		book += t2.Sub(t1)
		compare += time.Since(t2)
	}
	if len(c.said) > 0 {
		b.Fatal(c.said)
	}
	packets := float64(rounds * len(f.tags))
	b.ReportMetric(float64(open.Nanoseconds())/packets, "open-ns")
	b.ReportMetric(float64(book.Nanoseconds())/packets, "record-ns")
	b.ReportMetric(float64(compare.Nanoseconds())/packets, "compare-ns")
	b.ReportMetric(float64(book+compare)/float64(open), "ledger/open")
	b.ReportMetric(0, "ns/op")
}

// ledgerFeed makes packets, opens them, and reports them.
type ledgerFeed struct {
	b      *testing.B
	sealer *media.Sealer
	opener *media.Opener
	index  gk.Index
	number uint64
	pkts   [256][]byte
	tags   [256]uint32
	body   []byte
	out    []byte
	rep    bus.DeviceReport
}

func newLedgerFeed(b *testing.B) *ledgerFeed {
	sealer, err := media.NewSealer(mediaKey(b, 1), testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	opener, err := media.NewOpener(mediaKey(b, 1), testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	f := &ledgerFeed{b: b, sealer: sealer, opener: opener, index: 1, body: tsPayload(1), out: make([]byte, 0, datagramSize)}
	for i := range f.pkts {
		f.pkts[i] = make([]byte, 0, datagramSize)
	}
	return f
}

func (f *ledgerFeed) seal() {
	var err error
	for i := range f.pkts {
		h := media.Header{PayloadType: media.PayloadTypeTS, Seq: f.index.Seq(), SSRC: testSSRC}.AppendTo(f.out[:0])
		if f.pkts[i], err = f.sealer.Seal(f.pkts[i][:0], h, f.body, f.index); err != nil {
			f.b.Fatal(err)
		}
		f.tags[i] = binary.BigEndian.Uint32(f.pkts[i][len(f.pkts[i])-media.Overhead:])
		f.index++
	}
}

func (f *ledgerFeed) open() {
	for i := range f.pkts {
		if _, v := f.opener.Open(f.out, f.pkts[i]); v != media.OK {
			f.b.Fatal(v)
		}
	}
}

func (f *ledgerFeed) report(from gk.Index) *bus.DeviceReport {
	f.number++
	r := &f.rep
	r.Number, r.Epoch, r.From, r.To = f.number, 1, from, f.index
	r.Packets += uint64(len(f.pkts))
	r.Bytes += uint64(len(f.pkts) * len(f.body))
	r.Tags = r.Tags[:0]
	for _, tag := range f.tags {
		r.Tags = binary.BigEndian.AppendUint32(r.Tags, tag)
	}
	return r
}

// TestTheDevicesPacketAfterAThiefs: at an index where a thief's packet was taken,
// the device's own is accepted when it comes, under whichever epoch.
func TestTheDevicesPacketAfterAThiefs(t *testing.T) {
	var c clerk
	c.got(1, 100, 110)
	c.accepted(1, 112, 9, 1000)
	c.compare(report(1, 100, 100, 120, true), c.accuse)
	c.want(t, "after the report", accusation{1, 112, evidenceOtherTag})
	if what := c.accepted(2, 112, 112, 1000); what != evidenceNone {
		t.Errorf("the device's packet is %q", what)
	}
}
