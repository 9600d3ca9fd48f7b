package sim

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/store"
)

// disk is what outlives every process: the replicated store. Its faults are
// those of the real one while it elects a leader: operations wait, or fail
// without a word on whether they were done, or are done after the asker gave up.
type disk struct {
	*world
	entries map[string]entry
	rev     uint64
	stalled time.Duration // until then nothing is answered
	backup  map[string]entry
	termBy  *process         // whose write of the fencing term was the last
	before  map[string]entry // of a lease's record: what stale reads show
}

var errNoAnswer = errors.New("sim: the store did not answer")

// shelf is one process's connection to the disk.
type shelf struct {
	p *process
	d *disk
}

// op does something to the disk in its time. write tells whether it changes it.
func (s *shelf) op(ctx context.Context, write bool, do func()) error {
	d, p := s.d, s.p
	if p.dead {
		return errCrashed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f := d.weather.disk
	var delay time.Duration
	if d.chance(f.slow) {
		delay = d.between(0, f.delay)
	}
	if left := max(d.stalled, d.stranded[p.name]) - d.engine.now; left > 0 {
		delay += left
	}
	if write && p.fuse.burns() {
		// A crash just before the write, or just after.
		if d.chance(0.5) {
			do()
		}
		d.trace("%s crashes in a write", p.name)
		p.crash()
		return errCrashed
	}
	if d.chance(f.fail) {
		if d.chance(0.5) {
			do()
		}
		return errNoAnswer
	}
	if delay == 0 {
		do()
		return nil
	}
	early := d.chance(0.5)
	if early {
		do()
	}
	if err := p.wait(ctx, delay); err != nil {
		if write && !early && d.chance(0.5) {
			d.after(d.stalled-d.engine.now+time.Millisecond, do) // nobody waits for it any more
		}
		return err
	}
	if !early {
		do()
	}
	return nil
}

func (s *shelf) Get(ctx context.Context, key string) (e store.Entry, err error) {
	found := false
	if err = s.op(ctx, false, func() { e, found = s.d.entries[key] }); err != nil {
		return store.Entry{}, err
	}
	// The store promises that reads follow writes. A lease must not depend on it.
	if was := s.d.before[key]; was.Revision != 0 && s.d.chance(s.d.staleReads()) {
		e, found = was, true
	}
	if !found {
		return store.Entry{}, store.ErrNotFound
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (s *shelf) write(ctx context.Context, key string, value []byte, refuse func(old store.Entry, exists bool) error) (rev uint64, err error) {
	var refused error
	value = bytes.Clone(value)
	err = s.op(ctx, true, func() {
		old, exists := s.d.entries[key]
		if refused = refuse(old, exists); refused != nil {
			return
		}
		s.d.rev++
		rev = s.d.rev
		switch key {
		case termRecord:
			s.d.termBy = s.p
		case ownerRecord:
			s.d.before = map[string]entry{key: old}
			s.d.check.leaseWritten(s.p, value, exists)
		}
		if s.d.broken(breakPersistence) && strings.HasPrefix(key, "key.") || s.d.broken(breakCounting) && strings.HasPrefix(key, "head.") && exists {
			return
		}
		s.d.entries[key] = store.Entry{Key: key, Value: value, Revision: rev}
	})
	if err == nil {
		err = refused
	}
	return rev, err
}

func (s *shelf) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, key, value, func(_ store.Entry, exists bool) error {
		if exists {
			return store.ErrExists
		}
		return nil
	})
}

func (s *shelf) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return s.write(ctx, key, value, func(old store.Entry, _ bool) error {
		if old.Revision != rev && !(key == ownerRecord && s.d.broken(breakTurn)) {
			return store.ErrConflict
		}
		return nil
	})
}

func (s *shelf) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, key, value, func(store.Entry, bool) error { return nil })
}

func (s *shelf) Prune(ctx context.Context, _ string) error {
	return s.op(ctx, true, func() {})
}

func (s *shelf) Erase(ctx context.Context, key string) error {
	return s.op(ctx, true, func() {
		s.d.rev++
		if strings.HasPrefix(key, "key.") {
			s.d.check.erased(key)
		}
		delete(s.d.entries, key)
	})
}

func (s *shelf) List(ctx context.Context, prefix string) (out []store.Entry, err error) {
	err = s.op(ctx, false, func() {
		out = nil
		for key, e := range s.d.entries {
			if prefix == "" || key == prefix || strings.HasPrefix(key, prefix+".") {
				e.Value = bytes.Clone(e.Value)
				out = append(out, e)
			}
		}
		slices.SortFunc(out, func(a, b store.Entry) int { return strings.Compare(a.Key, b.Key) })
	})
	return out, err
}

// Watch is not needed: what other instances would write is written by none.
func (s *shelf) Watch(context.Context, string, func(store.Entry, bool)) error { return nil }

// save makes a backup, and restore brings it back.
type entry = store.Entry

func (d *disk) save() { d.backup = maps.Clone(d.entries) }

func (d *disk) restore() { d.entries = maps.Clone(d.backup) }
