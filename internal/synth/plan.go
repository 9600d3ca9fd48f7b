package synth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// Plan is a batch of captures.
type Plan struct {
	Out      string // directory of the captures
	Seed     uint64
	Split    Split
	Hours    float64  // of harmless captures, baselines left out; 0: none
	PerKind  int      // attacks of each kind; 0: none
	Kinds    []string // of attacks and of network events; none: all
	Inputs   []string // the user's films, beside what is drawn
	Kbps     int      // of encoders that keep a rate, kbit/s; 0: drawn
	Paths    int      // captures made of one encoding
	Seconds  float64  // length of a harmless capture
	Baseline float64  // its clean beginning
	Whole    float64  // share of captures that hold whole packets
	Jobs     int
	Encoder  *Encoder
	Progress func(done, all int, what string)

	software    string
	inputLength float64
	recipes     []Recipe
	takes       []take
}

// Done tells what a run made.
type Done struct {
	Captures int
	Hours    float64 // of stream, baselines included
}

func (r *Recipe) String() string {
	s := fmt.Sprintf("%s, %dx%d at %d/%d", strings.Join(r.Encoder, " "), r.Frame.w, r.Frame.h, r.Frame.num, r.Frame.den)
	if len(r.Sound) > 0 {
		s += ", sound " + r.Sound[2]
	}
	if len(r.Mux) > 0 {
		s += ", mux " + strings.Join(r.Mux, " ")
	}
	return s
}

// lay draws what there is to do.
func (p *Plan) lay() error {
	for _, k := range p.Kinds {
		known := slices.Contains(AttackKinds, k)
		for _, of := range troubleKinds {
			known = known || slices.Contains(of, k)
		}
		if !known {
			return fmt.Errorf("no kind %q: attacks are %s", k, strings.Join(AttackKinds, ", "))
		}
	}
	encodes := 0
	if p.Hours > 0 {
		if p.Seconds < p.Baseline+30 {
			return fmt.Errorf("%.0f s are too short: the baseline takes %.0f", p.Seconds, p.Baseline)
		}
		n := int(math.Ceil(p.Hours * 3600 / (p.Seconds - p.Baseline)))
		encodes = (n + p.Paths - 1) / p.Paths
		for i := range n {
			p.takes = append(p.takes, take{name: fmt.Sprintf("%s%d_b%04d", p.Split, p.Seed, i), encode: i % encodes, ts: i/encodes%2 == 0, seconds: p.Seconds})
		}
	}
	kinds := slices.DeleteFunc(slices.Clone(AttackKinds), func(k string) bool { return len(p.Kinds) > 0 && !slices.Contains(p.Kinds, k) })
	var dealt []string
	d := newDice(p.Seed, "deal")
	for range p.PerKind {
		d.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		dealt = append(dealt, kinds...)
	}
	if len(dealt) > 0 && encodes == 0 {
		encodes = (len(dealt)/3 + p.Paths) / p.Paths
	}
	for i := 0; len(dealt) > 0; i++ {
		n := min(3, len(dealt))
		t := take{name: fmt.Sprintf("%s%d_a%04d", p.Split, p.Seed, i), encode: i % max(encodes, 1), ts: i/max(encodes, 1)%2 == 0, attacks: dealt[:n:n]}
		t.seconds = attackSeconds(p.Baseline, t.attacks)
		p.takes, dealt = append(p.takes, t), dealt[n:]
	}
	longest := 0.0
	for i := range p.takes {
		longest = max(longest, p.takes[i].seconds)
	}
	if len(p.takes) == 0 {
		return errors.New("nothing to make: ask for hours of harmless captures or for attacks")
	}
	for i := range encodes {
		p.recipes = append(p.recipes, drawRecipe(newDice(p.Seed, fmt.Sprintf("recipe/%d", i)), p.Split, longest+4, p.Kbps, p.Inputs, ""))
	}
	for i := range p.takes { // a codec that cannot travel as drawn travels the other way
		t, r := &p.takes[i], &p.recipes[p.takes[i].encode]
		t.ts = t.ts && r.hasTS() || !r.native()
	}
	return nil
}

