package media

import (
	"slices"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// BenchmarkPion opens the same packets of 1316 bytes with our layer and with pion's
// contexts, in turns in one run: key identifier, AES-256-GCM and replay window as large as
// ours, and without the window. Of each counts the lower quartile of passes over the ring,
// which are shorter than the scheduler's slice.
func BenchmarkPion(b *testing.B) {
	key, salt := testKey(1)
	sealer, err := newSealer(key, salt, testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	opener, err := newOpener(key, salt, testSSRC, 1)
	if err != nil {
		b.Fatal(err)
	}
	context := func(more ...srtp.ContextOption) *srtp.Context {
		c, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes256Gcm, append(more, srtp.MasterKeyIndicator(mki(1)))...)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	var head rtp.Header
	out := make([]byte, 0, 2048)
	pion := func(c *srtp.Context) func(pkt []byte) bool {
		return func(pkt []byte) bool {
			_, err := c.DecryptRTP(out, pkt, &head)
			return err == nil
		}
	}
	openers := [...]func(pkt []byte) bool{
		func(pkt []byte) bool { _, v := opener.Open(out, pkt); return v == OK },
		pion(context(srtp.SRTPReplayProtection(windowSize))),
		pion(context()),
	}
	var ring [ringSize][]byte
	for i := range ring {
		ring[i] = make([]byte, 0, 2048)
	}
	payload := make([]byte, TSPerRTP*TSPacketSize)
	index := gaitkeeper.Index(0)
	var hdr []byte
	var spent [len(openers)][]float64
	b.ReportAllocs()
	for round := 0; b.Loop(); round++ {
		for i := range ring {
			hdr = Header{PayloadType: PayloadTypeTS, Seq: index.Seq(), SSRC: testSSRC}.AppendTo(hdr[:0])
			if ring[i], err = sealer.Seal(ring[i][:0], hdr, payload, index); err != nil {
				b.Fatal(err)
			}
			index++
		}
		for turn := range openers { // whoever comes first warms the ring
			k := (round + turn) % len(openers)
			t0 := time.Now()
			for i := range ring {
				if !openers[k](ring[i]) {
					b.Fatalf("opener %d refuses packet %d", k, i)
				}
			}
			spent[k] = append(spent[k], float64(time.Since(t0).Nanoseconds())/ringSize)
		}
	}
	var ns [len(openers)]float64
	for k := range spent {
		slices.Sort(spent[k])
		ns[k] = spent[k][len(spent[k])/4]
	}
	b.ReportMetric(ns[0], "ours-ns")
	b.ReportMetric(ns[1], "pion-ns")
	b.ReportMetric(ns[2], "pion-no-replay-ns")
	b.ReportMetric(ns[1]/ns[0], "pion/ours")
	b.ReportMetric(ns[2]/ns[0], "pion-no-replay/ours")
}
