package store

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
)

// NewMemory returns an empty store that lives as long as the process.
func NewMemory() KV {
	return &memory{keys: map[string]Entry{}, watchers: map[*memoryWatch]struct{}{}}
}

type memory struct {
	mu       sync.Mutex
	rev      uint64
	keys     map[string]Entry
	watchers map[*memoryWatch]struct{}
}

type memoryChange struct {
	entry   Entry
	deleted bool
}

type memoryWatch struct {
	prefix string
	queue  []memoryChange // guarded by memory.mu
	wake   chan struct{}  // one token: the queue may have something
}

func (m *memory) Get(ctx context.Context, key string) (Entry, error) {
	if err := cmp.Or(checkKey(key), ctx.Err()); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.keys[key]
	if !ok {
		return Entry{}, failed("get", key, ErrNotFound)
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (m *memory) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return m.write(ctx, "create", key, value, func(_ Entry, exists bool) error {
		if exists {
			return ErrExists
		}
		return nil
	})
}

func (m *memory) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return m.write(ctx, "update", key, value, func(old Entry, _ bool) error {
		if old.Revision != rev {
			return ErrConflict
		}
		return nil
	})
}

func (m *memory) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return m.write(ctx, "put", key, value, func(Entry, bool) error { return nil })
}

func (m *memory) write(ctx context.Context, op, key string, value []byte, allow func(old Entry, exists bool) error) (uint64, error) {
	if err := cmp.Or(checkKey(key), ctx.Err()); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, exists := m.keys[key]
	if err := allow(old, exists); err != nil {
		return 0, failed(op, key, err)
	}
	clear(old.Value)
	m.rev++
	e := Entry{Key: key, Value: append([]byte{}, value...), Revision: m.rev}
	m.keys[key] = e
	m.tell(e, false)
	return m.rev, nil
}

// Prune has nothing to do: a write overwrites the value before it.
func (m *memory) Prune(ctx context.Context, key string) error {
	return cmp.Or(checkKey(key), ctx.Err())
}

func (m *memory) Erase(ctx context.Context, key string) error {
	if err := cmp.Or(checkKey(key), ctx.Err()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, exists := m.keys[key]
	if !exists {
		return nil
	}
	clear(old.Value)
	delete(m.keys, key)
	m.rev++
	m.tell(Entry{Key: key, Revision: m.rev}, true)
	return nil
}

func (m *memory) List(ctx context.Context, prefix string) ([]Entry, error) {
	if err := cmp.Or(checkPrefix(prefix), ctx.Err()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list(prefix), nil
}

func (m *memory) list(prefix string) []Entry {
	var out []Entry
	for key, e := range m.keys {
		if under(key, prefix) {
			e.Value = bytes.Clone(e.Value)
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (m *memory) Watch(ctx context.Context, prefix string, fn func(Entry, bool)) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	w := &memoryWatch{prefix: prefix, wake: make(chan struct{}, 1)}
	m.mu.Lock()
	for _, e := range m.list(prefix) {
		w.queue = append(w.queue, memoryChange{entry: e})
	}
	w.wake <- struct{}{}
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		m.mu.Lock()
		queue := w.queue
		w.queue = nil
		m.mu.Unlock()
		for _, c := range queue {
			if ctx.Err() != nil {
				return nil
			}
			fn(c.entry, c.deleted)
		}
	}
}

// tell queues a change for the watchers; the caller holds the lock.
func (m *memory) tell(e Entry, deleted bool) {
	for w := range m.watchers {
		if !under(e.Key, w.prefix) {
			continue
		}
		e.Value = bytes.Clone(e.Value)
		w.queue = append(w.queue, memoryChange{e, deleted})
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
