package sim

import (
	"bytes"
	"flag"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

var (
	seeds   = flag.Int("seeds", 12, "how many seeds to simulate")
	first   = flag.Uint64("first", 1, "the first seed")
	seed    = flag.Uint64("seed", 0, "simulate this seed alone, and write every step")
	active  = flag.Duration("active", 40*time.Second, "virtual time in which faults and adversaries act")
	genuine = flag.Bool("real", false, "use HPKE and Ed25519 in place of keyed hashes")
	keep    = flag.Int("keep", 3, "stop after so many failing seeds")
	fault   = flag.String("break", "", "deliberate fault, with -seed")
	calmly  = flag.Bool("calm", false, "no faults, no adversaries")
)

// fail runs a failing seed once more to tell how it came to that.
func fail(t *testing.T, o Options, r Result) {
	t.Helper()
	var trace bytes.Buffer
	o.Trace = &trace
	Run(o)
	lines := bytes.Split(bytes.TrimSpace(trace.Bytes()), []byte("\n"))
	const last = 60
	t.Errorf("seed %d: %v\nlast steps:\n%s\nreplay: go test ./internal/sim -run TestSimulation -seed %d -active %v -real=%v -v",
		o.Seed, r.Violations, bytes.Join(lines[max(0, len(lines)-last):], []byte("\n")), o.Seed, o.Active, o.Real)
}

func TestSimulation(t *testing.T) {
	o := Options{Active: *active, Real: *genuine, Calm: *calmly, Dir: t.TempDir(), Break: *fault}
	if *seed != 0 {
		var trace bytes.Buffer
		o.Seed, o.Trace = *seed, &trace
		r := Run(o)
		t.Logf("%s%+v", trace.String(), r)
		if len(r.Violations) > 0 {
			t.Errorf("seed %d: %v", o.Seed, r.Violations)
		}
		return
	}
	debug.SetGCPercent(400)
	began := time.Now()
	var (
		mu     sync.Mutex
		total  = Result{ByReason: map[gk.Reason]uint64{}}
		failed int
		next   = *first
		wg     sync.WaitGroup
	)
	for range min(runtime.GOMAXPROCS(0), *seeds) {
		wg.Go(func() {
			o := o
			o.Dir = t.TempDir()
			for {
				mu.Lock()
				o.Seed = next
				next++
				done := o.Seed >= *first+uint64(*seeds) || failed >= *keep
				mu.Unlock()
				if done {
					return
				}
				r := Run(o)
				mu.Lock()
				total.add(r)
				if len(r.Violations) > 0 {
					failed++
					fail(t, o, r)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d seeds, %d rotations %v, %d sessions, %d crashes, %d packets, %d delivered, %d events, %v of virtual time in %v",
		*seeds, total.Rotations, total.ByReason, total.Sessions, total.Crashes, total.Packets, total.Delivered, total.Events, total.Virtual.Round(time.Second), took.Round(time.Millisecond))
}

func (r *Result) add(o Result) {
	r.Rotations += o.Rotations
	r.Sessions += o.Sessions
	r.Crashes += o.Crashes
	r.Packets += o.Packets
	r.Delivered += o.Delivered
	r.Events += o.Events
	r.Virtual += o.Virtual
	for k, v := range o.ByReason {
		r.ByReason[k] += v
	}
}

// The same seed is the same run, to the last event.
func TestSameSeedSameRun(t *testing.T) {
	for s := uint64(1); s <= 3; s++ {
		o := Options{Seed: s, Active: 15 * time.Second, Dir: t.TempDir()}
		a, b := Run(o), Run(o)
		if a.Digest != b.Digest {
			t.Errorf("seed %d: digests %x and %x, %d and %d events", s, a.Digest, b.Digest, a.Events, b.Events)
		}
	}
}

// Every invariant catches the deliberate fault that belongs to it, and is the
// first to do so.
func TestEveryInvariantCatchesItsFault(t *testing.T) {
	caught := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(Breakages)) {
		invariant := Breakages[name]
		t.Run(name, func(t *testing.T) {
			for s := uint64(1); s <= 40; s++ {
				r := Run(Options{Seed: s, Active: 20 * time.Second, Dir: t.TempDir(), Break: name})
				if len(r.Violations) == 0 {
					continue // nothing happened that the fault could show in
				}
				if got := r.Violations[0]; got.Invariant != invariant {
					t.Fatalf("seed %d: caught by %v, not by %q", s, got, invariant)
				}
				caught[invariant] = true
				return
			}
			t.Errorf("nothing noticed it in 40 seeds")
		})
	}
	for _, i := range Invariants {
		if !caught[i] {
			t.Errorf("no fault shows that it is checked: %s", i)
		}
	}
}

// With the real HPKE and signatures everything is as with the cheap ones.
func TestRealCryptography(t *testing.T) {
	n := uint64(2)
	if *genuine {
		n = uint64(*seeds)
	}
	o := Options{Active: *active, Real: true, Dir: t.TempDir()}
	var total uint64
	for s := *first; s < *first+n; s++ {
		o.Seed = s
		r := Run(o)
		total += r.Rotations
		if len(r.Violations) > 0 {
			fail(t, o, r)
		}
	}
	t.Logf("%d rotations", total)
}
