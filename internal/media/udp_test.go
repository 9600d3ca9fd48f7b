package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func listen(t testing.TB, opt SocketOptions) *UDPSocket {
	t.Helper()
	s, err := ListenUDP("127.0.0.1:0", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// receiveAll reads n datagrams or fails after a generous while.
func receiveAll(t testing.TB, s *UDPSocket, n int) (got [][]byte, last Datagram) {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := s.NewReceiver(16, 2000)
	for len(got) < n {
		batch, err := r.Receive()
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
		}
		for _, d := range batch {
			got = append(got, bytes.Clone(d.Data))
			last = d
		}
	}
	return got, last
}

// TestBatches sends runs of equal and unequal lengths, which leave as segments
// and singly, and gets them as they were.
func TestBatches(t *testing.T) {
	in := listen(t, SocketOptions{ReceiveBuffer: 1 << 20, Timestamps: true})
	out := listen(t, SocketOptions{SendBuffer: 1 << 20})
	var want [][]byte
	for i := range 200 {
		size := 1316
		switch {
		case i%50 == 49:
			size = 188
		case i%37 == 36:
			size = 0
		case i > 150:
			size = 100 + i
		}
		want = append(want, bytes.Repeat([]byte{byte(i)}, size))
	}
	for batch, w := 0, out.NewSender(in.LocalAddr(), 64); batch < len(want); batch += 100 {
		if n, err := w.Send(want[batch : batch+100]); err != nil || n != 100 {
			t.Fatalf("sent %d: %v", n, err)
		}
	}
	got, last := receiveAll(t, in, len(want))
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d has %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
	if last.From != out.LocalAddr() {
		t.Errorf("came from %v, want %v", last.From, out.LocalAddr())
	}
	if in.Granted().Timestamps {
		if age := time.Since(time.Unix(0, last.At)); age < -time.Minute || age > time.Minute {
			t.Errorf("receive time is %v ago", age)
		}
	}
}

func TestReceiveTruncates(t *testing.T) {
	in, out := listen(t, SocketOptions{}), listen(t, SocketOptions{})
	if _, err := out.NewSender(in.LocalAddr(), 4).Send([][]byte{make([]byte, 3000)}); err != nil {
		t.Fatal(err)
	}
	_, d := receiveAll(t, in, 1)
	if !d.Truncated || len(d.Data) != 2000 {
		t.Errorf("%d bytes, truncated %v", len(d.Data), d.Truncated)
	}
}

func TestDualStack(t *testing.T) {
	in, err := ListenUDP("[::]:0", SocketOptions{})
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	defer in.Close()
	out := listen(t, SocketOptions{})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), in.LocalAddr().Port())
	if _, err := out.NewSender(to, 1).Send([][]byte{[]byte("there")}); err != nil {
		t.Fatal(err)
	}
	got, d := receiveAll(t, in, 1)
	if string(got[0]) != "there" || d.From != out.LocalAddr() {
		t.Fatalf("%q from %v, want from %v", got[0], d.From, out.LocalAddr())
	}
	if _, err := in.NewSender(d.From, 1).Send([][]byte{[]byte("back")}); err != nil {
		t.Fatal(err)
	}
	if got, _ := receiveAll(t, out, 1); string(got[0]) != "back" {
		t.Fatalf("%q", got[0])
	}
}

func TestAddressInUse(t *testing.T) {
	s := listen(t, SocketOptions{})
	_, err := ListenUDP(s.LocalAddr().String(), SocketOptions{})
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), s.LocalAddr().String()) {
		t.Errorf("error %v", err)
	}
}

func TestShortfall(t *testing.T) {
	s := listen(t, SocketOptions{ReceiveBuffer: 1 << 20})
	if s.Granted().ReceiveBuffer >= 1<<20 && s.Shortfall() != "" {
		t.Errorf("granted %+v, but %q", s.Granted(), s.Shortfall())
	}
	s.asked.ReceiveBuffer = 2 * s.granted.ReceiveBuffer
	if got := s.Shortfall(); s.granted.ReceiveBuffer > 0 && !strings.Contains(got, "net.core.rmem_max") {
		t.Errorf("shortfall %q", got)
	}
}

