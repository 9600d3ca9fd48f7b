package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	// maxDatagram is the largest datagram taken in, in bytes: a jumbo frame.
	maxDatagram = 9216
	// sniffDatagrams is how many datagrams in a row may be no media before the
	// source is given up. A stray one at the start is no reason to.
	sniffDatagrams = 5
)

// datagramSource receives an encoder's datagrams and makes units of them: what
// udp:// and rtp:// have in common.
type datagramSource struct {
	name     string
	sock     *media.UDPSocket
	member   net.PacketConn // holds a multicast group open; nil for unicast
	recv     *media.Receiver
	accept   acceptor
	pending  []media.Datagram // received by Probe
	describe gkrp.Payload
	probed   bool
	begin    time.Time
	dropped  atomic.Uint64
	unwatch  func() bool
	watched  context.Context
}

// acceptor is what differs between udp:// and rtp://.
type acceptor interface {
	// probe judges a datagram before the session: the payload's description, or
	// what is wrong with it.
	probe(data []byte) (gkrp.Payload, error)
	// add appends the datagram's units to b, if it is media.
	add(b *Batch, data []byte, now time.Time, timestamp uint32) bool
}

func openUDP(u *url.URL, o SourceOptions) (Source, error) {
	return openDatagrams(u, o, &tsAcceptor{url: u.String()})
}

func openRTP(u *url.URL, o SourceOptions) (Source, error) {
	a := &rtpAcceptor{url: u.String(), encoding: u.Query().Get("encoding")}
	if c := u.Query().Get("clock"); c != "" {
		hz, err := strconv.ParseUint(c, 10, 32)
		if err != nil || hz == 0 {
			return nil, fmt.Errorf("source %s: clock=%s is no clock rate: give Hz, for example clock=90000", u, c)
		}
		a.clock = uint32(hz)
	}
	return openDatagrams(u, o, a)
}

func openDatagrams(u *url.URL, o SourceOptions, a acceptor) (Source, error) {
	// ffmpeg and VLC write the address to listen on as udp://@ADDRESS.
	addr := u.Host
	if u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("source %s: write %s://HOST:PORT, for example %s://127.0.0.1:5000", u, u.Scheme, u.Scheme)
	}
	sock, err := media.ListenUDP(addr, media.SocketOptions{ReceiveBuffer: o.ReceiveBuffer})
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", u, err)
	}
	if s := sock.Shortfall(); s != "" {
		o.Log.Info("the source's socket got less than it asked for", "detail", s)
	}
	s := &datagramSource{name: u.String(), sock: sock, accept: a, recv: sock.NewReceiver(maxBatch, maxDatagram)}
	if group, err := netip.ParseAddr(u.Hostname()); err == nil && group.IsMulticast() {
		if s.member, err = joinGroup(group.Unmap(), u.Query().Get("interface")); err != nil {
			_ = sock.Close()
			return nil, fmt.Errorf("source %s: %w", u, err)
		}
	}
	return s, nil
}

// joinGroup keeps this machine a member of a multicast group for as long as the
// connection is open. The receiving socket is another one: it has the group's
// port, and the kernel gives it what any membership brings in.
func joinGroup(group netip.Addr, iface string) (net.PacketConn, error) {
	var ifi *net.Interface
	if iface != "" {
		var err error
		if ifi, err = net.InterfaceByName(iface); err != nil {
			return nil, fmt.Errorf("interface=%s: %w: ip link lists the interfaces", iface, err)
		}
	}
	network := "udp6"
	if group.Is4() {
		network = "udp4"
	}
	c, err := net.ListenPacket(network, ":0")
	if err != nil {
		return nil, fmt.Errorf("cannot join multicast group %s: %w", group, err)
	}
	to := &net.UDPAddr{IP: group.AsSlice()}
	if group.Is4() {
		err = ipv4.NewPacketConn(c).JoinGroup(ifi, to)
	} else {
		err = ipv6.NewPacketConn(c).JoinGroup(ifi, to)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("cannot join multicast group %s: %w: name an interface that can with ?interface=NAME", group, err)
	}
	return c, nil
}

// receive waits for datagrams until ctx ends.
func (s *datagramSource) receive(ctx context.Context) ([]media.Datagram, error) {
	if s.watched != ctx {
		s.stopWatching()
		s.watched = ctx
		s.unwatch = context.AfterFunc(ctx, func() { _ = s.sock.SetReadDeadline(time.Unix(1, 0)) })
	}
	in, err := s.recv.Receive()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("source %s: %w", s.name, err)
	}
	return in, nil
}

func (s *datagramSource) stopWatching() {
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	s.watched = nil
	_ = s.sock.SetReadDeadline(time.Time{})
}

// Probe implements [Source]: it waits for the first datagram that is media.
func (s *datagramSource) Probe(ctx context.Context) (gkrp.Payload, error) {
	bad := 0
	for !s.probed {
		in, err := s.receive(ctx)
		if err != nil {
			return gkrp.Payload{}, err
		}
		for i, d := range in {
			p, err := s.accept.probe(d.Data)
			if d.Truncated {
				err = fmt.Errorf("source %s: a datagram is longer than %d bytes: let the encoder send %d (ffmpeg: ?pkt_size=%d)", s.name, maxDatagram, media.TSPerRTP*media.TSPacketSize, media.TSPerRTP*media.TSPacketSize)
			}
			if err == nil {
				s.describe, s.pending, s.probed = p, in[i:], true
				break
			}
			s.dropped.Add(1)
			if bad++; bad >= sniffDatagrams {
				return gkrp.Payload{}, err
			}
		}
	}
	return s.describe, nil
}

