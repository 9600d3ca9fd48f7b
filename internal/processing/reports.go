package processing

import (
	"fmt"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// reportWatch notices that a device's reports stay away while its packets come.
// Without them nobody knows what the device sent, and a thief who only replaces
// packets is not found. A broker can withhold them, or a network cut the control
// path alone; so it is no evidence against anybody, changes no key and holds
// nothing: it is told, and an operator is asked.
type reportWatch struct {
	session gk.SessionID
	heard   time.Time // the last report, or the session's first status
	tagged  bool      // the last one listed its packets
	vouched uint64    // by the transport, of the session's packets
	rose    time.Time // vouched, last
}

const (
	reportsMissing = 10 * time.Second // without a report, at least
	reportsMissed  = 5                // and so many intervals of them
	arriving       = 1500             // ms without a packet at most
)

func (r *reportWatch) begin(now time.Time, session gk.SessionID) {
	if r.session != session {
		*r = reportWatch{session: session, heard: now, rose: now}
	}
}

// report notes a report of a session.
func (r *reportWatch) report(now time.Time, session gk.SessionID, tagged bool) {
	r.begin(now, session)
	if tagged && !r.tagged {
		r.rose = now // from now on the transport can compare
	}
	r.heard, r.tagged = now, tagged
}

// status takes a transport's counts and says what is missing; empty: nothing.
func (r *reportWatch) status(now time.Time, u *bus.StreamStatus, every time.Duration) string {
	r.begin(now, u.Session)
	if u.Vouched != r.vouched || !r.tagged || u.SilentMs >= arriving {
		r.vouched, r.rose = u.Vouched, now
	}
	patience := max(reportsMissing, reportsMissed*every)
	switch {
	case u.SilentMs >= arriving:
		return ""
	case now.Sub(r.heard) >= patience:
		return fmt.Sprintf("no-reports: the device's packets arrive, and no report of them for %.0f s: nobody knows whether they are its own", now.Sub(r.heard).Seconds())
	case now.Sub(r.rose) >= patience:
		return fmt.Sprintf("no-reports: the device lists its packets, and for %.0f s the transport has found none of what it accepted among them", now.Sub(r.rose).Seconds())
	}
	return ""
}

// watchReports raises the alert and takes care that it stays no more than one.
func (st *stream) watchReports(now time.Time, u *bus.StreamStatus) {
	line := st.reports.status(now, u, st.svc.cfg.ReportEvery)
	b := st.behaviour
	if line == "" || b.session != u.Session || b.response(bus.ClassNoise) == bus.RespondShow {
		return
	}
	b.raise(now, bus.Alert{
		Class: bus.ClassNoise, Kind: "no-reports", Severity: "warning", Score: 1, Response: bus.RespondAlert, Evidence: []string{line},
		Ask: reportsAsk,
	})
	if a := b.alerts.get(bus.ClassNoise); a != nil && a.Ask == "" { // the alert was open for something else
		a.Ask = reportsAsk
		b.alerts.tell(now, gk.EventAlertChanged, a)
	}
}

const reportsAsk = "look whether the device reaches its broker, and who runs it: without reports substituted packets are not found"
