package media

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"testing"
)

// TestTagIsNoFingerprintForAKeyHolder writes down a limit: whoever has the key can
// give another packet the tag of the source's, at the price of one block of 16
// bytes that he cannot choose. GCM authenticates against those without the key
// alone (NIST SP 800-38D; its hash is linear). So a list of tags finds what is
// substituted by ordinary means, and not this.
func TestTagIsNoFingerprintForAKeyHolder(t *testing.T) {
	masterKey, masterSalt := testKey(1)
	sealer, _ := newSealer(masterKey, masterSalt, testSSRC, 1)
	payload := bytes.Repeat([]byte("source. "), 20)
	header := Header{PayloadType: PayloadTypeTS, Seq: 7, SSRC: testSSRC}.AppendTo(nil)
	genuine, err := sealer.Seal(nil, header, payload, 7)
	if err != nil {
		t.Fatal(err)
	}

	key := make([]byte, masterKeySize)
	if err := prf(key, masterKey, masterSalt, labelEncryption); err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(key)
	var zero [16]byte
	block.Encrypt(zero[:], zero[:])
	h := elementOf(zero[:])

	// The thief's ciphertext, but for one block.
	other, _ := newSealer(masterKey, masterSalt, testSSRC, 1)
	forged, err := other.Seal(nil, header, bytes.Repeat([]byte("thief!! "), 20), 7)
	if err != nil {
		t.Fatal(err)
	}
	const at = 64 // the block that is given up
	body := func(pkt []byte) []byte { return pkt[len(header) : len(pkt)-Overhead] }
	difference := ghash(h, header, body(genuine)).plus(ghash(h, header, body(forged)))
	// A block that lies n blocks before the end counts times the hash key to the
	// power of n, and the lengths come after all.
	weight := element{hi: 1 << 63}
	for range (len(body(forged))-at)/16 + 1 {
		weight = weight.times(h)
	}
	fix := difference.times(weight.inverse())
	spare := body(forged)[at : at+16]
	fixed := elementOf(spare).plus(fix)
	binary.BigEndian.PutUint64(spare, fixed.hi)
	binary.BigEndian.PutUint64(spare[8:], fixed.lo)
	copy(forged[len(forged)-Overhead:], genuine[len(genuine)-Overhead:])

	opener, _ := newOpener(masterKey, masterSalt, testSSRC, 1)
	opened, v := opener.Open(nil, forged)
	if v != OK || !bytes.HasPrefix(opened.Payload, []byte("thief!! ")) {
		t.Errorf("a packet with a tag made to measure: %v, %q", v, opened.Payload)
	}
	if _, v := opener.Open(nil, genuine); v != Duplicate {
		t.Errorf("the source's own packet behind it: %v", v)
	}
}

// element is one of GF(2^128) in the order of bits of SP 800-38D §6.3.
type element struct{ hi, lo uint64 }

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a element) plus(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

func (a element) times(b element) (z element) {
	for i := range 128 {
		word := a.hi
		if i > 63 {
			word = a.lo
		}
		if word>>(63-i%64)&1 != 0 {
			z = z.plus(b)
		}
		carry := b.lo & 1
		b.lo = b.lo>>1 | b.hi<<63
		b.hi = b.hi>>1 ^ carry*(0xe1<<56)
	}
	return z
}

// inverse is a to the power of 2^128-2.
func (a element) inverse() element {
	z := element{hi: 1 << 63}
	for range 127 {
		a = a.times(a)
		z = z.times(a)
	}
	return z
}

// ghash is GHASH over associated data and ciphertext (SP 800-38D §6.4).
func ghash(h element, parts ...[]byte) (y element) {
	var lengths [16]byte
	for i, p := range parts {
		binary.BigEndian.PutUint64(lengths[8*i:], uint64(len(p))*8)
		for ; len(p) > 0; p = p[min(16, len(p)):] {
			var b [16]byte
			copy(b[:], p)
			y = y.plus(elementOf(b[:])).times(h)
		}
	}
	return y.plus(elementOf(lengths[:])).times(h)
}