func TestSocketsAllocateNothing(t *testing.T) {
	in, out := listen(t, SocketOptions{Timestamps: true}), listen(t, SocketOptions{})
	if !in.Granted().Batches {
		t.Skip("no batches on this system")
	}
	r, w := in.NewReceiver(16, 2000), out.NewSender(in.LocalAddr(), 16)
	pkts := [][]byte{make([]byte, 1316), make([]byte, 1316), make([]byte, 200)}
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := w.Send(pkts); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(pkts); {
			batch, err := r.Receive()
			if err != nil {
				t.Fatal(err)
			}
			n += len(batch)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a batch", allocs)
	}
}

func TestImpairment(t *testing.T) {
	const packets = 2000
	in := listen(t, SocketOptions{ReceiveBuffer: 4 << 20})
	dropped := map[uint32]bool{}
	p, err := NewImpairment("127.0.0.1:0", in.LocalAddr(), ImpairConfig{
		Loss: 0.1, Reorder: 0.05, Delay: 4 * time.Millisecond, Jitter: time.Millisecond, Seed: 7,
	}, func(pkt []byte) { dropped[binary.BigEndian.Uint32(pkt)] = true })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var runErr error
	wg.Go(func() { runErr = p.Run(ctx) })

	w := listen(t, SocketOptions{}).NewSender(p.Addr(), 8)
	for i := range packets {
		if _, err := w.Send([][]byte{binary.BigEndian.AppendUint32(nil, uint32(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for p.Counters().Received < packets {
		time.Sleep(time.Millisecond)
	}
	cancel()
	wg.Wait()
	c := p.Counters()
	if runErr != nil || c.Forwarded+c.Dropped != packets || c.Failed != 0 || int(c.Dropped) != len(dropped) {
		t.Fatalf("%+v with %d told as dropped: %v", c, len(dropped), runErr)
	}
	if c.Dropped < packets/20 || c.Dropped > packets/5 || c.Reordered == 0 {
		t.Errorf("dice out of proportion: %+v", c)
	}
	got, _ := receiveAll(t, in, int(c.Forwarded))
	disorder := 0
	for i, pkt := range got {
		n := binary.BigEndian.Uint32(pkt)
		if dropped[n] {
			t.Fatalf("packet %d was dropped and arrived", n)
		}
		dropped[n] = true
		if i > 0 && n < binary.BigEndian.Uint32(got[i-1]) {
			disorder++
		}
	}
	if disorder == 0 {
		t.Error("nothing was reordered")
	}
}

// TestImpairmentSeeds: a seed decides, whatever else is set.
func TestImpairmentSeeds(t *testing.T) {
	throw := func(seed uint64, cfg ImpairConfig) (drops []int) {
		cfg.Seed = seed
		p, err := NewImpairment("127.0.0.1:0", netip.MustParseAddrPort("127.0.0.1:9"), cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.sock.Close()
		for i := range 500 {
			if drop, _, _ := p.cfg.throw(p.dice); drop {
				drops = append(drops, i)
			}
		}
		return drops
	}
	same := func(a, b []int) bool {
		return len(a) == len(b) && len(a) > 0 && a[0] == b[0] && a[len(a)-1] == b[len(b)-1]
	}
	a := throw(1, ImpairConfig{Loss: 0.1})
	if b := throw(1, ImpairConfig{Loss: 0.1, Delay: time.Second, Jitter: time.Second, Reorder: 0.5}); !same(a, b) {
		t.Errorf("one seed, %v and %v", a, b)
	}
	if b := throw(2, ImpairConfig{Loss: 0.1}); same(a, b) {
		t.Errorf("two seeds, the same drops %v", a)
	}
	for _, bad := range []ImpairConfig{{Loss: 1.5}, {Reorder: -1}, {Delay: -1}, {Jitter: 1}} {
		if _, err := NewImpairment("127.0.0.1:0", netip.AddrPort{}, bad, nil); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}
