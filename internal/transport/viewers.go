package transport

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

var (
	errViewerSlow   = errors.New("viewer fell too far behind")
	errViewersFull  = errors.New("the stream has as many viewers as it may have: try later")
	errStreamCut    = errors.New("the stream was cut off")
	errStreamClosed = errors.New("the service is stopping")
	errNoData       = errors.New("nothing arrived")
	errNotTS        = errors.New("the stream does not carry MPEG-TS")
)

// viewers is the ring of a stream's latest bytes, and those who read it. Every
// viewer reads at its own pace; one that falls behind by more than the ring is
// dropped, and nobody waits for it. The ring exists while there are viewers.
type viewers struct {
	mu      sync.Mutex
	wake    sync.Cond
	size    int // of the ring: a multiple of a transport stream packet
	most    int
	all     []*viewer
	ring    []byte
	head    uint64 // bytes ever written; the ring holds the last size of them
	notTS   uint64 // packets that were not MPEG-TS
	closed  bool
	stopped error // why nobody may join for now
	payload gkrp.Payload
}

func newViewers(buffer, most int) *viewers {
	v := &viewers{size: max(1, buffer/media.TSPacketSize) * media.TSPacketSize, most: most}
	v.wake.L = &v.mu
	return v
}

// assign tells what the next session carries.
func (v *viewers) assign(p gkrp.Payload) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.payload = p
}

func (v *viewers) carries() gkrp.Payload {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.payload
}

func (v *viewers) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.all)
}

// deliver writes what a batch gave into the ring.
func (v *viewers) deliver(d *delivery) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.all) == 0 {
		return
	}
	for _, u := range d.units {
		if !media.ValidTS(u.payload) {
			v.notTS++
			continue
		}
		for b := u.payload; len(b) > 0; {
			n := copy(v.ring[v.head%uint64(v.size):], b)
			v.head += uint64(n)
			b = b[n:]
		}
	}
	v.wake.Broadcast()
}

func (v *viewers) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.wake.Broadcast()
}

// cut ends every viewer there is, and drops what it has not read yet. Others may
// join.
func (v *viewers) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.all {
		r.ended = true
		if !r.cutOff {
			r.cutOff = true
			r.cut()
		}
	}
	v.wake.Broadcast()
}

// stop cuts off every viewer and lets none join for the given reason, until it is
// called with none.
func (v *viewers) stop(why error) {
	v.mu.Lock()
	v.stopped = why
	v.mu.Unlock()
	if why != nil {
		v.cut()
	}
}

// dropSlow cuts off the viewers that fell behind by more than the ring. One of
// them may be waiting for its network, and would not notice by itself.
func (v *viewers) dropSlow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.all {
		if !r.cutOff && r.behind() {
			r.cutOff = true
			r.cut()
		}
	}
}

// join adds a viewer, who sees what comes from now on. cut is called, once at
// most, to make a write to the viewer fail; it must not wait.
func (v *viewers) join(cut func()) (*viewer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return nil, errStreamClosed
	case v.stopped != nil:
		return nil, v.stopped
	case len(v.all) >= v.most:
		return nil, errViewersFull
	case len(v.all) == 0:
		v.ring = make([]byte, v.size)
	}
	r := &viewer{v: v, at: v.head, notTS: v.notTS, cut: cut}
	v.all = append(v.all, r)
	return r, nil
}

// viewer reads a stream from a key frame on, with the program's tables in front,
// so that a player shows a whole picture at once. A stream that marks no key
// frame is read from a program association table on.
type viewer struct {
	v       *viewers
	at      uint64
	notTS   uint64 // what was not MPEG-TS when it joined
	started bool
	cut     func()
	cutOff  bool
	ended   bool // it gets nothing more

	tables []byte // the newest association and map table, while waiting for a key frame
	pmt    uint16 // PID of the map table
	pats   int    // association tables seen
	video  bool   // a video packet was seen
}

// The tables are repeated about ten times a second. A viewer that has seen so many
// without a key frame, or without any video, starts where it is.
const (
	mostPATs     = 40
	mostPATsDeaf = 10
)

func (r *viewer) behind() bool { return r.v.head-r.at > uint64(r.v.size) }

// over reports whether the viewer was cut off from the stream.
func (r *viewer) over() bool {
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	return r.ended
}

func (r *viewer) leave() {
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	r.v.all = slices.DeleteFunc(r.v.all, func(o *viewer) bool { return o == r })
	if len(r.v.all) == 0 {
		r.v.ring = nil
	}
}

// read waits for bytes and copies whole transport stream packets into b, as many
// as fit. The errors are that of ctx, or why the viewer must go: it is too slow,
// nothing came for patience, what came is no MPEG-TS, or the service stops.
func (r *viewer) read(ctx context.Context, b []byte, patience time.Duration) (int, error) {
	stop := context.AfterFunc(ctx, r.v.interrupt)
	defer stop()
	late := false
	timer := time.AfterFunc(patience, func() {
		r.v.mu.Lock()
		defer r.v.mu.Unlock()
		late = true
		r.v.wake.Broadcast()
	})
	defer timer.Stop()

	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case r.ended:
			return 0, errStreamCut
		case r.behind():
			return 0, errViewerSlow
		}
		if n := r.take(b); n > 0 {
			return n, nil
		}
		switch {
		case r.v.closed:
			return 0, errStreamClosed
		case late && !r.started && r.v.notTS > r.notTS:
			return 0, errNotTS
		case late:
			return 0, errNoData
		}
		r.v.wake.Wait()
	}
}

func (v *viewers) interrupt() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wake.Broadcast()
}

// start looks for the place to begin, and reports whether it is r.at.
func (r *viewer) start() bool {
	v := r.v
	for ; r.at < v.head; r.at += media.TSPacketSize {
		at := r.at % uint64(v.size)
		ts := v.ring[at : at+media.TSPacketSize]
		switch {
		case media.FindPAT(ts) == 0:
			if r.pats++; r.pats >= mostPATs || r.pats >= mostPATsDeaf && !r.video {
				r.tables = nil
				return true
			}
			r.pmt, _ = media.ProgramMapPID(ts)
			r.tables = append(r.tables[:0], ts...)
		case r.pmt != 0 && media.PID(ts) == r.pmt && len(r.tables) == media.TSPacketSize:
			r.tables = append(r.tables, ts...)
		case media.VideoStart(ts):
			r.video = true
			if media.RandomAccess(ts) && len(r.tables) > media.TSPacketSize {
				return true
			}
		}
	}
	return false
}

// take copies what is there, from where the viewer begins on.
func (r *viewer) take(b []byte) int {
	v := r.v
	if !r.started {
		if r.started = r.start(); !r.started {
			return 0
		}
	}
	n := copy(b, r.tables)
	r.tables = r.tables[n:]
	for n+media.TSPacketSize <= len(b) && r.at < v.head {
		at := r.at % uint64(v.size)
		want := min(uint64(len(b)-n)/media.TSPacketSize*media.TSPacketSize, v.head-r.at)
		c := copy(b[n:n+int(want)], v.ring[at:])
		n += c
		r.at += uint64(c)
	}
	return n
}
