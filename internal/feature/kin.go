package feature

// Kin is the word beside which t is no news: with the same settings, the picture
// decides which of the two a source says. ok is false for most words.
//
// What nal_ref_idc says beyond zero or not is for the encoder to choose (H.264 §7.4.1).
// Some give intra pictures more of it, and a cut in the picture makes one. A TS packet
// that only goes on is of a picture that does not fit into one.
//
// A video PES header has a time stamp for decoding where it differs from that for
// presentation, so that an encoder which may use B pictures leaves it out of those that
// it does use (ISO/IEC 13818-1 §2.4.3.7); one without them never has it, and then it is
// news. Its length is given or zero as the picture is below 64 KiB or not.
func (t Token) Kin() (kin Token, ok bool) {
	if unit, ok := t.startCode(); ok && unit&intraReference == intraReference && unit&0x1f == nalSlice {
		return t - 1<<refShift, true
	}
	if t.Family() != FamilyUnit {
		return 0, false
	}
	const (
		withPTS, withBoth     = 2, 3  // PTS_DTS_flags
		lengthPTS, lengthBoth = 5, 10 // PES_header_data_length
		zeroLength            = 1 << 16
	)
	switch v := t.Value(); v >> 24 << 24 {
	case 0:
		if v&^0xff == 0 && v&(0x80|intraReference|0x1f) == intraReference|nalSlice {
			return t - 1<<refShift, true
		}
	case unitTS:
		const begins = 1 << 16                                        // payload_unit_start_indicator
		if v&begins == 0 && v>>16&0x12 == 0 && v&tsNull > LastTable { // neither empty nor damaged
			return t | begins, true
		}
	case unitPES:
		if v>>8&0xf0 != 0xe0 {
			return 0, false
		}
		if v&3 == withPTS {
			return t + withBoth - withPTS, true
		}
		return t ^ zeroLength, true
	case unitDescribe:
		if v>>14&0xf0 == 0xe0 && v&0xff == lengthPTS {
			return t + lengthBoth - lengthPTS, true
		}
	}
	return 0, false
}

// nal_ref_idc in a NAL unit header of H.264; the greatest is what intra pictures have.
const (
	refShift       = 5
	intraReference = 3 << refShift
)

// Stuffing reports that t is an adaptation field that says nothing: it fills the last TS
// packet of a picture up, where there is need (ISO/IEC 13818-1 §2.4.3.5).
func (t Token) Stuffing() bool {
	return t.Family() == FamilyUnit && t.Value()>>16<<16 == unitAdapt
}

// VideoStart reports that t is the packet with which a video PES begins, and its PID.
func (t Token) VideoStart() (pid uint16, ok bool) {
	pid, stream, ok := t.Opens()
	return pid, ok && stream>>4 == 0xe
}

// Opens reports that t is the packet with which a PES begins: its PID, and the stream_id.
func (t Token) Opens() (pid uint16, stream uint8, ok bool) {
	v := t.Value()
	return uint16(v & tsNull), uint8(v>>13&0x7f | 0x80), t.Family() == FamilyUnit && v>>24<<24 == unitStream
}

// Describes reports that t is a part of a PES header, and its stream_id.
func (t Token) Describes() (stream uint8, ok bool) {
	switch v := t.Value(); {
	case t.Family() != FamilyUnit:
	case v>>24<<24 == unitPES:
		return uint8(v >> 8), true
	case v>>24<<24 == unitDescribe:
		return uint8(v >> 14), true
	}
	return 0, false
}

// Start reports that t is a TS packet in which a unit begins, and its PID.
func (t Token) Start() (pid uint16, ok bool) {
	v := t.Value()
	return uint16(v & tsNull), t.Family() == FamilyUnit && v>>24<<24 == unitTS && v>>16&1 == 1
}

// Restarting reports that t is of a codec that codes rows of a picture apart from each
// other: a slice of MPEG-1, MPEG-2 or MPEG-4 Part 2 begins at a byte and without memory,
// so that what stands still comes out as the same bytes again, alone among others.
func (t Token) Restarting() bool {
	if t.Family() != FamilySlice {
		return false
	}
	const sequence, vop = 0xb3, 0xb6 // start codes
	v := t.Value()
	return v>>24 == 2 || v>>24 == 1 && (v&0xff == sequence || v&0xff == vop)
}

// startCode is the unit whose start code in a TS t stands for.
func (t Token) startCode() (unit uint8, ok bool) {
	return uint8(t.Value()), t.Family() == FamilySlice && t.Value()>>24 == 1
}

