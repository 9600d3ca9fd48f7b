package feature

import (
	"fmt"
	"strings"
)

// Words says what t stands for in a payload of the given form, as a noun phrase for
// people who know video and not this program. [Token.String] is the exact code.
func (t Token) Words(form Form) string {
	v := t.Value()
	switch t.Family() {
	case FamilyHeader:
		return headerWords(v)
	case FamilyUnit:
		return unitWords(v, form)
	case FamilySlice:
		return sliceWords(v)
	case FamilyParameter:
		return "a parameter set, or an encoder's signature, with other content"
	case FamilyStep:
		return stepWords(t)
	case FamilySize:
		return sizeWords(v)
	}
	return unnamed(t)
}

// unnamed is what has no words: a test sees that nothing comes here.
func unnamed(t Token) string { return "something without a name (" + t.String() + ")" }

func headerWords(v uint32) string {
	if v>>16 != 0 {
		return "a packet that is not the stream's: no RTP, or with another SSRC"
	}
	s := fmt.Sprintf("an RTP header with payload type %d", v&0x7f)
	flags := v >> 8
	if flags&0x20 != 0 {
		s += ", padding"
	}
	if flags&0x10 != 0 {
		s += ", an extension"
	}
	if n := flags & 15; n > 0 {
		s += fmt.Sprintf(", %d contributing sources", n)
	}
	return s
}

func stepWords(t Token) string {
	if t.Varied() {
		return fmt.Sprintf("more than %d different steps of the RTP timestamp within a quarter of a second", numberRoom)
	}
	return fmt.Sprintf("a step of the RTP timestamp by %.4g ms (%d ticks)", float64(t.Step())/90, t.Step())
}

func sizeWords(v uint32) string {
	switch {
	case v == variedValue:
		return fmt.Sprintf("more than %d different sizes of full packets within a quarter of a second", numberRoom)
	case v&sizeTSRemainder != 0 && v&0xff == 0:
		return "a payload of whole TS packets"
	case v&sizeTSRemainder != 0:
		return fmt.Sprintf("a payload that is not whole TS packets: %d bytes over", v&0xff)
	}
	return fmt.Sprintf("a packet of %d bytes where the picture fills it", v)
}

func sliceWords(v uint32) string {
	switch v >> 24 {
	case 0:
		kind := [...]string{"P", "B", "I", "SP", "SI"}[min(v>>8&15, 14)%5]
		return fmt.Sprintf("a picture coded otherwise: H.264 %s slice (type %d) by picture parameter set %d, in a NAL unit of type %d", kind, v>>8&15, v&0xff, v>>16)
	case 1:
		return fmt.Sprintf("a picture that begins with start code %02x (%s)", v&0xff, startCodeName(uint8(v)))
	case 2:
		if kind := v & 7; kind > 0 {
			return fmt.Sprintf("a picture of MPEG-1 or MPEG-2 with coding type %d (%s)", kind, [...]string{"", "I", "P", "B", "D", "reserved", "reserved", "reserved"}[kind])
		}
		return "a video object of MPEG-4 Part 2"
	}
	return unnamed(token(FamilySlice, v))
}

