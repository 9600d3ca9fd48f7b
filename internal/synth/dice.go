package synth

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// dice are a seeded source of chance. Every decision throws its own, named after
// what it decides, so that one more throw somewhere changes nothing elsewhere.
type dice struct{ *rand.Rand }

func newDice(seed uint64, name string) dice {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%s", seed, name))
	return dice{rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])))}
}

func (d dice) chance(p float64) bool            { return d.Float64() < p }
func (d dice) between(lo, hi float64) float64   { return lo + (hi-lo)*d.Float64() }
func (d dice) whole(lo, hi int) int             { return lo + d.IntN(hi-lo+1) }
func (d dice) exponential(mean float64) float64 { return mean * d.ExpFloat64() }

// spread is log-normal around median.
func (d dice) spread(median, sigma float64) float64 { return median * math.Exp(sigma*d.NormFloat64()) }

// logBetween is even over the logarithm.
func (d dice) logBetween(lo, hi float64) float64 { return lo * math.Pow(hi/lo, d.Float64()) }

func (d dice) span(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Float64()*float64(hi-lo))
}

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// fill makes n bytes without any pattern.
func (d dice) fill(n int) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], d.Uint64())
	}
	return b[:n]
}
