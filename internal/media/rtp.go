package media

import (
	"encoding/binary"
	"errors"
)

// The errors of [ParseHeader] and [StripPadding]: what a receiver counts apart.
var (
	// ErrBadLength: the packet ends before the header it announces, or its
	// padding does not fit.
	ErrBadLength = errors.New("RTP packet shorter than its header says")
	// ErrBadVersion: the version field is not 2.
	ErrBadVersion = errors.New("not RTP version 2")
)

// rtpFixedSize is the RTP header without CSRCs and extension (RFC 3550 §5.1).
const rtpFixedSize = 12

// Header is an RTP header (RFC 3550 §5.1). CSRCs and the header extension are
// not decoded, only measured.
type Header struct {
	Marker      bool
	Padding     bool  // the payload ends in padding; see [StripPadding]
	Extension   bool  // a header extension is present
	PayloadType uint8 // 0..127
	Seq         uint16
	Timestamp   uint32 // in units of the payload type's clock, 90 kHz for MPEG-TS
	SSRC        uint32
	// Size is the length in bytes of the whole header with CSRCs and extension;
	// the payload begins there. AppendTo ignores it.
	Size int
}

// ParseHeader reads the header of pkt. It accepts exactly what RFC 3550 §5.1
// allows: version 2, and a packet no shorter than the CSRCs and the extension
// that it announces. The error is [ErrBadLength] or [ErrBadVersion].
func ParseHeader(pkt []byte) (Header, error) {
	if len(pkt) < rtpFixedSize {
		return Header{}, ErrBadLength
	}
	if pkt[0]>>6 != 2 {
		return Header{}, ErrBadVersion
	}
	h := Header{
		Padding:     pkt[0]&0x20 != 0,
		Extension:   pkt[0]&0x10 != 0,
		Marker:      pkt[1]&0x80 != 0,
		PayloadType: pkt[1] & 0x7f,
		Seq:         binary.BigEndian.Uint16(pkt[2:]),
		Timestamp:   binary.BigEndian.Uint32(pkt[4:]),
		SSRC:        binary.BigEndian.Uint32(pkt[8:]),
		Size:        rtpFixedSize + 4*int(pkt[0]&0x0f),
	}
	if h.Extension {
		if len(pkt) < h.Size+4 {
			return Header{}, ErrBadLength
		}
		h.Size += 4 + 4*int(binary.BigEndian.Uint16(pkt[h.Size+2:]))
	}
	if len(pkt) < h.Size {
		return Header{}, ErrBadLength
	}
	return h, nil
}

// AppendTo appends h as a header of 12 bytes: no CSRC, no extension, no padding.
func (h Header) AppendTo(dst []byte) []byte {
	second := h.PayloadType & 0x7f
	if h.Marker {
		second |= 0x80
	}
	dst = append(dst, 2<<6, second)
	dst = binary.BigEndian.AppendUint16(dst, h.Seq)
	dst = binary.BigEndian.AppendUint32(dst, h.Timestamp)
	return binary.BigEndian.AppendUint32(dst, h.SSRC)
}

// StripPadding removes the padding of a clear payload whose header has the
// padding bit set: the last byte counts it, itself included (RFC 3550 §5.1).
// The error is [ErrBadLength].
func StripPadding(payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, ErrBadLength
	}
	n := int(payload[len(payload)-1])
	if n == 0 || n > len(payload) {
		return nil, ErrBadLength
	}
	return payload[:len(payload)-n], nil
}
