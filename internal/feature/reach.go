package feature

// reachMost is how many TS packets at most a payload may have for [reach]: the counter comes
// round after 16.
const reachMost = 14

// reach is what the first TS packet of a cut payload lets the next payload begin with. The
// counter of its PID goes on by one with each of its packets, and no more of them than
// there are TS packets fit into the payload: so far that counter may come, and no further
// (ISO/IEC 13818-1 §2.4.3.3).
type reach struct {
	pid   uint16 // plus one; zero: nothing is known
	next  uint8  // counter of the first packet
	packs uint8  // TS packets in the payload
}

// leaps takes the first TS packet of a cut payload of so many bytes, and reports whether
// its counter is further than the payload before can have brought it.
func (r *reach) leaps(header uint32, b []byte, size int, consecutive bool) bool {
	pid := uint16(header>>8&0x1fff) + 1
	before := *r
	*r = reach{}
	// One that says that its counter begins anew, or has no payload to count, is none.
	adapts := header&0x20 != 0
	if header>>24 != 0x47 || header&0x10 == 0 || pid == tsNull+1 || adapts && (len(b) < 6 || b[4] > 0 && b[5]&0x80 != 0) ||
		size%tsSize != 0 || size/tsSize > reachMost {
		return false
	}
	*r = reach{pid, uint8(header & 15), uint8(size / tsSize)}
	return consecutive && before.pid == pid && (r.next-before.next)&15 > before.packs
}
