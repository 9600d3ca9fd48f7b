package transport

import (
	"errors"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// maxRetiring bounds the epochs that wait for their late packets, and maxArmed
// those that nothing was sent under yet.
const (
	maxRetiring = 16
	maxArmed    = 16
)

var (
	errSlotsFull  = errors.New("all key slots of the stream are in use: wait until older epochs have retired")
	errEpochStale = errors.New("epoch was armed before and has retired: its key is gone")
)

// keyTimes are the durations that slots live by.
type keyTimes struct {
	grace     time.Duration // how long a retired epoch serves its late packets
	watch     time.Duration // how long it is then watched, after an urgent rotation
	proofLife time.Duration // how long a stolen key serves on when the device does not answer
	life      time.Duration // how long any key serves at all
}

// slot is one epoch's place at the receiver.
type slot struct {
	epoch  gk.Epoch
	reason gk.Reason // why the epoch was made
	open   *media.Opener

	begun    bool     // a packet was accepted; first is the lowest, unless told
	told     bool     // first comes from the device's verified ACK
	first    gk.Index // where the epoch begins, if begun or told
	end      gk.Index // where a later epoch begins; beyond every index if none does
	early    bool     // packets below the told first were accepted before it was told
	leapt    bool     // leap has given this slot
	watching bool     // kept to tell stale-proven from stale-unproven; delivers nothing

	serves  time.Time // until then packets are delivered; zero: no end known
	expires time.Time // then the key is destroyed, whatever else is true
	accused time.Time // when proof was last reported
	armed   time.Time // before the device can have had the key; zero where that is not known
}

// slots are the keys of one session: those armed for epochs to come, the current
// one, and those retiring. Only promote moves a key from place to place.
//
// An epoch's packets are accepted from its own first index, once the device told
// it, up to the first index of any later epoch; before it was told, the lowest
// authenticated packet stands for it. A key retires when a later epoch's first
// packet authenticates or the device's ACK of one is verified.
//
// It owns no clock and no lock.
type slots struct {
	armed    []*slot // above current, by rising epoch
	current  *slot
	retiring []*slot // below current, by rising epoch
	times    keyTimes
	gone     gk.Epoch // highest epoch whose key was held and is not any more
	dropped  []*slot  // left a place since takeDropped
}

// find gives the slot of an epoch, or nil.
func (k *slots) find(e gk.Epoch) *slot {
	if k.current != nil && k.current.epoch == e {
		return k.current
	}
	for _, s := range k.armed {
		if s.epoch == e {
			return s
		}
	}
	for _, s := range k.retiring {
		if s.epoch == e {
			return s
		}
	}
	return nil
}

// arm takes a key in, ready to open packets. Where a stolen key is the reason, the
// keys before it serve on for a limited time only, whether the device answers or
// not, and make room. Arming an epoch again changes nothing but that, as proof may
// come when the epoch is armed already, and the key if nothing was sent under it.
// It owns open unless it fails.
func (k *slots) arm(now time.Time, epoch gk.Epoch, reason gk.Reason, open *media.Opener) error {
	if have := k.find(epoch); have != nil {
		if reason == gk.ReasonProof && have.reason != reason {
			have.reason = reason
			k.endBefore(now, epoch)
		}
		if have.begun || have.told {
			open.Wipe()
			return nil
		}
		// Nothing was sent under it yet. A key service whose store was restored from
		// a backup has made the epoch's key anew, and the device is given that one.
		have.open.Wipe()
		have.open = open
		have.end = gk.MaxIndex + 1
		k.bound()
		return nil
	}
	if epoch <= k.gone {
		return errEpochStale
	}
	proof := reason == gk.ReasonProof
	if len(k.armed) >= maxArmed || len(k.retiring) >= maxRetiring && !proof {
		return errSlotsFull
	}
	s := &slot{epoch: epoch, reason: reason, open: open, end: gk.MaxIndex + 1, expires: now.Add(k.times.life)}
	if k.current != nil && epoch < k.current.epoch {
		// A service that starts anew arms what is in use in any order.
		s.serves = now.Add(k.times.grace)
		k.retiring = insert(k.retiring, s)
	} else {
		k.armed = insert(k.armed, s)
	}
	if proof {
		k.endBefore(now, epoch)
	}
	k.trim()
	k.bound()
	return nil
}

// endBefore gives the keys before an epoch a hard end.
func (k *slots) endBefore(now time.Time, epoch gk.Epoch) {
	k.each(func(o *slot) {
		if o.epoch < epoch {
			o.serveUntil(now.Add(k.times.proofLife))
		}
	})
}

func insert(list []*slot, s *slot) []*slot {
	i, _ := slices.BinarySearchFunc(list, s.epoch, func(a *slot, e gk.Epoch) int { return int(int64(a.epoch) - int64(e)) })
	return slices.Insert(list, i, s)
}

// seen records an authenticated and accepted packet. It tells whether it is the
// first of its epoch, and whether the epoch's beginning moved by it. It is the
// only call in the packet path, and in the usual case compares and returns.
func (k *slots) seen(now time.Time, s *slot, i gk.Index) (first, moved bool) {
	if s.begun && (s.told || i >= s.first) {
		return false, false
	}
	first, s.begun = !s.begun, true
	if !s.told && (first || i < s.first) {
		s.first, moved = i, true
	}
	k.promote(now, s)
	k.bound()
	return first, moved
}

// tell records the index at which the device began an epoch, from its verified
// ACK. Telling it again changes nothing; an epoch that is not held is ignored.
func (k *slots) tell(now time.Time, e gk.Epoch, first gk.Index) {
	s := k.find(e)
	if s == nil || s.told {
		return
	}
	s.early = s.begun && s.first < first
	s.first, s.told = first, true
	s.open.Begin(first)
	k.promote(now, s)
	k.bound()
}

// promote makes an armed key the current one. Every key below it retires: from
// now on it serves only its late packets. Other keys stay where they are.
func (k *slots) promote(now time.Time, s *slot) {
	at := slices.Index(k.armed, s)
	if at < 0 {
		return
	}
	if k.current != nil {
		k.retiring = append(k.retiring, k.current)
	}
	k.retiring = append(k.retiring, k.armed[:at]...)
	k.armed = slices.Delete(k.armed, 0, at+1)
	k.current = s
	for _, o := range k.retiring {
		o.serveUntil(now.Add(k.times.grace))
	}
	k.trim()
}

func (s *slot) serveUntil(t time.Time) {
	if s.serves.IsZero() || t.Before(s.serves) {
		s.serves = t
	}
}

// trim keeps the number of retiring keys within bounds: the oldest go.
func (k *slots) trim() {
	for len(k.retiring) > maxRetiring {
		k.drop(k.retiring[0])
		k.retiring = slices.Delete(k.retiring, 0, 1)
	}
}

func (k *slots) drop(s *slot) {
	k.gone = max(k.gone, s.epoch)
	k.dropped = append(k.dropped, s)
}

// bound works out where each epoch ends: where the nearest later one begins. An
// end only ever falls.
func (k *slots) bound() {
	end := gk.MaxIndex + 1
	lower := func(s *slot) {
		if end < s.end {
			s.end = end
			s.open.End(end)
		}
		if s.begun || s.told {
			end = min(end, s.first)
		}
	}
	for _, s := range slices.Backward(k.armed) {
		lower(s)
	}
	if k.current != nil {
		lower(k.current)
	}
	for _, s := range slices.Backward(k.retiring) {
		lower(s)
	}
}

// leap gives a key under which packets authenticated, and were delivered, that
// another bound now shows to be somebody else's: at or past its end, or below
// its first. Each is given once; nil if there is none.
func (k *slots) leap() *slot {
	var found *slot
	k.each(func(s *slot) {
		high, any := s.open.Highest()
		if found == nil && !s.leapt && (s.early || any && high >= s.end) {
			s.leapt, found = true, s
		}
	})
	return found
}

// expire ends what has had its time. The keys that went are in takeDropped.
func (k *slots) expire(now time.Time) {
	over := func(s *slot) bool {
		if !s.watching && !s.serves.IsZero() && !now.Before(s.serves) {
			if !k.urgentAfter(s.epoch) {
				k.drop(s)
				return true
			}
			s.watching = true
			s.expires = earlier(s.expires, now.Add(k.times.watch))
		}
		if !now.Before(s.expires) {
			k.drop(s)
			return true
		}
		return false
	}
	k.retiring = slices.DeleteFunc(k.retiring, over)
	k.armed = slices.DeleteFunc(k.armed, over)
	if k.current != nil && over(k.current) {
		k.current = nil
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// urgentAfter reports whether an epoch after e was made because of an anomaly.
func (k *slots) urgentAfter(e gk.Epoch) (urgent bool) {
	k.each(func(s *slot) { urgent = urgent || s.epoch > e && s.reason.Urgent() })
	return urgent
}

// clear drops every key.
func (k *slots) clear() {
	k.each(k.drop)
	k.armed, k.current, k.retiring = nil, nil, nil
}

// takeDropped gives the slots that were dropped since it was last called. Their
// keys are wiped.
func (k *slots) takeDropped() []*slot {
	d := k.dropped
	k.dropped = nil
	for _, s := range d {
		s.open.Wipe()
	}
	return d
}

func (k *slots) each(f func(*slot)) {
	for _, s := range k.retiring {
		f(s)
	}
	if k.current != nil {
		f(k.current)
	}
	for _, s := range k.armed {
		f(s)
	}
}
