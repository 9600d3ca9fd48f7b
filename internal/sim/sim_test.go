package sim

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

var (
	seeds   = flag.Int("seeds", 5, "how many seeds to simulate")
	first   = flag.Uint64("first", 1, "the first seed")
	seed    = flag.Uint64("seed", 0, "simulate this seed alone, and write every step")
	active  = flag.Duration("active", time.Minute, "virtual time in which faults and adversaries act")
	genuine = flag.Bool("real", false, "use HPKE and Ed25519 in place of keyed hashes")
	reals   = flag.Uint64("real-seeds", 1, "how many seeds TestRealCryptography simulates")
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
	r := runSeeds(t, o, *first, uint64(*seeds))
	t.Log(r)
}

// tally is what came of many seeds.
type tally struct {
	Result
	seeds uint64
	took  time.Duration
	cpu   time.Duration // of the whole process meanwhile
}

func (r tally) String() string {
	rate := func(d time.Duration) float64 { return float64(r.Rotations) / d.Seconds() }
	return fmt.Sprintf("%d seeds, %d rotations %v, %d sessions, %d crashes, %d packets, %d delivered, %d events, %v of virtual time\n"+
		"in %v (%.0f rotations a second), %v of processor time (%.0f rotations a core-second; %v on two idle cores)",
		r.seeds, r.Rotations, r.ByReason, r.Sessions, r.Crashes, r.Packets, r.Delivered, r.Events, r.Virtual.Round(time.Second),
		r.took.Round(time.Millisecond), rate(r.took), r.cpu.Round(time.Millisecond), rate(r.cpu), (r.cpu / 2).Round(time.Second))
}

// processorTime is what the process has used of the processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// runSeeds runs n seeds on all cores, until too many have failed.
func runSeeds(t *testing.T, o Options, from, n uint64) tally {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	began, used := time.Now(), processorTime()
	var (
		mu     sync.Mutex
		total  = Result{ByReason: map[gk.Reason]uint64{}}
		failed int
		next   = from
		wg     sync.WaitGroup
	)
	for range min(uint64(runtime.GOMAXPROCS(0)), n) {
		wg.Go(func() {
			o := o
			o.Dir = t.TempDir()
			for {
				mu.Lock()
				o.Seed = next
				next++
				done := o.Seed >= from+n || failed >= *keep
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
	return tally{total, n, time.Since(began), processorTime() - used}
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
	for s := uint64(1); s <= 2; s++ {
		var runs [2]Result
		var wg sync.WaitGroup
		for i := range runs {
			o := Options{Seed: s, Active: 10 * time.Second, Dir: t.TempDir()}
			wg.Go(func() { runs[i] = Run(o) })
		}
		wg.Wait()
		if a, b := runs[0], runs[1]; a.Digest != b.Digest {
			t.Errorf("seed %d: digests %x and %x, %d and %d events", s, a.Digest, b.Digest, a.Events, b.Events)
		}
	}
}

// Every invariant catches the deliberate fault that belongs to it, and in some run
// is the first to do so: a fault may have consequences that another one sees.
func TestEveryInvariantCatchesItsFault(t *testing.T) {
	var mu sync.Mutex
	caught := map[string]bool{}
	t.Run("faults", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(Breakages)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if catches(t, name) {
					mu.Lock()
					defer mu.Unlock()
					caught[Breakages[name]] = true
				}
			})
		}
	})
	for _, i := range Invariants {
		if !caught[i] {
			t.Errorf("no fault shows that it is checked: %s", i)
		}
	}
}

// catches looks for a run in which a fault's own invariant catches it first.
func catches(t *testing.T, name string) bool {
	active := 20 * time.Second
	if name == breakBudget || name == breakLease {
		active = time.Minute // spending a budget takes a while, and so does a lease
	}
	other := "nothing noticed it"
	for s := uint64(1); s <= 40; s++ {
		r := Run(Options{Seed: s, Active: active, Dir: t.TempDir(), Break: name})
		if len(r.Violations) == 0 {
			continue // nothing happened that the fault could show in
		}
		if got := r.Violations[0]; got.Invariant != Breakages[name] {
			other = fmt.Sprintf("seed %d: caught by %v, not by %q", s, got, Breakages[name])
			continue
		}
		return true
	}
	t.Errorf("in 40 seeds: %s", other)
	return false
}

// With the real HPKE and signatures everything is as with the cheap ones.
func TestRealCryptography(t *testing.T) {
	t.Log(runSeeds(t, Options{Active: *active, Real: true, Dir: t.TempDir()}, *first, *reals))
}
