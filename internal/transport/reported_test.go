package transport

import (
	"container/heap"
	"context"
	"encoding/binary"
	"flag"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/media"

	"github.com/fxamacker/cbor/v2"
)

// scene is a device, a path with a thief on it or beside it, and the service, on
// virtual time. Everything hangs on the seed.
type scene struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Duration
	queue  timers
	serial uint64

	svc *Service
	ses *session

	// The device.
	rate    float64 // packets a second
	key     gk.Epoch
	sealer  *media.Sealer
	index   gk.Index
	since   time.Duration
	quiet   time.Duration // nothing is sent until then
	report  bus.DeviceReport
	tagless float64 // how many reports come without tags
	skips   float64 // how many packets leave an index out before them
	drift   float64 // how much faster than the service's its clock goes
	away    bool    // the service has no key yet

	starved time.Duration // how late the service has its turns

	// The paths.
	media, control weather
	thief          func(pkt []byte, i gk.Index) [][]byte // what goes on in a packet's place
	thieving       time.Duration                         // when the first packet that is not the device's arrived
	found          time.Duration
	proofs         []bus.Proof
}

type weather struct {
	loss, twice, late float64
	delay, jitter     time.Duration
	later             time.Duration // the longest of those that are late
}

// bad is what every run goes through: 5 % loss, 3 % doubled, 3 % in disorder by up
// to 400 ms, more than anything waits for.
var bad = weather{loss: 0.05, twice: 0.03, late: 0.03, delay: 20 * time.Millisecond, jitter: 3 * time.Millisecond, later: 400 * time.Millisecond}

type timer struct {
	at time.Duration
	n  uint64
	do func()
}

type timers []timer

func (q timers) Len() int { return len(q) }
func (q timers) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n
}
func (q timers) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timers) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *timers) Pop() any {
	o := *q
	x := o[len(o)-1]
	*q = o[:len(o)-1]
	return x
}

type sceneHost struct {
	host.Real
	now func() time.Time
}

func (h sceneHost) Now() time.Time { return h.now() }

// proofConn is a bus on which only proof is of interest, and known at once.
type proofConn struct {
	bus.Conn
	c *scene
}

func (p *proofConn) Publish(subject string, data []byte) error {
	if strings.HasPrefix(subject, string(bus.TransportProof)+".") {
		var proof bus.Proof
		if err := cbor.Unmarshal(data, &proof); err != nil {
			return err
		}
		p.c.proofs = append(p.c.proofs, proof)
	}
	return nil
}

var sceneStart = time.Unix(1, 0)

func newScene(t testing.TB, seed uint64) *scene {
	t.Helper()
	c := &scene{t: t, rng: rand.New(rand.NewPCG(seed, 77)), media: bad, rate: 95}
	c.rate += 285 * c.rng.Float64() // 1 to 4 Mb/s
	c.index = gk.Index(c.rng.IntN(1<<17)) + 1
	c.control = weather{delay: 20 * time.Millisecond, jitter: 40 * time.Millisecond}
	cfg := Defaults()
	cfg.Host = sceneHost{now: c.clock}
	c.svc = &Service{
		cfg: cfg, conn: &proofConn{c: c}, log: slog.New(slog.DiscardHandler), notices: make(chan func(), maxNotices),
		streams: map[gk.StreamID]*stream{}, routes: map[uint32]*session{}, here: bus.TransportAnnouncement{Started: sceneStart},
	}
	st := &stream{id: testStream, term: 1, viewers: newViewers(1<<20, 1)}
	c.ses = &session{
		stream: st, id: gk.SessionID{1}, ssrc: testSSRC, payload: mp2t, order: reorder{latency: cfg.Latency}, lease: sceneStart.Add(1000 * time.Hour),
		keys: slots{times: keyTimes{grace: cfg.Latency + cfg.RoundTrip, watch: cfg.WatchFor, proofLife: cfg.ProofLife, life: cfg.KeyLife}},
	}
	st.current, c.svc.streams[st.id], c.svc.routes[testSSRC] = c.ses, st, c.ses
	c.report = bus.DeviceReport{Stream: testStream, Session: c.ses.id, From: c.index, To: c.index}
	c.rotate()
	c.after(0, c.tick)
	c.after(0, c.source)
	c.after(time.Second, c.reporting)
	return c
}

