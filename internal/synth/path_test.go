package synth

import (
	"slices"
	"testing"
)

// steady is a sender of 50 packets a second.
func steady(seconds int) []packet {
	ps := make([]packet, 50*seconds)
	for i := range ps {
		ps[i] = packet{at: int64(i) * 20e6, seq: uint16(i), payload: make([]byte, 1000)}
	}
	return ps
}

func TestNetworksKeepWhatTheyPromise(t *testing.T) {
	for _, class := range Networks {
		for seed := range uint64(6) {
			d := newDice(seed, class)
			n := drawNetwork(d, class, 400_000)
			n.Loss, n.BurstRate, n.Reorder, n.Double, n.Skew = 0, 0, 0, 0, 0
			in := steady(60)
			out := n.deliver(newDice(seed, "way"), in, nil)
			if len(out) != len(in) {
				t.Fatalf("%v: %d of %d packets arrived over a network that loses none", n, len(out), len(in))
			}
			for i := range out {
				if out[i].seq != in[i].seq {
					t.Fatalf("%v: packet %d was overtaken on a network that keeps the order", n, i)
				}
				if out[i].at < in[i].at {
					t.Fatalf("%v: packet %d arrived %d ns before it was sent", n, i, in[i].at-out[i].at)
				}
			}
		}
	}
}

func TestTroubles(t *testing.T) {
	n := &network{Class: "wan", Rate: 1e8, Buffer: 10, Base: 0.02, Pace: 1, Jitter: 1e-4}
	arrivals := func(tr ...trouble) []packet { return n.deliver(newDice(1, "troubles"), steady(60), tr) }
	between := func(ps []packet, from, to float64) int {
		k := 0
		for _, p := range ps {
			if s := float64(p.at) / 1e9; s >= from && s < to {
				k++
			}
		}
		return k
	}
	if ps := arrivals(trouble{"outage_burst", 30, 33, 0}); len(ps) != 3000 || between(ps, 30.1, 33) != 0 || between(ps, 33, 33.2) < 150 {
		t.Errorf("outage: %d packets in all, %d within it, %d just after it; want 3000, 0 and the queue of 150", len(ps), between(ps, 30.1, 33), between(ps, 33, 33.2))
	}
	if ps := arrivals(trouble{"outage_loss", 30, 33, 0}); len(ps) != 2850 {
		t.Errorf("outage that loses: %d packets arrived, want 2850", len(ps))
	}
	if ps := arrivals(trouble{"loss_burst", 20, 40, 0.3}); len(ps) < 2600 || len(ps) > 2800 {
		t.Errorf("30 %% lost for 20 s: %d packets arrived, want about 2700", len(ps))
	}
	if ps := arrivals(trouble{"double_burst", 20, 40, 0.1}); len(ps) < 3060 || len(ps) > 3140 {
		t.Errorf("10 %% doubled for 20 s: %d packets arrived, want about 3100", len(ps))
	}
	late := 0
	for i, ps := 1, arrivals(trouble{"reorder_burst", 0, 60, 0.2}); i < len(ps); i++ {
		if int16(ps[i].seq-ps[i-1].seq) < 0 {
			late++
		}
	}
	if late != 0 {
		t.Errorf("%d packets 20 ms apart were overtaken within 12 ms", late)
	}
	ps := arrivals(trouble{"reroute", 30, 60, 0.04})
	before, after := ps[1000].at-steady(60)[1000].at, ps[2000].at-steady(60)[2000].at
	if step := float64(after-before) / 1e6; step < 38 || step > 42 {
		t.Errorf("a way that is 40 ms longer took %.1f ms more", step)
	}
	ps = arrivals(trouble{"rate_drop", 10, 20, 300_000})
	if got := between(ps, 12, 20); got < 260 || got > 300 {
		t.Errorf("8 s of a link of 300 kbit/s carried %d packets of 1054 bytes, want about 285", got)
	}
}

func TestSkewAndLoss(t *testing.T) {
	n := &network{Rate: 1e8, Buffer: 1, Base: 0.01, Skew: 1e-3, Loss: 0.1}
	in := steady(600)
	out := n.deliver(newDice(1, "skew"), in, nil)
	if share := 1 - float64(len(out))/float64(len(in)); share < 0.09 || share > 0.11 {
		t.Errorf("lost %.3f, want 0.1", share)
	}
	last := out[len(out)-1]
	sent := float64(last.seq) * 0.02
	if gain := float64(last.at)/1e9 - sent - 0.01; gain < 0.58 || gain > 0.62 {
		t.Errorf("1000 ppm of 600 s are %.3f s, want 0.6", gain)
	}
}

func TestSameDiceSameWay(t *testing.T) {
	way := func() []packet {
		d := newDice(3, "x")
		n := drawNetwork(d, "lte", 1e6)
		tr, _ := drawTrouble(d, n, "handover", 20, 60, 1e6)
		return n.deliver(d, steady(60), []trouble{tr})
	}
	if !slices.EqualFunc(way(), way(), func(a, b packet) bool { return a.at == b.at && a.seq == b.seq }) {
		t.Error("the same seed led two ways")
	}
}
