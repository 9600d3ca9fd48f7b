package device

import (
	"context"
	"errors"
	"io"
	"sync"
)

const (
	pumpChunk = 32 << 10
	pumpDepth = 4
)

// pump reads a byte stream ahead in a goroutine of its own, so that whoever
// waits for bytes can also stop waiting. The pipe's writer is held back once
// pumpDepth chunks are unread.
type pump struct {
	r      io.Closer
	full   chan []byte
	free   chan []byte
	closed chan struct{}
	once   sync.Once
	err    error // why full was closed
}

// newPump starts to read r. At the end it calls again, if there is one, and goes
// on when that succeeds.
func newPump(r io.ReadCloser, again func() error) *pump {
	p := &pump{
		r: r, full: make(chan []byte, pumpDepth), free: make(chan []byte, pumpDepth+1), closed: make(chan struct{}),
	}
	for range pumpDepth + 1 {
		p.free <- make([]byte, pumpChunk)
	}
	go p.run(r, again)
	return p
}

func (p *pump) run(r io.Reader, again func() error) {
	defer close(p.full)
	fresh := false // something was read since the last start
	for {
		var b []byte
		select {
		case b = <-p.free:
		case <-p.closed:
			p.err = io.ErrClosedPipe
			return
		}
		n, err := r.Read(b[:cap(b)])
		if n > 0 {
			fresh = true
			select {
			case p.full <- b[:n]:
			case <-p.closed:
				p.err = io.ErrClosedPipe
				return
			}
		} else {
			p.free <- b
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && again != nil && fresh && again() == nil {
			fresh = false
			continue
		}
		p.err = err
		return
	}
}

// next waits for the next chunk, which goes back with release. The error is
// [io.EOF] at the end, the reader's own, or ctx's.
func (p *pump) next(ctx context.Context) ([]byte, error) {
	select {
	case b, ok := <-p.full:
		if !ok {
			return nil, p.err
		}
		return b, nil
	default:
	}
	select {
	case b, ok := <-p.full:
		if !ok {
			return nil, p.err
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pump) release(b []byte) { p.free <- b }

func (p *pump) close() error {
	err := error(nil)
	p.once.Do(func() {
		close(p.closed)
		err = p.r.Close()
	})
	return err
}
