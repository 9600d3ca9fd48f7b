package processing

import (
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// Around every alert about the source its windows are kept in full, beside the scores:
// whatever judges the stream later, another profile or another version of the detectors,
// can look at them again. They are written in parts while they come, so that little of
// them is in memory and a kill loses little. Which alerts there are windows of stands in
// the record of alerts.

const (
	reelToken = "episode"
	// partHops and partBytes bound a part, which is what of an alert's windows is in
	// memory; mostParts is how many there are of an alert.
	partHops  = 60 * episode.HopsPerSecond
	partBytes = 128 << 10
	mostParts = 16
)

// reelEntry is what is known of the windows around an alert.
type reelEntry struct {
	Number uint64 `cbor:"1,keyasint"` // of the alert
	Bytes  int64  `cbor:"2,keyasint"` // as they stand in the store
	Said   bool   `cbor:"3,keyasint,omitempty"`
	Gone   bool   `cbor:"4,keyasint,omitempty"` // they are being erased
}

// reelBook says of which alerts there are windows, the oldest first.
type reelBook struct {
	all   []reelEntry
	most  int   // alerts
	bytes int64 // of all
}

func (k *reelBook) find(number uint64) *reelEntry {
	i := slices.IndexFunc(k.all, func(e reelEntry) bool { return e.Number == number && !e.Gone })
	if i < 0 {
		return nil
	}
	return &k.all[i]
}

// sum is how many alerts there are windows of, and their bytes.
func (k *reelBook) sum() (n int, bytes int64) {
	for _, e := range k.all {
		if !e.Gone {
			n, bytes = n+1, bytes+e.Bytes
		}
	}
	return n, bytes
}

// room gives those that have to go so that so many more find room, and marks them: the
// oldest first, and those that somebody spoke of last; never those that are being filmed.
// ok is false where that is not enough: then nothing goes.
func (k *reelBook) room(alerts int, bytes int64, filmed func(number uint64) bool) (gone []uint64, ok bool) {
	n, have := k.sum()
	enough := func() bool { return n+alerts <= k.most && have+bytes <= k.bytes }
	for _, said := range []bool{false, true} {
		for i := range k.all {
			if e := &k.all[i]; !enough() && !e.Gone && e.Said == said && !filmed(e.Number) {
				gone = append(gone, e.Number)
				n, have = n-1, have-e.Bytes
			}
		}
	}
	if !enough() {
		return nil, false
	}
	for _, number := range gone {
		k.find(number).Gone = true
	}
	return gone, true
}

// hopRing holds the newest windows, as they encode themselves.
type hopRing struct {
	hops []hopKept
	next int // the oldest, once it is full
}

type hopKept struct {
	window []byte
	flags  tune.Flags
}

func (r *hopRing) add(h hopKept, most int) {
	if len(r.hops) < most {
		r.hops = append(slices.Grow(r.hops, most-len(r.hops)), h)
		return
	}
	r.hops[r.next] = h
	r.next = (r.next + 1) % most
}

// all gives the windows in order, in a slice of its own.
func (r *hopRing) all() []hopKept { return slices.Concat(r.hops[r.next:], r.hops[:r.next]) }

// filming is the windows around an alert while they come.
type filming struct {
	number uint64
	from   time.Time // of the first of hops
	by     uint64
	part   int
	wrote  int64     // bytes of this part, where it was stored before it was full
	hops   []hopKept // of this part
	bytes  int       // of them
	total  int       // hops of all parts
	soon   int       // hops until it is stored for the first time
	tail   int       // hops that follow the alert's end
}

// reelPart is a part to be stored.
type reelPart struct {
	number  uint64
	part    int
	content []byte
}

// films is what of windows a stream's goroutine keeps.
type films struct {
	book   reelBook
	recent hopRing
	parts  []reelPart // to be stored
	gone   []uint64   // to be erased
}

// encoded is the window of this hop as it encodes itself.
func (b *behaviour) encoded(w *feature.Window) []byte {
	t := &b.tuned
	if t.hop == nil {
		t.scratch = w.AppendTo(t.scratch[:0])
		t.hop = slices.Clone(t.scratch)
	}
	return t.hop
}

// filmed reports whether the windows around an alert are coming.
func (b *behaviour) filmed(number uint64) bool {
	return slices.ContainsFunc(b.tuned.around, func(a around) bool { return a.film != nil && a.number == number })
}

// film begins to keep the windows around an alert that opened in the newest hop. It is
// nil where that is not wanted.
func (b *behaviour) film(now time.Time, number uint64) *filming {
	f := &b.tuned.films
	if b.cfg.Tuning.Around <= 0 || f.book.find(number) != nil {
		return nil
	}
	gone, ok := f.book.room(1, 0, b.filmed)
	if !ok {
		return nil
	}
	f.gone = append(f.gone, gone...)
	f.book.all = append(f.book.all, reelEntry{Number: number})
	b.alerts.dirty = true
	lead := f.recent.all()
	n := &filming{
		number: number, from: now.Add(-time.Duration(len(lead)) * feature.Hop), by: printOf(b.profile.Modes),
		soon: hops(contextSoon), tail: hops(after + b.cfg.Tuning.Around),
	}
	for _, h := range lead {
		if !b.push(n, h) {
			return nil
		}
	}
	return n
}

// push adds a hop to what is filmed, and has a part stored that is full; false where
// there is no room for it.
func (b *behaviour) push(f *filming, h hopKept) bool {
	f.hops, f.bytes, f.total = append(f.hops, h), f.bytes+len(h.window), f.total+1
	if len(f.hops) < partHops && f.bytes < partBytes {
		return true
	}
	ok := b.keepPart(f)
	f.from = f.from.Add(time.Duration(len(f.hops)) * feature.Hop)
	f.part, f.wrote, f.hops, f.bytes = f.part+1, 0, nil, 0
	return ok
}

// goOn films the next hop of an alert.
func (b *behaviour) goOn(a *around, h hopKept) {
	f := a.film
	if !b.push(f, h) {
		a.film = nil
		return
	}
	if !b.alertOpen(a.id) {
		f.tail--
	}
	f.soon--
	switch {
	case f.tail <= 0 || f.total >= hops(contextMost):
		b.cut(a)
	case f.soon == 0 && !b.keepPart(f):
		a.film = nil
	}
}

// cut ends what is filmed of an alert.
func (b *behaviour) cut(a *around) {
	if a.film != nil {
		b.keepPart(a.film)
		a.film = nil
	}
}

// keepPart has the present part stored, as far as it has come; false where there is no
// room for it.
func (b *behaviour) keepPart(f *filming) bool {
	if len(f.hops) == 0 {
		return true
	}
	k := &b.tuned.films
	v := reelRecord{From: f.from, Form: b.form, By: f.by}
	var windows [][]byte
	for _, h := range f.hops {
		windows, v.Flags = append(windows, h.window), append(v.Flags, byte(h.flags))
	}
	var content []byte
	var err error
	if v.Windows, err = packWindows(windows); err == nil {
		content, err = keepMode.Marshal(v)
	}
	entry := k.book.find(f.number)
	if err != nil || entry == nil || f.part >= mostParts {
		return false
	}
	more := int64(len(content)+sealOverhead) - f.wrote
	gone, ok := k.book.room(0, more, func(number uint64) bool { return number == f.number || b.filmed(number) })
	if !ok {
		return false
	}
	k.gone = append(k.gone, gone...)
	entry.Bytes, f.wrote = entry.Bytes+more, f.wrote+more
	k.parts = append(k.parts, reelPart{f.number, f.part, content})
	b.alerts.dirty = true
	return true
}

// takeReels gives what is to be stored and erased, once.
func (b *behaviour) takeReels() (parts []reelPart, gone []uint64) {
	f := &b.tuned.films
	parts, gone = f.parts, f.gone
	f.parts, f.gone = nil, nil
	return parts, gone
}

// restoreReels takes up which alerts there are windows of, erases those that there is no
// room for any more, and goes on with what was being erased.
func (b *behaviour) restoreReels(all []reelEntry) {
	f := &b.tuned.films
	f.book.all = all
	for _, e := range all {
		if e.Gone {
			f.gone = append(f.gone, e.Number)
		}
	}
	if gone, ok := f.book.room(0, 0, b.filmed); ok && len(gone) > 0 {
		f.gone = append(f.gone, gone...)
		b.alerts.dirty = true
	}
}

// erased notes that the windows around an alert are gone.
func (b *behaviour) erased(number uint64) {
	k := &b.tuned.films.book
	k.all = slices.DeleteFunc(k.all, func(e reelEntry) bool { return e.Gone && e.Number == number })
	b.alerts.dirty = true
}

// saidOf notes which alerts somebody spoke of, or proof: their windows go last.
func (b *behaviour) saidOf(labels []label) {
	for i := range labels {
		if e := b.tuned.films.book.find(numberOf(labels[i].ID)); e != nil && !labels[i].missed() && !e.Said {
			e.Said, b.alerts.dirty = true, true
		}
	}
}
