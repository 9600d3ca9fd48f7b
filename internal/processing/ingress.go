package processing

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// What the device measured at its ingress stands before the network, and is
// signed. So it tells, of a change that the transport sees, whether the source
// made it. It explains, and decides nothing: a change that the source did not make
// may be the path's, which the detectors know by itself, or that of somebody who
// has the key, and his doing must not be excused because the source is as ever.

const (
	ingressRates  = 30              // summaries that tell what is usual
	ingressEnough = 5               // of them before anything is
	ingressLate   = 2 * time.Second // beyond a summary's span, after which it says nothing of now
	ingressIdle   = time.Second     // without a packet, that the source has stopped
	ingressRecent = 10 * time.Second
	steadyFactor  = 1.5  // rates and gaps within it of the usual are as ever
	sameFactor    = 1.33 // as much arrives as came in
	gapSlack      = 20   // ms by which gaps may grow in any case
	mostMarks     = 256
)

// ingressLog is what the device of a stream said of its source. The zero value
// knows nothing.
type ingressLog struct {
	session gk.SessionID
	bus.Ingress
	span    time.Duration
	rates   [ingressRates]float64
	gaps    [ingressRates]float64 // ms
	gap     float64               // the usual one
	told    int                   // summaries with packets
	marks   map[uint32]bool
	marked  time.Time // a mark that the session did not have before
	arrived [4]uint64 // bytes that the transport accepted, of the last windows
	windows int
}

// hear takes a device's summary.
func (g *ingressLog) hear(now time.Time, session gk.SessionID, i *gkrp.Ingress) {
	if session != g.session {
		arrived, windows := g.arrived, g.windows
		*g = ingressLog{session: session, marks: map[uint32]bool{}, arrived: arrived, windows: windows}
	}
	if i.SpanMs == 0 {
		return
	}
	g.At, g.span, g.GapMs, g.IdleMs = now, time.Duration(i.SpanMs)*time.Millisecond, i.GapMs, i.IdleMs
	g.Rate, g.Packets = float64(i.Bytes)/g.span.Seconds(), float64(i.Packets)/g.span.Seconds()
	g.Missing += i.Missing
	g.Breaks += i.Breaks
	g.Strange += i.Strange
	if i.Breaks > 0 {
		g.Broke = now
	}
	for b := i.Marks; len(b) >= gkrp.MarkBytes; b = b[gkrp.MarkBytes:] {
		m := binary.BigEndian.Uint32(b)
		if !g.marks[m] && len(g.marks) < mostMarks {
			if g.marks[m] = true; g.told >= ingressEnough {
				g.marked = now
			}
		}
	}
	if g.told >= ingressEnough {
		n := min(g.told, ingressRates)
		g.Usual, g.gap = median(g.rates[:n]), median(g.gaps[:n])
	}
	if i.Packets > 0 {
		g.rates[g.told%ingressRates], g.gaps[g.told%ingressRates] = g.Rate, float64(g.GapMs)
		g.told++
	}
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

// passed takes a window of what the transport accepted.
func (g *ingressLog) passed(w *feature.Window) {
	g.arrived[g.windows%len(g.arrived)] = w.Bytes
	g.windows++
}

// current reports whether the newest summary speaks of now.
func (g *ingressLog) current(now time.Time) bool {
	return !g.At.IsZero() && now.Sub(g.At) <= g.span+ingressLate
}

// steady reports whether the source is known to be as ever.
func (g *ingressLog) steady(now time.Time) bool {
	return g.current(now) && g.Usual > 0 && g.idle() < ingressIdle && !g.changed(now) &&
		within(g.Rate, g.Usual, steadyFactor) && float64(g.GapMs) < max(g.gap*steadyFactor, g.gap+gapSlack)
}

func within(a, b, factor float64) bool { return a < b*factor && b < a*factor }

func (g *ingressLog) idle() time.Duration { return time.Duration(g.IdleMs) * time.Millisecond }

// changed reports whether the encoder is known to have changed or begun anew of late.
func (g *ingressLog) changed(now time.Time) bool {
	recent := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < ingressRecent }
	return recent(g.Broke) || recent(g.marked)
}

// share is how much arrived in the last second of what came in; 0 where that is
// not known.
func (g *ingressLog) share() float64 {
	// A window counts RTP headers, and the device does not.
	in := g.Rate + g.Packets*rtpHeader
	if g.windows < len(g.arrived) || in == 0 {
		return 0
	}
	var sum uint64
	for _, n := range g.arrived {
		sum += n
	}
	return float64(sum) / (float64(len(g.arrived)) * feature.Hop / 1e9) / in
}

const rtpHeader = 12 // bytes

// says is what the device's word means now; empty where it says nothing.
func (g *ingressLog) says(now time.Time) string {
	switch {
	case !g.current(now):
		return ""
	case g.idle() >= ingressIdle:
		return fmt.Sprintf("ingress: nothing has come in at the device for %.1f s: the source itself, or what feeds it, stands still", g.idle().Seconds())
	case g.changed(now) && now.Sub(g.Broke) < ingressRecent:
		return "ingress: at the device the source restarted or jumped: it changed itself"
	case g.changed(now):
		return "ingress: at the device too the encoder says what it never said before: it changed itself"
	case g.Usual == 0:
		return ""
	case g.steady(now) && g.share() > 0 && g.share() < 1/sameFactor:
		return fmt.Sprintf("ingress: %.1f s ago the source was as ever at the device, %s, and %.0f %% of that arrives: the rest was lost or taken out after it", now.Sub(g.At).Seconds(), rateText(g.Rate), 100*g.share())
	case g.steady(now):
		return fmt.Sprintf("ingress: %.1f s ago the source was as ever at the device, %s: whatever changed until then was changed behind it", now.Sub(g.At).Seconds(), rateText(g.Rate))
	}
	return fmt.Sprintf("ingress: at the device too the rate is another, %s after %s: it is the source's own", rateText(g.Rate), rateText(g.Usual))
}

func rateText(bytesPerSecond float64) string {
	return fmt.Sprintf("%.0f kb/s", bytesPerSecond*8/1000)
}

// heardIngress takes a summary that came with a report, and adds it to an alert
// that was opened before it could be there.
func (b *behaviour) heardIngress(now time.Time, session gk.SessionID, i *gkrp.Ingress) {
	b.ingress.hear(now, session, i)
	a := b.alerts.get(bus.ClassSource)
	if a == nil || a.Session != session || now.Sub(a.Opened) > b.ingress.span+ingressLate {
		return
	}
	if line := b.ingress.says(now); line != "" {
		b.alerts.see(now, a, 0, line)
	}
}

// explained adds to an alarm what the device's word makes of it.
func (b *behaviour) explained(now time.Time, a bus.Alert) bus.Alert {
	if line := b.ingress.says(now); line != "" {
		a.Evidence = append(slices.Clone(a.Evidence[:min(len(a.Evidence), maxEvidence-1)]), line)
	}
	return a
}

// info is the device's word for explain; nil where there is none.
func (g *ingressLog) info(now time.Time) *bus.Ingress {
	if g.At.IsZero() {
		return nil
	}
	i := g.Ingress
	if i.Says = g.says(now); i.Says == "" {
		i.Says = "nothing is known yet"
		if !g.current(now) {
			i.Says = "the device has told nothing of late"
		}
	}
	return &i
}