// Read implements [Source].
func (s *datagramSource) Read(ctx context.Context, b *Batch) error {
	b.reset()
	if !s.probed {
		if _, err := s.Probe(ctx); err != nil {
			return err
		}
	}
	for len(b.Units) == 0 {
		in := s.pending
		s.pending = nil
		if in == nil {
			var err error
			if in, err = s.receive(ctx); err != nil {
				return err
			}
		}
		now := time.Now()
		if s.begin.IsZero() {
			s.begin = now
		}
		timestamp := clock90k(now.Sub(s.begin))
		for _, d := range in {
			if d.Truncated || !s.accept.add(b, d.Data, now, timestamp) {
				s.dropped.Add(1)
			}
		}
	}
	return nil
}

// flush throws away what has piled up in the socket.
func (s *datagramSource) flush() int {
	s.stopWatching()
	n := len(s.pending)
	s.pending = nil
	for {
		_ = s.sock.SetReadDeadline(time.Now().Add(time.Millisecond))
		in, err := s.recv.Receive()
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return n // the next Read tells it
			}
			_ = s.sock.SetReadDeadline(time.Time{})
			return n
		}
		n += len(in)
	}
}

// Dropped implements [Source], in datagrams.
func (s *datagramSource) Dropped() uint64 { return s.dropped.Load() }

// Close implements [Source].
func (s *datagramSource) Close() error {
	s.stopWatching()
	if s.member != nil {
		_ = s.member.Close()
	}
	return s.sock.Close()
}

// tsAcceptor takes transport stream packets as they are. A datagram stays one
// packet unless it holds more than seven.
type tsAcceptor struct {
	url   string
	clock media.PCRClock
}

func (a *tsAcceptor) probe(data []byte) (gkrp.Payload, error) {
	if media.ValidTS(data) {
		return payloadMP2T, nil
	}
	if h, err := media.ParseHeader(data); err == nil {
		if h.PayloadType == media.PayloadTypeTS || media.ValidTS(data[h.Size:]) {
			return gkrp.Payload{}, fmt.Errorf("source %s: found RTP with MPEG-TS inside: use rtp%s", a.url, strings.TrimPrefix(a.url, "udp"))
		}
		return gkrp.Payload{}, fmt.Errorf("source %s is not MPEG-TS: found what looks like RTP, payload type %d: use rtp%s", a.url, h.PayloadType, strings.TrimPrefix(a.url, "udp"))
	}
	if len(data) > 0 && data[0] == 0x47 && !looksLikeText(data) {
		return gkrp.Payload{}, fmt.Errorf("source %s: a datagram of %d bytes is no whole number of 188-byte MPEG-TS packets: set the encoder's packet size to 1316 (ffmpeg: ?pkt_size=1316)", a.url, len(data))
	}
	found, mend := describeInput(data)
	return gkrp.Payload{}, fmt.Errorf("source %s is not MPEG-TS: found %s; %s", a.url, found, mend)
}

func (a *tsAcceptor) add(b *Batch, data []byte, _ time.Time, timestamp uint32) bool {
	if !media.ValidTS(data) {
		return false
	}
	appendTS(b, data, timestamp)
	if jumped(&a.clock, data) {
		b.Break = "the clock of the transport stream jumped"
	}
	return true
}

// rtpAcceptor takes RTP packets of any payload type.
type rtpAcceptor struct {
	url      string
	clock    uint32 // Hz, 0: by payload type
	encoding string
	seq      rtpMap
}

// isRTCP tells RTCP on an RTP port by its packet type (RFC 5761 §4).
func isRTCP(data []byte) bool { return len(data) > 1 && data[1] >= 192 && data[1] <= 223 }

func (a *rtpAcceptor) probe(data []byte) (gkrp.Payload, error) {
	fail := func(found, mend string) (gkrp.Payload, error) {
		return gkrp.Payload{}, fmt.Errorf("source %s is not RTP: found %s; %s", a.url, found, mend)
	}
	if media.ValidTS(data) {
		return fail("bare MPEG-TS", "use udp"+strings.TrimPrefix(a.url, "rtp"))
	}
	if isRTCP(data) {
		return fail("only RTCP", "send the media to this port, and RTCP to the next")
	}
	h, err := media.ParseHeader(data)
	if err != nil {
		found, _ := describeInput(data)
		return fail(found+" ("+err.Error()+")", "let the encoder send RTP, or MPEG-TS to udp://")
	}
	if n := len(data) - h.Size; n > maxUnit {
		return gkrp.Payload{}, fmt.Errorf("source %s: a payload of %d bytes does not fit one packet with its protection: set the encoder's packet size to %d bytes or less (ffmpeg: ?pkt_size=%d)", a.url, n, maxUnit, maxUnit)
	}
	if h.PayloadType == media.PayloadTypeTS {
		if !media.ValidTS(data[h.Size:]) {
			return fail("payload type 33 without whole MPEG-TS packets inside", "let the encoder send MP2T as RFC 2250 says")
		}
		return payloadMP2T, nil
	}
	p := gkrp.Payload{Kind: gkrp.PayloadNative, Type: h.PayloadType, ClockRate: a.clock, Encoding: a.encoding}
	static := clockRates[h.PayloadType]
	if p.Encoding == "" {
		p.Encoding = static.name
	}
	if p.ClockRate == 0 {
		p.ClockRate = static.hz
	}
	if p.ClockRate == 0 {
		p.ClockRate = 90_000 // every video format's clock
	}
	return p, nil
}

func (a *rtpAcceptor) add(b *Batch, data []byte, now time.Time, _ uint32) bool {
	if isRTCP(data) {
		return true
	}
	u, jump, ok := a.seq.take(data, now)
	if !ok {
		return false
	}
	if jump != "" {
		b.Break = jump
	}
	b.Units = append(b.Units, u)
	return true
}
