package feature

import (
	"encoding/binary"
	"math/bits"
)

// A loop is a recording that is played again: payloads, or where they cannot be seen
// runs of frame sizes, that were there before.

// Bytes of a payload that are looked at: what any capture holds, so that a cut one
// yields the same numbers.
const (
	visibleMost  = 36
	visibleLeast = 28
	stampedLeast = 16
)

// So many of the bytes must differ, and so many be ≥ 0x80, that tables, padding and
// text do not count as picture.
const (
	richDistinct = 22
	richHigh     = 7
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
	return distinct >= richDistinct && high >= richHigh
}

// loopMemory remembers a sample of a stream's payloads for some minutes: those whose
// content meets a condition, so that the same ones are picked when they come again,
// wherever in a packet they lie. The condition follows the rate slowly, so that 2 to 48
// a second meet it: enough for a share of 4 s, and few enough to last. When it changes,
// what was remembered under the old one is a share of what comes: so it is found in the
// first seconds, and then left alone for as long as can be, whatever the picture does.
type loopMemory struct {
	// Payloads sent within the last [echoAge]: what comes again meanwhile is a
	// picture that stands still.
	recent      [128]recentPayload
	first, next uint32 // of recent, numbered on and on
	// Payloads before that, by fingerprints of 12 bits: five in a bucket, of which the
	// eldest falls out. One in 800 is taken for known that is not.
	before [1024]uint64

	mask    uint64 // a payload is picked where these bits of its mark are 0
	met     uint32 // payloads met in this hop
	average uint32 // of met over 16 hops, times 16
	hops    uint32 // with payloads, up to sampleBegin
}

type recentPayload struct {
	hash uint32
	ms   uint32
}

// Payloads a hop that are picked, times 16: from sampleMost on the condition becomes
// stricter, below sampleLeast looser; in the first sampleBegin hops below sampleFirst.
const (
	sampleMost  = 12 * 16
	sampleFirst = 4 * 16
	sampleLeast = 8
	sampleBegin = 80
)

// newLoopMemory begins with a strict condition: what a quick stream would bring before its
// rate is known would push out what comes then.
func newLoopMemory() *loopMemory { return &loopMemory{mask: 0x3f << 58} }

// markOf are the bytes by which a payload that begins with b, of at least visibleLeast
// bytes, is picked or not.
func markOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b[16:]) }

// picks reports whether a payload with a mark is one of those that are remembered under
// mask.
func picks(mark, mask uint64) bool { return mark*0x9fb21c651e98df25&mask == 0 }

// seen looks up a picked payload and stores it. It reports whether it was last sent
// more than [echoAge] ago.
func (l *loopMemory) seen(hash uint64, ms uint32) bool {
	l.age(ms)
	print := uint32(hash)
	known := l.has(print) && !l.sent(print)
	if l.next-l.first == uint32(len(l.recent)) {
		l.keep()
	}
	l.recent[l.next%uint32(len(l.recent))] = recentPayload{print, ms}
	l.next++
	return known
}

// age moves what is no longer recent.
func (l *loopMemory) age(ms uint32) {
	for l.first != l.next && ms-l.recent[l.first%uint32(len(l.recent))].ms >= echoAge {
		l.keep()
	}
}

func (l *loopMemory) keep() {
	print := l.recent[l.first%uint32(len(l.recent))].hash
	l.first++
	if !l.has(print) {
		b := &l.before[print>>20%uint32(len(l.before))]
		*b = (*b<<printBits | short(print)) & (1<<(5*printBits) - 1)
	}
}

const printBits = 12

// short is a payload's fingerprint in a bucket, from 1 on.
func short(print uint32) uint64 { return uint64(max(print&(1<<printBits-1), 1)) }

// has reports whether a payload is among those before.
func (l *loopMemory) has(print uint32) bool {
	const ones = 1 | 1<<printBits | 1<<(2*printBits) | 1<<(3*printBits) | 1<<(4*printBits)
	x := l.before[print>>20%uint32(len(l.before))] ^ ones*short(print)
	return (x-ones)&^x&(ones<<(printBits-1)) != 0 // one of the five is zero
}

// sent reports whether a payload is among the recent ones.
func (l *loopMemory) sent(print uint32) bool {
	for i := l.first; i != l.next; i++ {
		if l.recent[i%uint32(len(l.recent))].hash == print {
			return true
		}
	}
	return false
}

// roll ends a hop: the condition follows the rate.
func (l *loopMemory) roll() {
	switch {
	case l.met == 0: // a silence says nothing about the rate
		return
	case l.average == 0:
		l.average = l.met * 16
	default:
		l.average += l.met - l.average/16
	}
	l.met = 0
	picked := l.average >> bits.OnesCount64(l.mask)
	least := uint32(sampleFirst)
	if l.hops < sampleBegin {
		l.hops++
	} else {
		least = sampleLeast
	}
	switch {
	case picked > sampleMost:
		l.mask = l.mask>>1 | 1<<63
	case picked < least:
		l.mask <<= 1
	}
}

// Frame sizes: a run of runLength sizes that was there before is a loop's mark.
const (
	runLength   = 6
	runDistinct = 5
	runLeastAge = 1500 // ms
	runBits     = 13
)

// runFinder looks for runs of frame sizes that were there before. It is for streams
// whose payload is hidden: where it can be seen, sizes that come again without it are
// chance.
type runFinder struct {
	ring    [8]uint32 // sizes, the newest at frames-1
	frames  uint32
	same    int // the newest sizes that are equal
	entries [1 << runBits]runEntry
}

type runEntry struct {
	hash uint32
	ms   uint32 // arrival in milliseconds plus one; 0 is free
}

// add takes the size of one frame that ended at the time at, and reports whether it ends
// a run that can be told from others, and whether that run was there before.
func (l *runFinder) add(size uint32, at int64) (eligible, seen bool) {
	n := l.frames
	if size != l.ring[(n-1)%8] {
		l.same = 0
	}
	l.same++
	l.ring[n%8] = size
	l.frames++
	if l.same > 1+runLength-runDistinct || l.frames < runLength {
		return false, false
	}
	var run [runLength]uint32
	h := uint64(runLength)
	for i := range run {
		run[i] = l.ring[(l.frames-runLength+uint32(i))%8]
		h = mix(h, uint64(run[i]))
	}
	if !varied(&run) {
		return false, false
	}
	ms := uint32(at / 1e6)
	e := &l.entries[uint32(h>>32)&(1<<runBits-1)]
	seen = e.hash == uint32(h) && e.ms != 0 && ms+1-e.ms >= runLeastAge
	*e = runEntry{uint32(h), ms + 1}
	return true, seen
}

// varied reports whether at least runDistinct sizes of a run differ.
func varied(run *[runLength]uint32) bool {
	equal := 0
	for i, v := range run {
		for _, w := range run[:i] {
			if v == w {
				if equal++; equal > runLength-runDistinct {
					return false
				}
				break
			}
		}
	}
	return true
}
