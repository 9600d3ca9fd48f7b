package processing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A flood that belongs to no stream is one alert however long and from however
// many transports' counts it comes, and the next is a minute away.
func TestStrangersMakeOneAlert(t *testing.T) {
	w := newSiteWatch()
	now := time.Unix(1000, 0)
	var told []gk.Event
	flood := func(seconds int, n uint64) {
		for range seconds {
			now = now.Add(time.Second)
			told = append(told, w.hear(now, bus.Outsiders{Transport: "t-1", Dropped: map[string]uint64{"unknown-ssrc": n, "bad-length": 1}}, bus.RespondAlert)...)
		}
	}
	flood(30, 3)
	if len(w.alerts.all) != 0 {
		t.Fatalf("a stray packet is an alert: %+v", w.alerts.all)
	}
	flood(20, 5000)
	now = now.Add(noiseQuiet)
	told = append(told, w.tick(now)...)
	flood(20, 5000) // again, within the minute
	if len(w.alerts.all) != 1 || len(told) != 2 || told[0].Kind != gk.EventAlertOpened || told[1].Kind != gk.EventAlertClosed {
		t.Fatalf("%d alerts, told %+v", len(w.alerts.all), told)
	}
	a := w.alerts.all[0]
	if a.ID != "_site.1" || a.Stream != bus.SiteAlerts || a.Class != bus.ClassNoise || a.Response != bus.RespondAlert || a.Count != 20 || !strings.Contains(a.Evidence[0], "5000 unknown-ssrc") {
		t.Errorf("%+v", a)
	}
	now = now.Add(noiseEvery)
	flood(2, 5000)
	if len(w.alerts.all) != 2 {
		t.Error("a minute later it is not told again")
	}
	shown := newSiteWatch()
	if shown.hear(now, bus.Outsiders{Dropped: map[string]uint64{"unknown-ssrc": 1e6}}, bus.RespondShow); len(shown.alerts.all) != 0 {
		t.Error("an alert where none is wanted")
	}
	if _, err := gk.ParseStreamID(string(bus.SiteAlerts)); err == nil {
		t.Error("a stream may have the site's name")
	}
}

// Reports that stay away while packets come, and lists that fit nothing, are one
// alert that asks; a silent source, an early moment and a device without tags are
// none. No key changes for it, and nothing is held.
func TestReportsThatStayAway(t *testing.T) {
	for _, row := range []struct {
		name   string
		play   func(n int, u *bus.StreamStatus) (report, tagged bool) // second n
		alerts int
		want   string
	}{
		{"all is well", func(n int, u *bus.StreamStatus) (bool, bool) { u.Vouched = uint64(100 * n); return true, true }, 0, ""},
		{"a device without tags", func(int, *bus.StreamStatus) (bool, bool) { return true, false }, 0, ""},
		{"one report in five", func(n int, u *bus.StreamStatus) (bool, bool) {
			u.Vouched = uint64(100 * (n / 5))
			return n%5 == 0, true
		}, 0, ""},
		{"withheld", func(n int, u *bus.StreamStatus) (bool, bool) { return n < 10, true }, 1, "no report of them for"},
		{"withheld from the start", func(int, *bus.StreamStatus) (bool, bool) { return false, false }, 1, "no report of them for"},
		{"withheld, the source silent", func(n int, u *bus.StreamStatus) (bool, bool) {
			u.SilentMs = uint32(1000 * n)
			return n < 2, true
		}, 0, ""},
		{"nothing that was accepted is listed", func(n int, u *bus.StreamStatus) (bool, bool) { u.Vouched = uint64(min(n, 10)); return true, true }, 1, "found none of what it accepted"},
	} {
		s := learned(t)
		st := &stream{behaviour: s.b, svc: &Service{cfg: Config{ReportEvery: time.Second}}}
		for n := 1; n <= 40; n++ {
			s.play(time.Second)
			u := bus.StreamStatus{Session: s.session, Delivered: uint64(100 * n)}
			report, tagged := row.play(n, &u)
			if report {
				st.reports.report(s.now, s.session, tagged)
			}
			st.watchReports(s.now, &u)
		}
		text := fmt.Sprintf("%+v", s.b.alerts.all)
		if len(s.b.alerts.all) != row.alerts || !strings.Contains(text, row.want) || s.rotates != 0 || st.why(s.now) != "" {
			t.Errorf("%s: %s, %d rotations, held: %q", row.name, text, s.rotates, st.why(s.now))
		}
		if row.alerts == 0 {
			continue
		}
		if a := s.b.alerts.all[0]; a.Class != bus.ClassNoise || a.Ask == "" || a.Response != bus.RespondAlert || a.Severity != "warning" {
			t.Errorf("%s: %+v", row.name, a)
		}
	}
}
