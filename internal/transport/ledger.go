package transport

import (
	"encoding/binary"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A ledger holds what was accepted of a session, packet by packet, against what
// its device's signed reports say was sent. The comparison goes by index alone:
// when a packet or a report arrived, in which order, how often or whether at all
// changes what is known and never what is concluded. Only the rule that nothing
// is accepted before it was sent looks at time, and it has bounds from cause and
// effect instead of from the network (see ahead).
//
// It owns no clock and no lock.
type ledger struct {
	ring  []entry  // the length is a power of two; a place belongs to the index modulo the length
	first gk.Index // the lowest accepted
	whole gk.Index // from here on growing forgot nothing
	epoch gk.Epoch // the newest of which a packet was accepted
	high  gk.Index // highest accepted under it
	past  past

	joined  bool     // the session was under way when its first key came
	number  uint64   // of the newest report
	reach   gk.Index // up to here reports have come
	from    gk.Index // where the newest ended: the next one's range begins here
	packets uint64   // that the device had sent by then
	bytes   uint64
	pending span     // waits for its late packets, to be counted
	counted gk.Index // below here all is counted

	sent    uint64 // packets in the ranges counted so far, by the device's word
	lost    uint64 // of those, not accepted
	vouched uint64 // packets accepted that a report listed
	foreign uint64 // packets authentic that the report of their index does not list
}

// entry is one index: what was accepted at it, or what a report listed for it.
type entry struct {
	index uint32 // the lower half of it; the rest cannot differ among so few
	tag   uint32 // the first bytes of the packet's tag
	epoch uint16 // the lower half of it
	marks uint16 // what is known, and the payload's size
}

const (
	entryAccepted uint16 = 1 << 15
	entryListed   uint16 = 1 << 14
	entrySize     uint16 = 1<<13 - 1
)

func (e *entry) is(i gk.Index) bool { return e.marks != 0 && e.index == uint32(i) }

// newer reports whether e belongs to an index above i.
func (e *entry) newer(i gk.Index) bool { return e.marks != 0 && int32(e.index-uint32(i)) > 0 }

// The lengths of the ring, whose places have 12 bytes. It grows to four times what
// a report covers: at a report a second it has 1024 places up to 2.7 Mb/s, 4096 up
// to 10 Mb/s and 8192 up to 20 Mb/s. Where no reports come it stays at 4096.
const (
	ledgerFirst   = 1024
	ledgerUnasked = 4096
	ledgerMost    = 16384
)

// evidence is what the ledger found out about one packet, or a range.
type evidence string

const (
	evidenceNone      evidence = ""
	evidenceUnlisted  evidence = "unlisted"       // accepted at an index that the device did not use
	evidenceOtherTag  evidence = "other-tag"      // accepted, but the device sent another packet at the index
	evidenceTooMany   evidence = "more-than-sent" // a range with more packets accepted than sent
	evidenceTooLong   evidence = "longer-than-sent"
	evidenceDifferent evidence = "other-length" // as many as were sent, but not of their size
	evidenceAhead     evidence = "ahead"        // accepted before the device had come to its index
)

// accuser is told of evidence. The index is one that it rests upon.
type accuser func(epoch gk.Epoch, index gk.Index, what evidence)

// accepted records an authenticated packet, unless a report that came before it
// shows it to be somebody else's. It allocates only where the ring grows.
func (l *ledger) accepted(epoch gk.Epoch, i gk.Index, tag uint32, size int) evidence {
	if l.ring == nil {
		l.ring = make([]entry, ledgerFirst)
		l.first, l.reach = i, i
	}
	l.first = min(l.first, i)
	if n := gk.Index(len(l.ring)); n < ledgerUnasked && i > l.reach && i-l.reach >= n-n/8 {
		l.grow(ledgerUnasked)
	}
	switch {
	case epoch > l.epoch:
		l.epoch, l.high = epoch, i
		l.past = past{}
	case epoch == l.epoch && i > l.high:
		l.high = i
	}
	e := l.at(i)
	if e.newer(i) {
		return evidenceNone // older than the ring
	}
	marks := entryAccepted | uint16(min(size, int(entrySize)))
	if e.is(i) && e.marks&entryListed != 0 {
		if what := match(e.tag, tag); what != evidenceNone {
			l.foreign++
			return what
		}
		l.vouched++
		marks |= entryListed
	}
	if i < l.counted && l.lost > 0 {
		l.lost-- // it was only late
	}
	*e = entry{index: uint32(i), tag: tag, epoch: uint16(epoch), marks: marks}
	return evidenceNone
}

func (l *ledger) at(i gk.Index) *entry { return &l.ring[i&gk.Index(len(l.ring)-1)] }

// match holds a packet's tag against the listed one. Zeros stand for an index
// that was not used; a packet whose own tag begins so is listed like that too.
func match(listed, tag uint32) evidence {
	switch {
	case listed == tag:
		return evidenceNone
	case listed == 0:
		return evidenceUnlisted
	}
	return evidenceOtherTag
}

// grow makes the ring at least n long, and keeps what is in it.
func (l *ledger) grow(n int) {
	length := len(l.ring)
	for length < min(n, ledgerMost) {
		length *= 2
	}
	if length == len(l.ring) {
		return
	}
	if top := max(l.high, l.reach); top >= l.first+gk.Index(len(l.ring)) {
		l.whole = max(l.whole, top-gk.Index(len(l.ring))+1)
	}
	old := l.ring
	l.ring = make([]entry, length)
	for _, e := range old {
		if e.marks != 0 {
			*l.at(gk.Index(e.index)) = e
		}
	}
}

// epochOf completes an entry's epoch: the newest that ends like it.
func (l *ledger) epochOf(e *entry) gk.Epoch {
	return l.epoch - gk.Epoch(uint16(l.epoch)-e.epoch)
}

// compare holds a report against what was accepted, and against what will be.
func (l *ledger) compare(r *bus.DeviceReport, accuse accuser) {
	if l.ring == nil {
		return // nothing was accepted yet, and what comes is for a later report
	}
	l.reach = max(l.reach, r.To)
	// Room for reports that are lost or late: four times what this one covers.
	l.grow(int(min(4*(r.To-r.From), ledgerMost)))
	if len(r.Tags) > 0 {
		l.list(r, accuse)
	}
	l.account(r, accuse)
}

// list compares packet by packet. What was not accepted yet is compared when it
// is: a late packet is as good as one in time, and one made after the report is
// found out at once.
func (l *ledger) list(r *bus.DeviceReport, accuse accuser) {
	from := r.From
	if n := gk.Index(len(l.ring)); r.To-from > n {
		from = r.To - n
	}
	for i := from; i < r.To; i++ {
		want := binary.BigEndian.Uint32(r.Tags[(i-r.From)*gkrp.TagPrefix:])
		e := l.at(i)
		switch {
		case e.is(i) && e.marks&entryListed != 0: // this report came before
		case e.is(i):
			if what := match(want, e.tag); what != evidenceNone {
				l.foreign++
				accuse(l.epochOf(e), i, what)
				// The device's own packet for the index may still come, under this epoch
				// or a later one, and must find its own tag here.
				*e = entry{index: uint32(i), tag: want, marks: entryListed}
				continue
			}
			e.marks |= entryListed
			l.vouched++
		case !e.newer(i):
			*e = entry{index: uint32(i), tag: want, marks: entryListed}
		}
	}
}

// span is a range of indices with what the device says that it sent there.
type span struct {
	from, to       gk.Index
	packets, bytes uint64
	tagged         bool
}

// account follows the device's own counts from report to report, whatever number
// of reports was lost between, and counts each range a report later, when what
// was late has come.
func (l *ledger) account(r *bus.DeviceReport, accuse accuser) {
	if r.Number <= l.number {
		return
	}
	l.settle(accuse)
	first := l.number == 0
	if first && r.Number == 1 && !l.joined {
		l.from = r.From
	}
	known := !first || r.Number == 1 && !l.joined
	if known && r.From >= l.from && r.Packets >= l.packets && r.Bytes >= l.bytes {
		l.pending = span{l.from, r.To, r.Packets - l.packets, r.Bytes - l.bytes, len(r.Tags) > 0}
		if !l.pending.tagged {
			l.audit(l.pending, accuse)
		}
	}
	l.number, l.from, l.packets, l.bytes = r.Number, r.To, r.Packets, r.Bytes
}

func (l *ledger) settle(accuse accuser) {
	s := l.pending
	l.pending, l.counted = span{}, l.from
	if s.packets == 0 {
		return
	}
	if n, whole := l.audit(s, accuse); whole {
		l.sent += s.packets
		l.lost += s.packets - min(n, s.packets)
	}
}

// audit counts what was accepted in a range: the device's own packets, and
// whether the ring still knows the whole of it. Loss makes less of everything,
// so only more than was sent is evidence, or as many packets of another size.
// Where the tags were listed, they have told already, and better.
func (l *ledger) audit(s span, accuse accuser) (n uint64, whole bool) {
	if s.to-s.from > gk.Index(len(l.ring)) {
		return 0, false
	}
	var bytes uint64
	var last *entry
	whole = s.from >= l.whole
	for i := s.from; i < s.to; i++ {
		e := l.at(i)
		if !e.is(i) {
			whole = whole && !e.newer(i)
			continue
		}
		if e.marks&entryAccepted == 0 {
			continue
		}
		n++
		bytes += uint64(e.marks & entrySize)
		last = e
	}
	if last == nil || s.tagged {
		return n, whole
	}
	what := evidenceNone
	switch {
	case n > s.packets:
		what = evidenceTooMany
	case bytes > s.bytes:
		what = evidenceTooLong
	case n == s.packets && bytes != s.bytes:
		what = evidenceDifferent
	}
	if what != evidenceNone {
		accuse(l.epochOf(last), s.to-1, what)
	}
	return n, whole
}

// past is how far the newest epoch had come at moments of the last seconds.
type past struct {
	at   [pastLength]time.Duration // on the service's clock; rising, but for where the ring closes
	high [pastLength]gk.Index
	n    uint64 // moments ever noted
}

const (
	pastLength = 64
	pastEvery  = 50 * time.Millisecond
)

// note keeps how far the newest epoch has come by now.
func (l *ledger) note(now time.Duration) {
	p := &l.past
	if l.epoch == 0 || p.n > 0 && now-p.at[(p.n-1)%pastLength] < pastEvery {
		return
	}
	p.at[p.n%pastLength], p.high[p.n%pastLength] = now, l.high
	p.n++
}

// by is the highest index known to have been accepted by a time.
func (p *past) by(t time.Duration) (gk.Index, bool) {
	for k := p.n; k > 0 && p.n-k < pastLength; k-- {
		if at := (k - 1) % pastLength; p.at[at] <= t {
			return p.high[at], true
		}
	}
	return 0, false
}

const (
	// clockDrift bounds how much faster the device's clock may go than this one, as
	// a part: twice what a clock that is being disciplined does (500 ppm).
	clockDrift = 1000
	// aheadMargin is what a clock may stand still for, with the machine it is in.
	aheadMargin = 250 * time.Millisecond
)

// ahead looks for an index that was accepted before the device had come to it.
// The device made the report since after it installed the epoch's key; it was
// given the key after this service had armed it. So the report was made no
// earlier than since after armed, whatever the networks did, and what had been
// accepted by then at or past the report's end was not the device's.
//
// agree is false where the device's clock went too fast for that to hold.
func (l *ledger) ahead(r *bus.DeviceReport, armed, now time.Duration, accuse accuser) (agree bool) {
	since := time.Duration(r.SinceMs) * time.Millisecond
	since -= since / clockDrift
	if armed+since > now {
		return false
	}
	if r.Epoch != l.epoch {
		return true
	}
	if high, ok := l.past.by(armed + since - aheadMargin); ok && high >= r.To {
		accuse(l.epoch, high, evidenceAhead)
	}
	return true
}
