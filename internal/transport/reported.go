package transport

import (
	"context"
	"encoding/binary"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// maxSince bounds what a device may say that its key has been in use.
const maxSince = 10 * 365 * 24 * time.Hour

// reported holds a device's report against what was accepted of its session.
func (s *Service) reported(_ context.Context, req bus.ReportRequest) (bus.Empty, error) {
	r := &req.Report
	if r.From > r.To || r.To > gk.MaxIndex || len(r.Tags) > 0 && uint64(len(r.Tags)) != gkrp.TagPrefix*uint64(r.To-r.From) {
		return bus.Empty{}, bus.Refuse(bus.CodeBadRequest, "stream %s: a report of %d bytes of tags for the indices %d to %d", r.Stream, len(r.Tags), r.From, r.To)
	}
	now := s.cfg.Host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	ses, err := s.obeySession(r.Stream, r.Session, req.Term)
	if err != nil {
		return bus.Empty{}, err
	}
	var told gk.Epoch // one event of each epoch says it all
	accuse := func(epoch gk.Epoch, index gk.Index, what evidence) {
		if epoch != told {
			told = epoch
			s.accuseEpoch(ses, epoch, index, what, now)
		}
	}
	ses.ledger.compare(r, accuse)
	slot := ses.keys.find(r.Epoch)
	if slot == nil || slot.armed.IsZero() || r.SinceMs == 0 || r.SinceMs > uint64(maxSince.Milliseconds()) {
		return bus.Empty{}, nil
	}
	if !ses.ledger.ahead(r, s.age(slot.armed), s.age(now), accuse) {
		slot.armed = time.Time{}
	}
	return bus.Empty{}, nil
}

// age is a time on this service's own clock, which nobody sets.
func (s *Service) age(t time.Time) time.Duration { return t.Sub(s.here.Started) }

// enter puts an authentic packet into its session's ledger. It is false where the
// device's report is here already, and the packet is not in it.
func (s *Service) enter(ses *session, slot *slot, o media.Opened, pkt []byte, now time.Time) bool {
	tag := binary.BigEndian.Uint32(pkt[len(pkt)-media.Overhead:])
	what := ses.ledger.accepted(slot.epoch, o.Index, tag, len(o.Payload))
	if what == evidenceNone {
		return true
	}
	ses.counts[causeNotSent]++
	s.accuse(ses, slot, o.Index, string(what), now)
	return false
}

// accuseEpoch is accuse for an epoch whose key may be gone.
func (s *Service) accuseEpoch(ses *session, epoch gk.Epoch, index gk.Index, what evidence, now time.Time) {
	of := ses.keys.find(epoch)
	if of == nil {
		of = &slot{epoch: epoch}
	}
	s.accuse(ses, of, index, string(what), now)
}
