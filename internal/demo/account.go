package demo

import (
	"hash/maphash"
	"math"
	"sync"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// account holds every delivered packet against what the device sealed under its
// index.
type account struct {
	seed maphash.Seed

	mu      sync.Mutex
	source  map[gk.Index]uint64 // what the device sealed
	genuine map[gk.Index]int    // number of the delivery that was as it was sealed
	foreign []delivery          // of something else
	n       int                 // deliveries
}

type delivery struct {
	index  gk.Index
	number int
}

func newAccount() *account {
	return &account{seed: maphash.MakeSeed(), source: map[gk.Index]uint64{}, genuine: map[gk.Index]int{}}
}

func (a *account) sealed(i gk.Index, payload []byte) {
	h := maphash.Bytes(a.seed, payload)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.source[i] = h
}

func (a *account) delivered(i gk.Index, payload []byte) {
	h := maphash.Bytes(a.seed, payload)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	if want, ok := a.source[i]; ok && want == h && a.genuine[i] == 0 {
		a.genuine[i] = a.n
		return
	}
	a.foreign = append(a.foreign, delivery{i, a.n})
}

// counts are the deliveries so far: as the device sealed them, and of something else.
func (a *account) counts() (genuine, foreign int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.genuine), len(a.foreign)
}

// balance is what an attack came to.
type balance struct {
	displaced    uint64 // source packets before first in whose place something else was delivered
	missing      uint64 // source packets before first in whose place nothing was
	lostAfter    uint64 // source packets from first on that were not delivered
	foreignAfter uint64 // deliveries behind the new key's first that were not the source's
}

// settle counts. first is where the new key begins; 0 if the key was not changed.
// Until the first packet under it is delivered a thief may have been ahead of the
// source: the switch is where it comes in the order of delivery.
func (a *account) settle(first gk.Index) (b balance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := map[gk.Index]bool{}
	begun := math.MaxInt
	if first > 0 {
		for i, n := range a.genuine {
			if i >= first {
				begun = min(begun, n)
			}
		}
	}
	for _, d := range a.foreign {
		taken[d.index] = true
		if d.number > begun {
			b.foreignAfter++
		}
	}
	for i := range a.source {
		switch {
		case a.genuine[i] > 0:
		case first > 0 && i >= first:
			b.lostAfter++
		case taken[i]:
			b.displaced++
		default:
			b.missing++
		}
	}
	return b
}
