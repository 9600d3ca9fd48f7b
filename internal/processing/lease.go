package processing

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Keys serve at the transports on leases, which go back to the key management
// service's word that a session is in good standing. The order is what makes
// them end: first the transports' beats are noted, then the key management
// service is asked, and then the leases are counted from the beats. See the
// calls in the package bus.

const (
	leaseEvery = 5 * time.Second // renewal, or more often where leases are short
	leaseRetry = time.Second     // after a round that failed
	leaseParts = 6               // a lease is renewed at least so often in its length
)

// beat is a lease on a transport's keys that lacks the key management service's
// word: it counts from the transport's last announcement. Of a transport that never
// announced itself it is none.
func (s *Service) beat(id gk.TransportID) bus.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.transports[id]
	return bus.Lease{Started: t.Started, Beat: t.Beat, Mark: t.Mark}
}

// beats gives the beats of several transports.
func (s *Service) beats(ids ...gk.TransportID) map[gk.TransportID]bus.Lease {
	m := make(map[gk.TransportID]bus.Lease, len(ids))
	for _, id := range ids {
		m[id] = s.beat(id)
	}
	return m
}

// renewLeases renews, until ctx ends, the leases of every session that runs.
func (s *Service) renewLeases() {
	for pause := leaseRetry; ; {
		if s.cfg.Host.Sleep(s.ctx, pause) != nil {
			return
		}
		pause = leaseRetry
		length, ok := s.leaseRound()
		if ok && length > 0 {
			pause = min(leaseEvery, length/leaseParts)
		}
	}
}

// leaseRound asks once for every session and transport that has keys of it. It
// gives the length of a lease, if anybody needed one, and whether all went well.
func (s *Service) leaseRound() (length time.Duration, ok bool) {
	all := map[gk.TransportID][]served{}
	s.eachStream(func(st *stream) {
		for _, x := range st.serves() {
			if !x.live { // until then, the lease of its first key serves
				continue
			}
			for _, id := range x.transports {
				all[id] = append(all[id], served{st, x})
			}
		}
	})
	ok = true
	for _, id := range slices.Sorted(maps.Keys(all)) {
		for chunk := range slices.Chunk(all[id], bus.MaxStanding) {
			n, done := s.leaseChunk(id, chunk)
			length, ok = max(length, n), ok && done
		}
	}
	return length, ok
}

// served is a session that transports hold keys of.
type served struct {
	st *stream
	*serving
}

func (s *Service) leaseChunk(id gk.TransportID, chunk []served) (time.Duration, bool) {
	lease := s.beat(id)
	ask := bus.StandingRequest{Transport: id, Mark: lease.Mark}
	for _, x := range chunk {
		ask.Sessions = append(ask.Sessions, bus.SessionRef{Device: x.st.device, Stream: x.st.id, Session: x.session})
	}
	ctx, cancel := s.cfg.Host.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	rep, err := bus.KMSStanding.Do(ctx, s.conn, ask)
	if err != nil || len(rep.Codes) != len(chunk) {
		if s.ctx.Err() == nil {
			s.log.Warn("leases were not renewed: media stops when they have run out", "error", err)
		}
		return 0, false
	}
	var renew []bus.SessionRef
	for i, x := range chunk {
		switch rep.Codes[i] {
		case "":
			renew = append(renew, bus.SessionRef{Stream: x.st.id, Session: x.session})
		case bus.CodeRevoked:
			x.st.post(func() { x.st.outcome(x.x, gkrp.End{Code: gkrp.CodeRevoked}) })
		default:
			x.st.post(func() { x.st.outcome(x.x, gkrp.KeyUnknown{Epoch: x.x.Record.Epoch}) })
		}
	}
	if !lease.Started.IsZero() && len(renew) > 0 {
		lease.Word = rep.Word
		s.beside(func() { s.sendLease(id, lease, renew) })
	}
	return rep.Lease, true
}

