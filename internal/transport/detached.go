package transport

import (
	"log/slog"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// Detached is a transport service without a socket, a goroutine or a clock: its
// host brings the packets and says when time has passed. Commands come over the
// bus as ever.
type Detached struct {
	s         *Service
	last      outsiders
	strangers counts
}

// NewDetached makes the service, and answers commands until conn is closed.
// cfg.Advertise is the whole address that devices are told.
func NewDetached(cfg Config, conn bus.Conn, id Identity, log *slog.Logger) (*Detached, error) {
	s, err := newService(cfg, conn, id, log)
	if err != nil {
		return nil, err
	}
	_, err = s.serve()
	return &Detached{s: s}, err
}

// Packet takes one datagram through the packet path.
func (d *Detached) Packet(now time.Time, datagram []byte) {
	d.s.process([]media.Datagram{{Data: datagram}}, now)
	d.publish()
}

// Tick meets the deadlines of gaps and keys.
func (d *Detached) Tick(now time.Time) {
	d.s.overdue(now)
	d.s.retire(now)
	d.publish()
}

// Announce tells that the service is there.
func (d *Detached) Announce() { d.s.say(bus.TransportHere.Tell(d.s.conn, d.s.announcement())) }

// Report tells what the service sees, as it does once a second.
func (d *Detached) Report(now time.Time) {
	for _, st := range d.s.Status(now) {
		d.s.say(bus.TransportStatus.Tell(d.s.conn, st))
	}
	d.last = d.s.tellOutsiders(d.last, now)
	d.strangers = d.s.tellStrangers(d.strangers)
}

// publish sends what the service has to tell.
func (d *Detached) publish() {
	for {
		select {
		case tell := <-d.s.notices:
			tell()
		default:
			return
		}
	}
}
