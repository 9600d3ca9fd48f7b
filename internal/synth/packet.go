package synth

import (
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// packet is one RTP packet on its way. Whoever changes its payload makes a copy
// first: payloads are parts of cached encodings.
type packet struct {
	at      int64 // ns since the start: when it was sent, behind a path when it arrived
	ts      uint32
	ssrc    uint32
	port    uint16 // source port
	seq     uint16
	pt      uint8
	marker  bool
	key     bool // begins a picture that needs none before it
	first   bool // first of its frame
	junk    bool // no RTP: the payload is all there is
	again   bool // takes the number of the packet before it
	payload []byte
}

// length is what the packet takes as UDP payload, in bytes.
func (p *packet) length() int {
	if p.junk {
		return len(p.payload)
	}
	return rtpHeader + len(p.payload)
}

const (
	rtpHeader = 12
	// wireOverhead is Ethernet, IPv4 and UDP around it, in bytes.
	wireOverhead = 42
)

// header is the packet's RTP header.
func (p *packet) header(dst []byte) []byte {
	return media.Header{Marker: p.marker, PayloadType: p.pt, Seq: p.seq, Timestamp: p.ts, SSRC: p.ssrc}.AppendTo(dst)
}

// inOrder sorts by time and keeps the order of what is simultaneous.
func inOrder(ps []packet) []packet {
	slices.SortStableFunc(ps, func(a, b packet) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	return ps
}

// number gives the packets sequence numbers in their order.
func number(ps []packet, from uint16) {
	for i := range ps {
		if !ps[i].again {
			from++
		}
		ps[i].seq = from
	}
}

// at is the first packet not before t.
func at(ps []packet, t time.Duration) int {
	i, _ := slices.BinarySearchFunc(ps, t.Nanoseconds(), func(p packet, t int64) int {
		if p.at < t {
			return -1
		}
		return 1
	})
	return i
}

// keyAt is the first packet of a key picture not before t; -1 without one.
func keyAt(ps []packet, t time.Duration) int {
	for i := at(ps, t); i < len(ps); i++ {
		if ps[i].key {
			return i
		}
	}
	return -1
}
