package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// ethernet wraps a UDP payload into IPv4 and Ethernet.
func ethernet(port uint16, payload []byte) []byte {
	b := make([]byte, 42, 42+len(payload))
	b[12], b[13] = 0x08, 0
	b[14] = 0x45
	binary.BigEndian.PutUint16(b[16:], uint16(28+len(payload)))
	b[23] = protocolUDP
	copy(b[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[34:], 40000)
	binary.BigEndian.PutUint16(b[36:], port)
	binary.BigEndian.PutUint16(b[38:], uint16(8+len(payload)))
	return append(b, payload...)
}

func rtp(seq uint16, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, 96
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)/3*3600)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

type frame struct {
	at   time.Duration
	data []byte
}

// mixed is a media stream of 100 packets among RTCP, another stream and DNS.
func mixed() []frame {
	var fs []frame
	payload := bytes.Repeat([]byte{0x5c, 0x01, 0xaa, 0x37}, 250)
	for i := range 100 {
		at := time.Duration(i) * 10 * time.Millisecond
		if i%10 == 0 {
			rtcp := make([]byte, 28)
			rtcp[0], rtcp[1] = 0x80, 200
			fs = append(fs, frame{at, ethernet(5004, rtcp)}, frame{at, ethernet(53, []byte("not media"))})
			fs = append(fs, frame{at, ethernet(6000, rtp(uint16(i/10), 9, payload))})
		}
		fs = append(fs, frame{at + time.Duration(i), ethernet(5004, rtp(uint16(i), 7, payload))})
	}
	return fs
}