func (c *scene) clock() time.Time { return sceneStart.Add(c.now) }

func (c *scene) after(d time.Duration, do func()) {
	c.serial++
	heap.Push(&c.queue, timer{c.now + d, c.serial, do})
}

// run goes on until a time, or until proof was told of.
func (c *scene) run(until time.Duration) {
	for len(c.queue) > 0 && c.queue[0].at <= until && c.found == 0 {
		x := heap.Pop(&c.queue).(timer)
		c.now = x.at
		x.do()
		for len(c.svc.notices) > 0 {
			(<-c.svc.notices)()
		}
		if len(c.proofs) > 0 {
			c.found = c.now
		}
	}
	if c.found == 0 {
		c.now = until
	}
}

func (c *scene) tick() {
	c.svc.overdue(c.clock().Add(-c.starved))
	c.svc.retire(c.clock())
	c.after(tickEvery, c.tick)
}

// over has do run when a message comes out of a path: never, once or twice.
func (c *scene) over(w weather, do func()) {
	if c.rng.Float64() < w.loss {
		return
	}
	n := 1
	if c.rng.Float64() < w.twice {
		n = 2
	}
	for range n {
		d := w.delay + time.Duration(c.rng.Float64()*float64(w.jitter))
		if c.rng.Float64() < w.late {
			d += time.Duration(c.rng.Float64() * float64(w.later))
		}
		c.after(d, do)
	}
}

// rotate has the service arm the next epoch, and the device switch to it and say
// so, each after its time.
func (c *scene) rotate() {
	e := c.key + 1
	open, err := media.NewOpener(mediaKey(c.t, e), testSSRC, e)
	if err != nil {
		c.t.Fatal(err)
	}
	c.svc.mu.Lock()
	err = c.ses.keys.arm(c.clock(), e, gk.ReasonSchedule, open)
	c.ses.keys.find(e).armed = c.clock()
	if c.away {
		c.ses.keys.find(e).armed, c.ses.ledger.joined = time.Time{}, true
	}
	c.svc.mu.Unlock()
	if err != nil {
		c.t.Fatal(err)
	}
	granted := func() {
		c.key, c.since, c.sealer = e, c.now, c.sealerOf(e)
		first := c.index
		c.over(weather{delay: 20 * time.Millisecond, jitter: 300 * time.Millisecond}, func() {
			_, _ = c.svc.begin(context.Background(), bus.SwitchRequest{Stream: testStream, Session: c.ses.id, Epoch: e, First: first, Term: 1})
		})
	}
	if e == 1 {
		granted()
		return
	}
	c.over(weather{delay: 10 * time.Millisecond, jitter: 100 * time.Millisecond}, granted)
}

func (c *scene) sealerOf(e gk.Epoch) *media.Sealer {
	s, err := media.NewSealer(mediaKey(c.t, e), testSSRC, e)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *scene) seal(s *media.Sealer, i gk.Index, size int) []byte {
	payload := make([]byte, size)
	binary.BigEndian.PutUint64(payload, c.rng.Uint64())
	h := media.Header{PayloadType: media.PayloadTypeTS, Seq: i.Seq(), Timestamp: uint32(c.now.Milliseconds()) * 90, SSRC: testSSRC}
	pkt, err := s.Seal(nil, h.AppendTo(nil), payload, i)
	if err != nil {
		c.t.Fatal(err)
	}
	return pkt
}

// theirs is a packet of somebody who has the key in use.
func (c *scene) theirs(i gk.Index, size int) []byte { return c.seal(c.sealerOf(c.key), i, size) }

const scenePayload = 2 * media.TSPacketSize

