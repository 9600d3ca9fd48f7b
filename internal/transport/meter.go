package transport

import (
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// The stream meter: behaviour is measured where a packet was authenticated and
// accepted, so that nobody without the key can shape it. What is refused is
// counted by cause and never comes here.

const (
	// windowSlack is how long after its end a window waits for packets that the
	// kernel has taken and no batch has brought yet.
	windowSlack = 30 * time.Millisecond
	// silentWindows is how many windows without a packet are told in a row. After
	// that, the next window begins with the next packet.
	silentWindows = 240 // a minute
	// maxStamp is the oldest that a kernel's receive time may be. What is older
	// tells of a clock that was set.
	maxStamp = time.Second
)

// gauge measures one session. Guarded by Service.mu.
type gauge struct {
	meter  *feature.Meter
	form   feature.Form
	last   int64 // arrival of the newest packet, ns since the service started
	end    int64 // of the window in work; 0: it begins with the next packet
	fresh  bool  // the window in work has a packet
	silent int   // windows without a packet before it
}

// rolled is a window that waits to be told.
type rolled struct {
	ses    *session
	window *feature.Window
}

// newGauge makes the gauge of a session, nil where nothing is to be measured.
func (s *Service) newGauge(p gkrp.Payload) *gauge {
	if !s.cfg.Meter {
		return nil
	}
	form := formOf(p)
	return &gauge{meter: feature.NewLiveMeter(form), form: form}
}

// formOf is how a payload that the device declared is read.
func formOf(p gkrp.Payload) feature.Form {
	if p.Kind == gkrp.PayloadMP2T || p.Type == media.PayloadTypeTS {
		return feature.TS
	}
	return feature.Named(p.Encoding)
}

// clock reads the time of a batch once, for [Service.arrival].
func (s *Service) clock(now time.Time) {
	s.batchAt, s.batchWall = now.Sub(s.here.Started), now.UnixNano()
}

// arrival is when a datagram arrived, in nanoseconds since the service started:
// the kernel's time where there is one, and else the batch's. The kernel tells
// the wall clock's time; only how long ago that was is used, so that setting the
// clock moves nothing.
func (s *Service) arrival(d *media.Datagram) int64 {
	ago := time.Duration(s.batchWall - d.At)
	if d.At == 0 || ago < 0 || ago > maxStamp {
		ago = 0
	}
	return int64(s.batchAt - ago)
}

// measure takes an accepted packet into its session's window.
func (s *Service) measure(ses *session, h media.Header, payload []byte) {
	g := ses.gauge
	at := max(s.arrived, g.last)
	if g.end == 0 {
		g.end = at + feature.Hop
	}
	for at >= g.end && g.end != 0 {
		s.roll(ses)
	}
	if g.end == 0 {
		g.end = at + feature.Hop
	}
	g.last, g.fresh = at, true
	flags := 2<<6 | uint8(uint(h.Size)/4-3)&0x0f
	if h.Extension {
		flags = 2<<6 | 0x10
	}
	if h.Padding {
		flags |= 0x20
	}
	g.meter.Observe(&feature.Packet{
		At:        at,
		Header:    feature.Header{Flags: flags, PayloadType: h.PayloadType, Marker: h.Marker, Seq: h.Seq, Timestamp: h.Timestamp, SSRC: h.SSRC},
		HeaderLen: h.Size, Wire: h.Size + len(payload), Payload: payload,
	})
}

// roll ends a session's window.
func (s *Service) roll(ses *session) {
	g := ses.gauge
	if g.fresh {
		g.silent = 0
	} else {
		g.silent++
	}
	var w *feature.Window
	if n := len(s.windows); n > 0 {
		w, s.windows = s.windows[n-1], s.windows[:n-1]
	} else {
		w = new(feature.Window)
	}
	g.meter.Close(w, g.end)
	g.end += feature.Hop
	g.fresh = false
	if g.silent >= silentWindows {
		g.end = 0
	}
	s.rolled = append(s.rolled, rolled{ses, w})
}

// rollDue ends the windows whose time is over.
func (s *Service) rollDue(ses *session, now time.Time) {
	if ses.gauge == nil {
		return
	}
	at := now.Add(-windowSlack).Sub(s.here.Started).Nanoseconds()
	for g := ses.gauge; g.end != 0 && at >= g.end; {
		s.roll(ses)
	}
}

// tellWindows publishes the windows that ended. The caller holds mu.
func (s *Service) tellWindows() {
	if len(s.rolled) == 0 {
		return
	}
	news := make([]bus.StreamWindow, len(s.rolled))
	for i, r := range s.rolled {
		r.ses.gauge.meter.Tidy(r.window.End)
		news[i] = bus.StreamWindow{
			Transport: s.cfg.ID, Stream: r.ses.stream.id, Session: r.ses.id, Epoch: r.ses.epoch,
			Form: uint8(r.ses.gauge.form), Window: r.window.AppendTo(nil),
		}
		s.windows = append(s.windows, r.window)
		s.rolled[i] = rolled{}
	}
	s.rolled = s.rolled[:0]
	s.notice(func() {
		for i := range news {
			s.say(bus.TransportWindow.Tell(s.conn, news[i]))
		}
	})
}