// unitWords reads a [FamilyUnit] value. What is below the kinds of MPEG-TS is each form's own.
func unitWords(v uint32, form Form) string {
	pid := pidName(v & tsNull)
	switch kind := v >> 24 << 24; kind {
	case 0:
		return payloadWords(v, form)
	case unitTS:
		return "a TS packet of " + pid + tsShapeWords(v>>16&0xff)
	case unitAdapt:
		return "an adaptation field on " + pid + " " + adaptWords(v>>16&0x1f)
	case unitPES:
		times := [...]string{"no time", "a forbidden combination of times", "one time (PTS)", "two times (PTS and DTS)"}[v&3]
		length := "its length given"
		if v>>16&1 != 0 {
			length = "length 0"
		}
		return fmt.Sprintf("a PES header of %s with %s, %s and flags %02x", streamName(v>>8&0xff), times, length, v>>2&0x3f)
	case unitNoSync:
		return "a TS packet without its sync byte 47"
	case unitDescribe:
		return fmt.Sprintf("a PES header of %s with %d bytes of options and flags %02x", streamName(v>>14&0xff), v&0xff, v>>8&0x3f)
	case unitStream:
		return streamName(v>>13&0x7f|0x80) + " on " + pid
	case unitRegular:
		if form == H265 {
			return nameHEVC(uint8(v)) + fmt.Sprintf(" (H.265 NAL unit type %d)", uint8(v))
		}
		return nameAVC(uint8(v)) + fmt.Sprintf(" (H.264 NAL unit type %d)", uint8(v))
	}
	return unnamed(token(FamilyUnit, v))
}

func payloadWords(v uint32, form Form) string {
	switch form {
	case H264:
		if v>>16 == 2 {
			return fmt.Sprintf("an SEI message of type %d (%s), H.264", v&0xff, seiName(v&0xff))
		}
		s := fmt.Sprintf("a NAL unit of type %d (H.264 %s) with nal_ref_idc %d", v&0x1f, nameAVC(uint8(v&0x1f)), v>>5&3)
		if v&0x80 != 0 {
			s += ", marked as damaged"
		}
		if v>>16 == 1 {
			s += ", inside an aggregate"
		}
		return s
	case H265:
		s := fmt.Sprintf("a NAL unit of type %d (H.265 %s) of temporal layer %d", v>>8&0x3f, nameHEVC(uint8(v>>8&0x3f)), max(v&7, 1)-1)
		if layer := v & 0xff >> 3; layer > 0 {
			s += fmt.Sprintf(", layer %d", layer)
		}
		if v>>20 == 1 {
			s += ", inside an aggregate"
		}
		return s
	}
	return fmt.Sprintf("a payload that begins with octet %02x", v&0xff)
}

func tsShapeWords(shape uint32) (s string) {
	if shape&1 != 0 {
		s += " in which a unit begins"
	}
	if shape&2 != 0 {
		s += ", marked as damaged"
	}
	if shape&evenKey == evenKey {
		s += ", scrambled"
	} else if shape&oddKey != 0 {
		s += ", with a reserved scrambling mode"
	}
	if shape&16 != 0 {
		s += ", with neither payload nor adaptation field"
	}
	return s
}

func adaptWords(flags uint32) string {
	var have []string
	for i, name := range [...]string{"an extension", "private data", "a splice point", "the clock that the stream was made with (OPCR)", "the programme's clock (PCR)"} {
		if flags>>i&1 != 0 {
			have = append(have, name)
		}
	}
	if len(have) == 0 {
		return "that only fills"
	}
	return "with " + strings.Join(have, " and ")
}

func pidName(pid uint32) string {
	name := fmt.Sprintf("PID %d", pid)
	switch pid {
	case 0:
		name += " (programme table)"
	case 1:
		name += " (conditional access)"
	case 16:
		name += " (network)"
	case 17:
		name += " (service descriptions)"
	case 18:
		name += " (event schedule)"
	case 20:
		name += " (date and time)"
	case tsNull:
		name += " (null packets)"
	}
	return name
}

// streamName names a stream_id (ISO/IEC 13818-1 table 2-22).
func streamName(id uint32) string {
	kind := "a stream"
	switch {
	case id>>4 == 0xe:
		kind = "a video stream"
	case id>>5 == 6:
		kind = "an audio stream"
	case id == 0xbd || id == 0xbf:
		kind = "a private stream"
	}
	return fmt.Sprintf("%s (id %02x)", kind, id)
}

