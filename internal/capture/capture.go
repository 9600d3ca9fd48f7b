// Package capture reads the media stream out of a packet capture: pcap or pcapng,
// gzip or not, micro- or nanoseconds, whole packets or cut ones. It needs no
// libpcap. A broken record is mended or left out, and told; it does not end the reading.
package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// probePackets is how many packets of the file are looked at to find the stream.
const probePackets = 4000

// keptPackets is how many packets, at most, of the flows that may be the stream are kept
// while more of the file is looked at.
const keptPackets = probePackets / 2

// Arrival times of a capture that step back by more than stepBack, or on by more than
// stepOn, are its clock being set: time goes on from the packet before.
const (
	stepBack = time.Second
	stepOn   = time.Hour
)

// sniffPackets is how many packets of the stream decide how its payload is read.
const sniffPackets = 200

// source is what both readers of pcapgo are.
type source interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType // unless the packet tells its own
}

// Reader hands out the packets of one stream in the order of the file.
type Reader struct {
	src     source
	records int // read so far
	damages damages
	flow    Flow
	ssrc    uint32
	form    feature.Form
	bare    bool // MPEG-TS without RTP
	bareSeq uint16
	start   time.Time
	last    int64
	shift   time.Duration // by which the capture's clock was set, taken back
	probed  []packet
	other   struct { // the SSRC that may be the stream's next
		ssrc uint32
		seq  uint16
		run  int
	}
}

// packet is one UDP packet of the probe.
type packet struct {
	at   time.Time
	flow Flow
	wire int
	data []byte
}

// ErrNoStream says that a capture holds no RTP, SRTP or MPEG-TS over UDP.
var ErrNoStream = errors.New("no RTP or MPEG-TS stream over UDP found")

// Open begins to read a capture and finds its stream: the UDP destination with the
// most packets that look like RTP of one SSRC or like MPEG-TS, or the one that want
// names (a zero field matches anything).
func Open(r io.Reader, want Flow) (*Reader, error) {
	c := &Reader{}
	var err error
	if c.src, err = openSource(r, &c.damages); err != nil {
		return nil, err
	}
	seen := flows{}
	for {
		more, err := c.probe(want, seen)
		if err != nil {
			return nil, err
		}
		if c.choose(want != Flow{}) {
			return c, nil
		}
		if !more {
			return nil, fmt.Errorf("%w: %s", ErrNoStream, seen)
		}
		c.forget()
	}
}

// probe reads on until there are enough packets to look for the stream in; more is
// false at the end of the file.
func (c *Reader) probe(want Flow, seen flows) (more bool, err error) {
	for len(c.probed) < probePackets {
		p, err := c.read()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if p.wire >= 0 {
			seen.add(p.flow)
		}
		if p.wire < 0 || !want.matches(p.flow) {
			continue
		}
		p.data = bytes.Clone(p.data)
		c.probed = append(c.probed, p)
	}
	return true, nil
}

// forget makes room among the probed packets: flows go in which nothing looks like the
// stream, and the oldest of what is still too much.
func (c *Reader) forget() {
	maybe := map[Flow]bool{}
	for _, p := range c.probed {
		if _, _, ok := looks(p); ok {
			maybe[p.flow] = true
		}
	}
	c.probed = slices.DeleteFunc(c.probed, func(p packet) bool { return !maybe[p.flow] })
	c.probed = slices.Delete(c.probed, 0, max(0, len(c.probed)-keptPackets))
}

// looks reports whether a packet is like RTP, whose header it gives, or like MPEG-TS
// without it.
func looks(p packet) (h feature.Header, bare, ok bool) {
	if h, _, err := feature.ParseHeader(p.data); err == nil && !isRTCP(p.data) {
		return h, false, true
	}
	bare = len(p.data) > 0 && p.data[0] == 0x47 && p.wire%188 == 0
	return feature.Header{}, bare, bare
}

func openSource(r io.Reader, log *damages) (source, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	magic, err := b.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("capture is empty or shorter than its header (%w): record it anew", err)
	}
	if magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		b = bufio.NewReaderSize(z, 1<<16)
		if magic, err = b.Peek(4); err != nil {
			return nil, fmt.Errorf("capture is empty or shorter than its header: %w", err)
		}
	}
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		src, err := pcapgo.NewNgReader(mendNg(b, log), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, fmt.Errorf("capture (pcapng): %w", err)
		}
		return src, nil
	}
	src, err := pcapgo.NewReader(mendPcap(b, log))
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng, gzip or not (%w): tcpdump -w FILE udp port PORT records one", err)
	}
	return src, nil
}

// read returns the next UDP packet; its data is valid until the next call. wire is
// negative for what is no UDP.
func (c *Reader) read() (packet, error) {
	data, info, err := c.src.ZeroCopyReadPacketData()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return packet{}, io.EOF // the last packet of a file that was still being written
	}
	if err != nil {
		return packet{}, fmt.Errorf("capture: behind record %d: %w: editcap or tcpdump -r FILE -w NEW may save what stands before it", c.records, err)
	}
	c.records++
	p := packet{at: info.Timestamp, wire: -1}
	link := c.src.LinkType()
	if len(info.AncillaryData) > 0 { // pcapng: that of the packet's interface
		if own, ok := info.AncillaryData[0].(layers.LinkType); ok {
			link = own
		}
	}
	if u, ok := parseUDP(link, data); ok {
		p.flow, p.wire, p.data = u.flow, u.length, u.payload
	}
	return p, nil
}

