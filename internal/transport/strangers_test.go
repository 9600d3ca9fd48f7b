package transport

import (
	"testing"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// What belongs to no session is told once, with what came since the last time.
func TestStrangersAreTold(t *testing.T) {
	w := newWorld(t, testConfig())
	heard := make(chan bus.Outsiders, 8)
	if _, err := bus.TransportOutsiders.Hear(w.conn, func(o bus.Outsiders) { heard <- o }, nil); err != nil {
		t.Fatal(err)
	}
	w.assign(mp2t)
	w.arm(1)
	w.ssrc++ // nobody's
	s := w.sealer(1)
	w.send(w.packet(s, 1, tsPayload(1)), w.packet(s, 2, tsPayload(2)), []byte{0x80})
	total := map[string]uint64{}
	w.until("the news", func() bool {
		select {
		case o := <-heard:
			for cause, n := range o.Dropped {
				total[cause] += n
			}
			if o.Transport != w.here.Transport {
				t.Errorf("told by %q", o.Transport)
			}
		default:
		}
		return total["unknown-ssrc"] == 2 && total["bad-length"] == 1
	})
	if last := w.svc.tellStrangers(counts{causeUnknownSSRC: 2, causeBadLength: 1}); last[causeUnknownSSRC] != 2 || len(heard) != 0 {
		t.Errorf("told again: %v, %d", last, len(heard))
	}
}