// extras are the encodings beside the main one that a take needs: another encoder,
// the same on another film, the same on a picture that stands.
func (p *Plan) extras(t *take) (other, sibling, still *Recipe) {
	r := &p.recipes[t.encode]
	for _, k := range t.attacks {
		switch {
		case k == "encoder_swap":
			form := "native"
			if t.ts {
				form = "ts"
			}
			o := drawRecipe(newDice(p.Seed, fmt.Sprintf("other/%d/%s", t.encode, form)), p.Split, 30, p.Kbps, p.Inputs, form)
			other = &o
		case k == "frozen_feed":
			s := r.sibling(newDice(p.Seed, fmt.Sprintf("still/%d", t.encode)), p.Split, 30, p.Inputs, stillAfter)
			still = &s
		case k == "sibling_swap" || k == "slow_drift" || strings.HasPrefix(k, "inject_valid"):
			s := r.sibling(newDice(p.Seed, fmt.Sprintf("sibling/%d", t.encode)), p.Split, 30, p.Inputs, 0)
			sibling = &s
		}
	}
	return other, sibling, still
}

// ladder is to which share of its rate an encoder is stepped down; 0: never.
func (p *Plan) ladder(e int) float64 {
	d := newDice(p.Seed, fmt.Sprintf("ladder/%d", e))
	if d.chance(0.87) {
		return 0
	}
	return d.between(0.4, 0.75)
}

// Run makes the batch. Captures that are there already are kept, so that a run that
// was stopped can go on.
func Run(ctx context.Context, p *Plan) (Done, error) {
	p.software = p.Encoder.Version()
	if err := p.lay(); err != nil {
		return Done{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu    sync.Mutex
		done  Done
		first error
		wg    sync.WaitGroup
		work  = make(chan int)
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
			cancel()
		}
	}
	for range max(p.Jobs, 1) {
		wg.Go(func() {
			for e := range work {
				if err := p.perform(ctx, e, func(t *take, made float64) {
					mu.Lock()
					defer mu.Unlock()
					done.Captures++
					done.Hours += made / 3600
					if p.Progress != nil {
						p.Progress(done.Captures, len(p.takes), t.name)
					}
				}); err != nil {
					fail(err)
				}
			}
		})
	}
	for e := range p.recipes {
		select {
		case work <- e:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if first == nil {
		first = context.Cause(ctx)
	}
	return done, first
}

// perform makes all captures of one encoding.
func (p *Plan) perform(ctx context.Context, e int, made func(*take, float64)) error {
	var main *encoding
	for i := range p.takes {
		t := &p.takes[i]
		if t.encode != e {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if exists(p.Out, t.name) {
			made(t, t.seconds)
			continue
		}
		var c cast
		var err error
		if main == nil {
			if main, err = p.get(ctx, &p.recipes[e]); err != nil {
				return err
			}
		}
		c.main = main
		other, sibling, still := p.extras(t)
		for _, x := range []struct {
			r *Recipe
			e **encoding
		}{{other, &c.other}, {sibling, &c.sibling}, {still, &c.still}} {
			if x.r == nil {
				continue
			}
			if *x.e, err = p.get(ctx, x.r); err != nil {
				return err
			}
		}
		if by := p.ladder(e); by > 0 && len(t.attacks) == 0 && i%2 == 0 {
			r := p.recipes[e].lower(by)
			if c.lower, err = p.get(ctx, &r); err != nil {
				return err
			}
		}
		l, ps, err := t.make(p, c)
		if err != nil {
			return err
		}
		if err := write(p.Out, l, ps); err != nil {
			return err
		}
		made(t, l.Duration)
	}
	return nil
}

func (p *Plan) get(ctx context.Context, r *Recipe) (*encoding, error) {
	if err := p.Encoder.encode(ctx, r); err != nil {
		return nil, err
	}
	return p.Encoder.load(r)
}
