package transport

import (
	"log/slog"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/host"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// bareService has the packet path with one session and no socket.
func bareService(t testing.TB, first gk.Index, epochs ...gk.Epoch) (*Service, *session) {
	t.Helper()
	s := &Service{
		cfg: Defaults(), log: slog.New(slog.DiscardHandler), notices: make(chan func(), maxNotices),
		streams: map[gk.StreamID]*stream{}, routes: map[uint32]*session{},
	}
	s.cfg.Host = host.Real{}
	st := &stream{id: testStream, viewers: newViewers(1<<20, 1)}
	ses := &session{stream: st, ssrc: testSSRC, payload: mp2t, order: reorder{latency: s.cfg.Latency}, lease: time.Unix(1, 0).Add(1000 * time.Hour),
		keys: slots{times: keyTimes{grace: time.Second, watch: time.Second, proofLife: time.Second, life: time.Hour}}}
	st.current, s.streams[st.id], s.routes[testSSRC] = ses, st, ses
	for _, e := range epochs {
		open, err := media.NewOpener(mediaKey(t, e), testSSRC, e)
		if err != nil {
			t.Fatal(err)
		}
		if err := ses.keys.arm(time.Unix(1, 0), e, gk.ReasonSchedule, open); err != nil {
			t.Fatal(err)
		}
	}
	ses.order.begin(first)
	return s, ses
}

// TestPacketPathAllocatesNothing, in order and in disorder.
func TestPacketPathAllocatesNothing(t *testing.T) {
	s, ses := bareService(t, 1, 1)
	sealer, err := media.NewSealer(mediaKey(t, 1), testSSRC, 1)
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]media.Datagram, batchSize)
	bufs := make([]byte, batchSize*datagramSize)
	payload := tsPayload(1)
	hdr := make([]byte, 0, 12)
	index := gk.Index(1)
	now := time.Unix(1, 0)
	fill := func() {
		for i := range batch {
			hdr = media.Header{PayloadType: media.PayloadTypeTS, Seq: index.Seq(), SSRC: testSSRC}.AppendTo(hdr[:0])
			pkt, err := sealer.Seal(bufs[i*datagramSize:i*datagramSize], hdr, payload, index)
			if err != nil {
				t.Fatal(err)
			}
			batch[i].Data = pkt
			index++
		}
		for i := 0; i+9 < len(batch); i += 10 {
			batch[i], batch[i+9] = batch[i+9], batch[i]
		}
	}
	for range 5 {
		fill()
		s.process(batch, now)
	}
	allocs := testing.AllocsPerRun(100, func() {
		fill()
		s.process(batch, now)
	})
	if allocs != 0 || ses.delivered != uint64(index-1) {
		t.Errorf("%v allocations a batch, %d of %d delivered", allocs, ses.delivered, index-1)
	}
}

// FuzzProcess: whatever comes in, nothing is delivered that was not sealed, and a
// genuine packet passes afterwards.
func FuzzProcess(f *testing.F) {
	f.Fuzz(func(t *testing.T, a, b []byte, truncated bool) {
		s, ses := bareService(t, 100, 1, 2)
		var genuine [2]string
		genuine[0] = string(sealAs(t, 1, 100, []byte("genuine")))
		genuine[1] = string(sealAs(t, 2, 101, []byte("genuine")))
		s.process([]media.Datagram{{Data: a, Truncated: truncated}, {Data: b}}, time.Unix(1, 0))
		known := func(p []byte) bool { return string(p) == genuine[0] || string(p) == genuine[1] }
		if ses.delivered > 0 && !known(a) && !known(b) {
			t.Fatal("delivered what nobody sealed")
		}
		s.process([]media.Datagram{{Data: []byte(genuine[0])}, {Data: []byte(genuine[1])}}, time.Unix(1, 0))
		if ses.delivered != 2 {
			t.Fatalf("%d genuine packets delivered", ses.delivered)
		}
	})
}
