package media

// syncRun is how many sync bytes in a row, 188 bytes apart, make an unaligned
// stream count as found.
const syncRun = 5

// TSAligner cuts a byte stream of any chunking into whole transport stream
// packets: the front of the packetisation of RFC 2250 §2, which carries an
// integral number of them. The zero value is ready.
type TSAligner struct {
	synced  bool
	buf     []byte
	skipped uint64
}

// Push takes the next bytes of the stream and calls emit with runs of 1 to
// [TSPerRTP] whole packets; all but the last of one Push are full. The slice is
// valid until emit returns. What does not look like a transport stream is
// skipped and counted.
func (a *TSAligner) Push(b []byte, emit func(ts []byte)) {
	a.buf = append(a.buf, b...)
	rest := a.buf
	for len(rest) > 0 {
		if !a.synced {
			n := findSync(rest)
			a.skipped += uint64(n)
			rest = rest[n:]
			if a.synced = len(rest) >= syncRun*TSPacketSize; !a.synced {
				break
			}
		}
		n := 0
		for n < TSPerRTP*TSPacketSize && len(rest)-n >= TSPacketSize && rest[n] == tsSync {
			n += TSPacketSize
		}
		if n > 0 {
			emit(rest[:n])
			rest = rest[n:]
		}
		if len(rest) > 0 && rest[0] != tsSync {
			a.synced = false
			continue
		}
		if len(rest) < TSPacketSize {
			break
		}
	}
	a.buf = append(a.buf[:0], rest...)
}

// Flush emits what waits for more bytes to be sure of its alignment, as at the
// end of a short file, and counts the rest as skipped.
func (a *TSAligner) Flush(emit func(ts []byte)) {
	rest := a.buf
	for len(rest) >= TSPacketSize && rest[0] == tsSync {
		n := 0
		for n < TSPerRTP*TSPacketSize && len(rest)-n >= TSPacketSize && rest[n] == tsSync {
			n += TSPacketSize
		}
		emit(rest[:n])
		rest = rest[n:]
	}
	a.skipped += uint64(len(rest))
	a.buf, a.synced = a.buf[:0], false
}

// Skipped is how many bytes were not part of a transport stream packet.
func (a *TSAligner) Skipped() uint64 { return a.skipped }

// Synced reports whether the last bytes pushed were in step.
func (a *TSAligner) Synced() bool { return a.synced }

// findSync is the first offset at which b could begin a run of packets: every
// sync byte that b is long enough to show is there.
func findSync(b []byte) int {
	for i := range b {
		if b[i] != tsSync {
			continue
		}
		found := true
		for k := i + TSPacketSize; k < len(b) && k < i+syncRun*TSPacketSize; k += TSPacketSize {
			if b[k] != tsSync {
				found = false
				break
			}
		}
		if found {
			return i
		}
	}
	return len(b)
}
