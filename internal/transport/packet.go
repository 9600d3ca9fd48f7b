package transport

import (
	"errors"
	"fmt"
	"net"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The packet path, in packet order:
//
//	receive  a batch of datagrams, in one system call; the clock is read once
//	route    the RTP header is parsed, and the SSRC names the session
//	open     the MKI names the epoch, and its key opens the packet
//	accept   the slots decide which epoch an index may belong to; what is
//	         accepted is measured
//	reorder  packets take the order of their indices; a gap waits at most Latency
//	fan out  what is next goes to the tap, the viewers and the outputs
//
// Locking: Service.mu is held from route to fan out for a whole batch, so that
// keys change between batches and never inside one. No stage waits for anything:
// outputs have buffers of their own and drop what does not fit. Nothing is
// allocated or logged for a packet; what is not delivered is counted by cause.

const (
	batchSize = 64
	// datagramSize is above every packet that fits a usual link. Longer ones are
	// cut by the kernel and counted as of bad length.
	datagramSize = 2048
)

// receive is the packet path's loop. It returns when the socket is closed.
func (s *Service) receive() error {
	r := s.sock.NewReceiver(batchSize, datagramSize)
	for {
		batch, err := r.Receive()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("media: %w", err)
		}
		s.process(batch, s.cfg.Host.Now())
	}
}

// process takes one batch through the stages from route to fan out.
func (s *Service) process(batch []media.Datagram, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock(now)
	for i := range batch {
		s.arrived = s.arrival(&batch[i])
		s.route(&batch[i], now)
	}
	s.fanOut()
}

// route finds the packet's session.
func (s *Service) route(d *media.Datagram, now time.Time) {
	h, err := media.ParseHeader(d.Data)
	if err != nil || d.Truncated {
		if errors.Is(err, media.ErrBadVersion) {
			s.outsiders[causeBadVersion]++
		} else {
			s.outsiders[causeBadLength]++
		}
		return
	}
	ses := s.routes[h.SSRC]
	if ses == nil {
		s.outsiders[causeUnknownSSRC]++
		return
	}
	s.open(ses, d.Data, h, now)
}

// open finds the packet's key and opens it straight into the buffer that leaves
// for the outputs, behind what is there already.
func (s *Service) open(ses *session, pkt []byte, h media.Header, now time.Time) {
	epoch, ok := media.PacketEpoch(pkt)
	if !ok || len(pkt) < h.Size+media.Overhead {
		ses.counts[causeBadLength]++
		return
	}
	slot := ses.keys.find(epoch)
	if slot == nil {
		if epoch <= ses.keys.gone {
			ses.counts[causeStaleEpoch]++
		} else {
			ses.counts[causeUnknownEpoch]++
		}
		return
	}
	if !slot.begun && !slot.told {
		// Until the device's word is here, the stream's last index says which
		// rollover counter the new epoch goes on from, unless it is a thief's.
		slot.open.Suspect(ses.highest)
	}
	opened, verdict := slot.open.OpenParsed(s.room(ses, len(pkt)), pkt, h)
	if slot.watching {
		s.watch(ses, slot, opened.Index, verdict, now)
		return
	}
	if verdict != media.OK {
		ses.counts[causeOf[verdict]]++
		if verdict.Proof() {
			s.accuse(ses, slot, opened.Index, verdict.String(), now)
		}
		return
	}
	if s.enter(ses, slot, opened, pkt, now) {
		s.accept(ses, slot, opened, now)
	}
}

// watch counts what arrives under a key that serves no more. A late packet of
// the device is authentic too, so only what could not be one is proof.
func (s *Service) watch(ses *session, slot *slot, index gk.Index, v media.Verdict, now time.Time) {
	switch {
	case v.Proof():
		ses.counts[causeStaleProven]++
		s.accuse(ses, slot, index, v.String(), now)
	case v == media.OK:
		ses.counts[causeStaleProven]++
	case v == media.AuthFail:
		ses.counts[causeStaleUnproven]++
	default:
		ses.counts[causeOf[v]]++
	}
}

