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
		if v&begins == 0 && v>>16&0x12 == 0 && v&tsNull > lastTable { // neither empty nor damaged
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
	v := t.Value()
	return uint16(v & tsNull), t.Family() == FamilyUnit && v>>24<<24 == unitStream && v>>13&0x70 == 0x60
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

// Access reports that t is the start code, in TS, of what stands before a picture that a
// receiver can begin with: parameter sets and sequence headers.
func (t Token) Access() bool {
	u, ok := t.startCode()
	if !ok {
		return false
	}
	switch u {
	case 0x67, 0x27, 0x47, 0x68, 0x28, 0x48, 0x40, 0x42, 0x44, 0xb3:
		return true
	}
	return false
}
