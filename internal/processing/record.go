package processing

import (
	"context"
	"errors"
	"sync"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/store"

	"github.com/fxamacker/cbor/v2"
)

// recordToken is the first token of the streams' keys in the record store.
const recordToken = "stream"

func decodeRecord(b []byte) (gkrp.Record, error) {
	var r gkrp.Record
	err := cbor.Unmarshal(b, &r)
	return r, err
}

// writer writes a stream's record down, newest only, by compare-and-set. A slow
// store therefore never holds the stream's goroutine up. Losing the
// compare-and-set means that another instance owns the stream now.
type writer struct {
	st   *stream
	mu   sync.Mutex
	next *pendingWrite
	busy bool // drain runs

	revision uint64 // of the record; 0 where there is none; touched by drain alone
}

type pendingWrite struct {
	x      *gkrp.Session
	record gkrp.Record
}

func newWriter(st *stream, revision uint64) *writer {
	return &writer{st: st, revision: revision}
}

func (w *writer) write(x *gkrp.Session, record gkrp.Record) {
	w.mu.Lock()
	w.next = &pendingWrite{x, record}
	busy := w.busy
	w.busy = true
	w.mu.Unlock()
	if !busy {
		w.st.svc.beside(w.drain)
	}
}

// drain writes until there is nothing newer.
func (w *writer) drain() {
	for {
		w.mu.Lock()
		p := w.next
		w.next = nil
		w.busy = p != nil
		w.mu.Unlock()
		if p == nil {
			return
		}
		w.store(w.st.svc.ctx, p)
	}
}

// store writes until it is done, is overtaken by a newer record, or has lost the
// stream to another instance.
func (w *writer) store(ctx context.Context, p *pendingWrite) {
	key := recordToken + "." + string(w.st.id)
	value, err := cbor.Marshal(p.record)
	if err != nil {
		w.st.svc.log.Error("record does not encode", "stream", w.st.id, "error", err)
		return
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		err := w.put(ctx, key, value)
		switch {
		case err == nil:
			w.st.post(func() { w.st.outcome(p.x, gkrp.Recorded{Epoch: p.record.Epoch, Pending: p.record.Pending}) })
			return
		case errors.Is(err, errFenced):
			w.st.svc.log.Error("another instance owns the stream now", "stream", w.st.id)
			w.st.post(w.st.fenced)
			return
		case ctx.Err() != nil:
			return
		}
		w.st.svc.log.Warn("record was not written; trying again", "stream", w.st.id, "error", err)
		if w.st.svc.cfg.Host.Sleep(ctx, wait) != nil {
			return
		}
		w.mu.Lock()
		overtaken := w.next != nil
		w.mu.Unlock()
		if overtaken {
			return
		}
	}
}

// errFenced means that an instance with a later term wrote the record.
var errFenced = errors.New("the record is of a later term")

// put writes over the revision that this writer wrote last.
func (w *writer) put(ctx context.Context, key string, value []byte) error {
	ctx, cancel := w.st.svc.cfg.Host.WithTimeout(ctx, callTimeout)
	defer cancel()
	records := w.st.svc.records
	var rev uint64
	var err error
	if w.revision == 0 {
		rev, err = records.Create(ctx, key, value)
	} else {
		rev, err = records.Update(ctx, key, value, w.revision)
	}
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
		return w.adopt(ctx, key, err)
	}
	if err == nil {
		w.revision = rev
	}
	return err
}

// adopt finds out who wrote the record in between: this instance itself, in a
// write whose answer was lost, or one that has taken the stream over.
func (w *writer) adopt(ctx context.Context, key string, conflict error) error {
	e, err := w.st.svc.records.Get(ctx, key)
	if err != nil {
		return err
	}
	r, err := decodeRecord(e.Value)
	if err != nil {
		return err
	}
	if r.Term > w.st.svc.protocol.Term {
		return errFenced
	}
	w.revision = e.Revision
	return conflict
}

// fenced drops what this instance believed of the stream: another owns it.
func (st *stream) fenced() {
	st.machine = gkrp.NewStream(st.id, st.device, &st.svc.protocol)
	clear(st.known)
	st.lost = true
	st.disappoint(bus.Refuse(bus.CodeUnavailable, "stream %q: another instance of processing serves it now: ask again", st.id))
}
