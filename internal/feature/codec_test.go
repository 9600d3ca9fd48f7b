package feature

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// walk calls f for every number of a struct, in order.
func walk(v reflect.Value, f func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			walk(v.Field(i), f)
		}
	case reflect.Array:
		for i := range v.Len() {
			walk(v.Index(i), f)
		}
	default:
		f(v)
	}
}

// randomWindow fills every number of a window.
func randomWindow(rng *rand.Rand) Window {
	var w Window
	walk(reflect.ValueOf(&w.Sums).Elem(), func(v reflect.Value) {
		n := rng.Uint64() >> rng.IntN(64)
		switch {
		case rng.IntN(3) == 0:
		case v.CanInt():
			v.SetInt(int64(n))
		default:
			v.SetUint(n & (1<<v.Type().Bits() - 1))
		}
	})
	for f := range Families {
		at := uint32(0)
		for range rng.IntN(tokenRoom[f] + 1) {
			at += 1 + uint32(rng.IntN(1<<20))
			w.Tokens.items[w.Tokens.n] = TokenCount{token(f, at), rng.Uint32()}
			w.Tokens.n++
		}
		w.Tokens.Full[f] = rng.IntN(2) == 0
	}
	w.Tokens.Overflow = rng.Uint32()
	return w
}

func TestWindowSurvivesTheBus(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		w := randomWindow(rng)
		got := randomWindow(rng) // what was there before leaves nothing behind
		if err := got.Decode(w.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		if got != w {
			t.Fatalf("got %+v\nwant %+v", got, w)
		}
	}
	var empty, got Window
	if err := got.Decode(empty.AppendTo(nil)); err != nil || got != empty {
		t.Errorf("the empty window: %v", err)
	}
}

func FuzzWindowDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 3 {
		w := randomWindow(rng)
		f.Add(w.AppendTo(nil))
	}
	f.Add(windowLayout[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var w, again Window
		if w.Decode(b) != nil {
			return
		}
		if err := again.Decode(w.AppendTo(nil)); err != nil || again != w {
			t.Errorf("decoded window does not come back: %v", err)
		}
		var sum Window
		sum.Add(&w)
		sum.Add(&again)
		sum.Vector()
	})
}

func BenchmarkWindowOnTheBus(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := randomWindow(rng)
	buf := w.AppendTo(nil)
	for b.Loop() {
		buf = w.AppendTo(buf[:0])
		if err := w.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