// source sends a packet, and has the next one sent.
func (c *scene) source() {
	gap := 1 / c.rate * (0.2 + 1.6*c.rng.Float64())
	c.after(time.Duration(gap*float64(time.Second)), c.source)
	if c.now < c.quiet {
		return
	}
	if c.rng.Float64() < c.skips {
		c.index += gk.Index(1 + c.rng.IntN(20))
	}
	i := c.index
	size := scenePayload
	if c.rng.IntN(8) == 0 {
		size = media.TSPacketSize
	}
	pkt := c.seal(c.sealer, i, size)
	c.index++
	r := &c.report
	r.Packets++
	r.Bytes += uint64(size)
	r.Tags = append(r.Tags, make([]byte, gkrp.TagPrefix*int(i-r.To))...)
	r.Tags = append(r.Tags, pkt[len(pkt)-media.Overhead:][:gkrp.TagPrefix]...)
	r.To = c.index
	out := [][]byte{pkt}
	if c.thief != nil {
		out = c.thief(pkt, i)
	}
	c.send(out...)
}

func (c *scene) send(pkts ...[]byte) {
	for _, pkt := range pkts {
		c.over(c.media, func() { c.arrive(pkt) })
	}
}

func (c *scene) arrive(pkt []byte) {
	if c.away {
		return
	}
	c.svc.process([]media.Datagram{{Data: pkt}}, c.clock())
}

// steal sends packets that are not the device's; the path does not lose them,
// because time counts from the first that arrives.
func (c *scene) steal(pkt []byte) {
	c.over(weather{delay: c.media.delay, jitter: c.media.jitter}, func() {
		if c.thieving == 0 {
			c.thieving = c.now
		}
		c.arrive(pkt)
	})
}

func (c *scene) reporting() {
	c.after(time.Second, c.reporting)
	r := c.report
	r.Number++
	r.Epoch = c.key
	r.SinceMs = uint64(float64((c.now - c.since).Milliseconds()) * (1 + c.drift))
	r.Tags = slices.Clone(r.Tags)
	c.report = r
	c.report.From, c.report.Tags = r.To, nil
	if c.rng.Float64() < c.tagless {
		r.Tags = nil
	}
	c.over(c.control, func() {
		if c.away {
			return
		}
		if _, err := c.svc.reported(context.Background(), bus.ReportRequest{Report: r, Term: 1}); err != nil {
			c.t.Error(err)
		}
	})
}

// crimes are what somebody with the stolen key can do. Strength is the part of the
// device's packets that it touches, or the number of its own beside them.
var crimes = []struct {
	name   string
	commit func(c *scene, strength float64)
}{
	{"injection beside the path", func(c *scene, strength float64) {
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() < strength {
				c.steal(c.theirs(i+gk.Index(c.rng.IntN(40)), scenePayload))
			}
			return [][]byte{pkt}
		}
	}},
	{"extra packets, the rest renumbered", func(c *scene, strength float64) {
		shift := gk.Index(0)
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() < strength {
				c.steal(c.theirs(i+shift, scenePayload))
				shift++
			}
			if shift == 0 {
				return [][]byte{pkt}
			}
			c.steal(c.theirs(i+shift, scenePayload))
			return nil
		}
	}},
	{"drop, the rest renumbered", func(c *scene, strength float64) {
		shift := gk.Index(0)
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() < strength {
				shift++
				return nil
			}
			if shift == 0 {
				return [][]byte{pkt}
			}
			c.steal(c.theirs(i-shift, len(pkt)-12-media.Overhead))
			return nil
		}
	}},
	{"bytes appended", func(c *scene, strength float64) {
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() >= strength {
				return [][]byte{pkt}
			}
			c.steal(c.theirs(i, len(pkt)-12-media.Overhead+media.TSPacketSize))
			return nil
		}
	}},
	{"substitution", func(c *scene, strength float64) {
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() >= strength {
				return [][]byte{pkt}
			}
			c.steal(c.theirs(i, len(pkt)-12-media.Overhead))
			return nil
		}
	}},
	{"in place of what was lost", func(c *scene, strength float64) {
		c.media.loss = 0 // the thief is where the loss is
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			switch {
			case c.rng.Float64() >= 0.05:
				return [][]byte{pkt}
			case c.rng.Float64() < strength/0.05:
				stolen := c.theirs(i, scenePayload)
				c.after(time.Duration(c.rng.IntN(1500))*time.Millisecond, func() { c.steal(stolen) })
			}
			return nil
		}
	}},
	{"a silent source continued", func(c *scene, strength float64) {
		c.quiet = c.now + time.Minute
		at := c.index
		var next func()
		next = func() {
			c.steal(c.theirs(at, scenePayload))
			at++
			c.after(time.Duration(float64(time.Second)/(c.rate*strength)), next)
		}
		next()
	}},
	{"a leap ahead", func(c *scene, _ float64) {
		c.steal(c.theirs(c.index+gk.Index(100+c.rng.IntN(30000)), scenePayload))
	}},
}

