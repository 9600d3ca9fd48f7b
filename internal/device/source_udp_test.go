package device

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// listen opens a datagram source on a free port, and a connection to it.
func listen(t *testing.T, scheme, query string) (Source, net.Conn) {
	t.Helper()
	s, err := OpenSource(scheme+"://127.0.0.1:0"+query, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c, err := net.Dial("udp", s.(*datagramSource).sock.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c
}

func write(t *testing.T, c net.Conn, datagrams ...[]byte) {
	t.Helper()
	for _, d := range datagrams {
		if _, err := c.Write(d); err != nil {
			t.Fatal(err)
		}
	}
}

// readUnits reads until n units came, and copies their payloads.
func readUnits(t *testing.T, s Source, n int) (units []Unit, breaks []string) {
	t.Helper()
	var b Batch
	for len(units) < n {
		if err := s.Read(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		for _, u := range b.Units {
			u.Payload = bytes.Clone(u.Payload)
			units = append(units, u)
		}
		if b.Break != "" {
			breaks = append(breaks, b.Break)
		}
	}
	return units, breaks
}

func rtp(pt uint8, seq uint16, ts, ssrc uint32, payload []byte) []byte {
	return append(media.Header{PayloadType: pt, Seq: seq, Timestamp: ts, SSRC: ssrc}.AppendTo(nil), payload...)
}

func TestUDPSource(t *testing.T) {
	m := newTS(0, time.Millisecond, 10)
	one, seven, fifteen := m.packets(nil, 1), m.packets(nil, 7), m.packets(nil, 15)
	s, c := listen(t, "udp", "")
	write(t, c, []byte("stray"), one, seven, []byte("stray"), fifteen)
	p, err := s.Probe(t.Context())
	if err != nil || p != payloadMP2T {
		t.Fatalf("probe: %v, %v", p, err)
	}
	units, breaks := readUnits(t, s, 5)
	var sizes []int
	var data []byte
	for _, u := range units {
		sizes = append(sizes, len(u.Payload)/media.TSPacketSize)
		data = append(data, u.Payload...)
	}
	if fmt.Sprint(sizes) != "[1 7 7 7 1]" {
		t.Errorf("units of %v packets", sizes)
	}
	if want := append(append(append([]byte{}, one...), seven...), fifteen...); !bytes.Equal(data, want) {
		t.Error("bytes differ")
	}
	if len(breaks) != 0 || s.Dropped() != 2 {
		t.Errorf("breaks %v, %d dropped, want none and 2", breaks, s.Dropped())
	}
	write(t, c, newTS(5_000_000_000, time.Millisecond, 10).packets(nil, 7))
	if _, breaks := readUnits(t, s, 1); len(breaks) != 1 {
		t.Errorf("breaks after a jump of the clock: %v", breaks)
	}
	write(t, c, one, one, one)
	if n := s.(flusher).flush(); n != 3 {
		t.Errorf("flushed %d datagrams, want 3", n)
	}
	write(t, c, seven)
	if units, _ := readUnits(t, s, 1); len(units) != 1 {
		t.Errorf("%d units after the flush", len(units))
	}
}

func TestDatagramsThatAreNoMedia(t *testing.T) {
	ts := newTS(0, time.Millisecond, 10).packets(nil, 7)
	for _, c := range []struct {
		name, scheme string
		datagram     []byte
		wants        []string
	}{
		{"rtp to udp", "udp", rtp(33, 1, 0, 7, ts), []string{"RTP with MPEG-TS inside", "use rtp://127.0.0.1"}},
		{"native rtp to udp", "udp", rtp(96, 1, 0, 7, []byte("h264")), []string{"payload type 96", "use rtp://"}},
		{"cut packets", "udp", ts[:1000], []string{"no whole number of 188-byte", "pkt_size=1316"}},
		{"text to udp", "udp", []byte("GET / HTTP/1.1\r\n"), []string{"text"}},
		{"too long", "udp", bytes.Repeat(ts, 8), []string{"longer than 9216 bytes"}},
		{"ts to rtp", "rtp", ts, []string{"bare MPEG-TS", "use udp://127.0.0.1"}},
		{"text to rtp", "rtp", []byte("GET / HTTP/1.1\r\n"), []string{"not RTP", "text"}},
		{"rtcp only", "rtp", append([]byte{0x80, 200}, make([]byte, 26)...), []string{"only RTCP"}},
		{"type 33 without ts", "rtp", rtp(33, 1, 0, 7, []byte("no")), []string{"payload type 33"}},
		{"jumbo payload", "rtp", rtp(96, 1, 0, 7, make([]byte, 4000)), []string{"4000 bytes does not fit", "1460"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, conn := listen(t, c.scheme, "")
			for range sniffDatagrams {
				write(t, conn, c.datagram)
			}
			_, err := s.Probe(t.Context())
			if err == nil {
				t.Fatal("taken for media")
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	s, _ := listen(t, "udp", "")
	addr := s.(*datagramSource).sock.LocalAddr().String()
	if _, err := OpenSource("udp://"+addr, SourceOptions{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second listener: %v", err)
	}
}

func TestRTPSourceDescribesItself(t *testing.T) {
	ts := newTS(0, time.Millisecond, 10).packets(nil, 7)
	for _, c := range []struct {
		query  string
		packet []byte
		want   gkrp.Payload
	}{
		{"", rtp(33, 1, 0, 7, ts), payloadMP2T},
		{"", rtp(96, 1, 0, 7, []byte("x")), gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90000}},
		{"", rtp(0, 1, 0, 7, []byte("x")), gkrp.Payload{Kind: gkrp.PayloadNative, Type: 0, ClockRate: 8000, Encoding: "PCMU"}},
		{"?clock=48000&encoding=opus", rtp(97, 1, 0, 7, []byte("x")), gkrp.Payload{Kind: gkrp.PayloadNative, Type: 97, ClockRate: 48000, Encoding: "opus"}},
	} {
		s, conn := listen(t, "rtp", c.query)
		write(t, conn, c.packet)
		if got, err := s.Probe(t.Context()); err != nil || got != c.want {
			t.Errorf("%+v, %v, want %+v", got, err, c.want)
		}
	}
}

// An encoder that jumps or restarts is told as a break; what it lost stays a gap;
// what it sent twice or late is left out.
func TestRTPSequence(t *testing.T) {
	start := time.Unix(1000, 0)
	type step struct {
		seq  uint16
		ssrc uint32
		at   time.Duration
		want string // "skip N", "out", or the start of the break
	}
	for name, steps := range map[string][]step{
		"in order over the wrap": {{65534, 1, 0, "skip 0"}, {65535, 1, 0, "skip 0"}, {0, 1, 0, "skip 0"}, {1, 1, 0, "skip 0"}},
		"loss":                   {{10, 1, 0, "skip 0"}, {14, 1, 0, "skip 3"}, {15, 1, 0, "skip 0"}},
		"loss over the wrap":     {{65535, 1, 0, "skip 0"}, {2, 1, 0, "skip 2"}},
		"double and late":        {{10, 1, 0, "skip 0"}, {10, 1, 0, "out"}, {12, 1, 0, "skip 1"}, {11, 1, 0, "out"}, {13, 1, 0, "skip 0"}},
		"jump ahead":             {{10, 1, 0, "skip 0"}, {20000, 1, 0, "the encoder's sequence"}, {20001, 1, 0, "skip 0"}},
		"jump back":              {{20000, 1, 0, "skip 0"}, {10, 1, 0, "the encoder's sequence"}, {11, 1, 0, "skip 0"}},
		"restart":                {{10, 1, 0, "skip 0"}, {500, 2, 0, "the encoder changed"}, {11, 1, 0, "out"}, {501, 2, 0, "skip 0"}},
		"two encoders": {
			{10, 1, 0, "skip 0"}, {500, 2, 0, "the encoder changed"}, {11, 1, time.Second, "out"}, {501, 2, time.Second, "skip 0"},
			{12, 1, 2 * time.Second, "out"}, {13, 1, 3 * time.Second, "out"}, {502, 2, 3 * time.Second, "skip 0"},
		},
		"the first encoder comes back": {{10, 1, 0, "skip 0"}, {500, 2, 0, "the encoder changed"}, {11, 1, 5 * time.Second, "the encoder changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			var m rtpMap
			for i, s := range steps {
				u, jump, ok := m.take(rtp(96, s.seq, 0, s.ssrc, []byte{1}), start.Add(s.at))
				got := "out"
				if ok && jump != "" {
					got = jump
				} else if ok {
					got = fmt.Sprintf("skip %d", u.Skip)
				}
				if !strings.HasPrefix(got, s.want) {
					t.Errorf("step %d, sequence %d of %d: %s, want %s", i, s.seq, s.ssrc, got, s.want)
				}
			}
		})
	}
}

func TestRTPUnitKeepsWhatTheReceiverNeeds(t *testing.T) {
	// Padding, one CSRC and a header extension of one word: all are left out.
	pkt := []byte{2<<6 | 0x20 | 0x10 | 1, 0x80 | 96, 0, 5, 0, 0, 1, 2, 0, 0, 0, 9}
	pkt = append(pkt, 0, 0, 0, 1)                   // CSRC
	pkt = append(pkt, 0xbe, 0xde, 0, 1, 1, 2, 3, 4) // extension
	pkt = append(pkt, "media\x00\x00\x03"...)
	var m rtpMap
	u, _, ok := m.take(pkt, time.Time{})
	if !ok || string(u.Payload) != "media" || !u.Marker || u.Type != 96 || u.Timestamp != 0x102 {
		t.Errorf("%+v %q %v", u, u.Payload, ok)
	}
}

// Whatever an encoder sends, the index that its packets take only rises.
func TestRTPIndexAlwaysRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m rtpMap
		now := time.Unix(0, 0)
		next, last := uint64(0), int64(-1)
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			u, jump, ok := m.take(rtp(96, rapid.Uint16().Draw(t, "seq"), 0, rapid.Uint32Range(1, 3).Draw(t, "ssrc"), []byte{1}), now)
			if !ok {
				continue
			}
			if jump != "" && u.Skip != 0 {
				t.Fatalf("a jump left a gap of %d", u.Skip)
			}
			index := next + uint64(u.Skip)
			if int64(index) <= last {
				t.Fatalf("index %d after %d", index, last)
			}
			last, next = int64(index), index+1
		}
	})
}

func TestMulticast(t *testing.T) {
	s, err := OpenSource("udp://239.255.77.7:0?interface=lo", SourceOptions{})
	if err != nil {
		t.Skip("this machine's loopback joins no group: ", err)
	}
	defer s.Close()
	port := s.(*datagramSource).sock.LocalAddr().Port()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := sendMulticastOn(c, lo); err != nil {
		t.Skip(err)
	}
	ts := newTS(0, time.Millisecond, 10).packets(nil, 7)
	if _, err := c.WriteTo(ts, &net.UDPAddr{IP: net.IPv4(239, 255, 77, 7), Port: int(port)}); err != nil {
		t.Skip("multicast does not leave over loopback: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var b Batch
	if err := s.Read(ctx, &b); err != nil {
		t.Skip("multicast does not come back over loopback: ", err)
	}
	if !bytes.Equal(b.Units[0].Payload, ts) {
		t.Error("bytes differ")
	}
}
