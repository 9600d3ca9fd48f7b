package media

import "github.com/gaitkeeper/gaitkeeper"

// windowSize is how many indices, up to the highest, a receiver remembers. At
// 10 Mb/s it covers a second; the reorder buffer waits an eighth of that.
const windowSize = 1024

// replayWindow remembers which of the last windowSize indices were
// authenticated, and the first four bytes of each one's tag: a repeated index with
// the same tag is the network's doing, one with another tag is a second writer's.
// By chance two tags begin alike once in four thousand million. The zero value has
// seen nothing.
type replayWindow struct {
	started bool
	highest gaitkeeper.Index
	seen    [windowSize / 64]uint64
	tags    [windowSize]uint32
}

type replayState uint8

const (
	replayFresh   replayState = iota // not seen, may be accepted
	replaySeen                       // was authenticated before
	replayTooOld                     // below the window: unknowable
	replayUnknown                    // not an index
)

func (w *replayWindow) state(i gaitkeeper.Index) replayState {
	switch {
	case i > gaitkeeper.MaxIndex:
		return replayUnknown
	case !w.started || i > w.highest:
		return replayFresh
	case w.highest-i >= windowSize:
		return replayTooOld
	case w.seen[i%windowSize/64]&(1<<(i%64)) != 0:
		return replaySeen
	}
	return replayFresh
}

// tag is the stored beginning of the tag of an index in state replaySeen.
func (w *replayWindow) tag(i gaitkeeper.Index) uint32 { return w.tags[i%windowSize] }

// mark records an authenticated index in state replayFresh.
func (w *replayWindow) mark(i gaitkeeper.Index, tag uint32) {
	switch {
	case !w.started:
		w.started, w.highest = true, i
	case i > w.highest:
		w.forget(i)
		w.highest = i
	}
	w.seen[i%windowSize/64] |= 1 << (i % 64)
	w.tags[i%windowSize] = tag
}

// forget clears the places that the indices above highest, up to i, come to use.
func (w *replayWindow) forget(i gaitkeeper.Index) {
	if i-w.highest >= windowSize {
		clear(w.seen[:])
		return
	}
	for j := w.highest + 1; j <= i; j++ {
		w.seen[j%windowSize/64] &^= 1 << (j % 64)
	}
}
