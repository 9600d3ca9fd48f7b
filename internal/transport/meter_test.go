package transport

import (
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// metered gives a bare service's session a gauge.
func metered(s *Service, ses *session, form feature.Form) {
	ses.gauge = &gauge{meter: feature.NewLiveMeter(form), form: form}
	s.here.Started = time.Unix(1, 0)
}

func TestMeasuringAllocatesNothing(t *testing.T) {
	s, ses := bareService(t, 1, 1)
	metered(s, ses, feature.TS)
	feed := newFeed(t)
	now := time.Unix(1, 0)
	for range 4 { // buffers find their sizes
		now = now.Add(100 * time.Millisecond)
		s.process(feed.next(), now)
		s.tellWindows()
	}
	batches := make([][]media.Datagram, 0, 20)
	for range cap(batches) {
		batch := append([]media.Datagram(nil), feed.next()...)
		for i := range batch {
			batch[i].Data = append([]byte(nil), batch[i].Data...)
		}
		batches = append(batches, batch)
	}
	n := 0
	if got := testing.AllocsPerRun(len(batches)-2, func() {
		now = now.Add(10 * time.Millisecond)
		s.process(batches[n], now)
		n++
	}); got != 0 {
		t.Errorf("%v allocations for a batch that is measured", got)
	}
}

func TestArrivalHeedsNoSetClock(t *testing.T) {
	s, _ := bareService(t, 1, 1)
	s.here.Started = time.Unix(1000, 0)
	now := time.Unix(1010, 0)
	s.clock(now)
	for _, row := range []struct {
		at   int64
		want time.Duration
	}{
		{0, 10 * time.Second},
		{now.Add(-3 * time.Millisecond).UnixNano(), 10*time.Second - 3*time.Millisecond},
		{now.Add(time.Hour).UnixNano(), 10 * time.Second},  // the clock was set back since
		{now.Add(-time.Hour).UnixNano(), 10 * time.Second}, // or forward
	} {
		if got := time.Duration(s.arrival(&media.Datagram{At: row.at})); got != row.want {
			t.Errorf("kernel time %d: arrived at %v, want %v", row.at, got, row.want)
		}
	}
}

// TestWindowsHoldWhatWasAcceptedAlone: windows tile time, add up to the accepted
// packets, and go on through silence for a while; refused packets leave no trace.
func TestWindowsHoldWhatWasAcceptedAlone(t *testing.T) {
	s, ses := bareService(t, 1, 1)
	metered(s, ses, feature.TS)
	memory := bus.NewMemory()
	defer memory.Close()
	s.conn = memory.Conn()
	got := make(chan bus.StreamWindow, 4096)
	if _, err := bus.TransportWindow.Hear(memory.Conn(), func(w bus.StreamWindow) { got <- w }, nil); err != nil {
		t.Fatal(err)
	}
	feed := newFeed(t)
	now := time.Unix(5, 0)
	packets := uint64(0)
	told := 0
	tick := func() {
		now = now.Add(10 * time.Millisecond)
		s.overdue(now)
		for len(s.notices) > 0 {
			(<-s.notices)()
		}
	}
	for range 100 { // a second
		batch := feed.next()
		s.process(batch[:10], now)
		packets += 10
		s.process(batch[:10], now) // repetitions
		forged := append([]byte(nil), batch[11].Data...)
		forged[40] ^= 1
		s.process([]media.Datagram{{Data: forged}}, now)
		tick()
		feed.index -= batchSize - 10
		feed.sealer, _ = media.NewSealer(mediaKey(t, 1), testSSRC, 1)
	}
	for range 100 * 70 { // silence
		tick()
	}
	const last = gk.StreamID("the-end") // what was told before it was heard before it
	if err := bus.TransportWindow.Tell(s.conn, bus.StreamWindow{Stream: last}); err != nil {
		t.Fatal(err)
	}
	var sum feature.Window
	for n := range got {
		if n.Stream == last {
			break
		}
		var w feature.Window
		if err := w.Decode(n.Window); err != nil {
			t.Fatal(err)
		}
		if told > 0 && w.Start != sum.End {
			t.Fatalf("window from %d after one to %d", w.Start, sum.End)
		}
		sum.Add(&w)
		told++
		if n.Stream != testStream || feature.Form(n.Form) != feature.TS {
			t.Fatalf("window of %s, form %d", n.Stream, n.Form)
		}
	}
	if sum.Packets != packets || sum.Duplicates != 0 || sum.Lost != 0 {
		t.Errorf("windows hold %d packets, %d duplicates, %d lost; %d were accepted", sum.Packets, sum.Duplicates, sum.Lost, packets)
	}
	if told < silentWindows+3 || told > silentWindows+6 {
		t.Errorf("%d windows, %d of them may be silent", told, silentWindows)
	}
	s.process(feed.next()[:1], now) // it comes back
	if w := ses.gauge.end; w != ses.gauge.last+feature.Hop {
		t.Errorf("after silence the window ends at %d, its first packet came at %d", w, ses.gauge.last)
	}
}

func TestMeterSwitch(t *testing.T) {
	for _, on := range []bool{true, false} {
		s := &Service{cfg: Config{Meter: on}}
		if g := s.newGauge(mp2t); (g != nil) != on {
			t.Errorf("meter %v: gauge %v", on, g)
		}
	}
	for _, row := range []struct {
		p    gkrp.Payload
		want feature.Form
	}{
		{mp2t, feature.TS},
		{gkrp.Payload{Kind: gkrp.PayloadNative, Type: 33}, feature.TS},
		{gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, Encoding: "h264"}, feature.H264},
		{gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, Encoding: "H265"}, feature.H265},
		{gkrp.Payload{Kind: gkrp.PayloadNative, Type: 96, Encoding: "VP9"}, feature.Opaque},
	} {
		if got := formOf(row.p); got != row.want {
			t.Errorf("%+v is read as %v", row.p, got)
		}
	}
}