// Disposable reports that t is the start of a picture that no other refers to, in TS:
// H.264 slices with nal_ref_idc 0, TRAIL_N of H.265. An encoder that may reorder pictures
// uses them when the picture is calm enough.
func (t Token) Disposable() bool {
	u, ok := t.startCode()
	return ok && (u == 0x01 || u == 0x00)
}

// Reordering reports that t is a picture's PES header with a time for decoding apart
// from that for presentation: the encoder may reorder.
func (t Token) Reordering() bool {
	v := t.Value()
	return t.Family() == FamilyUnit && v>>24<<24 == unitPES && v>>8&0xf0 == 0xe0 && v&3 == 3
}

// Access reports that t is the start code, in TS, of what a picture that a receiver can
// begin with brings: parameter sets, messages, sequence headers, the picture itself.
func (t Token) Access() bool {
	if t.Family() == FamilySlice && t.Value() == 2<<24 { // an object of MPEG-4 Part 2
		return true
	}
	u, ok := t.startCode()
	if !ok {
		return false
	}
	switch u {
	case 0x67, 0x27, 0x47, 0x68, 0x28, 0x48, 0x65, 0x25, 0x45, 0x06, // H.264: parameter sets, IDR, SEI
		0x40, 0x42, 0x44, 0x4e, 0x20, 0x22, 0x24, 0x26, 0x2a, // H.265: parameter sets, SEI, IRAP; 0x28 above
		0xb0, 0xb2, 0xb3, 0xb5, 0xb8: // MPEG-2, MPEG-4: sequence and group headers
		return true
	}
	return false
}

// Filler reports that t is filler data: H.264 type 12, H.265 type 38, as payload of the
// given form or as start code in TS. A rate control sends it where the picture needs less
// than its rate.
func (t Token) Filler(form Form) bool {
	const filler264, filler265 = 12, 38
	switch v := t.Value(); {
	case form == TS:
		u, ok := t.startCode()
		return ok && (u&0x9f == filler264 || u == filler265<<1)
	case t.Family() != FamilyUnit:
		return false
	case form == H264: // alone or in an aggregate, of any importance
		return v&^(1<<16|intraReference) == filler264
	case form == H265:
		return v&^(1<<20|0xff) == filler265<<8
	}
	return false
}

// Octet is the first octet of an opaque payload that t stands for.
func (t Token) Octet() (b uint8, ok bool) {
	return uint8(t.Value()), t.Family() == FamilyUnit && t.Value() < 1<<8
}

// Coded reports that t is a picture's coding type of MPEG-1 or MPEG-2.
func (t Token) Coded() bool {
	return t.Family() == FamilySlice && t.Value()>>24 == 2 && t.Value()&7 != 0
}

// Row reports that t is the start code of a slice of MPEG-1 or MPEG-2, if it is that
// codec's: how many of the first stand near the front is the picture's doing. It reports
// so of a picture's coding type as well, which an encoder may choose anew at every picture.
func (t Token) Row() bool {
	const long = 1 << 16
	u, ok := t.startCode()
	return ok && t.Value()&long == 0 && u >= 0x01 && u <= 0x04 || t.Coded() && t.Value()&7 <= 3
}

// Plain reports that t is of MPEG-1, MPEG-2 or MPEG-4 Part 2: what begins a picture in TS
// has no NAL units.
func (t Token) Plain() bool {
	u, ok := t.startCode()
	return ok && u >= 0xb0 || t.Family() == FamilySlice && t.Value()>>24 == 2
}

// Clock reports that t is an adaptation field with nothing but the programme's clock, and
// its PID.
func (t Token) Clock() (pid uint16, ok bool) {
	const pcr = 0x10
	v := t.Value()
	return uint16(v & tsNull), t.Family() == FamilyUnit && v>>24<<24 == unitAdapt && v>>16&0xff == pcr
}

// Table reports that t is a TS packet in which a table of a PID that the standard gives
// away begins: programmes, conditional access, descriptions, network, services, events.
func (t Token) Table() bool {
	pid, start, ok := t.Carries()
	return ok && start && pid <= LastTable
}

// Carries reports that t is a plain TS packet, neither empty, damaged nor scrambled: its
// PID, and whether a unit starts in it.
func (t Token) Carries() (pid uint16, start, ok bool) {
	v := t.Value()
	return uint16(v & tsNull), v>>16&1 == 1, t.Family() == FamilyUnit && v>>24<<24 == unitTS && v>>17&0x7f == 0
}

// WithKeys reports that t is a unit which comes with key pictures only: parameter sets and
// messages. Streams and delimiters come with all.
func (t Token) WithKeys() bool {
	const delimiter265 = 35
	kind := t.Value() & 0xffffff
	return t.Family() == FamilyUnit && t.Value()>>24<<24 == unitRegular && kind != nalAUD && kind != delimiter265
}
