package feature

import (
	"encoding/binary"
	"math/bits"
)

// mix is one round of a multiply-and-fold hash. It is quick and spreads well; it
// resists no adversary who knows the seed, and needs not: an unlucky collision
// is one count.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^v, 0x9fb21c651e98df25)
	return hi ^ lo
}

// hashBytes hashes b.
func hashBytes(seed uint64, b []byte) uint64 {
	h := seed ^ uint64(len(b))*0x9e3779b97f4a7c15
	for len(b) >= 8 {
		h = mix(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		h = mix(h, binary.LittleEndian.Uint64(tail[:]))
	}
	return mix(h, 0x2545f4914f6cdd1d)
}

// hashVisible hashes the visible bytes of a payload, 24 or more, in two chains at a time.
func hashVisible(seed uint64, b []byte) uint64 {
	first, last := (*[24]byte)(b), binary.LittleEndian.Uint64(b[len(b)-8:])
	one := mix(binary.LittleEndian.Uint64(first[:])^seed, binary.LittleEndian.Uint64(first[8:]))
	two := mix(binary.LittleEndian.Uint64(first[16:])^uint64(len(b)), last)
	return mix(one^bits.RotateLeft64(two, 29), 0x2545f4914f6cdd1d)
}
