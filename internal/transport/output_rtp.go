package transport

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// rtpOutput sends the stream as clear RTP under an SSRC of its own, which stays
// the same across sessions, epochs and restarts. Sequence numbers follow the
// stream's index, so that a loss shows as a gap, and go on from where the session
// before ended; so do timestamps.
type rtpOutput struct {
	sink
	ssrc   uint32
	pkts   [][]byte
	buf    []byte
	ses    *session // whose packets went out last
	clock  uint32   // timestamp units a second
	seqOff uint16   // added to the index
	tsOff  uint32   // added to the source's timestamp
	index  gk.Index
	ts     uint32 // sent last
	at     time.Time
}

// newRTPOutput derives the SSRC from a name, so that it survives a restart.
func newRTPOutput(to netip.AddrPort, name string) (output, error) {
	s, err := newSink(to)
	h := sha256.Sum256([]byte(name))
	return &rtpOutput{sink: s, ssrc: binary.BigEndian.Uint32(h[:])}, err
}

func (o *rtpOutput) session(p gkrp.Payload) { o.clock = p.ClockRate }

func (o *rtpOutput) deliver(ses *session, d *delivery) {
	if ses != o.ses {
		o.follow(ses, d.units[0])
	}
	o.pkts, o.buf = o.pkts[:0], o.buf[:0]
	for _, u := range d.units {
		if u.index <= o.index {
			// Delivery went back to where a new key begins, because somebody else had
			// gone ahead under the old one. A receiver would take what comes now for
			// old; so the numbers go on.
			o.seqOff += o.index.Seq() + 1 - u.index.Seq()
		}
		o.index, o.ts = u.index, u.timestamp+o.tsOff
		at := len(o.buf)
		h := media.Header{Marker: u.marker, PayloadType: u.kind, Seq: u.index.Seq() + o.seqOff, Timestamp: o.ts, SSRC: o.ssrc}
		o.buf = append(h.AppendTo(o.buf), u.payload...)
		o.pkts = append(o.pkts, o.buf[at:])
	}
	o.at = ses.last
	_, _ = o.Send(o.pkts)
}

// follow lets a session go on where the one before it ended: with the next
// sequence number, and a timestamp later by the time in between.
func (o *rtpOutput) follow(ses *session, u unit) {
	if o.ses != nil {
		o.seqOff = o.index.Seq() + o.seqOff + 1 - u.index.Seq()
		passed := ses.last.Sub(o.at).Seconds() * float64(o.clock)
		o.tsOff = o.ts + uint32(int64(passed)) - u.timestamp
	}
	o.ses, o.index = ses, 0
}

func (o *rtpOutput) close() { _ = o.sock.Close() }
