package detect

import (
	"math"
	"slices"
	"testing"
)

// rateOver1s makes the volumes over 1 s, in octaves, of pictures of so many bytes, 20 a
// second, each hop.
func rateOver1s(pictures []float64) (rates []float64) {
	for end := 20; end <= len(pictures); end += 5 {
		sum := 0.0
		for _, p := range pictures[end-20 : end] {
			sum += p
		}
		rates = append(rates, math.Log2(sum))
	}
	return rates
}

func TestSceneThatComesToRest(t *testing.T) {
	film := func(n int, size func(i int) float64) (p []float64) {
		for i := range n {
			p = append(p, size(i))
		}
		return p
	}
	at := func(size float64) func(int) float64 { return func(int) float64 { return size } }
	fades := func(i int) float64 { return 1000 * math.Exp2(-float64(i)/20) } // an octave a second
	refined := func(i int) float64 { return 76 + 300*math.Exp(-float64(i)/8) }
	key := func(i int) float64 { // at rest, and a key picture every 4 s
		if i%80 == 79 {
			return 30000
		}
		return 24
	}
	least := math.Log2(20 * 1000) // of the baseline
	for _, c := range []struct {
		what  string
		parts [][]float64
		came  bool
	}{
		{"a frozen picture", [][]float64{film(200, at(1500)), film(100, at(24))}, false},
		{"one that a rate control refines", [][]float64{film(200, at(1500)), film(100, refined)}, false},
		{"one among key pictures", [][]float64{film(200, at(1500)), film(300, key)}, false},
		{"a light that fades", [][]float64{film(200, at(1500)), film(100, fades), film(100, at(24))}, true},
		{"a scene with little in it, which then stops", [][]float64{film(200, at(1500)), film(80, at(150)), film(60, at(24))}, true},
		{"among key pictures", [][]float64{film(200, at(1500)), film(80, at(150)), film(300, key)}, true},
		{"it moves for a moment", [][]float64{film(200, at(1500)), film(80, at(150)), film(60, at(24)), film(40, at(1500)), film(60, at(24))}, true},
		{"then one that stands deeper", [][]float64{film(200, at(1500)), film(80, at(150)), film(60, at(24)), film(40, at(1500)), film(60, at(12))}, false},
	} {
		var pictures []float64
		for _, p := range c.parts {
			pictures = append(pictures, p...)
		}
		var r rest
		came := false
		for _, rate := range rateOver1s(pictures) {
			r.add(rate, least, true)
			came = rate < least-4 && r.came(rate, least)
		}
		if came != c.came {
			t.Errorf("%s: came to rest %v", c.what, came)
		}
	}
}

// Whoever freezes a picture does it in the middle of a film. A scene that was below all of
// the baseline already, and then stands, came to rest; key pictures among what stands, or
// in the film before it, change nothing.
func TestSceneThatWasLowBeforeItStood(t *testing.T) {
	hops := func(n int, size float64) []float64 { return slices.Repeat([]float64{size}, n) }
	film := hops(80, 3000)
	standing := func(n int) (h []float64) {
		for i := range n {
			if h = append(h, 100); i%10 == 9 {
				h[i] = 6000 // a key picture
			}
		}
		return h
	}
	least := math.Log2(second * 2500)
	for _, c := range []struct {
		what  string
		parts [][]float64
		slow  bool
	}{
		{"a frozen picture", [][]float64{film, hops(10, 100)}, false},
		{"one that is refined for half a second", [][]float64{film, hops(2, 700), hops(10, 100)}, false},
		{"one among key pictures", [][]float64{film, standing(16)}, false},
		{"a card that takes a second to be drawn sharp", [][]float64{film, hops(1, 8000), hops(4, 1000), hops(10, 100)}, true},
		{"a scene with little in it", [][]float64{film, hops(40, 800), hops(10, 100)}, true},
		{"the same, among key pictures", [][]float64{film, hops(40, 800), standing(36)}, true},
		{"a picture that has stood for longer than is remembered", [][]float64{film, hops(restHops+4, 100)}, false},
	} {
		var r rest
		for _, p := range c.parts {
			for _, bytes := range p {
				r.hop(bytes)
			}
		}
		if slow := r.slow(least); slow != c.slow {
			t.Errorf("%s: slow %v (2^%.1f bytes a second before)", c.what, slow, r.before())
		}
		d := volume{p: &Profile{Content1: Spread{Min: least}}, rest: r}
		if slow := d.slow(1); slow != c.slow {
			t.Errorf("%s: slow between key pictures %v", c.what, slow)
		}
		if came := r.came(math.Log2(second*100), least); came != c.slow {
			t.Errorf("%s: came to rest %v", c.what, came)
		}
	}
}
