package device

import (
	"encoding/binary"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	testPID  = 0x100
	pcrCycle = uint64(1<<33) * 300
)

// tsMaker writes transport streams with numbered packets and exact clocks.
type tsMaker struct {
	pcr  uint64 // 27 MHz, of the next packet
	step uint64 // of one packet
	each int    // packets between references
	n    int
	cc   byte
}

// newTS makes a stream of one packet every step, with a reference every each packets.
func newTS(start uint64, step time.Duration, each int) *tsMaker {
	return &tsMaker{pcr: start, step: uint64(step) * 27 / 1000, each: each}
}

// packets appends n packets.
func (m *tsMaker) packets(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, m.packet()...)
	}
	return dst
}

func (m *tsMaker) packet() []byte {
	p := make([]byte, media.TSPacketSize)
	p[0], p[1], p[2] = 0x47, testPID>>8, testPID&0xff
	m.cc = (m.cc + 1) & 15
	p[3] = 0x10 | m.cc
	if m.n%m.each == 0 {
		p[3] |= 0x20
		p[4], p[5] = 7, 0x10
		pcr := m.pcr % pcrCycle
		base, ext := pcr/300, pcr%300
		binary.BigEndian.PutUint32(p[6:], uint32(base>>1))
		p[10] = byte(base&1)<<7 | 0x7e | byte(ext>>8)
		p[11] = byte(ext)
	}
	binary.BigEndian.PutUint64(p[len(p)-8:], uint64(m.n))
	m.n++
	m.pcr += m.step
	return p
}

// number reads a packet's place in its stream.
func number(ts []byte) int { return int(binary.BigEndian.Uint64(ts[media.TSPacketSize-8:])) }
