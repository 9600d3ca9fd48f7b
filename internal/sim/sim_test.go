package sim

import (
	"bytes"
	"flag"
	"runtime"
	"sync"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

var (
	seeds  = flag.Int("seeds", 24, "how many seeds to simulate")
	first  = flag.Uint64("first", 1, "the first seed")
	seed   = flag.Uint64("seed", 0, "simulate this seed alone, and write every step")
	active = flag.Duration("active", 40*time.Second, "virtual time in which faults and adversaries act")
	real   = flag.Bool("real", false, "use HPKE and Ed25519 in place of keyed hashes")
	keep   = flag.Int("keep", 3, "stop after so many failing seeds")
	calmly = flag.Bool("calm", false, "no faults, no adversaries")
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
	o := Options{Active: *active, Real: *real, Calm: *calmly, Dir: t.TempDir()}
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
