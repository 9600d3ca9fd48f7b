package device

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The packet path of one stream, in packet order:
//
//	source     Source.Read gives a batch of units, blocking until there is one
//	ingress    the batch is measured as it came, for the report
//	packetise  a unit becomes an RTP header and a payload (RFC 2250, RFC 3550)
//	index      the packet takes the next 48-bit index; none is ever used twice
//	seal       the current epoch's sealer protects it (RFC 3711, RFC 7714)
//	send       the batch leaves in one system call for each address
//
// Locking: mu guards the index and the sealer, and is held from index to seal
// for a whole batch. A new key is installed under the same lock between two
// batches, so the index that is next at that moment is exactly where its epoch
// begins. Everything else belongs to the one goroutine that sends.

// Tap sees every packet that was sealed, in index order, before it leaves. It
// must be fast and must not keep payload.
type Tap func(index gk.Index, payload []byte)

// sender is where sealed packets leave: a [media.Sender], or a test's.
type sender interface {
	Send(pkts [][]byte) (int, error)
}

// slotSize has room for one sealed packet, in bytes.
const slotSize = 1536

// link is what a session gave: where packets go, and as whom.
type link struct {
	ssrc    uint32
	outs    []sender
	payload gkrp.Payload
	reject  time.Duration // how long a key may be used
	tags    bool          // reports list the packets' tags
}

// key is a sealer with the link that it is for.
type key struct {
	sealer *media.Sealer
	link   *link
	epoch  gk.Epoch
}

// counts are what the packet path did. They rise over the agent's life but for
// Packets and Bytes, which a new session begins anew.
type counts struct {
	Packets    uint64 // sealed in this session
	Bytes      uint64 // payload of those
	Unkeyed    uint64 // left out: no key, or one past its life
	Refused    uint64 // left out: the sealer would not take them
	SendErrors uint64 // sealed, but the system would not send them
}

type packetPath struct {
	mu      sync.Mutex
	key     key
	next    gk.Index  // the lowest index not used yet
	from    gk.Index  // where the report in the making begins
	since   time.Time // the key is in use
	expires time.Time
	counts  counts
	sendErr error // the last one
	renew   bool  // the source broke off since the current key was installed
	tags    tagList

	ingress *ingress // nil where nothing is measured; has a lock of its own
	encoder *begun   // nil where the source runs none

	keyed     chan struct{} // closed by the first install
	keyedOnce sync.Once
	tap       Tap

	mark   bool // the next packet begins after a break
	header [12]byte
	slots  []byte
	sealed [][]byte
	clear  []tapped
}

type tapped struct {
	index   gk.Index
	payload []byte
}

// newPacketPath begins at a random index below 2^15: unpredictable, as RFC 3711
// §3.3.1 asks of the sequence number, and with room before the first wrap.
func newPacketPath(tap Tap) *packetPath {
	var b [2]byte
	rand.Read(b[:])
	start := gk.Index(binary.BigEndian.Uint16(b[:])>>1) + 1
	return &packetPath{
		next: start, from: start,
		keyed: make(chan struct{}), tap: tap,
		slots:  make([]byte, maxBatch*slotSize),
		sealed: make([][]byte, 0, maxBatch),
		clear:  make([]tapped, 0, maxBatch),
	}
}

// install switches to k and returns the first index that it will protect. From
// the moment it returns no packet leaves under the key before, which is wiped.
func (p *packetPath) install(now time.Time, k key) gk.Index {
	p.mu.Lock()
	old := p.key
	first := p.next
	k.sealer.SetFloor(first)
	p.key = k
	p.renew = false
	p.since, p.expires = now, time.Time{}
	if k.link.reject > 0 {
		p.expires = now.Add(k.link.reject)
	}
	if old.link != k.link {
		p.counts.Packets, p.counts.Bytes = 0, 0
		p.from = first
		p.tags.begin(k.link.tags)
		p.ingress.begin(now)
	}
	if old.sealer != nil {
		old.sealer.Wipe()
	}
	p.mu.Unlock()
	p.keyedOnce.Do(func() { close(p.keyed) })
	return first
}