func (s *Service) sendLease(to gk.TransportID, lease bus.Lease, sessions []bus.SessionRef) {
	ctx, cancel := s.cfg.Host.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	_, err := bus.TransportLease.Do(ctx, s.conn, string(to), bus.LeaseRequest{Lease: lease, Sessions: sessions, Term: s.protocol.Term})
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("transport did not take its lease", "transport", to, "error", err)
	}
}

// acquaintance is how long after its start the service knows every transport
// that is on the bus.
const acquaintance = 3 * time.Second

// disarmTimeout is how long a transport has to confirm that it has disarmed.
const disarmTimeout = 3 * time.Second

// serveDisarm ends the sessions of a device that was revoked, and has every
// transport that may hold one of its keys wipe them.
func (s *Service) serveDisarm(ctx context.Context, r bus.DisarmDeviceRequest) (bus.DisarmDeviceReply, error) {
	s.door.forget(r.Device)
	var rep bus.DisarmDeviceReply
	may := map[gk.TransportID]bool{}
	streams := slices.Clone(r.Streams)
	var ending []*stream
	s.eachStream(func(st *stream) {
		if st.device != r.Device {
			return
		}
		if !slices.Contains(streams, st.id) {
			streams = append(streams, st.id)
		}
		for _, x := range st.serves() {
			rep.Sessions++
			for _, id := range x.transports {
				may[id] = true
			}
		}
		ending = append(ending, st)
	})
	// A session that begins only now finds its device revoked at every step.
	for _, st := range ending {
		st.post(func() { st.step(gkrp.End{Code: gkrp.CodeRevoked}) })
	}
	// Transports that can be reached have announced themselves by then.
	if young := s.protocol.Started.Add(acquaintance).Sub(s.now()); young > 0 {
		if err := s.cfg.Host.Sleep(ctx, young); err != nil {
			return bus.DisarmDeviceReply{}, err
		}
	}
	s.mu.Lock()
	for id, t := range s.transports {
		// A lease counts from a beat: where none was heard for a lease's length,
		// none runs.
		may[id] = may[id] || s.now().Sub(t.heard) < r.Lease
	}
	s.mu.Unlock()

	for id, ok := range s.disarm(ctx, may, streams) {
		if ok {
			rep.Confirmed = append(rep.Confirmed, id)
		} else {
			rep.Missing = append(rep.Missing, id)
		}
	}
	slices.Sort(rep.Confirmed)
	slices.Sort(rep.Missing)
	return rep, nil
}

// age is how long the service has run: a command that has one can be told from an
// older one.
func (s *Service) age() time.Duration { return s.now().Sub(s.protocol.Started) }

// disarm has transports wipe the keys of streams, all at the same time, and tells
// which confirmed.
func (s *Service) disarm(ctx context.Context, transports map[gk.TransportID]bool, streams []gk.StreamID) map[gk.TransportID]bool {
	ctx, cancel := s.cfg.Host.WithTimeout(ctx, disarmTimeout)
	defer cancel()
	var mu sync.Mutex
	confirmed := make(map[gk.TransportID]bool, len(transports))
	var running []chan struct{}
	beat := s.age()
	for id, may := range transports {
		if !may {
			continue
		}
		done := make(chan struct{}, 1) // full until the answer is here
		done <- struct{}{}
		running = append(running, done)
		started := s.beat(id).Started
		s.beside(func() {
			_, err := bus.TransportDisarm.Do(ctx, s.conn, string(id), bus.DisarmRequest{Streams: streams, Term: s.protocol.Term, Beat: beat, Started: started})
			if err != nil {
				s.log.Warn("transport did not confirm that it disarmed", "transport", id, "streams", streams, "error", err)
			}
			mu.Lock()
			confirmed[id] = err == nil
			mu.Unlock()
			<-done
		})
	}
	for _, done := range running {
		_ = s.cfg.Host.Acquire(context.WithoutCancel(ctx), done) // the calls end with ctx
	}
	return confirmed
}