// choose finds the stream among the probed packets and how to read it.
func (c *Reader) choose(named bool) bool {
	type key struct {
		flow Flow
		ssrc uint32
		bare bool
	}
	type tally struct {
		runs int
		seq  uint16
	}
	found := map[key]*tally{}
	var best key
	for _, p := range c.probed {
		h, bare, ok := looks(p)
		if !ok {
			continue
		}
		k, seq := key{p.flow, h.SSRC, bare}, h.Seq
		t := found[k]
		if t == nil {
			t = &tally{seq: seq - 1}
			found[k] = t
		}
		if k.bare || seq-t.seq <= 3 { // in order, but for a loss
			t.runs++
		}
		t.seq = seq
		if b := found[best]; b == nil || t.runs > b.runs {
			best = k
		}
	}
	least := 16
	if named {
		least = 1
	}
	if t := found[best]; t == nil || t.runs < least {
		return false
	}
	c.flow, c.ssrc, c.bare = best.flow, best.ssrc, best.bare
	var s feature.Sniffer
	n := 0
	for _, p := range c.probed {
		if p.flow != c.flow {
			continue
		}
		if c.start.IsZero() {
			c.start = p.at
		}
		if c.bare {
			s.Add(p.data, p.wire)
		} else if h, size, err := feature.ParseHeader(p.data); err == nil && h.SSRC == c.ssrc {
			s.Add(p.data[size:], p.wire-size)
		}
		if n++; n >= sniffPackets {
			break
		}
	}
	c.form = s.Form()
	return true
}

// Flow is the stream's destination.
func (c *Reader) Flow() Flow { return c.flow }

// SSRC is the stream's synchronisation source, 0 for MPEG-TS without RTP.
func (c *Reader) SSRC() uint32 { return c.ssrc }

// Form is how the payload is read.
func (c *Reader) Form() feature.Form { return c.form }

// Damage says in a line each what was broken in the file as far as it was read, and what
// was done about it; none where nothing was. All other packets are there.
func (c *Reader) Damage() []string { return c.damages.lines() }

// Start is when the flow's first packet arrived; packets count from there.
func (c *Reader) Start() time.Time { return c.start }

// Next fills p with the stream's next packet. p.Payload is valid until the next
// call. At the end the error is io.EOF.
func (c *Reader) Next(p *feature.Packet) error {
	for {
		var u packet
		if len(c.probed) > 0 {
			u, c.probed = c.probed[0], c.probed[1:]
		} else {
			var err error
			if u, err = c.read(); err != nil {
				return err
			}
		}
		if u.wire < 0 || u.flow != c.flow || isRTCP(u.data) {
			continue
		}
		c.fill(p, u)
		return nil
	}
}

func (c *Reader) fill(p *feature.Packet, u packet) {
	at := u.at.Sub(c.start) + c.shift
	if before := time.Duration(c.last); at < before-stepBack || at > before+stepOn {
		c.shift += before - at
		at = before
	}
	c.last = max(c.last, at.Nanoseconds()) // packets of several queues are not quite in order
	*p = feature.Packet{At: c.last, Wire: u.wire}
	if c.bare {
		p.PayloadType, p.Seq, p.Payload = 33, c.bareSeq, u.data
		p.Alien = len(u.data) == 0 || u.data[0] != 0x47
		c.bareSeq++
		return
	}
	h, size, err := feature.ParseHeader(u.data)
	c.follow(h, err == nil)
	if err != nil || h.SSRC != c.ssrc {
		p.Alien = true
		if len(u.data) > 0 {
			p.Flags = u.data[0]
		}
		p.PayloadType = h.PayloadType
		return
	}
	p.Header, p.HeaderLen = h, size
	p.Payload = u.data[size:min(len(u.data), max(u.wire, size))]
	if n := len(p.Payload); h.Flags&0x20 != 0 && n > 0 && !cut(p) {
		// Padding is no payload (RFC 3550 §5.1); its length is the last octet.
		p.Payload = p.Payload[:n-min(int(p.Payload[n-1]), n)]
	}
}

// restartPackets of one new SSRC in order, without a packet of the old one among them,
// are the stream after a restart.
const restartPackets = 150

// follow changes over to another SSRC when the stream goes on under it.
func (c *Reader) follow(h feature.Header, ok bool) {
	switch {
	case !ok:
	case h.SSRC == c.ssrc:
		c.other.run = 0
	case h.SSRC == c.other.ssrc && h.Seq-c.other.seq <= 3:
		c.other.seq = h.Seq
		if c.other.run++; c.other.run >= restartPackets {
			c.ssrc, c.other.run = h.SSRC, 0
		}
	default:
		c.other.ssrc, c.other.seq, c.other.run = h.SSRC, h.Seq, 1
	}
}

func cut(p *feature.Packet) bool { return len(p.Payload) < p.Wire-p.HeaderLen }

// isRTCP tells RTCP on the media port from media (RFC 5761 §4).
func isRTCP(b []byte) bool { return len(b) >= 2 && b[0]>>6 == 2 && b[1] >= 192 && b[1] <= 223 }