// setOut gives a session an address to send to, in the place of old, if there is one.
func (p *packetPath) setOut(l *link, old, out sender) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A new slice: emit reads the old one without the lock.
	l.outs = append(slices.DeleteFunc(slices.Clone(l.outs), func(o sender) bool { return o == old }), out)
}

// send takes one batch from the source through the rest of the path. It is true
// when the report in the making should not wait any longer.
func (p *packetPath) send(now time.Time, b *Batch) (hurry bool) {
	p.ingress.took(now, b)
	if b.Break != "" {
		p.mark = true
		p.mu.Lock()
		p.renew = true
		p.encoder.note(now, b)
		p.mu.Unlock()
	}
	for units := b.Units; len(units) > 0; {
		n := min(len(units), maxBatch)
		outs, filling := p.seal(now, units[:n])
		p.emit(outs)
		units = units[n:]
		hurry = hurry || filling
	}
	return hurry || b.Break != ""
}

// seal packetises, numbers and protects up to maxBatch units. It is true when
// the list of tags fills up.
func (p *packetPath) seal(now time.Time, units []Unit) (outs []sender, filling bool) {
	p.sealed, p.clear = p.sealed[:0], p.clear[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key.sealer == nil || !p.expires.IsZero() && now.After(p.expires) {
		p.counts.Unkeyed += uint64(len(units))
		return nil, false
	}
	for i := range units {
		u := &units[i]
		index := p.next + gk.Index(u.Skip)
		slot := p.slots[i*slotSize : i*slotSize : (i+1)*slotSize]
		pkt, err := p.key.sealer.Seal(slot, p.packetise(u, index), u.Payload, index)
		if err != nil {
			p.counts.Refused++
			continue
		}
		p.next = index + 1
		p.tags.add(int(index-p.from), pkt)
		p.counts.Packets++
		p.counts.Bytes += uint64(len(u.Payload))
		p.sealed = append(p.sealed, pkt)
		p.clear = append(p.clear, tapped{index, u.Payload})
	}
	return p.key.link.outs, p.tags.filling()
}

// packetise writes the packet's RTP header. The marker of MPEG-TS says that the
// timestamps start anew (RFC 2250 §2); a native payload's is the encoder's.
func (p *packetPath) packetise(u *Unit, index gk.Index) []byte {
	h := media.Header{Marker: u.Marker, PayloadType: u.Type, Seq: index.Seq(), Timestamp: u.Timestamp, SSRC: p.key.link.ssrc}
	if p.key.link.payload.Kind == gkrp.PayloadMP2T {
		h.Marker = u.Marker || p.mark
	}
	p.mark = false
	return h.AppendTo(p.header[:0])
}

// emit sends the sealed packets to every address of the session.
func (p *packetPath) emit(outs []sender) {
	if len(p.sealed) == 0 {
		return
	}
	if p.tap != nil {
		for _, c := range p.clear {
			p.tap(c.index, c.payload)
		}
	}
	for _, out := range outs {
		if n, err := out.Send(p.sealed); err != nil {
			p.mu.Lock()
			p.counts.SendErrors += uint64(len(p.sealed) - n)
			p.sendErr = err
			p.mu.Unlock()
		}
	}
}

// report says what was sent since the last report, and what in all. now was read
// before.
func (p *packetPath) report(now time.Time) gkrp.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := gkrp.Report{From: p.from, To: p.next, Packets: p.counts.Packets, Bytes: p.counts.Bytes, Renew: p.renew, Tags: p.tags.take()}
	r.Since = uint64(max(now.Sub(p.since).Milliseconds(), 0))
	r.Ingress = p.ingress.take(now)
	r.Encoder = p.encoder.report(now)
	p.from = p.next
	return r
}

// end is the index after the last one used.
func (p *packetPath) end() gk.Index {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// snapshot gives the counters, the epoch in use and the last sending error.
func (p *packetPath) snapshot() (counts, gk.Epoch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts, p.key.epoch, p.sendErr
}

// close wipes the key: nothing can be sealed any more.
func (p *packetPath) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key.sealer != nil {
		p.key.sealer.Wipe()
	}
	p.key = key{epoch: p.key.epoch} // for the last count
}
