package feature

// How an encoder groups pictures is its choice from picture to picture: which others may
// refer to it (nal_ref_idc, H.264 §7.4.1; the sub-layer non-reference types of H.265
// §7.4.2.2), which come out of their order, and with which a receiver can begin. So words
// that say it are read here, and one of a sort makes the others of it no news.

// Picture is a unit of a coded picture.
type Picture struct {
	HEVC bool
	Key  bool  // a receiver can begin with it: IDR, IRAP
	Last uint8 // last bits of a native H.265 unit header: layer and temporal id
}

// Picture reports that t is the header of a coded picture's unit as payload of the given
// form, or its start code in TS. There, codecs without NAL units use the same codes for
// something else (see [Token.Plain]).
func (t Token) Picture(form Form) (c Picture, ok bool) {
	const lastTrail, firstKey, lastKey = 9, 16, 21 // H.265 table 7-1
	hevc := func(kind, last uint8) (Picture, bool) {
		c := Picture{HEVC: true, Key: kind >= firstKey, Last: last}
		return c, kind <= lastTrail || kind >= firstKey && kind <= lastKey
	}
	avc := func(header uint8) (Picture, bool) {
		kind := header & 0x9f
		return Picture{Key: kind == nalIDR}, kind == nalSlice || kind == nalIDR
	}
	v := t.Value()
	switch {
	case form == TS:
		u, ok := t.startCode()
		switch {
		case !ok:
			return Picture{}, false
		case u&1 == 0:
			return hevc(u>>1, 0)
		}
		return avc(u)
	case t.Family() != FamilyUnit:
		return Picture{}, false
	case form == H264 && v < 1<<8:
		return avc(uint8(v))
	case form == H265 && v < 1<<14:
		return hevc(uint8(v>>8), uint8(v))
	}
	return Picture{}, false
}

// Codecs is a set of families of codecs.
type Codecs uint8

// The families whose pictures begin with start codes in TS.
const (
	AVC  Codecs = 1 << iota // H.264
	HEVC                    // H.265
	MPEG                    // MPEG-1, MPEG-2, MPEG-4 Part 2
)

// Codecs are those in which a picture in TS may begin with the start code that t stands
// for, by the codes that encoders use; 0 for other words.
func (t Token) Codecs() Codecs {
	const slicesOfMPEG = 4 // of rows those that stand near the front
	if t.Plain() {
		return MPEG
	}
	u, ok := t.startCode()
	switch {
	case !ok || u&0x80 != 0:
		return 0
	case u == 0:
		return HEVC | MPEG
	case u == 0x01:
		return AVC | MPEG
	case u == 0x02 || u == 0x04:
		return HEVC | MPEG
	case u <= slicesOfMPEG:
		return MPEG
	case u == 0x28: // a picture parameter set, or a key picture without leading ones
		return AVC | HEVC
	case u&1 == 1 || u == nalSEI || u&0x9f == nalPPS:
		return AVC
	}
	return HEVC
}

// Between reports that t is of a picture that may come out of its order: one that no
// other, or hardly one, refers to, or a bidirectional slice of H.264.
func (t Token) Between(form Form) bool {
	const priority = intraReference &^ (1 << refShift)
	if _, kind, _, ok := t.Slice(); ok {
		return kind == 1 || kind == 6
	}
	c, ok := t.Picture(form)
	switch v := t.Value(); {
	case !ok || c.Key:
		return false
	case !c.HEVC:
		return v&priority == 0
	case form == TS:
		return v>>1&1 == 0
	default:
		return v>>8&1 == 0
	}
}

// Slice reports that t is a slice header of H.264: the type of its unit, of the slice
// (H.264 table 7-6), and its picture parameter set.
func (t Token) Slice() (unit, kind, pps uint8, ok bool) {
	v := t.Value()
	return uint8(v >> 16), uint8(v >> 8), uint8(v), t.Family() == FamilySlice && v>>24 == 0
}

// Heading reports that t is what stands in front of a key picture, and nothing else, as
// payload of a native form: parameter sets, and messages as far as they are about
// beginning (see [Token.Message]).
func (t Token) Heading(form Form) bool {
	if t.Family() != FamilyUnit {
		return false
	}
	v := t.Value()
	if m, ok := t.Message(form); ok {
		return m
	}
	if v>>24<<24 == unitRegular {
		return t.WithKeys()
	}
	switch kind, ok := t.whole(form); {
	case !ok:
		return false
	case form == H264:
		return kind >= nalSEI && kind <= nalPPS
	default:
		return kind >= hevcVPS && kind <= hevcPPS || kind == hevcSEI
	}
}

const hevcSEI = 39

// Message reports that t is the type of a message of H.264, and whether that is about
// beginning with a picture and has no room for anything else: buffering period, picture
// timing, recovery point (H.264 §D.1.2, D.1.3, D.1.8).
func (t Token) Message(form Form) (begins, ok bool) {
	const buffering, timing, recovery = 0, 1, 6
	v := t.Value()
	kind := v & 0xff
	return kind == buffering || kind == timing || kind == recovery, form == H264 && t.Family() == FamilyUnit && v>>8<<8 == 2<<16
}

// Messages reports that t is the unit that holds messages of H.264, alone or in an aggregate.
func (t Token) Messages(form Form) bool {
	kind, ok := t.whole(form)
	return form == H264 && (ok && kind == nalSEI || t == token(FamilyUnit, unitRegular|nalSEI))
}

// Apart is the word for the same unit in an aggregate where t is one alone, and the other way
// round. Whether units go together is a matter of their sizes (RFC 6184 §5.7, RFC 7798
// §4.4.2). ok is false for words that are said the same way both times.
func (t Token) Apart(form Form) (other Token, ok bool) {
	kind, ok := t.whole(form)
	switch {
	case form == H264:
		return t ^ 1<<16, ok && kind >= nalSEI
	case form == H265:
		return t ^ 1<<20, ok && kind >= hevcVPS
	}
	return 0, false
}

// Aggregated reports that t is a unit in an aggregate.
func (t Token) Aggregated(form Form) bool {
	_, ok := t.whole(form)
	return ok && t.Value()>>16 != 0
}

// ParameterSet reports that t is a parameter set's unit, alone or in an aggregate.
func (t Token) ParameterSet(form Form) bool {
	kind, ok := t.whole(form)
	return ok && (form == H264 && (kind == nalSPS || kind == nalPPS) || form == H265 && kind >= hevcVPS && kind <= hevcPPS)
}

// whole is the type of a native unit that t stands for.
func (t Token) whole(form Form) (kind uint8, ok bool) {
	v := t.Value()
	switch {
	case t.Family() != FamilyUnit:
	case form == H264 && v < 2<<16 && v>>8&0xff == 0:
		return uint8(v & 0x9f), true
	case form == H265 && v&^(1<<20) < 1<<14:
		return uint8(v >> 8 & 0x3f), true
	}
	return 0, false
}
