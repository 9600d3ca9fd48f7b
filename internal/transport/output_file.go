package transport

import (
	"fmt"
	"os"
	"sync"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// fileBuffer is how far a disk may fall behind, in bytes.
const fileBuffer = 16 << 20

// fileOutput appends the stream's bytes to a file. A goroutine writes, so that
// the packet path never waits for a disk. What a disk refuses is left out, and what
// follows is tried again: a full disk may have room later.
type fileOutput struct {
	path    string
	mu      sync.Mutex
	wake    sync.Cond
	buf     []byte // to be written
	closing bool
	err     error  // of the last write that failed, since trouble was asked last
	dropped uint64 // bytes that were not written, since then
	done    chan struct{}
}

func newFileOutput(path string) (output, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", path, err)
	}
	o := &fileOutput{path: path, done: make(chan struct{})}
	o.wake.L = &o.mu
	go o.write(f)
	return o, nil
}

func (o *fileOutput) session(gkrp.Payload) {}

func (o *fileOutput) deliver(_ *session, d *delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf)+len(d.buf) > fileBuffer {
		o.dropped += uint64(len(d.buf))
		return
	}
	o.buf = append(o.buf, d.buf...)
	o.wake.Signal()
}

func (o *fileOutput) write(f *os.File) {
	defer close(o.done)
	var out []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 && !o.closing {
			o.wake.Wait()
		}
		if len(o.buf) == 0 {
			if err := f.Close(); err != nil {
				o.err = err
			}
			return
		}
		out, o.buf = o.buf, out[:0]
		o.mu.Unlock()
		n, err := f.Write(out)
		o.mu.Lock()
		if err != nil {
			o.err = err
			o.dropped += uint64(len(out) - n)
		}
	}
}

// trouble says what was not written since it was asked last; nil: nothing.
func (o *fileOutput) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err, dropped := o.err, o.dropped
	o.err, o.dropped = nil, 0
	switch {
	case err != nil:
		return fmt.Errorf("%d bytes were not written to %s: %w: make room there, or mend the disk", dropped, o.path, err)
	case dropped > 0:
		return fmt.Errorf("%d bytes were not written to %s: the disk does not keep up", dropped, o.path)
	}
	return nil
}

// outputTroubles says what outputs could not write since it was asked last.
func (s *Service) outputTroubles() (all []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		for _, o := range st.outputs {
			if t, ok := o.(interface{ trouble() error }); ok {
				if err := t.trouble(); err != nil {
					all = append(all, err)
				}
			}
		}
	}
	return all
}

// close writes what waits and closes the file.
func (o *fileOutput) close() {
	o.mu.Lock()
	o.closing = true
	o.wake.Signal()
	o.mu.Unlock()
	<-o.done
}
