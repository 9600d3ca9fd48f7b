package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Layout of the classic format (draft-ietf-opsawg-pcap): a file header, and before each
// packet seconds, fractions, captured and original length.
const (
	pcapHeader = 24
	pcapRecord = 16
	// pcapLongest is the longest record that libpcap takes of nearly all link layers, and
	// pcapMost what is taken at all.
	pcapLongest = 262144
	pcapMost    = 1 << 20
)

// pcapMender reads classic records.
type pcapMender struct {
	order   binary.ByteOrder
	second  uint32 // fractions in a second
	longest uint32
	last    uint32 // seconds of the record before; 0 before the first
}

// mendPcap stands before the library's reader; a file of another kind passes as it is.
func mendPcap(in io.Reader, log *damages) io.Reader {
	b := bufio.NewReaderSize(in, peekRoom)
	head, err := b.Peek(pcapHeader)
	if err != nil {
		return b
	}
	m := &pcapMender{}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case 0xa1b2c3d4:
			m.order, m.second = order, 1e6
		case 0xa1b23c4d:
			m.order, m.second = order, 1e9
		}
	}
	if m.order == nil {
		return b
	}
	m.longest = min(max(m.order.Uint32(head[16:]), pcapLongest), pcapMost)
	r := &records{in: b, log: log, take: m.take}
	if err := r.pass(pcapHeader); err != nil {
		return b
	}
	r.rest = r.out
	return r
}

func (m *pcapMender) take(r *records) error {
	r.no++
	head, err := r.in.Peek(pcapRecord)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			return io.ErrUnexpectedEOF // it was still being written
		}
		return err
	}
	captured, original := m.order.Uint32(head[8:]), m.order.Uint32(head[12:])
	if captured > m.longest {
		from := r.at
		no := r.no
		err := r.seek(1, func() bool { return m.begins(r) })
		what := fmt.Sprintf("%d bytes up to the next record were left out", r.at-from)
		if err != nil {
			what = "no record was found behind it: the rest was left out"
		}
		r.log.note(no, from, "its captured length, %d bytes, cannot be: %s", captured, what)
		return err
	}
	m.last = m.order.Uint32(head)
	if original >= captured {
		return r.pass(pcapRecord + int(captured))
	}
	r.log.note(r.no, r.at, "its original length, %d bytes, is below the %d that were captured: those were taken", original, captured)
	r.out = append(append(r.out, head[:12]...), head[8:12]...)
	if err := r.skip(pcapRecord); err != nil {
		return err
	}
	return r.pass(int(captured))
}

// begins reports whether a record seems to begin here, and another one or the end of the
// file behind it.
func (m *pcapMender) begins(r *records) bool {
	first, _ := r.in.Peek(pcapRecord)
	if len(first) < pcapRecord || !m.plausible(first) {
		return false
	}
	n := pcapRecord + int(m.order.Uint32(first[8:]))
	both, _ := r.in.Peek(n + pcapRecord)
	return len(both) == n || len(both) == n+pcapRecord && m.plausible(both[n:])
}

func (m *pcapMender) plausible(b []byte) bool {
	const day = 86400
	at, captured, original := m.order.Uint32(b), m.order.Uint32(b[8:]), m.order.Uint32(b[12:])
	return (m.last == 0 || at-m.last+day <= 2*day) && m.order.Uint32(b[4:]) < m.second &&
		captured > 0 && captured < 1<<16 && original >= captured && original <= pcapLongest
}