func writePcap(t *testing.T, fs []frame, nano bool, snap int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := pcapgo.NewWriter(&buf)
	if nano {
		w = pcapgo.NewWriterNanos(&buf)
	}
	if err := w.WriteFileHeader(uint32(snap), layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		data := f.data[:min(len(f.data), snap)]
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: epoch.Add(f.at), CaptureLength: len(data), Length: len(f.data)}, data); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func writeNg(t *testing.T, fs []frame, snap int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := pcapgo.NewNgWriter(&buf, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		data := f.data[:min(len(f.data), snap)]
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: epoch.Add(f.at), CaptureLength: len(data), Length: len(f.data)}, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zipped(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(b)
	z.Close()
	return buf.Bytes()
}

// read takes all packets of the stream that Open finds.
func read(t *testing.T, file []byte, want Flow) (*Reader, []feature.Packet) {
	t.Helper()
	r, err := Open(bytes.NewReader(file), want)
	if err != nil {
		t.Fatal(err)
	}
	var ps []feature.Packet
	for {
		var p feature.Packet
		err := r.Next(&p)
		if errors.Is(err, io.EOF) {
			return r, ps
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Payload = bytes.Clone(p.Payload)
		ps = append(ps, p)
	}
}

func TestEveryFileFormat(t *testing.T) {
	fs := mixed()
	for name, file := range map[string][]byte{
		"pcap, µs":              writePcap(t, fs, false, 65535),
		"pcap, ns":              writePcap(t, fs, true, 65535),
		"pcap, ns, gzip":        zipped(writePcap(t, fs, true, 65535)),
		"pcap, ns, cut":         writePcap(t, fs, true, 96),
		"pcapng":                writeNg(t, fs, 65535),
		"pcapng, gzip, cut":     zipped(writeNg(t, fs, 96)),
		"pcap, end missing":     writePcap(t, append(fs, frame{2 * time.Second, ethernet(5004, rtp(100, 7, nil))}), true, 65535)[:24+len(fs)*16+sum(fs)+20],
		"pcap, cut to a header": writePcap(t, fs, true, 54),
	} {
		t.Run(name, func(t *testing.T) {
			r, ps := read(t, file, Flow{})
			if r.Flow().Port != 5004 || r.SSRC() != 7 {
				t.Errorf("found port %d SSRC %d, want 5004 and 7", r.Flow().Port, r.SSRC())
			}
			if len(ps) != 100 {
				t.Fatalf("%d packets, want 100", len(ps))
			}
			for i, p := range ps {
				if p.Seq != uint16(i) || p.Wire != 1012 || p.Alien {
					t.Fatalf("packet %d: seq %d, %d bytes, alien %v", i, p.Seq, p.Wire, p.Alien)
				}
				if off := p.At - int64(i)*10e6; off < 0 || off > 1000 {
					t.Fatalf("packet %d arrived at %d ns", i, p.At)
				}
			}
		})
	}
}

func sum(fs []frame) (n int) {
	for _, f := range fs {
		n += len(f.data)
	}
	return n
}

func TestFlowIsChosen(t *testing.T) {
	file := writePcap(t, mixed(), true, 96)
	want, err := ParseFlow("6000")
	if err != nil {
		t.Fatal(err)
	}
	if r, ps := read(t, file, want); r.Flow().Port != 6000 || len(ps) != 10 {
		t.Errorf("port %d, %d packets, want 6000 and 10", r.Flow().Port, len(ps))
	}
	if want, err = ParseFlow("10.0.0.2:5004"); err != nil {
		t.Fatal(err)
	}
	if _, ps := read(t, file, want); len(ps) != 100 {
		t.Errorf("%d packets, want 100", len(ps))
	}
	if _, err := Open(bytes.NewReader(file), Flow{Port: 9}); !errors.Is(err, ErrNoStream) {
		t.Errorf("error %v, want %v", err, ErrNoStream)
	}
	for _, bad := range []string{"", "x", "0", "70000", "host:5004", ":"} {
		if _, err := ParseFlow(bad); err == nil {
			t.Errorf("ParseFlow(%q) succeeds", bad)
		}
	}
}

func TestAliensAreMarked(t *testing.T) {
	fs := mixed()
	fs = append(fs,
		frame{time.Second, ethernet(5004, []byte("junk that is no RTP at all"))},
		frame{time.Second, ethernet(5004, rtp(3, 8, []byte{1, 2, 3}))})
	_, ps := read(t, writePcap(t, fs, true, 96), Flow{})
	aliens := 0
	for _, p := range ps {
		if p.Alien {
			aliens++
		}
	}
	if aliens != 2 {
		t.Errorf("%d aliens, want 2", aliens)
	}
}

// TestPaddingIsNoPayload (RFC 3550 §5.1), where its end can be seen.
func TestPaddingIsNoPayload(t *testing.T) {
	var fs []frame
	for i := range 40 {
		b := rtp(uint16(i), 7, append([]byte{0x5c, 1, 2, 3}, 0, 0, 0, 4))
		b[0] |= 0x20
		fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(5004, b)})
	}
	for snap, want := range map[int]int{65535: 4, 60: 6} { // a cut packet does not show how much there is
		_, ps := read(t, writePcap(t, fs, true, snap), Flow{})
		if n := len(ps[9].Payload); n != want {
			t.Errorf("cut at %d: %d bytes of payload, want %d", snap, n, want)
		}
	}
}

func TestStreamIsFollowedAfterARestart(t *testing.T) {
	var fs []frame
	for i := range 600 {
		ssrc := uint32(7)
		if i >= 300 {
			ssrc = 8
		}
		fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(5004, rtp(uint16(i*(1+int(ssrc)%7)), ssrc, []byte{1, 2, 3}))})
	}
	r, ps := read(t, writePcap(t, fs, true, 96), Flow{})
	if r.SSRC() != 8 {
		t.Fatalf("SSRC %d at the end, want 8", r.SSRC())
	}
	aliens := 0
	for _, p := range ps {
		if p.Alien {
			aliens++
		}
	}
	if aliens != restartPackets-1 {
		t.Errorf("%d aliens, want %d", aliens, restartPackets-1)
	}
}

func TestTransportStreamWithoutRTP(t *testing.T) {
	var fs []frame
	ts := bytes.Repeat(append([]byte{0x47, 0x01, 0x00, 0x10}, make([]byte, 184)...), 7)
	for i := range 60 {
		fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(1234, ts)})
	}
	r, ps := read(t, writePcap(t, fs, true, 65535), Flow{})
	if r.Form() != feature.TS || len(ps) != 60 || ps[59].Seq != 59 || ps[0].HeaderLen != 0 {
		t.Errorf("form %s, %d packets", r.Form(), len(ps))
	}
}

