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
// the packet path never waits for a disk.
type fileOutput struct {
	mu      sync.Mutex
	wake    sync.Cond
	buf     []byte // to be written
	closing bool
	err     error // the first failure of the disk; nothing is written after it
	dropped uint64
	done    chan struct{}
}

func newFileOutput(path string) (output, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", path, err)
	}
	o := &fileOutput{done: make(chan struct{})}
	o.wake.L = &o.mu
	go o.write(f)
	return o, nil
}

func (o *fileOutput) session(gkrp.Payload) {}

func (o *fileOutput) deliver(_ *session, d *delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil || len(o.buf)+len(d.buf) > fileBuffer {
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
			if err := f.Close(); o.err == nil {
				o.err = err
			}
			return
		}
		out, o.buf = o.buf, out[:0]
		o.mu.Unlock()
		_, err := f.Write(out)
		o.mu.Lock()
		if err != nil && o.err == nil {
			o.err = err
		}
	}
}

// close writes what waits and closes the file.
func (o *fileOutput) close() {
	o.mu.Lock()
	o.closing = true
	o.wake.Signal()
	o.mu.Unlock()
	<-o.done
}
