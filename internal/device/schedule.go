package device

import (
	"sync/atomic"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// schedule gives every packet of a transport stream its time. Packets between
// two clock references are spread evenly between them; past a jump of the clock,
// and at the stream's end, the last rate holds. It reads no clock of its own.
type schedule struct {
	align   media.TSAligner
	clock   media.PCRClock
	skipped atomic.Uint64

	buf    []byte          // packets, of which those before off are taken
	times  []time.Duration // of the first packets in buf after off
	off    int             // bytes
	breaks []int           // packets after off at which the clock jumped, ascending

	started bool
	done    bool          // nothing more will be pushed
	since   int           // packet after off that had the last reference
	at      time.Duration // its time
	elapsed time.Duration // its PCRTick.Elapsed
	ahead   time.Duration // how much of the time after it was estimated
	each    time.Duration // time of one packet in the last whole stretch
}

func (s *schedule) len() int          { return (len(s.buf) - s.off) / media.TSPacketSize }
func (s *schedule) timed() int        { return len(s.times) }
func (s *schedule) untimedBytes() int { return (s.len() - s.timed()) * media.TSPacketSize }

// due is the time of the first packet; there must be a timed one.
func (s *schedule) due() time.Duration { return s.times[0] }

// push takes the next bytes of the stream. Units taken before are no longer valid.
func (s *schedule) push(b []byte) {
	if s.off > len(s.buf)/2 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.off:])]
		s.off = 0
	}
	s.align.Push(b, s.add)
	s.skipped.Store(s.align.Skipped())
}

func (s *schedule) add(ts []byte) {
	for ; len(ts) > 0; ts = ts[media.TSPacketSize:] {
		p := ts[:media.TSPacketSize]
		if tick, ok := s.clock.Next(p); ok {
			s.reference(tick)
		}
		s.buf = append(s.buf, p...)
	}
}

// reference times everything up to the packet about to be added.
func (s *schedule) reference(tick media.PCRTick) {
	here := s.len()
	switch {
	case !s.started:
		// What precedes the first reference goes out with it.
		s.started = true
		s.spread(here, 0)
	case tick.Jump:
		s.spread(here, s.each*time.Duration(here-s.since))
		s.breaks = append(s.breaks, here)
	default:
		d := max(0, tick.Elapsed-s.elapsed-s.ahead)
		if here > s.since {
			s.each = d / time.Duration(here-s.since)
		}
		s.spread(here, d)
	}
	s.elapsed = tick.Elapsed
	s.ahead = 0
}

// spread gives the packets from the last timed one up to end their share of d.
func (s *schedule) spread(end int, d time.Duration) {
	n := end - s.since
	for i := len(s.times); i < end; i++ {
		s.times = append(s.times, s.at+d*time.Duration(i-s.since)/time.Duration(n))
	}
	s.at += d
	s.since = end
}

// estimate times what waits for a reference at the last known rate. It is false
// when there is no rate to go by.
func (s *schedule) estimate() bool {
	if !s.started {
		return false
	}
	d := s.each * time.Duration(s.len()-s.since)
	s.spread(s.len(), d)
	s.ahead += d
	return true
}

// finish times all that is left, at the end of the stream.
func (s *schedule) finish() {
	s.align.Flush(s.add)
	s.skipped.Store(s.align.Skipped())
	s.estimate()
	s.done = true
}

// take moves the packets due by until to b, seven to a unit, and always at least
// one unit. A shorter unit is made only where the clock jumps or the stream ends.
func (s *schedule) take(b *Batch, until time.Duration) {
	if len(s.breaks) > 0 && s.breaks[0] == 0 {
		b.Break = "the clock of the transport stream jumped"
		s.breaks = s.breaks[:copy(s.breaks, s.breaks[1:])]
	}
	stop, short := len(s.times), s.done
	if len(s.breaks) > 0 && s.breaks[0] <= stop {
		stop, short = s.breaks[0], true
	}
	n := 0
	for n < stop && len(b.Units) < maxBatch {
		m := min(media.TSPerRTP, stop-n)
		if len(b.Units) > 0 && (s.times[n] > until || m < media.TSPerRTP && !short) {
			break
		}
		from, to := s.off+n*media.TSPacketSize, s.off+(n+m)*media.TSPacketSize
		b.Units = append(b.Units, Unit{
			Payload:   s.buf[from:to:to],
			Timestamp: clock90k(s.times[n]),
			Type:      media.PayloadTypeTS,
		})
		n += m
	}
	s.drop(n)
}

// drop forgets the first n packets. Their bytes stay in place until the next push.
func (s *schedule) drop(n int) {
	s.off += n * media.TSPacketSize
	s.times = s.times[:copy(s.times, s.times[n:])]
	s.since -= n
	for i := range s.breaks {
		s.breaks[i] -= n
	}
}
