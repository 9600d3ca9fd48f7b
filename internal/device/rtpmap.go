package device

import (
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

const (
	// maxDropout and maxMisorder bound what counts as loss and as a late packet
	// (RFC 3550 §A.1); beyond them the sequence has jumped.
	maxDropout  = 3000
	maxMisorder = 100
	// barFor is how long an SSRC that was left stays barred after its last packet,
	// so that two encoders on one port cannot take turns.
	barFor = 2 * time.Second
)

// rtpMap turns an encoder's RTP packets into units: what was lost stays a gap,
// late and double packets are left out because an index never falls, and a new
// SSRC or a jump of the sequence is reported and leaves no gap. It reads no clock.
type rtpMap struct {
	started bool
	ssrc    uint32
	next    uint16
	left    uint32 // the SSRC before
	leftAt  time.Time
	barred  bool

	late    uint64 // packets behind the sequence: reordered or double
	foreign uint64 // packets of the SSRC that was left
}

// take maps one packet that arrived at now. It is false for one to leave out;
// jump is not empty where the sequence began anew.
func (m *rtpMap) take(pkt []byte, now time.Time) (u Unit, jump string, ok bool) {
	h, err := media.ParseHeader(pkt)
	if err != nil {
		return Unit{}, "", false
	}
	payload := pkt[h.Size:]
	if h.Padding {
		if payload, err = media.StripPadding(payload); err != nil {
			return Unit{}, "", false
		}
	}
	if len(payload) == 0 || len(payload) > maxUnit {
		return Unit{}, "", false
	}
	u = Unit{Payload: payload, Timestamp: h.Timestamp, Type: h.PayloadType, Marker: h.Marker}
	if m.barred && h.SSRC == m.left {
		if now.Sub(m.leftAt) < barFor {
			m.leftAt = now
			m.foreign++
			return Unit{}, "", false
		}
		m.barred = false
	}
	switch ahead := h.Seq - m.next; {
	case !m.started:
	case h.SSRC != m.ssrc:
		m.left, m.leftAt, m.barred = m.ssrc, now, true
		jump = "the encoder changed its SSRC"
	case ahead <= maxDropout:
		u.Skip = ahead
	case -ahead <= maxMisorder:
		m.late++
		return Unit{}, "", false
	default:
		jump = "the encoder's sequence jumped"
	}
	m.started = true
	m.ssrc = h.SSRC
	m.next = h.Seq + 1
	return u, jump, true
}

// clockRates are the static payload types with their clocks and names (RFC 3551
// §6, tables 4 and 5).
var clockRates = map[uint8]struct {
	hz   uint32
	name string
}{
	0: {8000, "PCMU"}, 3: {8000, "GSM"}, 8: {8000, "PCMA"}, 9: {8000, "G722"},
	10: {44100, "L16"}, 11: {44100, "L16"}, 14: {90000, "MPA"},
	26: {90000, "JPEG"}, 31: {90000, "H261"}, 32: {90000, "MPV"},
	media.PayloadTypeTS: {90000, "MP2T"}, 34: {90000, "H263"},
}
