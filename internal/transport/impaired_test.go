package transport

import (
	"context"
	"net/netip"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// TestImpairedPath rotates every 120 packets behind a bad network: everything that
// the network delivered comes out, in order, once, and nothing else.
func TestImpairedPath(t *testing.T) {
	const epochs, perEpoch, first = maxRetiring + 1, 120, gk.Index(1000)
	cfg := testConfig()
	cfg.Latency, cfg.RoundTrip = 2*time.Second, 20*time.Second
	w := newWorld(t, cfg)
	dropped := map[gk.Index]bool{}
	relay, err := media.NewImpairment("127.0.0.1:0", netip.MustParseAddrPort(w.here.Address), media.ImpairConfig{
		Loss: 0.02, Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Reorder: 0.01, Seed: 3,
	}, func(pkt []byte) {
		h, err := media.ParseHeader(pkt)
		if err != nil {
			t.Error(err)
		}
		dropped[gk.Index(h.Seq)] = true
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	relayed := make(chan error, 1)
	go func() { relayed <- relay.Run(ctx) }()
	out := w.sock.NewSender(relay.Addr(), batchSize)

	w.assign(mp2t)
	index := first
	for e := gk.Epoch(1); e <= epochs; e++ {
		w.arm(e)
		begun := index
		s := w.sealer(e)
		for range perEpoch {
			if _, err := out.Send([][]byte{w.packet(s, index, tsPayload(index))}); err != nil {
				t.Fatal(err)
			}
			index++
		}
		w.begin(e, begun)
	}
	total := uint64(index - first)
	w.until("the relay", func() bool { c := relay.Counters(); return c.Received == total && c.Forwarded+c.Dropped == total })
	cancel()
	if err := <-relayed; err != nil {
		t.Fatal(err)
	}
	want := total - uint64(len(dropped))
	w.until("all that was not dropped", func() bool { return w.status().Delivered == want })
	at := first
	for _, p := range w.delivered() {
		for dropped[at] {
			at++
		}
		if p.index != at || p.payload != string(tsPayload(at)) {
			t.Fatalf("packet %d where %d was to come", p.index, at)
		}
		at++
	}
	if st := w.status(); len(st.Dropped) != 0 || st.Lost > uint64(len(dropped)) {
		t.Errorf("status %+v with %d dropped on the path", st, len(dropped))
	}
}