// accept lets the slots see the packet and offers it to the reorder buffer.
func (s *Service) accept(ses *session, slot *slot, o media.Opened, now time.Time) {
	cur := ses.stream.current
	replaced := cur != nil && cur != ses && !s.mayTake(cur, ses, now)
	if replaced {
		s.remember(cur, ses)
		// A packet of a session from before, that somebody kept, takes nothing over.
		if ses.counts[causeReplaced]++; ses != ses.stream.former {
			return
		}
	}
	first, moved := ses.keys.seen(now, slot, o.Index)
	if first {
		s.tellFirst(ses, slot.epoch, o.Index, now)
	}
	if moved {
		s.bounded(ses, slot, now)
	}
	s.lapse(ses, now)
	ses.last = now
	switch {
	case slot.epoch > ses.epoch:
		// How far the epoch before came may have been a thief's doing.
		ses.epoch, ses.highest = slot.epoch, o.Index
	case slot.epoch == ses.epoch:
		ses.highest = max(ses.highest, o.Index)
	}
	if replaced {
		return
	}
	payload := o.Payload
	if o.Header.Padding {
		var err error
		if payload, err = media.StripPadding(payload); err != nil {
			ses.counts[causeBadLength]++
			payload = nil
		}
	}
	if ses.gauge != nil {
		s.measure(ses, o.Header, payload)
	}
	newcomer := cur != ses
	if newcomer {
		// What the session before still holds goes out first, and the room with it.
		payload = s.keep(payload)
		s.takeOver(ses)
	}
	u := unit{
		index: o.Index, epoch: slot.epoch, timestamp: o.Header.Timestamp, marker: o.Header.Marker,
		kind: o.Header.PayloadType, payload: payload,
	}
	switch ses.order.offer(now, u, s.keep) {
	case placeNow:
		if newcomer {
			s.deliverHeld(ses, u)
		} else {
			s.deliver(ses, u)
		}
		ses.order.pop(func(u unit) { s.deliverHeld(ses, u) })
	case placeHold:
		if newcomer {
			s.free(payload)
		}
	case placeLate:
		ses.counts[causeLate]++
	}
}

// bounded follows a change of where an epoch begins: into the reorder buffer, and
// into evidence where packets had been accepted on the wrong side.
func (s *Service) bounded(ses *session, changed *slot, now time.Time) {
	ses.order.cut(changed.epoch, changed.first, changed.told, s.free)
	for {
		culprit := ses.keys.leap()
		if culprit == nil {
			return
		}
		index, _ := culprit.open.Highest()
		cause := causePastEnd
		if culprit.early {
			cause = causeBeforeFirst
		}
		s.accuse(ses, culprit, index, cause.String(), now)
	}
}

// keep copies a payload that must wait.
func (s *Service) keep(payload []byte) []byte {
	var b []byte
	if n := len(s.spare); n > 0 {
		b, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		b = make([]byte, 0, datagramSize)
	}
	return append(b, payload...)
}

// maxSpare bounds the buffers kept for packets to come.
const maxSpare = 1024

func (s *Service) free(b []byte) {
	if cap(b) >= datagramSize && len(s.spare) < maxSpare {
		s.spare = append(s.spare, b[:0])
	}
}

// room gives free room of at least n bytes in the session's delivery.
func (s *Service) room(ses *session, n int) []byte {
	if ses.pending == nil {
		if k := len(s.deliveries); k > 0 {
			ses.pending, s.deliveries = s.deliveries[k-1], s.deliveries[:k-1]
		} else {
			ses.pending = newDelivery()
		}
		s.touched = append(s.touched, ses)
	}
	room := ses.pending.tail(n)
	if room == nil {
		s.hand(ses)
		room = ses.pending.tail(n)
	}
	return room
}

// deliver adds a unit whose payload lies in the room that its session gave last.
func (s *Service) deliver(ses *session, u unit) {
	if ses.lapsed {
		ses.counts[causeLeaseOver]++
		return
	}
	if s.withheld(ses.stream) {
		ses.counts[causeHeld]++
		return
	}
	ses.pending.add(u)
	ses.delivered++
	ses.bytes += uint64(len(u.payload))
}

// deliverHeld adds a unit that waited in a buffer of its own.
func (s *Service) deliverHeld(ses *session, u unit) {
	s.room(ses, len(u.payload))
	s.deliver(ses, u)
	s.free(u.payload)
}

// fanOut hands what the batch gave to the outputs of every session it touched.
func (s *Service) fanOut() {
	for i, ses := range s.touched {
		s.hand(ses)
		s.deliveries = append(s.deliveries, ses.pending)
		ses.pending, s.touched[i] = nil, nil
	}
	s.touched = s.touched[:0]
}

// hand gives a session's delivery to its outputs and empties it.
func (s *Service) hand(ses *session) {
	d := ses.pending
	if len(d.units) == 0 {
		return
	}
	if s.cfg.Tap != nil {
		for _, u := range d.units {
			s.cfg.Tap(ses.stream.id, u.index, u.payload)
		}
	}
	ses.stream.viewers.deliver(d)
	for _, o := range ses.stream.outputs {
		o.deliver(ses, d)
	}
	d.reset()
}

// overdue gives up the gaps that waited long enough, in every session. How far a
// session has come is noted by a clock that is read here: where the process had to
// wait for its turn, now is when that turn was due, and what was accepted since must
// not seem to have been accepted then.
func (s *Service) overdue(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	here := s.age(s.cfg.Host.Now())
	for _, ses := range s.routes {
		s.lapse(ses, now)
		ses.ledger.note(here)
		ses.order.giveUp(now, func(u unit) { s.deliverHeld(ses, u) })
		s.rollDue(ses, now)
	}
	s.fanOut()
	s.showHeld(now)
	s.tellWindows()
}
