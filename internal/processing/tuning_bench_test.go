package processing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/store"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// BenchmarkNight is the search of a night for one stream after the other, from a day of
// sealed scores each: 288 stretches are read, opened (AES-GCM in the place of the key
// management service), replayed, searched in and the record written.
func BenchmarkNight(b *testing.B) {
	const streams = 4
	ctx, cancel := context.WithCancel(context.Background())
	memory := bus.NewMemory()
	records := store.NewMemory()
	key := make([]byte, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	seal := func(content []byte) []byte {
		nonce := make([]byte, aead.NonceSize())
		_, _ = rand.Read(nonce) // never fails
		return aead.Seal(nonce, nonce, content, nil)
	}
	kms := memory.Conn()
	if _, err := bus.KMSSeal.Serve(kms, func(_ context.Context, r bus.SealRequest) (bus.SealReply, error) {
		return bus.SealReply{Sealed: seal(r.Content)}, nil
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := bus.KMSUnseal.Serve(kms, func(_ context.Context, r bus.UnsealRequest) (bus.UnsealReply, error) {
		n := aead.NonceSize()
		content, err := aead.Open(nil, r.Sealed[:n], r.Sealed[n:], nil)
		return bus.UnsealReply{Content: content}, err
	}); err != nil {
		b.Fatal(err)
	}
	s := New(testConfig(), memory.Conn(), memory.Courier(), records, nil, nil, slog.New(slog.DiscardHandler))
	s.ctx = ctx
	b.Cleanup(func() {
		cancel()
		s.wg.Wait()
		memory.Close()
	})
	start := time.Now().Add(-24 * time.Hour).Truncate(chunkTime).Add(chunkTime)
	for i := range streams {
		levels := make([]episode.Level, len(accusing))
		for chunk := range 287 {
			t := &tune.Trace{Layout: &tune.Layout{Kinds: accusing, Path: make([]bool, len(accusing))}, From: start.Add(time.Duration(chunk) * chunkTime)}
			for hop := range chunkHops {
				levels[hop%len(levels)] = episode.Level((hop/40 + i + chunk) % 50)
				t.Add(levels, 0)
			}
			content, err := t.Append(nil)
			if err != nil {
				b.Fatal(err)
			}
			v, err := keepMode.Marshal(envelope{Version: uint64(t.From.Unix()), Content: seal(content)})
			if err == nil {
				_, err = records.Put(ctx, fmt.Sprintf("%s.cam-%d.%d", scoresToken, i, chunk), v)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	var all []*stream
	for i := range streams {
		all = append(all, s.stream(gk.StreamID(fmt.Sprintf("cam-%d", i)), "device", 0))
	}
	quiet := 0.0
	for b.Loop() {
		for _, st := range all {
			f, err := st.search(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if err := st.notes(ctx, time.Now(), time.Now().Add(time.Hour)); err != nil {
				b.Fatal(err)
			}
			quiet += f.material.basis.Hours
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N*streams), "s/stream")
	b.ReportMetric(quiet/float64(b.N*streams), "quiet-h/stream")
}
