package demo

import (
	"strings"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// The demonstration's own comparison has to notice what it is there to notice.
func TestFaults(t *testing.T) {
	send := func(m *meter, deliver func(i int, p []byte)) {
		for i := range 20 {
			p := []byte{byte(i), 1, 2, 3}
			m.entered(p)
			m.sealed(gk.Index(65530+i), p)
			deliver(i, p)
		}
	}
	packet := func(i int) []byte {
		seq := gk.Index(65530 + i).Seq()
		return []byte{0x80, 33, byte(seq >> 8), byte(seq), 0, 0, 0, 0}
	}
	for _, c := range []struct {
		name    string
		deliver func(m *meter, i int, p []byte)
		fault   string
	}{
		{"all arrives", func(m *meter, _ int, p []byte) { m.delivered(p) }, ""},
		{"the path drops some", func(m *meter, i int, p []byte) {
			if i%4 == 3 {
				m.dropped(packet(i))
			} else {
				m.delivered(p)
			}
		}, ""},
		{"one is lost", func(m *meter, i int, p []byte) {
			if i != 7 {
				m.delivered(p)
			}
		}, "lost that the path did not drop"},
		{"one is dropped and another lost", func(m *meter, i int, p []byte) {
			if i == 3 {
				m.dropped(packet(i))
			} else if i != 7 {
				m.delivered(p)
			}
		}, "lost that the path did not drop"},
		{"the wrong one is missing", func(m *meter, i int, p []byte) {
			if i == 3 {
				m.dropped(packet(i))
			}
			if i != 7 {
				m.delivered(p)
			}
		}, "not the bytes sent"},
		{"one is delivered twice", func(m *meter, i int, p []byte) {
			m.delivered(p)
			if i == 5 {
				m.delivered(p)
			}
		}, "not the bytes sent"},
		{"one is altered", func(m *meter, i int, p []byte) {
			q := append([]byte{}, p...)
			q[0] ^= 1
			m.delivered(q)
		}, "not the bytes sent"},
		{"one cannot be decrypted", func(m *meter, _ int, p []byte) { m.delivered(p); m.undecryptable(1) }, "could not be decrypted"},
		{"nothing arrives", func(*meter, int, []byte) {}, "lost"},
	} {
		m := newMeter()
		send(m, func(i int, p []byte) { c.deliver(m, i, p) })
		if fault := m.summary().Fault(); c.fault == "" && fault != "" || !strings.Contains(fault, c.fault) {
			t.Errorf("%s: fault is %q, want %q", c.name, fault, c.fault)
		}
	}
	if fault := newMeter().summary().Fault(); fault == "" {
		t.Error("a run without packets passes")
	}
	m := newMeter()
	m.entered([]byte{1})
	m.delivered([]byte{1})
	if m.summary().Fault() == "" {
		t.Error("a packet that the device did not seal passes")
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	if q := quantiles(all); q != (Quantiles{50, 99, 100}) {
		t.Errorf("quantiles of 1 to 100 ms are %v", q)
	}
	if q := quantiles(all[:1]); q != (Quantiles{100, 100, 100}) {
		t.Errorf("quantiles of 100 ms are %v", q)
	}
	if q := quantiles(nil); q != (Quantiles{}) {
		t.Errorf("quantiles of nothing are %v", q)
	}
}
