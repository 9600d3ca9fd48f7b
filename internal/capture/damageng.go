package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Layout of pcapng (draft-ietf-opsawg-pcapng): blocks of type, length, body and length.
const (
	ngSection   = 0x0a0d0d0a
	ngInterface = 1
	ngPacket    = 2 // obsolete
	ngSimple    = 3
	ngEnhanced  = 6
	ngOrder     = 0x1a2b3c4d
	ngLeast     = 12      // bytes of a block
	ngMost      = 1 << 24 // as other programs have it
	ngBody      = 8       // where the body begins
	ngFixed     = 32      // of a packet's block, without the packet
)

// ngMender reads blocks.
type ngMender struct {
	order binary.ByteOrder
	snaps []uint32 // of the section's interfaces
}

// mendNg stands before the library's reader.
func mendNg(in io.Reader, log *damages) io.Reader {
	m := &ngMender{order: binary.LittleEndian}
	return &records{in: bufio.NewReaderSize(in, peekRoom), log: log, take: m.take}
}

// length is that of the block that begins with b, at least 12 bytes, and its type; false
// where it cannot be one.
func (m *ngMender) length(b []byte) (kind uint32, n int, ok bool) {
	order := m.order
	if binary.LittleEndian.Uint32(b) == ngSection {
		switch uint32(ngOrder) {
		case binary.LittleEndian.Uint32(b[8:]):
			order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]):
			order = binary.BigEndian
		default:
			return 0, 0, false
		}
		m.order = order
	}
	size := order.Uint32(b[4:])
	return order.Uint32(b), int(size), size >= ngLeast && size <= ngMost
}

func (m *ngMender) take(r *records) error {
	head, err := r.in.Peek(ngLeast)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	kind, n, ok := m.length(head)
	if ok && n <= peekRoom {
		block, err := r.in.Peek(n)
		if err != nil {
			if err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		ok = int(m.order.Uint32(block[n-4:])) == n
	}
	if kind == ngPacket || kind == ngSimple || kind == ngEnhanced || !ok {
		r.no++
	}
	if !ok {
		return m.lost(r)
	}
	start, at, no := len(r.out), r.at, r.no
	if err := r.pass(n); err != nil {
		return err
	}
	block := r.out[start:]
	switch kind {
	case ngSection:
		m.snaps = m.snaps[:0]
	case ngInterface:
		if n >= ngLeast+8 {
			m.snaps = append(m.snaps, m.order.Uint32(block[ngBody+4:]))
		}
	case ngPacket, ngSimple, ngEnhanced:
		if why := m.mend(kind, block, func(format string, args ...any) { r.log.note(no, at, format, args...) }); why != "" {
			r.log.note(no, at, "%s: it was left out", why)
			r.out = r.out[:start]
		}
	}
	return nil
}

// lost finds the next block after one that is none.
func (m *ngMender) lost(r *records) error {
	from, no := r.at, r.no
	err := r.seek(4, func() bool { return m.begins(r) })
	what := fmt.Sprintf("%d bytes up to the next were left out", r.at-from)
	if err != nil {
		what = "none was found behind it: the rest was left out"
	}
	r.log.note(no, from, "its block has no length that can be: %s", what)
	return err
}

// begins reports whether a block of a usual kind seems to begin here.
func (m *ngMender) begins(r *records) bool {
	head, _ := r.in.Peek(ngLeast)
	if len(head) < ngLeast {
		return false
	}
	before := m.order
	kind, n, ok := m.length(head)
	if ok && n%4 == 0 && n <= peekRoom && (kind == ngSection || kind >= ngInterface && kind <= ngEnhanced) {
		if block, err := r.in.Peek(n); err == nil && int(m.order.Uint32(block[n-4:])) == n {
			return true
		}
	}
	m.order = before
	return false
}

// mend mends the block of a packet; why says why it cannot be.
func (m *ngMender) mend(kind uint32, block []byte, note func(string, ...any)) (why string) {
	body := block[ngBody : len(block)-4]
	if kind == ngSimple {
		if len(body) < 4 || len(m.snaps) == 0 {
			return "its block holds no packet"
		}
		n := m.order.Uint32(body)
		if snap := m.snaps[0]; snap != 0 {
			n = min(n, snap)
		}
		if int64(n) > int64(len(body)-4) {
			return fmt.Sprintf("its captured length, %d bytes, is more than its block holds", n)
		}
		return ""
	}
	if len(block) < ngFixed {
		return "its block holds no packet"
	}
	face := m.order.Uint32(body)
	if kind == ngPacket {
		face = uint32(m.order.Uint16(body))
	}
	captured, original := m.order.Uint32(body[12:]), m.order.Uint32(body[16:])
	switch {
	case int64(face) >= int64(len(m.snaps)):
		return fmt.Sprintf("it is of interface %d, and the file describes %d", face, len(m.snaps))
	case int64(captured) > int64(len(block)-ngFixed):
		return fmt.Sprintf("its captured length, %d bytes, is more than its block holds", captured)
	case original < captured:
		note("its original length, %d bytes, is below the %d that were captured: those were taken", original, captured)
		copy(body[16:20], body[12:16])
	}
	return ""
}
