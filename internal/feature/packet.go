package feature

import (
	"encoding/binary"
	"errors"
)

// Header holds the RTP header fields that behaviour is measured on (RFC 3550 §5.1).
//
// Marker stands between two octets that are written one by one and read as one word: side
// by side, the processor would wait until both have left its store buffer.
type Header struct {
	Flags       uint8 // first octet: version, padding, extension, CSRC count
	Marker      bool
	PayloadType uint8 // 0..127
	Seq         uint16
	Timestamp   uint32 // media clock, 90 kHz for video and MPEG-TS
	SSRC        uint32
}

// ErrNotRTP says that bytes do not begin with an RTP version 2 header.
var ErrNotRTP = errors.New("not an RTP packet")

// ParseHeader reads the RTP header of b, which may be cut at any point behind
// the 12 fixed octets. size is the announced length of the whole header with
// CSRCs and extension, at most len(b). The error is [ErrNotRTP].
func ParseHeader(b []byte) (h Header, size int, err error) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return Header{}, 0, ErrNotRTP
	}
	h = Header{
		Flags:       b[0],
		Marker:      b[1]&0x80 != 0,
		PayloadType: b[1] & 0x7f,
		Seq:         binary.BigEndian.Uint16(b[2:]),
		Timestamp:   binary.BigEndian.Uint32(b[4:]),
		SSRC:        binary.BigEndian.Uint32(b[8:]),
	}
	size = 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 && size+4 <= len(b) {
		size += 4 + 4*int(binary.BigEndian.Uint16(b[size+2:]))
	}
	return h, min(size, len(b)), nil
}

// Packet is one accepted packet as a meter sees it.
type Packet struct {
	// At is the arrival time in nanoseconds since any fixed origin. It must not fall.
	At int64
	Header
	// Alien marks a packet of the flow that is not the stream's: no RTP, or another
	// SSRC. It is counted and keeps out of every statistic. In live operation
	// nothing alien authenticates.
	Alien bool
	// Wire is the length of the UDP payload in bytes, RTP header included.
	Wire int
	// HeaderLen is the length of the RTP header in bytes.
	HeaderLen int
	// Payload is the clear payload as far as it was captured: all of it, the first
	// bytes, or nothing.
	Payload []byte
}

// cut reports whether payload bytes are missing.
func (p *Packet) cut() bool { return len(p.Payload) < p.Wire-p.HeaderLen }
