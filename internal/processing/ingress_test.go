package processing

import (
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// second is what a source of 100 kB/s brings in.
var second = gkrp.Ingress{SpanMs: 1000, Packets: 100, Bytes: 100_000, GapMs: 40, IdleMs: 10, Frames: 25, Marks: []byte{1, 2, 3, 4}}

func TestWhatIngressSays(t *testing.T) {
	with := func(f func(*gkrp.Ingress)) *gkrp.Ingress { i := second; f(&i); return &i }
	for _, row := range []struct {
		name  string
		last  *gkrp.Ingress
		later time.Duration // after the last summary
		share float64       // of it that arrives
		want  string        // empty: nothing
	}{
		{"as ever", &second, 0, 1, "as ever at the device, 800 kb/s: whatever changed until then was changed behind it"},
		{"less arrives", &second, 0, 0.5, "50 % of that arrives"},
		{"stopped", with(func(i *gkrp.Ingress) { i.Packets, i.Bytes, i.GapMs, i.IdleMs, i.Marks = 0, 0, 2500, 2500, nil }), 0, 0, "nothing has come in at the device for 2.5 s"},
		{"a third of the rate", with(func(i *gkrp.Ingress) { i.Bytes /= 3 }), 0, 1, "267 kb/s after 800 kb/s: it is the source's own"},
		{"restarted", with(func(i *gkrp.Ingress) { i.Breaks = 1 }), 0, 1, "restarted or jumped"},
		{"restarted long ago", with(func(i *gkrp.Ingress) { i.Breaks = 1 }), time.Hour, 1, ""},
		{"other parameters", with(func(i *gkrp.Ingress) { i.Marks = []byte{1, 2, 3, 4, 9, 9, 9, 9} }), 0, 1, "never said before"},
		{"no word of late", &second, 4 * time.Second, 1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var g ingressLog
			now := time.Unix(1000, 0)
			if g.says(now) != "" || g.info(now) != nil {
				t.Fatal("says something before a word was heard")
			}
			session := gk.SessionID{1}
			for range 2 * ingressRates {
				now = now.Add(time.Second)
				g.hear(now, session, &second)
			}
			now = now.Add(time.Second)
			g.hear(now, session, row.last)
			for range 4 {
				g.passed(&feature.Window{Sums: feature.Sums{Hops: 1, Bytes: uint64(row.share * (100_000 + 12*100) / 4)}})
			}
			now = now.Add(row.later)
			got := g.says(now)
			if row.want == "" && got != "" || !strings.Contains(got, row.want) {
				t.Errorf("says %q, want %q", got, row.want)
			}
			if i := g.info(now); i.Says == "" || i.Usual != 100_000 {
				t.Errorf("%+v", i)
			}
			g.hear(now, gk.SessionID{2}, &second)
			if g.says(now) != "" {
				t.Error("a new session is judged by the one before")
			}
		})
	}
}

// An outage alert tells whether the source stopped or the path is cut, and so does
// the alert about a source that changed.
func TestAlertsTellWhatTheDeviceSaw(t *testing.T) {
	for _, row := range []struct {
		name string
		last gkrp.Ingress
		want string
	}{
		{"path", second, "as ever"},
		{"source", gkrp.Ingress{SpanMs: 1000, GapMs: 9000, IdleMs: 9000}, "stands still"},
	} {
		s := learned(t)
		tell := func(i gkrp.Ingress) {
			for range 4 {
				s.play(feature.Hop)
			}
			s.b.heardIngress(s.now, s.session, &i)
		}
		for range 10 {
			tell(second)
		}
		s.e.cut = true
		for range 12 {
			tell(row.last)
		}
		a := s.b.alerts.get(bus.ClassPath)
		if a == nil || a.Kind != outageKind || len(a.Evidence) != 2 || !strings.Contains(a.Evidence[1], row.want) {
			t.Errorf("%s: %+v", row.name, a)
		}
	}
}

// The device's word never keeps a source's alarm from a new key: somebody with the
// key may have made what the device did not see.
func TestIngressExcusesNothing(t *testing.T) {
	s := learned(t)
	for range 10 {
		s.play(time.Second)
		s.b.heardIngress(s.now, s.session, &second)
	}
	s.e.style = foreign
	for range 20 {
		s.play(time.Second)
		s.b.heardIngress(s.now, s.session, &second)
	}
	a := s.b.alerts.get(bus.ClassSource)
	if s.rotates != 1 || a == nil || !strings.Contains(strings.Join(a.Evidence, "\n"), "the source was as ever at the device") {
		t.Errorf("%d rotations, %+v", s.rotates, a)
	}
}

// Whatever a device says, nothing breaks and memory stays bounded.
func FuzzIngress(f *testing.F) {
	f.Add(uint32(1000), uint64(100), uint64(100_000), uint32(40), uint32(10), uint64(1), []byte{1, 2, 3, 4})
	f.Add(uint32(0), uint64(0), uint64(0), uint32(0), uint32(0), uint64(0), []byte{})
	f.Add(uint32(1), uint64(1)<<63, uint64(1)<<63, uint32(1<<32-1), uint32(1<<32-1), uint64(1)<<63, make([]byte, 64))
	f.Fuzz(func(t *testing.T, span uint32, packets, bytes uint64, gap, idle uint32, breaks uint64, marks []byte) {
		var g ingressLog
		now := time.Unix(1000, 0)
		for n := range 100 {
			i := gkrp.Ingress{SpanMs: span, Packets: packets, Bytes: bytes, GapMs: gap, IdleMs: idle, Breaks: breaks, Marks: append([]byte{byte(n), 1, 2, 3}, marks...)}
			g.hear(now, gk.SessionID{1}, &i)
			g.says(now)
			g.info(now)
		}
		if len(g.marks) > mostMarks {
			t.Errorf("%d marks are kept", len(g.marks))
		}
	})
}
