package device

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

func sendMulticastOn(c net.PacketConn, ifi *net.Interface) error {
	p := ipv4.NewPacketConn(c)
	if err := p.SetMulticastInterface(ifi); err != nil {
		return err
	}
	return p.SetMulticastLoopback(true)
}

// FuzzSchedule feeds arbitrary bytes in arbitrary cuts: every whole packet that
// the aligner lets through comes out once, in order, at times that never fall.
func FuzzSchedule(f *testing.F) {
	m := newTS(0, time.Millisecond, 3)
	f.Add(m.packets(nil, 20), uint16(188))
	f.Add(append([]byte("junk"), m.packets(nil, 30)...), uint16(1000))
	f.Add(newTS(pcrCycle-100, time.Second, 1).packets(m.packets(nil, 9), 9), uint16(7))
	f.Add(mp4[:2000], uint16(100))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		if len(data) > 1<<16 {
			return
		}
		var want []byte
		var ref media.TSAligner
		keep := func(ts []byte) { want = append(want, ts...) }
		var s schedule
		size := max(int(cut), 1)
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			s.push(rest[:n])
			ref.Push(rest[:n], keep)
			rest = rest[n:]
		}
		s.finish()
		ref.Flush(keep)
		var got []byte
		var b Batch
		last := time.Duration(-1)
		for s.timed() > 0 {
			if s.due() < last {
				t.Fatalf("time falls from %v to %v", last, s.due())
			}
			last = s.due()
			b.reset()
			s.take(&b, last)
			if len(b.Units) == 0 {
				t.Fatal("nothing taken")
			}
			for _, u := range b.Units {
				if len(u.Payload) == 0 || len(u.Payload) > media.TSPerRTP*media.TSPacketSize {
					t.Fatalf("unit of %d bytes", len(u.Payload))
				}
				got = append(got, u.Payload...)
			}
		}
		if s.started && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came out, %d were let in", len(got), len(want))
		}
	})
}

// FuzzRTPMap feeds arbitrary datagrams: nothing but a well-formed packet within
// the size limit becomes a unit.
func FuzzRTPMap(f *testing.F) {
	f.Add(rtp(96, 1, 2, 3, []byte("payload")), rtp(96, 2, 2, 3, []byte("payload")))
	f.Add(rtp(33, 65535, 2, 3, newTS(0, 1, 1).packets(nil, 7)), rtp(33, 0, 2, 4, nil))
	f.Add([]byte{0xbf, 0x80, 0, 0}, []byte{0x80, 200, 0, 6})
	f.Add([]byte("\xb0\x60\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\xbe\xde\xff\xff"), []byte(nil))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var m rtpMap
		a := &rtpAcceptor{url: "rtp://x:1"}
		for i, d := range [][]byte{one, two, one} {
			if p, err := a.probe(d); err == nil && (p.ClockRate == 0 || p.Type > 127) {
				t.Fatalf("described as %+v", p)
			}
			u, _, ok := m.take(d, time.Unix(int64(i), 0))
			if !ok {
				continue
			}
			if len(u.Payload) == 0 || len(u.Payload) > maxUnit || len(u.Payload) > len(d)-12 {
				t.Fatalf("unit of %d bytes from %d", len(u.Payload), len(d))
			}
			if u.Skip > maxDropout {
				t.Fatalf("gap of %d", u.Skip)
			}
		}
	})
}

// FuzzDescribeInput holds the words about bad input to be words.
func FuzzDescribeInput(f *testing.F) {
	f.Add([]byte{})
	f.Add(mp4[:64])
	f.Add([]byte("plain text of some length \xff\xfe"))
	f.Add(bytes.Repeat([]byte{0x47}, 900))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, mend := describeInput(data)
		if found == "" || mend == "" || len(found) > 300 {
			t.Fatalf("%q, %q", found, mend)
		}
	})
}

// FuzzJoinAnswer feeds arbitrary answers of a join endpoint: nothing makes an
// identity that does not fit its token.
func FuzzJoinAnswer(f *testing.F) {
	w := newWorld(f)
	good, err := json.Marshal(w.answer(f, "cam-1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"device":"cam-1","kms_public":"AAAA","broker":"x"}`))
	f.Add([]byte(`{"code":"used","error":"it was used"}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a joinAnswer
		if json.Unmarshal(b, &a) != nil {
			_ = joinRefusal(w.token, 500, b)
			return
		}
		i := Identity{Device: a.Device, Streams: a.Streams, Key: w.deviceKey, KMSPublic: a.KMSPublic, Broker: a.Broker}
		if i.complete(a, w.token) == nil && (i.Cert == nil || i.check() != nil || i.Device != w.token.Device) {
			t.Fatal("an answer that does not fit its token was taken")
		}
	})
}

// FuzzSourceFile holds what a source file gives to what can be opened and shown.
func FuzzSourceFile(f *testing.F) {
	f.Add([]byte("# what runs\n\nregime: night\nexec:ffmpeg -i x \\\n  -f mpegts -\n"))
	f.Add([]byte("rtsp://10.0.0.7/live"))
	f.Add([]byte("regime: a\nregime: b\n"))
	f.Add([]byte("regime: \x1b[2J\nexec:true"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSource(b)
		if err != nil {
			if s != (SourceFile{}) {
				t.Fatalf("%+v, %v", s, err)
			}
			return
		}
		if s.Regime != "" && !gkrp.IsRegime(s.Regime) || s.Spec == "" || s.Spec != strings.TrimSpace(s.Spec) || s.Spec[0] == '#' {
			t.Fatalf("%+v", s)
		}
		_, _, _ = programOf(s.Spec)
	})
}
