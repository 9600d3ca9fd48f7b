package transport

import (
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// unit is one clear packet on its way to the outputs.
type unit struct {
	index     gk.Index
	epoch     gk.Epoch
	timestamp uint32
	marker    bool
	kind      uint8 // RTP payload type
	payload   []byte
}

// maxHeld bounds the packets of one session that wait for a gap. Beyond it the
// gap is given up, whatever its age: 4096 packets are 43 Mb of video.
const maxHeld = 4096

// placement is what becomes of a packet that was offered.
type placement uint8

const (
	placeNow  placement = iota + 1 // it is the next one: deliver it, then pop
	placeHold                      // it waits; the buffer kept it
	placeLate                      // its gap had been given up, or its index was filled
)

// reorder puts a session's packets into the order of their indices. In-order
// packets pass at once; behind a gap they wait at most latency. Until it is known
// where the session begins, all wait, at most as long.
//
// It owns no clock and no lock.
type reorder struct {
	latency  time.Duration
	anchored bool
	back     gk.Epoch // a cut took delivery back to it, and its beginning is not told yet; 0: none
	next     gk.Index // the index to deliver next, once anchored
	epoch    gk.Epoch // of the packet before next
	held     []heldUnit
	oldest   time.Time // arrival of the held unit that waits longest
	gaps     gaps
}

type heldUnit struct {
	unit
	at time.Time
}

// offer places u. keep is called to copy the payload when the unit must wait.
func (r *reorder) offer(now time.Time, u unit, keep func([]byte) []byte) placement {
	if r.anchored && u.index == r.next {
		r.pass(u)
		return placeNow
	}
	if r.anchored && u.index < r.next {
		return placeLate
	}
	at := len(r.held)
	for at > 0 && r.held[at-1].index > u.index {
		at--
	}
	if at > 0 && r.held[at-1].index == u.index {
		return placeLate
	}
	if len(r.held) == 0 {
		r.oldest = now
	}
	u.payload = keep(u.payload)
	r.held = slices.Insert(r.held, at, heldUnit{u, now})
	return placeHold
}

func (r *reorder) pass(u unit) { r.next, r.epoch = u.index+1, u.epoch }

// pop takes the units that are next off the front of those held, giving each to
// deliver.
func (r *reorder) pop(deliver func(unit)) {
	n := 0
	for r.anchored && n < len(r.held) && r.held[n].index <= r.next {
		// Below next lies only what a cut left behind.
		if u := r.held[n].unit; u.index == r.next {
			r.pass(u)
			deliver(u)
		}
		n++
	}
	r.remove(0, n)
}

// giveUp skips the gaps that have been waited for long enough and gives what
// lies behind each to deliver.
func (r *reorder) giveUp(now time.Time, deliver func(unit)) {
	for len(r.held) > 0 && (len(r.held) > maxHeld || !now.Before(r.oldest.Add(r.latency))) {
		r.skip(now)
		r.pop(deliver)
	}
}

// drain gives all that is held to deliver, gaps or not.
func (r *reorder) drain(now time.Time, deliver func(unit)) {
	for len(r.held) > 0 {
		r.skip(now)
		r.pop(deliver)
	}
}

// skip goes to the lowest index held.
func (r *reorder) skip(now time.Time) {
	if r.anchored && r.held[0].index > r.next {
		r.gaps.add(now, r.next, r.held[0].index)
	}
	r.anchored, r.back, r.next = true, 0, r.held[0].index
}

// begin tells where the session begins. What lies below is not waited for.
func (r *reorder) begin(first gk.Index) {
	if !r.anchored {
		r.anchored, r.next = true, first
	}
}

// cut tells that epoch e begins at first; told is false where it is only the
// lowest index seen. What older epochs hold at or past it is dropped; and where
// they were delivered past it, delivery goes back to first: whoever leapt ahead
// under an old key does not silence the new one. Back there packets wait until it
// is told where that epoch begins, at most as long as behind a gap: where a later
// one begins says nothing of it.
func (r *reorder) cut(e gk.Epoch, first gk.Index, told bool, free func([]byte)) {
	for i := len(r.held) - 1; i >= 0 && r.held[i].index >= first; i-- {
		if r.held[i].epoch < e {
			free(r.held[i].payload)
			r.remove(i, i+1)
		}
	}
	if r.anchored && r.next > first && r.epoch < e {
		r.next, r.anchored, r.back = first, false, e
		r.gaps.void(first)
	}
	if r.back == e && told {
		r.next, r.anchored, r.back = first, true, 0
	}
}

func (r *reorder) remove(from, to int) {
	if from == to {
		return
	}
	r.held = slices.Delete(r.held, from, to)
	for i, h := range r.held {
		if i == 0 || h.at.Before(r.oldest) {
			r.oldest = h.at
		}
	}
}