const sceneStep = 10 * time.Second

var reportRuns = flag.Uint64("report-runs", 200, "seeds for each test of reports")

// sceneRuns is how many seeds each test goes through.
func sceneRuns() uint64 {
	if testing.Short() {
		return 20
	}
	return *reportRuns
}

// TestReportsFindTheThief: whatever somebody with the stolen key does to 1 % of the
// packets, over a bad path, is known within 2 s of the first that arrives.
func TestReportsFindTheThief(t *testing.T) {
	for _, crime := range crimes {
		t.Run(crime.name, func(t *testing.T) {
			var took []time.Duration
			by := map[string]int{}
			for seed := range sceneRuns() {
				c := newScene(t, seed)
				c.after(time.Duration(1000+c.rng.IntN(1500))*time.Millisecond, func() { crime.commit(c, 0.01) })
				c.run(sceneStep)
				if c.found == 0 || c.thieving == 0 || c.found-c.thieving > 2*time.Second {
					t.Fatalf("seed %d: began at %v, found at %v: %v", seed, c.thieving, c.found, c.proofs)
				}
				took = append(took, c.found-c.thieving)
				by[c.proofs[0].What]++
			}
			slices.Sort(took)
			t.Logf("median %v, longest %v, by %v", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), by)
		})
	}
}

// honest is a stream of which nobody has stolen anything, in bad circumstances:
// loss, disorder and doubling of packets and of reports, reports before their
// packets, silences, outages, indices left out, reports without tags, new keys,
// clocks that differ, a service that joins late.
func honest(t testing.TB, seed uint64) *scene {
	c := newScene(t, seed)
	c.skips, c.tagless, c.drift = 0.002, 0.1, 500e-6*(2*c.rng.Float64()-1)
	c.control = weather{loss: 0.2, twice: 0.1, late: 0.2, delay: 20 * time.Millisecond, jitter: 40 * time.Millisecond, later: 3 * time.Second}
	if seed%4 == 0 {
		c.media.delay, c.media.jitter = 600*time.Millisecond, 100*time.Millisecond // reports overtake packets
		c.svc.cfg.RoundTrip = time.Second
		c.ses.keys.times.grace = 2 * time.Second
	}
	var disturb func()
	disturb = func() {
		switch c.rng.IntN(3) {
		case 0:
			c.rotate()
		case 1:
			c.quiet = c.now + time.Duration(c.rng.IntN(2500))*time.Millisecond
		case 2: // the path is gone for a while
			was := c.media.loss
			c.media.loss = 1
			c.after(time.Duration(c.rng.IntN(1500))*time.Millisecond, func() { c.media.loss = was })
		}
		c.after(3*time.Second, disturb)
	}
	c.after(2*time.Second, disturb)
	if seed%5 == 0 { // the service joins when the stream is under way
		c.away, c.ses.ledger.joined = true, true
		c.ses.keys.find(1).armed = time.Time{}
		c.after(time.Duration(2000+c.rng.IntN(3000))*time.Millisecond, func() {
			c.away = false
			c.ses.keys.each(func(s *slot) { s.open.Hint(c.report.From) })
		})
	}
	return c
}

