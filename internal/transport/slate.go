package transport

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	maxSlate  = 16 << 20 // bytes of a clip
	leastClip = 100 * time.Millisecond
	mostClip  = 10 * time.Minute
)

// Slate is a short MPEG-TS clip that is shown, over and over, in place of a stream
// that is held. It belongs to nobody: it may be played by many at once.
type Slate struct {
	ts     []byte          // whole packets
	at     []time.Duration // when each is due, from the clip's beginning; rising
	pcr    int             // the first packet with a clock reference
	length time.Duration
}

// LoadSlate reads a clip from a file of at most 16 MiB. The error says what the
// clip lacks.
func LoadSlate(path string) (*Slate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("slate: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSlate+1))
	if err != nil {
		return nil, fmt.Errorf("slate: %w", err)
	}
	s, err := ParseSlate(b)
	if err != nil {
		return nil, fmt.Errorf("slate %s: %w: make one with ffmpeg -loop 1 -i PICTURE -t 5 -pix_fmt yuv420p -f mpegts FILE.ts", path, err)
	}
	return s, nil
}

// ParseSlate reads a clip. Between two clock references packets are spread evenly.
func ParseSlate(b []byte) (*Slate, error) {
	if len(b) > maxSlate {
		return nil, fmt.Errorf("longer than %d MiB", maxSlate>>20)
	}
	s := &Slate{pcr: -1}
	var align media.TSAligner
	var clock media.PCRClock
	var since int // packet of the last reference
	var last time.Duration
	add := func(ts []byte) {
		here := len(s.at)
		s.ts = append(s.ts, ts...)
		s.at = append(s.at, last)
		tick, ok := clock.Next(ts)
		if !ok {
			return
		}
		if s.pcr < 0 {
			s.pcr, since = here, here
			return
		}
		for i := since; i <= here; i++ {
			s.at[i] = last + (tick.Elapsed-last)*time.Duration(i-since)/time.Duration(here-since)
		}
		since, last = here, tick.Elapsed
	}
	packets := func(run []byte) {
		for ts := range slices.Chunk(run, media.TSPacketSize) {
			add(ts)
		}
	}
	align.Push(b, packets)
	align.Flush(packets)
	switch {
	case len(s.at) == 0 || !media.ValidTS(s.ts):
		return nil, errors.New("no MPEG-TS")
	case media.FindPAT(s.ts) < 0:
		return nil, errors.New("there is no program association table in it")
	case s.pcr < 0 || last < leastClip:
		return nil, fmt.Errorf("its clock (PCR) does not run for %v", leastClip)
	case last > mostClip:
		return nil, fmt.Errorf("longer than %v", mostClip)
	}
	// What follows the last reference goes on at the mean pace.
	each := last / time.Duration(max(since-s.pcr, 1))
	for i := since + 1; i < len(s.at); i++ {
		s.at[i] = s.at[i-1] + each
	}
	s.length = s.at[len(s.at)-1] + each
	return s, nil
}

// slatePlayer plays a clip in real time. Continuity counters go on over its loops;
// each loop's clock begins anew, and says so (ISO/IEC 13818-1 §2.4.3.5).
type slatePlayer struct {
	*Slate
	began    time.Time // the loop in play
	next     int
	counters map[uint16]byte
	buf      [media.TSPerRTP * media.TSPacketSize]byte
}

func newSlatePlayer(s *Slate, now time.Time) *slatePlayer {
	return &slatePlayer{Slate: s, began: now, counters: map[uint16]byte{}}
}

// due gives the next packets that are due, one RTP payload's worth at most, and
// none when all that is due was given. They are valid until due is called again.
// After a pause it goes on from now.
func (p *slatePlayer) due(now time.Time) []byte {
	if now.Sub(p.began) > 2*p.length {
		p.began = now.Add(-p.at[p.next])
	}
	out := p.buf[:0]
	for len(out) < cap(out) && !now.Before(p.began.Add(p.at[p.next])) {
		at := len(out)
		out = append(out, p.ts[p.next*media.TSPacketSize:][:media.TSPacketSize]...)
		p.stamp(out[at:], p.next == p.pcr)
		if p.next++; p.next == len(p.at) {
			p.next, p.began = 0, p.began.Add(p.length)
		}
	}
	return out
}

// stamp gives a packet its continuity counter, and the first clock reference of a
// loop its mark.
func (p *slatePlayer) stamp(ts []byte, first bool) {
	if first {
		ts[5] |= 0x80 // a packet with a reference has an adaptation field
	}
	pid := media.PID(ts)
	if ts[3]&0x10 != 0 { // only payload counts
		p.counters[pid] = (p.counters[pid] + 1) & 0x0f
	}
	ts[3] = ts[3]&0xf0 | p.counters[pid]
}