// startCodeName names the unit behind a start code in a TS, of which the codec is not known.
func startCodeName(unit uint8) string {
	switch unit {
	case 0xb0:
		return "MPEG-4 visual object sequence"
	case 0xb2:
		return "user data of MPEG-2 or MPEG-4"
	case 0xb3:
		return "MPEG-2 sequence header, or MPEG-4 group of objects"
	case 0xb5:
		return "MPEG-2 extension, or MPEG-4 visual object"
	case 0xb6:
		return "MPEG-4 object plane"
	case 0xb7:
		return "MPEG-2 end of sequence"
	case 0xb8:
		return "MPEG-2 group of pictures"
	}
	var names []string
	ref, avc := unit>>5&3, unit&0x1f
	mustRefer := avc == nalIDR || avc == nalSPS || avc == nalPPS
	mayNot := avc == nalSEI || avc >= nalAUD && avc <= 12
	if unit < 0x80 && (avc == nalSlice || mustRefer && ref > 0 || mayNot && ref == 0) {
		names = append(names, "H.264 "+nameAVC(avc))
	}
	if unit < 0x80 && unit&1 == 0 {
		names = append(names, "H.265 "+nameHEVC(unit>>1))
	}
	switch {
	case unit == 0:
		names = append(names, "MPEG-2 picture")
	case unit < 5 || unit < 0xb0 && len(names) == 0: // of rows only the first stand near the front
		names = append(names, fmt.Sprintf("MPEG-2 row %d", unit))
	}
	if len(names) == 0 {
		return "reserved, or of the system layer"
	}
	return strings.Join(names, ", or ")
}

// nameAVC names a NAL unit type of H.264 (table 7-1) or of its packets (RFC 6184 table 1).
func nameAVC(t uint8) string {
	switch t {
	case nalSlice:
		return "picture"
	case 2, 3, 4:
		return "data partition"
	case nalIDR:
		return "key picture"
	case nalSEI:
		return "SEI messages"
	case nalSPS:
		return "sequence parameter set"
	case nalPPS:
		return "picture parameter set"
	case nalAUD:
		return "access unit delimiter"
	case 10:
		return "end of sequence"
	case 11:
		return "end of stream"
	case 12:
		return "filler data"
	case 13:
		return "sequence parameter set extension"
	case 14:
		return "prefix"
	case nalSPSX:
		return "subset sequence parameter set"
	case 19:
		return "auxiliary picture"
	case 20, 21:
		return "picture of an extension"
	case rtpSTAPA, 25, 26, 27:
		return "aggregate"
	case rtpFUA, 29:
		return "fragment"
	}
	return "of no defined kind"
}

// nameHEVC names a NAL unit type of H.265 (table 7-1) or of its packets (RFC 7798 §4.4).
func nameHEVC(t uint8) string {
	switch {
	case t <= 9:
		return [...]string{"picture", "picture", "picture of a higher layer", "picture of a higher layer", "picture of a higher layer",
			"picture of a higher layer", "decodable leading picture", "decodable leading picture", "skipped leading picture", "skipped leading picture"}[t]
	case t >= 16 && t <= 21:
		return "key picture"
	case t >= hevcVPS && t <= 40:
		return [...]string{"video parameter set", "sequence parameter set", "picture parameter set", "access unit delimiter", "end of sequence",
			"end of stream", "filler data", "SEI messages", "SEI messages behind the picture"}[t-hevcVPS]
	case t == rtpAP65:
		return "aggregate"
	case t == rtpFU65:
		return "fragment"
	}
	return "of no defined kind"
}

// seiName names the usual SEI messages (H.264 annex D).
func seiName(t uint32) string {
	switch t {
	case 0:
		return "buffering period"
	case 1:
		return "picture timing"
	case 3:
		return "filler"
	case 4:
		return "registered user data, such as captions"
	case 5:
		return "user data of the encoder's own"
	case 6:
		return "recovery point"
	case 45:
		return "frame packing"
	case 137:
		return "mastering display"
	case 144:
		return "content light level"
	}
	return "other"
}
