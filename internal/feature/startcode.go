package feature

import (
	"encoding/binary"
	"math/bits"
)

// codeKind is what stands behind a start code: 00 00 01 and a byte that says what begins
// there (ISO/IEC 13818-2 section 5.2.3, ITU-T H.264 annex B).
type codeKind uint8

const (
	otherCode    codeKind = iota
	codeSlice             // H.264
	codeSet               // H.264 sequence parameter set
	codeSet65             // H.265 video or sequence parameter set
	codeSequence          // MPEG-2 sequence header
	codePicture           // MPEG-2 picture header
)

var codeKinds = [256]codeKind{
	0x41: codeSlice, 0x61: codeSlice, 0x21: codeSlice, 0x65: codeSlice, 0x25: codeSlice, 0x45: codeSlice,
	0x67: codeSet, 0x27: codeSet, 0x47: codeSet,
	0x40: codeSet65, 0x42: codeSet65,
	0xb3: codeSequence,
	0x00: codePicture,
}

// startCodes records which units a picture begins with, up to the first slice.
func (m *Meter) startCodes(picture []byte, at int64) {
	const (
		look = 64 // bytes
		most = 4  // start codes
	)
	for i, order := 0, 0; order < most; i, order = i+3, order+1 {
		i += nextCode(picture[i:])
		if i+3 >= min(len(picture), look) {
			return
		}
		unit, long := picture[i+3], uint32(0)
		if i > 0 && picture[i-1] == 0 {
			long = 1
		}
		m.tokens.add(token(FamilySlice, 1<<24|long<<16|uint32(unit)), at)
		kind := codeKinds[unit]
		if kind == otherCode {
			continue
		}
		rest := picture[i+4 : min(len(picture), look)]
		switch kind {
		case codeSlice:
			if s, ok := sliceToken(unit&0x1f, rest); ok {
				m.tokens.add(s, at)
			}
			return
		case codeSet:
			m.parameterTokens(unit&0x1f, rest, false, at)
		case codeSet65:
			m.parameterTokens(unit, rest, false, at)
		case codeSequence: // size, aspect, frame rate, bit rate
			if len(rest) >= 4 {
				m.tokens.add(token(FamilyParameter, uint32(hashBytes(0xb3, rest[:4]))), at)
			}
			return
		case codePicture: // its coding type follows
			// An H.265 unit of type 0 has a 1 behind it (its temporal id plus one).
			if len(rest) >= 2 && rest[0] != 1 {
				m.tokens.add(token(FamilySlice, 2<<24|uint32(rest[1]>>3&7)), at)
			}
			return
		}
	}
}

// nextCode is where in b the next start code begins, or a number up to len(b) where there is
// none in its first 64 bytes.
func nextCode(b []byte) int {
	const (
		ones = 0x0101010101010101
		low  = 0x7f * ones
	)
	all := len(b)
	for len(b) >= 10 && all-len(b) < 64 { // eight places at a time
		w := (*[10]byte)(b)
		x := binary.LittleEndian.Uint64(w[:]) | binary.LittleEndian.Uint64(w[1:]) | (binary.LittleEndian.Uint64(w[2:]) ^ ones)
		if zero := ^(x&low + low | x | low); zero != 0 { // a bit for each byte of x that is zero
			return all - len(b) + bits.TrailingZeros64(zero)/8
		}
		b = b[8:]
	}
	if all-len(b) >= 64 {
		return all - len(b)
	}
	for ; len(b) >= 3 && (b[0] != 0 || b[1] != 0 || b[2] != 1); b = b[1:] {
	}
	return all - len(b)
}
