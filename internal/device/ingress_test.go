package device

import (
	"bytes"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// The summary tells what came in, when nothing came, and what the encoder said
// anew, apart from whether a packet could be sent.
func TestIngressTellsWhatCameIn(t *testing.T) {
	start := time.Unix(1000, 0)
	strange := uint64(5)
	g := newIngress(gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, ClockRate: 90000, Encoding: "h264"}, start, func() uint64 { return strange })
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	picture := func(n int, parameters byte) *Batch {
		u := Unit{Timestamp: uint32(n * 3600), Type: 96, Marker: true, Payload: bytes.Repeat([]byte{0x41}, 500)}
		if parameters == 0 {
			return &Batch{Units: []Unit{u}}
		}
		first := Unit{Timestamp: u.Timestamp, Type: 96, Payload: []byte{0x67, 0x42, 0xc0, 0x1e, parameters, 1, 2, 3}}
		return &Batch{Units: []Unit{first, u}}
	}
	for i := range 25 {
		var sps byte
		if i == 0 {
			sps = 0xd9
		}
		g.took(at(40*i), picture(i, sps))
	}
	first := g.take(at(1000))
	if len(first.Marks) == 0 {
		t.Fatal("a parameter set left no mark")
	}
	want := &gkrp.Ingress{SpanMs: 1000, Packets: 26, Bytes: 25*500 + 8, GapMs: 40, IdleMs: 40, Frames: 23, Strange: 5, Marks: first.Marks}
	if !reflect.DeepEqual(first, want) {
		t.Errorf("%+v, want %+v", first, want)
	}

	// Two packets are lost before the device, then it restarts with other parameters.
	lossy := picture(26, 0)
	lossy.Units[0].Skip = 2
	g.took(at(1200), lossy)
	anew := picture(1, 0xee)
	anew.Break = "the encoder changed its SSRC"
	g.took(at(1700), anew)
	strange = 6
	second := g.take(at(2000))
	if second.Missing != 2 || second.Breaks != 1 || second.Strange != 1 || second.GapMs != 500 || second.IdleMs != 300 || second.SpanMs != 1000 {
		t.Errorf("%+v", second)
	}
	if len(second.Marks) == 0 || bytes.Equal(first.Marks, second.Marks) {
		t.Errorf("marks %x after %x", second.Marks, first.Marks)
	}
	for n := 1; n <= 3; n++ { // silence
		if s := g.take(at(2000 + 1000*n)); s.Packets != 0 || s.IdleMs != uint32(300+1000*n) || s.GapMs != s.IdleMs || s.Marks != nil {
			t.Errorf("in silence: %+v", s)
		}
	}
}

func TestIngressDoesNotAllocate(t *testing.T) {
	now := time.Unix(1000, 0)
	g := newIngress(payloadMP2T, now, func() uint64 { return 0 })
	b := tsBatch(newTS(0, time.Millisecond, 10), maxBatch, 7)
	if n := testing.AllocsPerRun(200, func() { now = now.Add(time.Millisecond); g.took(now, b) }); n > 0 {
		t.Errorf("%v allocations for a batch of %d packets", n, maxBatch)
	}
}

// Reports account for every packet of the source, from version 2 on.
func TestReportsTellWhatCameIn(t *testing.T) {
	for _, version := range []gkrp.Version{gkrp.Version1, gkrp.Version2} {
		synctest.Test(t, func(t *testing.T) {
			_, src := clock(10 * time.Second)
			w := newWorld(t)
			r := &rig{t: t, w: w, bus: bus.NewMemory(), done: make(chan error, 1)}
			r.svc = newService(t, w, r.bus, gkrp.Timing{Every: 3 * time.Second, Policy: gkrp.Policy{ReportEveryMs: 1000}})
			r.svc.newest = version
			r.begin(src, nil)
			defer r.close()
			if err := r.wait(); err != nil {
				t.Fatal(err)
			}
			var packets, span, newest uint64
			for _, rep := range r.svc.reports {
				if rep.Number <= newest {
					continue // the last one is sent twice, as BYE is
				}
				newest = rep.Number
				if (rep.Ingress != nil) != (version >= gkrp.Version2) {
					t.Fatalf("version %d: report %d with ingress %+v", version, rep.Number, rep.Ingress)
				}
				if rep.Ingress != nil {
					packets += rep.Ingress.Packets
					span += uint64(rep.Ingress.SpanMs)
				}
			}
			last := r.svc.reports[len(r.svc.reports)-1]
			if version >= gkrp.Version2 && (packets != last.Packets || packets == 0 || span < 9000 || span > 11_000) {
				t.Errorf("%d packets came in over %d ms, %d were sent", packets, span, last.Packets)
			}
		})
	}
}

// BenchmarkIngress is what measuring adds to a packet's way through the device.
func BenchmarkIngress(b *testing.B) {
	now := time.Unix(1000, 0)
	g := newIngress(payloadMP2T, now, func() uint64 { return 0 })
	m := newTS(0, time.Millisecond, 10)
	var batches []*Batch
	for range 64 {
		batches = append(batches, tsBatch(m, maxBatch, 7))
	}
	b.SetBytes(maxBatch * 1316)
	for i := 0; b.Loop(); i++ {
		now = now.Add(10 * time.Millisecond)
		g.took(now, batches[i%len(batches)])
	}
}