// TestReportsAccuseNobody of a stream that is [honest].
func TestReportsAccuseNobody(t *testing.T) {
	var sent, lost, vouched uint64
	for seed := range sceneRuns() {
		c := honest(t, seed)
		c.run(sceneStep)
		if c.found != 0 {
			t.Fatalf("seed %d: accused at %v: %v", seed, c.found, c.proofs)
		}
		l := &c.ses.ledger
		sent, lost, vouched = sent+l.sent, lost+l.lost, vouched+l.vouched
		if l.foreign != 0 {
			t.Errorf("seed %d: %d packets are said to be somebody else's", seed, l.foreign)
		}
	}
	if vouched < sent/3 {
		t.Errorf("reports vouched for %d packets only, of %d", vouched, sent)
	}
	t.Logf("%d runs, %d packets by the reports, %d lost, %d vouched for", sceneRuns(), sent, lost, vouched)
}

// TestStarvedTickAccusesNobody: a turn that comes long after it was due finds packets
// that came since, and they are the device's all the same.
func TestStarvedTickAccusesNobody(t *testing.T) {
	c := newScene(t, 3)
	c.starved = 900 * time.Millisecond
	c.run(sceneStep)
	if c.found != 0 || c.ses.ledger.vouched == 0 {
		t.Errorf("accused at %v: %v; %d packets vouched for", c.found, c.proofs, c.ses.ledger.vouched)
	}
}

// TestFirstReportCoversAFastStream: at 20 Mb/s the first report already covers
// every packet.
func TestFirstReportCoversAFastStream(t *testing.T) {
	c := newScene(t, 1)
	c.rate = 20e6 / 8 / 1316
	c.after(5*time.Millisecond, func() { crimes[4].commit(c, 0.0005) })
	c.run(sceneStep)
	if c.thieving > time.Second || c.found < time.Second || c.found-c.thieving > 1200*time.Millisecond || c.proofs[0].What != string(evidenceOtherTag) {
		t.Errorf("began at %v, found at %v: %v", c.thieving, c.found, c.proofs)
	}
}

// TestLedgerSize: what a stream's bookkeeping takes, by its rate in Mb/s.
func TestLedgerSize(t *testing.T) {
	for _, x := range []struct{ rate, places int }{{2, 1024}, {5, 2048}, {10, 4096}, {20, 8192}} {
		c := newScene(t, 2)
		c.rate = float64(x.rate) * 1e6 / 8 / 1316
		c.run(4500 * time.Millisecond)
		l := &c.ses.ledger
		if len(l.ring) != x.places || l.sent < uint64(2.8*c.rate) {
			t.Errorf("%d Mb/s: %d places, %d packets counted", x.rate, len(l.ring), l.sent)
		}
		t.Logf("%d Mb/s: %d bytes", x.rate, uintptr(len(l.ring))*unsafe.Sizeof(entry{})+unsafe.Sizeof(*l))
	}
}

// TestPathLossIsExact, although reports get lost and packets come late.
func TestPathLossIsExact(t *testing.T) {
	for seed := range uint64(20) {
		c := newScene(t, seed)
		c.media.loss, c.media.twice, c.media.late = 0, 0.05, 0.1
		c.after(1500*time.Millisecond, func() { c.control.loss = 0.3 })
		start, gone := c.index, map[gk.Index]bool{}
		c.thief = func(pkt []byte, i gk.Index) [][]byte {
			if c.rng.Float64() < 0.05 {
				gone[i] = true
				return nil
			}
			return [][]byte{pkt}
		}
		c.run(sceneStep)
		l := &c.ses.ledger
		want := uint64(0)
		for i := start; i < l.counted; i++ {
			if gone[i] {
				want++
			}
		}
		if l.sent == 0 || l.sent != uint64(l.counted-start) || l.lost != want {
			t.Errorf("seed %d: %d of %d lost, want %d of %d", seed, l.lost, l.sent, want, l.counted-start)
		}
	}
}
