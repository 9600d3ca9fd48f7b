package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	// maxUntimed is how much of a stream may pass without a clock reference
	// before it is judged to have none, in bytes.
	maxUntimed = 4 << 20
	// sniffLimit is how much input may pass before it must have shown itself to
	// be MPEG-TS, in bytes.
	sniffLimit = 64 << 10
	// sniffHead is how much of it is kept to tell what it is instead, in bytes.
	sniffHead = 1024
	// lateness is how far sending may fall behind the stream's clock before the
	// clock is taken as new: a pipe that paused is not made up for in a burst.
	lateness = 500 * time.Millisecond
	// slack is how early a packet may be sent, so that one timer serves several.
	slack = time.Millisecond
)

var payloadMP2T = gkrp.Payload{Kind: gkrp.PayloadMP2T, Type: media.PayloadTypeTS, ClockRate: 90_000, Encoding: "MP2T"}

// pacedSource sends a stored or piped transport stream at the pace of its own
// clock: each packet at the time that ISO/IEC 13818-1 §2.4.2.2 gives it,
// interpolated between the program clock references around it.
type pacedSource struct {
	name    string
	in      *pump
	sched   schedule
	probed  bool
	total   int // bytes read so far, while sniffing
	head    []byte
	ended   error
	anchor  time.Time // the wall clock's time of media time zero
	started bool
}

func newPacedSource(name string, r io.ReadCloser, again func() error) *pacedSource {
	return &pacedSource{name: name, in: newPump(r, again)}
}

func openFile(path string, loop bool) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("source: %w: give an MPEG-TS file, or udp://, rtp://, exec: or -", err)
	}
	if st, err := f.Stat(); err != nil || st.IsDir() {
		_ = f.Close()
		return nil, fmt.Errorf("source: %s is a directory: name the MPEG-TS file in it", path)
	}
	// A file that is plainly something else is refused at once, before anything
	// is asked of a service.
	head := make([]byte, sniffHead)
	n, _ := f.ReadAt(head, 0) // what cannot be read now is told when it is played
	if found, mend, known := recognise(head[:n]); known {
		_ = f.Close()
		return nil, notTS(path, found, mend)
	}
	var again func() error
	if loop {
		again = func() error { _, err := f.Seek(0, io.SeekStart); return err }
	}
	return newPacedSource(path, f, again), nil
}

// NewClipSource plays a transport stream held by r, like a file.
func NewClipSource(r io.ReadSeeker, loop bool) Source {
	var again func() error
	if loop {
		again = func() error { _, err := r.Seek(0, io.SeekStart); return err }
	}
	return newPacedSource("clip", io.NopCloser(r), again)
}

// Probe implements [Source]: it reads until the stream has shown its clock.
func (s *pacedSource) Probe(ctx context.Context) (gkrp.Payload, error) {
	if err := s.fill(ctx, 1); err != nil && !errors.Is(err, io.EOF) {
		return gkrp.Payload{}, err
	}
	if s.sched.timed() == 0 {
		if s.sched.len() > 0 && periodic(s.head, media.TSPacketSize) {
			return gkrp.Payload{}, fmt.Errorf("source %s: MPEG-TS without a program clock reference (PCR): it cannot be paced; re-multiplex it: ffmpeg -i INPUT -c copy -f mpegts OUTPUT.ts", s.name)
		}
		return gkrp.Payload{}, s.notTS()
	}
	s.probed = true
	return payloadMP2T, nil
}

func (s *pacedSource) notTS() error {
	found, mend := describeInput(s.head)
	return notTS(s.name, found, mend)
}

func notTS(name, found, mend string) error {
	if ext := filepath.Ext(name); ext != "" { // a file, and not a pipe
		mend = strings.NewReplacer("INPUT", name, "OUTPUT.ts", strings.TrimSuffix(name, ext)+".ts").Replace(mend)
	}
	return fmt.Errorf("source %s is not MPEG-TS: found %s; %s", name, found, mend)
}

// fill reads until n packets have their time, or the stream ends.
func (s *pacedSource) fill(ctx context.Context, n int) error {
	for s.sched.timed() < n {
		if s.ended != nil {
			return s.ended
		}
		b, err := s.in.next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.sched.finish()
			if s.ended = err; !errors.Is(err, io.EOF) {
				s.ended = fmt.Errorf("source %s: %w", s.name, err)
			}
			continue
		}
		if !s.probed {
			s.total += len(b)
			if want := sniffHead - len(s.head); want > 0 {
				s.head = append(s.head, b[:min(want, len(b))]...)
			}
		}
		s.sched.push(b)
		s.in.release(b)
		if !s.probed && s.sched.len() == 0 && s.total >= sniffLimit {
			return s.notTS()
		}
		if s.sched.untimedBytes() > maxUntimed && !s.sched.estimate() {
			return nil
		}
	}
	return nil
}

// Read implements [Source]. It returns when the stream's clock says so.
func (s *pacedSource) Read(ctx context.Context, b *Batch) error {
	b.reset()
	if !s.probed {
		if _, err := s.Probe(ctx); err != nil {
			return err
		}
	}
	if err := s.fill(ctx, media.TSPerRTP); err != nil && (s.sched.timed() == 0 || ctx.Err() != nil) {
		return err
	}
	due := s.sched.due()
	now := time.Now()
	if !s.started {
		s.started = true
		s.anchor = now.Add(-due)
	}
	at := s.anchor.Add(due)
	if now.Sub(at) > lateness {
		s.anchor = now.Add(-due)
	} else if wait := at.Sub(now); wait > 0 {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		now = at
	}
	s.sched.take(b, now.Add(slack).Sub(s.anchor))
	return nil
}

// Dropped implements [Source], in bytes.
func (s *pacedSource) Dropped() uint64 { return s.sched.skipped.Load() }

// Close implements [Source].
func (s *pacedSource) Close() error { return s.in.close() }