func TestNotACapture(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("abc"), []byte("this is text, not packets, and long enough"), zipped(nil), {0x1f, 0x8b, 0, 0}} {
		if _, err := Open(bytes.NewReader(b), Flow{}); err == nil {
			t.Errorf("%q opens", b)
		}
	}
	if _, err := Open(bytes.NewReader(writePcap(t, nil, true, 96)), Flow{}); !errors.Is(err, ErrNoStream) {
		t.Errorf("error of an empty capture: %v", err)
	}
}

func TestLinkLayers(t *testing.T) {
	ip := ethernet(5004, []byte("payload!"))[14:]
	six := make([]byte, 48, 64)
	six[0], six[6] = 0x60, protocolUDP
	binary.BigEndian.PutUint16(six[42:], 5004)
	binary.BigEndian.PutUint16(six[44:], 16)
	six = append(six, []byte("payload!")...)
	hop := append(append(append([]byte{}, six[:40]...), protocolUDP, 0, 0, 0, 0, 0, 0, 0), six[40:]...)
	hop[6] = 0
	split := append(append(append([]byte{}, six[:40]...), protocolUDP, 0, 0, 1, 0, 0, 0, 9), six[40:]...)
	split[6] = 44
	signed := append(append(append([]byte{}, six[:40]...), protocolUDP, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1), six[40:]...)
	signed[6] = 51
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		link layers.LinkType
		data []byte
	}{
		"ethernet":         {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x08, 0}, ip)},
		"vlan":             {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x81, 0, 0, 5, 0x08, 0}, ip)},
		"ethernet, IPv6":   {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x86, 0xdd}, six)},
		"IPv6 with option": {layers.LinkTypeRaw, hop},
		"cooked":           {layers.LinkTypeLinuxSLL, join(make([]byte, 14), []byte{0x08, 0}, ip)},
		"cooked, vlan":     {layers.LinkTypeLinuxSLL, join(make([]byte, 14), []byte{0x81, 0, 0, 5, 0x08, 0}, ip)},
		"IPv6, fragmented": {layers.LinkTypeRaw, split},
		"cooked, 2":        {linkSLL2, join([]byte{0x08, 0}, make([]byte, 18), ip)},
		"raw":              {layers.LinkTypeRaw, ip},
		"VLANs in a VLAN":  {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x88, 0xa8, 0, 9, 0x81, 0, 0, 5, 0x08, 0}, ip)},
		"MPLS":             {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x88, 0x47, 0, 1, 0x21, 64}, ip)},
		"MPLS, two labels": {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x88, 0x48, 0, 1, 0x20, 64, 0, 2, 0x21, 64}, six)},
		"PPPoE in a VLAN":  {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x81, 0, 0, 7, 0x88, 0x64, 0x11, 0, 0, 3, 0, 38, 0, 0x21}, ip)},
		"PPPoE, IPv6":      {layers.LinkTypeEthernet, join(make([]byte, 12), []byte{0x88, 0x64, 0x11, 0, 0, 3, 0, 66, 0, 0x57}, six)},
		"PPP":              {layers.LinkTypePPP, join([]byte{0xff, 3, 0, 0x21}, ip)},
		"PPP, MPLS":        {layers.LinkTypePPP_HDLC, join([]byte{2, 0x81, 0, 1, 0x21, 64}, ip)},
		"IPv6, signed":     {layers.LinkTypeRaw, signed},
		"loopback":         {layers.LinkTypeNull, join([]byte{2, 0, 0, 0}, ip)},
	} {
		u, ok := parseUDP(c.link, c.data)
		if !ok || u.flow.Port != 5004 || string(u.payload) != "payload!" || u.length != 8 {
			t.Errorf("%s: %+v %v", name, u, ok)
		}
	}
	for name, data := range map[string][]byte{
		"MPLS without a bottom": {0x88, 0x47, 0, 1, 0x20, 64}, "PPPoE of no IP": {0x88, 0x64, 0x11, 0, 0, 3, 0, 4, 0xc0, 0x21, 1, 1},
		"PPPoE, cut": {0x88, 0x64, 0x11, 0, 0, 3, 0}, "ARP": {0x08, 0x06, 0x45, 0, 0, 1},
	} {
		if u, ok := parseUDP(layers.LinkTypeEthernet, join(make([]byte, 12), data)); ok {
			t.Errorf("%s: %+v", name, u)
		}
	}
	fragment := bytes.Clone(ip)
	fragment[7] = 1
	if _, ok := parseUDP(layers.LinkTypeRaw, fragment); ok {
		t.Error("a later fragment has no UDP header")
	}
}

