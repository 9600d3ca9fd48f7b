package media

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"testing"
)

// BenchmarkFingerprint is what telling packets apart would cost where the tag does
// not: to a holder of the key, GCM's tag is no fingerprint. A packet of MPEG-TS is
// sealed; hashed; and authenticated under a second key that only device and
// transport know.
func BenchmarkFingerprint(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	pkt, nonce, out := make([]byte, 12+TSPerRTP*TSPacketSize+Overhead), make([]byte, 12), make([]byte, 0, 2048)
	for _, row := range []struct {
		name string
		do   func()
	}{
		{"seal", func() { gcm.Seal(out, nonce, pkt[12:len(pkt)-Overhead], pkt[:12]) }},
		{"sha256", func() { sha256.Sum256(pkt) }},
		{"gmac", func() { gcm.Seal(out, nonce, nil, pkt) }},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.SetBytes(int64(len(pkt)))
			for b.Loop() {
				row.do()
			}
		})
	}
}
