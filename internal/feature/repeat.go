package feature

// repeatBits sizes the table of payload hashes: 2^15 entries of 8 bytes, 256 KiB a
// stream, five minutes of a stream of 100 packets a second.
const repeatBits = 15

// repeatShort divides an echo from a loop, in milliseconds.
const repeatShort = 3000

// repeatTable remembers payloads by hash: two entries a bucket, the elder gives way.
type repeatTable struct {
	entries [1 << repeatBits]repeatEntry
}

type repeatEntry struct {
	hash uint32
	ms   uint32 // arrival in milliseconds plus one; 0 is free
}

// seen looks hash up and stores it. age is in milliseconds, negative if it is new.
func (t *repeatTable) seen(hash uint64, ms uint32) (age int64) {
	i := uint32(hash>>32) & (1<<repeatBits - 2)
	h := uint32(hash)
	now := ms + 1
	old := i
	for _, j := range [2]uint32{i, i + 1} {
		e := &t.entries[j]
		if e.ms != 0 && e.hash == h {
			age = int64(now - e.ms)
			e.ms = now
			return age
		}
		if e.ms < t.entries[old].ms {
			old = j
		}
	}
	t.entries[old] = repeatEntry{h, now}
	return -1
}

// repeatBytes is how much of a payload is hashed: what any capture holds, so that a
// cut one yields the same numbers.
const repeatBytes = 36

// repeatLeast is how many bytes must be visible, and repeatDistinct how many of them
// must differ, so that tables, padding and text do not count as picture.
const (
	repeatLeast    = 28
	repeatDistinct = 22
	repeatHigh     = 7 // bytes ≥ 0x80
	stampedLeast   = 16
)

func rich(b []byte) bool {
	var seen [4]uint64
	distinct, high := 0, 0
	for _, c := range b {
		if seen[c>>6]&(1<<(c&63)) == 0 {
			seen[c>>6] |= 1 << (c & 63)
			distinct++
		}
		high += int(c >> 7)
	}
	return distinct >= repeatDistinct && high >= repeatHigh
}

// part says where in a picture a payload lies.
type part uint8

const (
	noPicture part = iota
	inside         // continues a picture
	stamped        // begins one, with its time in it
)

// echoState follows repeats over consecutive packets. An encoder that codes a still
// picture sends payloads again as well, but whole pictures of them, or small ones;
// a copied packet is alone among fresh ones in the middle of a picture.
type echoState struct {
	before, last echoClass
	kind         uint32 // PID of both
}

type echoClass uint8

const (
	otherPacket echoClass = iota
	freshInside
	knownInside
)

func (s *echoState) next(c echoClass, kind uint32, consecutive bool) (echo bool) {
	if !consecutive || kind != s.kind {
		*s = echoState{last: c, kind: kind}
		return false
	}
	echo = s.before == freshInside && s.last == knownInside && c == freshInside
	s.before, s.last = s.last, c
	return echo
}

// observeRepeat looks for picture bytes b, behind all transport headers, that were
// there before under another sequence number. kind tells PIDs apart. Echoes are
// counted of TS only: where pictures begin with a packet, those of a picture that is
// still in part come again alone as well, and a copied packet breaks their order.
func (m *Meter) observeRepeat(b []byte, where part, kind uint32, consecutive bool, p *Packet) {
	least := repeatLeast
	if where == stamped {
		least = stampedLeast
	}
	if where == noPicture || len(b) < least {
		m.echo.next(otherPacket, kind, consecutive)
		return
	}
	b = b[:min(len(b), repeatBytes)]
	m.w.Hashed++
	if !m.hashedFrame {
		m.hashedFrame = true
		m.w.HashedFrames++
	}
	age := m.repeats.seen(hashBytes(uint64(p.Wire), b), uint32(p.At/1e6))
	known := age >= 0 && (where == stamped || rich(b))
	if known && age >= repeatShort {
		m.w.Repeats++
		if !m.repeatedFrame {
			m.repeatedFrame = true
			m.w.RepeatFrames++
		}
	}
	switch {
	case where == stamped:
		m.echo.next(otherPacket, kind, consecutive)
		if known {
			m.w.Echoes++
		}
	case known && age < repeatShort:
		m.echo.next(knownInside, kind, consecutive)
	case m.echo.next(freshInside, kind, consecutive) && m.form == TS:
		m.w.Echoes++
	}
}

// Frame sizes: a run of loopRun sizes that was there before is a loop's mark.
const (
	loopRun      = 6
	loopRunTS    = 40
	loopDistinct = 5
	loopLeastAge = 1500 // ms
	loopBits     = 13
)

// loopFinder looks for runs of frame sizes that were there before.
type loopFinder struct {
	run     [loopRunTS]uint32
	frames  int
	entries [1 << loopBits]repeatEntry
}

// add takes the size of one frame and reports whether it ends a run that can be
// told from others, and whether that run was there before.
func (l *loopFinder) add(size uint32, length int, ms uint32) (eligible, seen bool) {
	copy(l.run[:], l.run[1:length])
	l.run[length-1] = size
	l.frames++
	if l.frames < length {
		return false, false
	}
	var values [loopDistinct]uint32
	n := 0
	h := uint64(length)
next:
	for _, v := range l.run[:length] {
		h = mix(h, uint64(v))
		if n == loopDistinct {
			continue
		}
		for _, w := range values[:n] {
			if w == v {
				continue next
			}
		}
		values[n] = v
		n++
	}
	if n < loopDistinct {
		return false, false
	}
	e := &l.entries[uint32(h>>32)&(1<<loopBits-1)]
	seen = e.hash == uint32(h) && e.ms != 0 && ms+1-e.ms >= loopLeastAge
	*e = repeatEntry{uint32(h), ms + 1}
	return true, seen
}