// TestStreamBehindOtherTraffic: what comes before the stream, however much of it, and on
// interfaces of another kind, does not hide it.
func TestStreamBehindOtherTraffic(t *testing.T) {
	var fs []frame
	for i := range probePackets + 10 {
		fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(443, []byte{0x41, byte(i), 3, 4})})
		if i >= probePackets-8 {
			fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(5004, rtp(uint16(i), 7, []byte{1, 2, 3}))})
		}
	}
	for i := probePackets + 10; i < probePackets+100; i++ {
		fs = append(fs, frame{time.Duration(i) * time.Millisecond, ethernet(5004, rtp(uint16(i), 7, []byte{1, 2, 3}))})
	}
	if _, ps := read(t, writePcap(t, fs, true, 96), Flow{}); len(ps) != 108 {
		t.Errorf("%d packets of the stream, want 108", len(ps))
	}

	var buf bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&buf, pcapgo.NgInterface{LinkType: layers.LinkTypeNull}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range mixed() {
		ci := gopacket.CaptureInfo{Timestamp: epoch.Add(f.at), CaptureLength: len(f.data), Length: len(f.data), InterfaceIndex: second}
		if err := w.WritePacket(ci, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, ps := read(t, buf.Bytes(), Flow{}); len(ps) != 100 {
		t.Errorf("%d packets of an interface of another kind, want 100", len(ps))
	}
}

// TestClockThatIsSet: the time of day may be set while packets are captured; it is no
// silence of years, and what follows is not all at one time.
func TestClockThatIsSet(t *testing.T) {
	for _, set := range []time.Duration{20 * 365 * 24 * time.Hour, -20 * time.Minute} {
		fs := mixed()
		for i := range fs {
			if i >= len(fs)/2 {
				fs[i].at += set
			}
		}
		_, ps := read(t, writePcap(t, fs, true, 96), Flow{})
		if took := time.Duration(ps[len(ps)-1].At); took < 900*time.Millisecond || took > time.Second {
			t.Errorf("a clock set by %v makes a second last %v", set, took)
		}
	}
}

func FuzzParseUDP(f *testing.F) {
	e := ethernet(5004, rtp(1, 2, []byte{3}))
	f.Add(uint16(layers.LinkTypeEthernet), e)
	f.Add(uint16(layers.LinkTypeRaw), e[14:])
	f.Add(uint16(linkSLL2), e)
	f.Add(uint16(layers.LinkTypeNull), []byte{2, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 0, 64})
	f.Fuzz(func(t *testing.T, link uint16, b []byte) {
		if u, ok := parseUDP(layers.LinkType(link), b); ok && len(u.payload) > u.length {
			t.Errorf("payload of %d bytes in a datagram of %d", len(u.payload), u.length)
		}
	})
}

func FuzzOpen(f *testing.F) {
	var buf bytes.Buffer
	w := pcapgo.NewWriterNanos(&buf)
	w.WriteFileHeader(96, layers.LinkTypeEthernet)
	for i := range 20 {
		d := ethernet(5004, rtp(uint16(i), 7, []byte{0x5c, 1, 2, 3}))
		w.WritePacket(gopacket.CaptureInfo{Timestamp: epoch, CaptureLength: len(d), Length: len(d)}, d)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Open(bytes.NewReader(b), Flow{})
		if err != nil {
			return
		}
		last := int64(0)
		for range 1000 {
			var p feature.Packet
			if r.Next(&p) != nil {
				return
			}
			if p.At < last {
				t.Fatal("time falls")
			}
			last = p.At
		}
	})
}
