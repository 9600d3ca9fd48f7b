package kms

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

var errBroken = errors.New("the store is broken")

// broken is a store that fails writes as it is told: before they are done, or
// after, so that the writer never learns that they were.
type broken struct {
	store.KV
	draw func() int // 0 goes well, 1 fails before, 2 fails after
}

func (b *broken) write(do func() error) error {
	how := b.draw()
	if how == 1 {
		return errBroken
	}
	err := do()
	if how == 2 {
		return errBroken
	}
	return err
}

func (b *broken) Create(ctx context.Context, key string, v []byte) (rev uint64, err error) {
	return rev, b.write(func() error { rev, err = b.KV.Create(ctx, key, v); return err })
}

func (b *broken) Update(ctx context.Context, key string, v []byte, old uint64) (rev uint64, err error) {
	return rev, b.write(func() error { rev, err = b.KV.Update(ctx, key, v, old); return err })
}

func (b *broken) Put(ctx context.Context, key string, v []byte) (rev uint64, err error) {
	return rev, b.write(func() error { rev, err = b.KV.Put(ctx, key, v); return err })
}

func (b *broken) Erase(ctx context.Context, key string) error {
	return b.write(func() error { return b.KV.Erase(ctx, key) })
}

type placed struct {
	session gk.SessionID
	epoch   gk.Epoch
}

// history is what the world outside has seen of one stream.
type history struct {
	keys   map[placed]keyring.MediaKey
	owner  map[gk.Epoch]gk.SessionID
	first  map[gk.SessionID]gk.Epoch // of every session that is open
	next   map[gk.SessionID]gk.Epoch // the next one to release
	asked  map[gk.SessionID]gk.Epoch // the highest epoch seen when it was first asked for
	unsure map[gk.SessionID]bool     // its end was asked for, and the answer was an error
	high   gk.Epoch
	gone   map[placed]bool
	opened int
}

// starts takes note of a session's first epoch, as an answer tells it.
func (h *history) starts(rt *rapid.T, id gk.SessionID, epoch gk.Epoch) {
	first, known := h.first[id]
	if known && epoch == first {
		return
	}
	if known && !h.unsure[id] {
		rt.Fatalf("session %v starts at %d, then at %d", id, first, epoch)
	}
	if epoch <= h.asked[id] {
		rt.Fatalf("session %v starts at %d, though %d was given out before", id, epoch, h.asked[id])
	}
	h.first[id], h.next[id] = epoch, epoch
	delete(h.unsure, id)
}

// ends takes note that a session and its keys are over.
func (h *history) ends(id gk.SessionID) {
	delete(h.first, id)
	delete(h.next, id)
	delete(h.asked, id)
	delete(h.unsure, id)
}

