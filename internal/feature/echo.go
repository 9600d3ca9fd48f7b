package feature

// An echo is a payload that was sent a moment before under another number: somebody
// copied a packet. An encoder that codes a still picture sends payloads again as well,
// but whole pictures of them, or small ones; a copied packet is alone among fresh ones
// in the middle of a picture, or holds a picture's time that was already sent.
//
// Only transport streams are looked at. Where pictures begin with a packet, those of a
// picture that is still in part come again alone as well, and a copied packet breaks
// their order.

// echoAge divides an echo from a loop, in milliseconds.
const echoAge = 3000

// part says where in a picture a payload lies.
type part uint8

const (
	noPicture part = iota
	inside         // continues a picture
	stamped        // begins one, with its time in it
)

// A copied TS packet keeps its continuity counter, which one of sixteen that only hold
// the same picture has. So a payload that comes again with its counter is an echo wherever
// it is alone: tables and sound may stand between it and the fresh ones. A picture in which
// something moves to and fro brings parts of one again as well, alone, where rows are coded
// without memory (CAVLC, MPEG-2), and they are counted on. So of those with another counter,
// which somebody may have mended, two are one echo.

// loneState follows the packets inside of pictures and sound, whatever stands between.
type loneState struct {
	fresh  bool // the one before was
	copied bool // and the last one is a copy of an earlier one
}

func (s *loneState) next(known, copied bool) (echo bool) {
	echo = s.copied && !known
	s.copied = s.fresh && copied
	s.fresh = !known
	return echo
}

// echoState follows what packets hold over consecutive ones.
type echoState struct {
	before, last echoClass
	kind         uint32 // PID of both
	counted      uint8  // alone among fresh ones, with another counter, since the last that was an echo
}

// echoCounted payloads with another continuity counter are one echo.
const echoCounted = 2

type echoClass uint8

const (
	otherPacket echoClass = iota
	freshInside
	knownInside  // with another continuity counter
	copiedInside // with its own
)

func (s *echoState) next(c echoClass, kind uint32, consecutive bool) (echo bool) {
	if !consecutive || kind != s.kind {
		*s = echoState{last: c, kind: kind, counted: s.counted}
		return false
	}
	if s.before == freshInside && c == freshInside {
		switch s.last {
		case copiedInside:
			echo = true
		case knownInside:
			s.counted = (s.counted + 1) % echoCounted
			echo = s.counted == 0
		}
	}
	s.before, s.last = s.last, c
	return echo
}

// echoFinder looks for echoes among the first TS packets of payloads.
type echoFinder struct {
	state  echoState
	lone   loneState
	recent recentTable
	stamps stampTable
}

func newEchoFinder() *echoFinder { return &echoFinder{recent: newRecentTable()} }

// observe takes the elementary stream bytes b of the first TS packet of a payload of
// wire bytes, whose continuity counter is cc, and reports an echo. kind tells PIDs apart.
func (e *echoFinder) observe(b []byte, where part, kind uint32, cc byte, wire int, at int64, consecutive bool) bool {
	if !consecutive {
		e.lone = loneState{}
	}
	least := visibleLeast
	if where == stamped {
		least = stampedLeast
	}
	if where == noPicture || len(b) < least {
		e.state.next(otherPacket, kind, consecutive)
		return false
	}
	b = b[:min(len(b), visibleMost)]
	if where == stamped {
		e.state.next(otherPacket, kind, consecutive)
		return e.stamps.seen(hashBytes(uint64(wire), b))
	}
	if known, copied := e.recent.seen(hashVisible(uint64(wire), b), uint32(cc), uint32(at/1e6)); known && rich(b) {
		class := knownInside
		if copied {
			class = copiedInside
		}
		e.state.next(class, kind, consecutive)
		e.lone.next(true, copied)
		return false
	}
	alone := e.lone.next(false, false)
	return e.state.next(freshInside, kind, consecutive) || alone
}

// recentTable remembers the payloads of the last [echoAge]. An entry is a fingerprint
// of 17 bits, a continuity counter and the time in units of 8 ms; buckets hold four, of which the
// eldest gives way. It grows with the stream's rate (see [recentTable.sweep]).
type recentTable struct {
	buckets [][4]uint32
	used    int // payloads looked up since the last sweep
	swept   int // bucket to go on sweeping from
}

const (
	recentUnit  = 8                  // ms
	recentAge   = 1<<10 - 1          // mask of an entry's time
	recentTaken = 1 << 10            // set in an entry, so that a free place is zero
	counterAt   = 11                 // of the counter's four bits in an entry
	counterBits = 15 << counterAt    // mask
	recentLeast = 256                // buckets of a new table: 4 KiB, up to 2.7 Mb/s
	recentMost  = 4096               // 64 KiB, up to 43 Mb/s; beyond, the eldest give way early
	recentHops  = echoAge * 4 / 1000 // hops within echoAge
	sweepHops   = 16                 // hops in which a table is swept once
)

func newRecentTable() recentTable { return recentTable{buckets: make([][4]uint32, recentLeast)} }

// seen looks hash up and stores it with a continuity counter. It reports whether it was
// there within [echoAge], and whether with the same counter.
func (t *recentTable) seen(hash uint64, counter, ms uint32) (known, same bool) {
	t.used++
	bucket := &t.buckets[hash>>32&uint64(len(t.buckets)-1)]
	now := ms/recentUnit&recentAge | counter<<counterAt
	print := uint32(hash)&^(recentAge|counterBits) | recentTaken
	const other = ^uint32(recentAge | counterBits)
	e0, e1, e2, e3 := bucket[0], bucket[1], bucket[2], bucket[3]
	if (e0^print)&other != 0 && (e1^print)&other != 0 && (e2^print)&other != 0 && (e3^print)&other != 0 {
		bucket[0], bucket[1], bucket[2], bucket[3] = print|now, e0, e1, e2
		return false, false
	}
	for i, e := range bucket {
		if (e^print)&other == 0 {
			bucket[i] = print | now
			return (now-e)&recentAge < echoAge/recentUnit, (now^e)&counterBits == 0
		}
	}
	return false, false
}

// sweep is called at the end of a hop. It clears a part of the table of what is older
// than [echoAge], before its time could come round; and where the table has become
// small for the stream's rate, begins a greater one.
func (t *recentTable) sweep(ms uint32) {
	live := t.used * recentHops
	t.used = 0
	n := len(t.buckets)
	if live > 3*n && n < recentMost {
		for live > 3*n && n < recentMost {
			n *= 2
		}
		*t = recentTable{buckets: make([][4]uint32, n)}
		return
	}
	now := ms / recentUnit & recentAge
	part := t.buckets[t.swept : t.swept+n/sweepHops]
	t.swept = (t.swept + len(part)) % n
	for i := range part {
		b := &part[i]
		for k, e := range b {
			// Without a branch, which could not be foreseen: all ones where it is young.
			young := ((now-e)&recentAge - echoAge/recentUnit) >> 31
			b[k] = e & -young
		}
	}
}

// stampTable remembers the last 256 pictures' times.
type stampTable [64][4]uint32

// seen looks hash up and stores it, in the place of the eldest of its bucket.
func (t *stampTable) seen(hash uint64) bool {
	b := &t[hash>>32%uint64(len(t))]
	print := uint32(hash) | 1
	for _, e := range b {
		if e == print {
			return true
		}
	}
	copy(b[1:], b[:])
	b[0] = print
	return false
}
