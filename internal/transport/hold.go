package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// OnHold says what viewers and outputs get of a stream that is held. Its packets
// are opened, judged and counted as ever.
type OnHold string

// What they can get.
const (
	HoldPass   OnHold = "pass"   // the stream
	HoldFreeze OnHold = "freeze" // nothing new: MPEG-TS goes on with null packets, so that connections stay
	HoldSlate  OnHold = "slate"  // a clip in its place; like freeze where the stream is not MPEG-TS
	HoldStop   OnHold = "stop"   // nothing: viewers are cut off, and none may join
)

var errHeld = errors.New("the stream is held: an operator has to look at it")

// nullEvery is how often a frozen stream has a null packet.
const nullEvery = 100 * time.Millisecond

var nullPacket = func() (ts [media.TSPacketSize]byte) {
	for i := range ts {
		ts[i] = 0xff
	}
	ts[0], ts[1], ts[2], ts[3] = 0x47, 0x1f, 0xff, 0x10
	return ts
}()

// held is what a stream shows while it is held. Guarded by Service.mu.
type held struct {
	// as is the session that outputs take it for, so that numbers and times go on
	// when it begins and when it ends.
	as     *session
	began  time.Time
	next   time.Time    // the next null packet
	player *slatePlayer // nil where there is no slate
	out    *delivery
}

// checkHold says what is wrong with the configuration.
func (c *Config) checkHold() error {
	switch c.OnHold {
	case "", HoldPass, HoldFreeze, HoldStop:
	case HoldSlate:
		if c.Slate == nil {
			return errors.New("on-hold: slate needs a clip: name one with slate")
		}
	default:
		return fmt.Errorf("on-hold: %q is none of pass, freeze, slate and stop", c.OnHold)
	}
	return nil
}

// holdStream takes the order to hold a stream, or to hold it no longer. Repeating
// it changes nothing; a stream that is not here needs no word that it is not held.
func (s *Service) holdStream(_ context.Context, req bus.HoldRequest) (none bus.Empty, err error) {
	now := s.cfg.Host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.meant(req.Started); err != nil {
		return none, err
	}
	if s.streams[req.Stream] == nil && !req.Held {
		return none, nil
	}
	st, err := s.obey(req.Stream, req.Term)
	if err != nil || !bus.Newer(req.Beat, st.holdBeat) {
		return none, err
	}
	st.holdBeat = req.Beat
	if (st.held != nil) == req.Held {
		return none, nil
	}
	kind := gk.EventStreamFreed
	if req.Held {
		kind = gk.EventStreamHeld
		st.held = &held{as: &session{stream: st, last: now}, began: now, next: now, out: newDelivery()}
		switch s.cfg.OnHold {
		case HoldSlate:
			st.held.player = newSlatePlayer(s.cfg.Slate, now)
		case HoldStop:
			st.viewers.stop(errHeld)
		}
	} else {
		st.held = nil
		st.viewers.stop(nil)
	}
	e := gk.Event{Kind: kind, Stream: req.Stream, At: now, Detail: map[string]string{"shown": string(s.cfg.OnHold), "why": req.Why}}
	s.notice(func() { s.tell(e) })
	return none, nil
}

// withheld reports whether a stream's packets stay here.
func (s *Service) withheld(st *stream) bool {
	return st.held != nil && s.cfg.OnHold != HoldPass && s.cfg.OnHold != ""
}

// showHeld gives the viewers and outputs of held streams what they get instead.
// The caller holds mu.
func (s *Service) showHeld(now time.Time) {
	for _, st := range s.streams {
		h := st.held
		if h == nil || s.cfg.OnHold != HoldFreeze && s.cfg.OnHold != HoldSlate || st.viewers.carries().Kind != gkrp.PayloadMP2T {
			continue
		}
		if h.player != nil {
			for b := h.player.due(now); len(b) > 0; b = h.player.due(now) {
				st.show(now, b)
			}
		} else if !now.Before(h.next) {
			h.next = now.Add(nullEvery)
			st.show(now, nullPacket[:])
		}
	}
}

// show gives one payload to viewers and outputs in the place of a held stream's.
func (st *stream) show(now time.Time, ts []byte) {
	h := st.held
	h.as.last = now
	h.as.highest++
	h.out.reset()
	h.out.add(unit{index: h.as.highest, timestamp: clock90k(now.Sub(h.began)), kind: media.PayloadTypeTS, payload: ts})
	st.viewers.deliver(h.out)
	for _, o := range st.outputs {
		o.deliver(h.as, h.out)
	}
}

// clock90k is a time in the units of MPEG-TS in RTP (RFC 2250 §2).
func clock90k(d time.Duration) uint32 { return uint32(uint64(d) * 9 / 100_000) }