// Whatever is asked, in whatever order, through crashes and writes that fail or
// seem to: one (stream, session, epoch) has one key for ever, one epoch belongs
// to one session, a session starts above everything seen before, and no key is
// released that the store does not have.
func TestEpochsNeverFork(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		faulty := &broken{KV: store.NewMemory(), draw: func() int { return 0 }}
		s := &site{t: rt, kek: "file:" + filepath.Join(dir, "kek"), kv: faulty, mem: bus.NewMemory()}
		s.restart()
		cam := s.enrolled("cam-1")
		h := &history{
			keys: map[placed]keyring.MediaKey{}, owner: map[gk.Epoch]gk.SessionID{},
			first: map[gk.SessionID]gk.Epoch{}, next: map[gk.SessionID]gk.Epoch{},
			gone: map[placed]bool{}, asked: map[gk.SessionID]gk.Epoch{}, unsure: map[gk.SessionID]bool{},
		}
		faults := rapid.SampledFrom([]int{0, 0, 0, 1, 2})
		ctx := context.Background()
		pick := func(rt *rapid.T) (gk.SessionID, bool) {
			if h.opened == 0 {
				return gk.SessionID{}, false
			}
			return sid(byte(rapid.IntRange(1, h.opened).Draw(rt, "session"))), true
		}
		open := func(rt *rapid.T, id gk.SessionID, high gk.Epoch) {
			if _, asked := h.asked[id]; !asked {
				h.asked[id] = h.high
			}
			faulty.draw = func() int { return faults.Draw(rt, "fault") }
			rep, err := s.open(ctx, bus.KMSOpenRequest{Device: "cam-1", Stream: "cam-1", Session: id, HighWater: high, SSRC: ssrcOf("cam-1", id)})
			faulty.draw = func() int { return 0 }
			if err != nil {
				return
			}
			if rep.Epoch <= high {
				rt.Fatalf("session %v starts at %d with a high-water mark of %d", id, rep.Epoch, high)
			}
			h.starts(rt, id, rep.Epoch)
		}
		check := func(rt *rapid.T, id gk.SessionID, epoch gk.Epoch) {
			key, prekey := cam.prekey("cam-1", id)
			faulty.draw = func() int { return faults.Draw(rt, "fault") }
			rep, err := s.release(ctx, bus.KMSReleaseRequest{Device: "cam-1", Stream: "cam-1", Session: id, Epoch: epoch, Prekey: prekey})
			faulty.draw = func() int { return 0 }
			if err != nil {
				return
			}
			if epoch == 0 {
				epoch = rep.Epoch
			}
			at := placed{id, epoch}
			e, m := opened(rt, cam.kms, key, rep.Device)
			if e.Epoch != epoch || e.Session != id {
				rt.Fatalf("asked for %v, got %+v", at, e)
			}
			if old, seen := h.keys[at]; seen && !old.Equal(m) {
				rt.Fatalf("%v has two keys", at)
			}
			if h.gone[at] {
				rt.Fatalf("%v was destroyed and came back", at)
			}
			if owner, seen := h.owner[epoch]; seen && owner != id {
				rt.Fatalf("epoch %d belongs to %v and %v", epoch, owner, id)
			}
			stored, err := faulty.KV.Get(ctx, mediaKey("cam-1", id, epoch))
			if err != nil {
				rt.Fatalf("%v was released but is not stored: %v", at, err)
			}
			if k, err := s.openKey("cam-1", id, epoch, stored); err != nil || !k.media.Equal(m) {
				rt.Fatalf("%v is stored otherwise: %v", at, err)
			}
			// The answer to an open may have been lost; the first key tells then.
			if _, known := h.first[id]; !known || h.unsure[id] && epoch > h.next[id] {
				h.starts(rt, id, epoch)
			}
			h.keys[at], h.owner[epoch] = m, id
			h.high = max(h.high, epoch)
			h.next[id] = max(h.next[id], epoch+1)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open a session": func(rt *rapid.T) {
				if h.opened >= 6 {
					rt.Skip("enough")
				}
				h.opened++
				open(rt, sid(byte(h.opened)), gk.Epoch(rapid.IntRange(0, 30).Draw(rt, "high water")))
			},
			"open again": func(rt *rapid.T) {
				if id, ok := pick(rt); ok {
					open(rt, id, 0)
				}
			},
			"release the next": func(rt *rapid.T) {
				if id, ok := pick(rt); ok {
					check(rt, id, h.next[id])
				}
			},
			"release any": func(rt *rapid.T) {
				if id, ok := pick(rt); ok {
					check(rt, id, gk.Epoch(rapid.IntRange(0, int(h.high)+4).Draw(rt, "epoch")))
				}
			},
			"destroy": func(rt *rapid.T) {
				id, ok := pick(rt)
				if !ok || h.next[id] == 0 {
					rt.Skip("nothing")
				}
				epoch := gk.Epoch(rapid.IntRange(0, int(h.next[id])).Draw(rt, "epoch"))
				faulty.draw = func() int { return faults.Draw(rt, "fault") }
				_, err := s.setState(ctx, bus.KMSStateRequest{Stream: "cam-1", Session: id, Epoch: epoch, State: bus.KeyDestroyed})
				faulty.draw = func() int { return 0 }
				if err != nil {
					h.unsure[id] = h.unsure[id] || epoch == 0
					return
				}
				for at := range h.keys {
					if at.session == id && (epoch == 0 || at.epoch == epoch) {
						h.gone[at] = true
					}
				}
				if epoch == 0 {
					h.ends(id)
				}
			},
			"save": func(rt *rapid.T) {
				faulty.draw = func() int { return faults.Draw(rt, "fault") }
				s.savePending(ctx)
				faulty.draw = func() int { return 0 }
			},
			"crash": func(*rapid.T) { s.restart() },
			"": func(rt *rapid.T) {
				for at := range h.gone {
					if _, err := faulty.KV.Get(ctx, mediaKey("cam-1", at.session, at.epoch)); !errors.Is(err, store.ErrNotFound) {
						rt.Fatalf("%v was destroyed and is stored", at)
					}
				}
			},
		})
	})
}
