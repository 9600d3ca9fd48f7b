package media

import (
	"bytes"
	"testing"

	"github.com/gaitkeeper/gaitkeeper"
)

func FuzzParseHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, pkt []byte) {
		h, err := ParseHeader(pkt)
		if err != nil {
			if h != (Header{}) {
				t.Fatalf("header %+v with error %v", h, err)
			}
			return
		}
		if h.Size < rtpFixedSize || h.Size > len(pkt) {
			t.Fatalf("header of %d bytes in a packet of %d", h.Size, len(pkt))
		}
		if h.Size == rtpFixedSize && !h.Padding && !h.Extension && !bytes.Equal(h.AppendTo(nil), pkt[:rtpFixedSize]) {
			t.Fatalf("%x written back as %x", pkt[:rtpFixedSize], h.AppendTo(nil))
		}
		if payload, err := StripPadding(pkt[h.Size:]); err == nil && len(payload) >= len(pkt)-h.Size {
			t.Fatal("padding of nothing")
		}
	})
}

// FuzzOpen lets nothing pass that was not sealed, and no failure leave a mark.
func FuzzOpen(f *testing.F) {
	f.Fuzz(func(t *testing.T, pkt []byte) {
		s, o := testPair(t, 2, 5)
		genuine := seal(t, s, 77, "genuine")
		if _, v := o.Open(nil, pkt); v.Authentic() && !bytes.Equal(pkt, genuine) {
			t.Fatalf("forged packet: %v", v)
		}
		before := o.window
		if _, v := o.Open(nil, pkt); v == OK {
			t.Fatal("accepted twice")
		}
		if o.window != before {
			t.Fatal("a refused packet changed the state")
		}
		PacketEpoch(pkt)
	})
}

// FuzzSealOpen round-trips any header that Seal takes.
func FuzzSealOpen(f *testing.F) {
	f.Fuzz(func(t *testing.T, hdr, payload []byte, roc uint32) {
		h, err := ParseHeader(hdr)
		if err != nil {
			return
		}
		key, salt := testKey(1)
		s, _ := newSealer(key, salt, h.SSRC, 1)
		o, _ := newOpener(key, salt, h.SSRC, 1)
		index := gaitkeeper.Index(roc)<<16 | gaitkeeper.Index(h.Seq)
		o.Hint(index)
		pkt, err := s.Seal(nil, hdr, payload, index)
		if err != nil {
			return
		}
		opened, v := o.Open(nil, pkt)
		if v != OK || opened.Index != index || !bytes.Equal(opened.Payload, payload) {
			t.Fatalf("%v at %d, want %d", v, opened.Index, index)
		}
	})
}

func FuzzTS(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		var clock PCRClock
		var last PCRTick
		if ValidTS(b) {
			FindPAT(b)
			for ; len(b) > 0; b = b[TSPacketSize:] {
				RandomAccess(b)
				ProgramMapPID(b)
				VideoStart(b)
				if tick, ok := clock.Next(b[:TSPacketSize]); ok {
					if tick.Elapsed < last.Elapsed {
						t.Fatalf("time fell from %v to %v", last.Elapsed, tick.Elapsed)
					}
					last = tick
				}
			}
			return
		}
		// However the bytes are cut, the same packets come out.
		collect := func(chunk int) (out []byte, skipped uint64) {
			var a TSAligner
			emit := func(ts []byte) {
				if !ValidTS(ts) || len(ts) > TSPerRTP*TSPacketSize {
					t.Fatalf("emitted %d bytes that are not transport stream packets", len(ts))
				}
				out = append(out, ts...)
			}
			for rest := b; len(rest) > 0; {
				n := min(chunk, len(rest))
				a.Push(rest[:n], emit)
				rest = rest[n:]
			}
			a.Flush(emit)
			return out, a.Skipped()
		}
		whole, skipped := collect(len(b) + 1)
		if uint64(len(whole))+skipped != uint64(len(b)) {
			t.Fatalf("%d bytes in, %d out and %d skipped", len(b), len(whole), skipped)
		}
		if pieces, n := collect(int(cut) + 1); uint64(len(pieces))+n != uint64(len(b)) {
			t.Fatalf("cut by %d: %d bytes in, %d out and %d skipped", cut+1, len(b), len(pieces), n)
		}
	})
}
