package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// maxUnit is the largest payload that a source hands on, in bytes: what RTP
// encoders put into a 1500-byte frame. Above 1440 bytes our own overhead makes
// the sending system fragment the packet; 1316 of MPEG-TS is far from it.
const maxUnit = 1460

// maxBatch is how many units one Read delivers at most.
const maxBatch = 32

// Unit is what goes into one packet.
type Unit struct {
	// Payload is 1 to 7 whole MPEG-TS packets, or an RTP packet's payload without
	// padding. It is valid until the next Read.
	Payload []byte
	// Timestamp is in RTP clock units; for MPEG-TS it counts from the start of
	// the source.
	Timestamp uint32
	// Skip is how many packets the source itself lost before this one. The index
	// leaves them out, so that the receiver sees the same gap.
	Skip   uint16
	Type   uint8 // RTP payload type
	Marker bool
}

// Batch is what one Read delivers: at least one unit unless Read fails.
type Batch struct {
	Units []Unit
	// Break says why the units do not continue what came before (a restarted
	// encoder, a jump of its clock); empty when they do.
	Break string
	// Begun says, with Break, why the agent itself began anew what delivers the units,
	// and Regime how its owner calls the way it runs now; empty where it did not.
	Begun  gkrp.Why
	Regime string
}

func (b *Batch) reset() {
	b.Units = b.Units[:0]
	b.Break, b.Begun, b.Regime = "", "", ""
}

// Source is where the encoder's output comes in.
//
// Probe waits until the source has something to send, and says what: bad input
// is told here, before any session begins. Read fills b with the next units,
// blocking until there is one or ctx ends; at the end of the media it gives
// [io.EOF]. A source is used by one goroutine at a time, Close included: to end
// a Read, end its context. Dropped may be called from any goroutine.
type Source interface {
	Probe(ctx context.Context) (gkrp.Payload, error)
	Read(ctx context.Context, b *Batch) error
	// Dropped counts input that was not media and was left out, since the start.
	Dropped() uint64
	Close() error
}

// flusher is a source of live media that piles up while nobody reads.
type flusher interface {
	// flush throws away what has piled up and returns how many datagrams it was.
	flush() int
}

// runner is a source that runs what delivers the media itself: an encoder, or what
// receives from one.
type runner interface {
	Source
	// regime is its owner's name for how it runs at the start; it may be empty.
	regime() string
	// order has it run otherwise.
	order(o order)
}

// SourceOptions are the settings of sources beyond their URL.
type SourceOptions struct {
	// Loop plays a file again from the start when it ends.
	Loop bool
	// Stdin is what "-" reads.
	Stdin io.Reader
	// ReceiveBuffer is the kernel receive buffer to ask for in bytes; 0 means 4 MiB.
	ReceiveBuffer int
	// Regime is the owner's name for how what the source runs does so; see [ReadSource].
	Regime string
	// Log takes the rare remarks of a source; nil means none.
	Log *slog.Logger
}

const defaultReceiveBuffer = 4 << 20

// OpenSource opens the source that spec names:
//
//	udp://HOST:PORT    MPEG-TS datagrams; a multicast HOST is joined
//	rtp://HOST:PORT    RTP of any payload type; ?clock=HZ&encoding=NAME where
//	                   the payload type does not say
//	file:PATH or PATH  an MPEG-TS file, sent at the pace of its clock
//	-                  MPEG-TS on stdin, sent at the pace of its clock
//	exec:COMMAND       a shell command that writes MPEG-TS to stdout, at its own pace
//	srt:// rtsp:// rist://   received by srt-live-transmit, ffmpeg or ristreceiver
func OpenSource(spec string, o SourceOptions) (Source, error) {
	if o.ReceiveBuffer == 0 {
		o.ReceiveBuffer = defaultReceiveBuffer
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p, runs, err := programOf(spec)
	if err != nil {
		return nil, err
	}
	if runs {
		s := newExecSource(p, o.Log)
		s.as = o.Regime
		return s, nil
	}
	if o.Regime != "" {
		return nil, fmt.Errorf("source: regime %s: only a source that the agent runs a program for (exec:, srt://, rtsp://, rist://) has one; announce changes of others with gaitkeeper planned-change", o.Regime)
	}
	if spec == "-" {
		if o.Stdin == nil {
			return nil, errors.New("source -: there is no standard input to read")
		}
		return newPacedSource("stdin", io.NopCloser(o.Stdin), nil), nil
	}
	scheme, rest, ok := strings.Cut(spec, ":")
	if !ok || strings.ContainsAny(scheme, `/\.`) {
		return openFile(spec, o.Loop)
	}
	switch scheme {
	case "file":
		return openFile(strings.TrimPrefix(rest, "//"), o.Loop)
	case "udp", "rtp":
		u, err := url.Parse(spec)
		if err != nil {
			return nil, fmt.Errorf("source %s", hideCredentials(err.Error()))
		}
		if scheme == "udp" {
			return openUDP(u, o)
		}
		return openRTP(u, o)
	}
	return nil, fmt.Errorf("source %q: %q is no kind of source: use udp://, rtp://, srt://, rtsp://, rist://, file:, exec: or -", hideCredentials(spec), scheme)
}

// clock90k gives d in the 90 kHz units of MPEG-TS in RTP (RFC 2250 §2).
func clock90k(d time.Duration) uint32 { return uint32(uint64(d) * 9 / 100_000) }
