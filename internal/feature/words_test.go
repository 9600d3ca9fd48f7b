package feature

import (
	"strings"
	"testing"
)

// TestEveryTokenHasWords walks what meters can say: a kind that is added must be named.
func TestEveryTokenHasWords(t *testing.T) {
	said := func(form Form, tok Token, want string) {
		t.Helper()
		s := tok.Words(form)
		if s == "" || strings.Contains(s, "without a name") || strings.Contains(s, "%!") || strings.HasPrefix(s, tok.Family().String()+" ") {
			t.Errorf("%s, %s: no words: %q", form, tok, s)
		}
		if !strings.Contains(s, want) {
			t.Errorf("%s, %s: %q, want %q in it", form, tok, s, want)
		}
	}
	for f := range Families {
		for _, v := range []uint32{0, 1, 96, 0x8060} {
			said(TS, token(f, v), "")
		}
	}
	for form := Opaque; form <= Hidden; form++ {
		for octet := range uint32(256) {
			said(form, token(FamilyUnit, octet), "")
			said(form, token(FamilySlice, 1<<24|octet), "start code")
		}
		for kind := uint32(unitTS); kind <= unitRegular; kind += 1 << 24 {
			said(form, token(FamilyUnit, kind|1<<16|256), "")
		}
		for kind := range uint32(3) {
			said(form, token(FamilySlice, kind<<24), "")
		}
	}
	for shape := range uint32(32) {
		said(TS, token(FamilyUnit, unitTS|shape<<16|256), "PID 256")
		said(TS, token(FamilyUnit, unitAdapt|shape<<16|257), "PID 257")
	}
	for pt := range uint32(128) {
		said(H264, token(FamilyHeader, 0x80<<8|pt), "payload type")
	}
	for kind := range uint32(16) {
		said(H264, token(FamilySlice, 5<<16|kind<<8), "slice")
	}
	for kind := range uint32(8) {
		said(TS, token(FamilySlice, 2<<24|kind), "MPEG-")
	}
}

// TestWords: the code of a token, and what an operator reads.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		form Form
		tok  Token
		want string
	}{
		{H264, token(FamilyUnit, 0x06), "a NAL unit of type 6 (H.264 SEI messages) with nal_ref_idc 0"},
		{H264, token(FamilyUnit, 1<<16|0x67), "a NAL unit of type 7 (H.264 sequence parameter set) with nal_ref_idc 3, inside an aggregate"},
		{H264, token(FamilyUnit, 2<<16|5), "an SEI message of type 5 (user data of the encoder's own), H.264"},
		{H264, token(FamilyUnit, unitRegular|6), "SEI messages (H.264 NAL unit type 6)"},
		{H264, token(FamilySlice, 1<<16|5<<8|2), "a picture coded otherwise: H.264 P slice (type 5) by picture parameter set 2, in a NAL unit of type 1"},
		{H265, token(FamilyUnit, 1<<20|33<<8|1), "a NAL unit of type 33 (H.265 sequence parameter set) of temporal layer 0, inside an aggregate"},
		{H265, token(FamilyUnit, unitRegular|32), "video parameter set (H.265 NAL unit type 32)"},
		{Opaque, token(FamilyUnit, 0x90), "a payload that begins with octet 90"},
		{TS, token(FamilyUnit, unitTS|1<<16|0x8a), "a TS packet of PID 138 in which a unit begins"},
		{TS, token(FamilyUnit, unitTS|evenKey<<16|0x100), "a TS packet of PID 256, scrambled"},
		{TS, token(FamilyUnit, unitAdapt|0x10<<16|0x100), "an adaptation field on PID 256 with the programme's clock (PCR)"},
		{TS, token(FamilyUnit, unitStream|0x60<<13|0x100), "a video stream (id e0) on PID 256"},
		{TS, token(FamilyUnit, unitPES|1<<16|0xe0<<8|3), "a PES header of a video stream (id e0) with two times (PTS and DTS), length 0 and flags 00"},
		{TS, token(FamilyUnit, unitDescribe|0xc0<<14|5), "a PES header of an audio stream (id c0) with 5 bytes of options and flags 00"},
		{TS, token(FamilySlice, 1<<24|0x67), "a picture that begins with start code 67 (H.264 sequence parameter set)"},
		{TS, token(FamilySlice, 1<<24|0x42), "a picture that begins with start code 42 (H.265 sequence parameter set)"},
		{TS, token(FamilySlice, 1<<24|0x28), "a picture that begins with start code 28 (H.264 picture parameter set, or H.265 key picture)"},
		{TS, token(FamilySlice, 1<<24|0x01), "a picture that begins with start code 01 (H.264 picture, or MPEG-2 row 1)"},
		{TS, token(FamilySlice, 2<<24|2), "a picture of MPEG-1 or MPEG-2 with coding type 2 (P)"},
		{Hidden, token(FamilyHeader, 0x90<<8|96), "an RTP header with payload type 96, an extension"},
		{Hidden, token(FamilyHeader, 1<<16), "a packet that is not the stream's: no RTP, or with another SSRC"},
		{H264, token(FamilyStep, 3600), "a step of the RTP timestamp by 40 ms (3600 ticks)"},
		{H264, token(FamilyStep, uint32(1<<28-3600)), "a step of the RTP timestamp by -40 ms (-3600 ticks)"},
		{H264, token(FamilyStep, variedValue), "more than 24 different steps of the RTP timestamp within a quarter of a second"},
		{H264, token(FamilySize, 1412), "a packet of 1412 bytes where the picture fills it"},
		{TS, token(FamilySize, sizeTSRemainder|24), "a payload that is not whole TS packets: 24 bytes over"},
	} {
		if got := c.tok.Words(c.form); got != c.want {
			t.Errorf("%s: %q, want %q", c.tok, got, c.want)
		}
	}
}

// TestEveryFeatureHasWords: its name, and its value in the unit that people use.
func TestEveryFeatureHasWords(t *testing.T) {
	for f := range Features {
		if f.Words() == "" || f.Say(3) == "" || strings.Contains(f.Say(3), "%!") {
			t.Errorf("%s: words %q, value %q", Descriptions[f].Name, f.Words(), f.Say(3))
		}
	}
	for _, c := range []struct {
		f    Feature
		x    float64
		want string
	}{
		{ByteRate, 18, "2.1 Mb/s"}, {ByteRate, 13.3, "80.7 kb/s"}, {ByteRate, 3, "64 b/s"}, {FrameRate, 4.644, "25/s"}, {PacketRate, 11, "2048/s"}, {PaceSpread, 14, "a factor of 16384"},
		{SizeMean, 1316, "1316 bytes"}, {IATMean, 10, "1.02 ms"}, {IATMedian, 5, "32 µs"}, {FrameSize, 15, "32.8 kB"},
		{PaceMedian, 4, "8 ns a byte"}, {PaceSpread, 1, "a factor of 2"}, {FrameVariation, 0.25, "25 %"}, {MediaRate, 1, "1 of real time"},
	} {
		if got := c.f.Say(c.x); got != c.want {
			t.Errorf("%s %g: %q, want %q", c.f.Words(), c.x, got, c.want)
		}
	}
	if got := Microseconds(2.5e6); got != "2.5 s" {
		t.Errorf("%q", got)
	}
}
