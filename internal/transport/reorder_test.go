package transport

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"pgregory.net/rapid"
)

func reorderTo(out *[]gk.Index) func(unit) {
	return func(u unit) { *out = append(*out, u.index) }
}

func TestReorder(t *testing.T) {
	const latency = 100 * time.Millisecond
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	type step struct {
		ms    int
		offer gk.Index // 0: nothing
		begin gk.Index
		want  string // delivered by this step
		lost  uint64
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"in order once begun", []step{{0, 0, 5, "[]", 0}, {0, 5, 0, "[5]", 0}, {1, 6, 0, "[6]", 0}}},
		{"held until the beginning is known", []step{{0, 6, 0, "[]", 0}, {1, 5, 0, "[]", 0}, {2, 0, 5, "[5 6]", 0}}},
		{"or for as long as any gap", []step{{0, 6, 0, "[]", 0}, {10, 5, 0, "[]", 0}, {99, 0, 0, "[]", 0}, {100, 0, 0, "[5 6]", 0}, {101, 4, 0, "[]", 0}}},
		{"a gap filled", []step{{0, 0, 5, "[]", 0}, {0, 7, 0, "[]", 0}, {10, 6, 0, "[]", 0}, {20, 5, 0, "[5 6 7]", 0}}},
		{"a gap given up", []step{{0, 0, 5, "[]", 0}, {0, 7, 0, "[]", 0}, {50, 9, 0, "[]", 0}, {100, 0, 0, "[7]", 2}, {150, 0, 0, "[9]", 1}, {151, 8, 0, "[]", 0}, {152, 10, 0, "[10]", 0}}},
		{"two gaps, the further packet waited longer", []step{{0, 0, 5, "[]", 0}, {0, 9, 0, "[]", 0}, {50, 7, 0, "[]", 0}, {100, 0, 0, "[7 9]", 3}}},
		{"an index twice", []step{{0, 0, 5, "[]", 0}, {0, 6, 0, "[]", 0}, {1, 6, 0, "[]", 0}, {2, 5, 0, "[5 6]", 0}, {3, 5, 0, "[]", 0}}},
	} {
		r := reorder{latency: latency}
		for i, s := range c.steps {
			got := []gk.Index{}
			deliver := reorderTo(&got)
			if s.begin != 0 {
				r.begin(s.begin)
				r.pop(deliver)
			}
			if s.offer != 0 {
				u := unit{index: s.offer, epoch: 1}
				if r.offer(at(s.ms), u, bytes.Clone) == placeNow {
					deliver(u)
					r.pop(deliver)
				}
			}
			before := r.gaps.count(at(s.ms), gk.MaxIndex+1)
			r.giveUp(at(s.ms), deliver)
			if lost := r.gaps.count(at(s.ms), gk.MaxIndex+1) - before; fmt.Sprint(got) != s.want || lost != s.lost {
				t.Errorf("%s, step %d: delivered %v and lost %d, want %s and %d", c.name, i, got, lost, s.want, s.lost)
			}
		}
	}
}

// TestReorderCut: a leap under an old key holds no packet of the new one back.
func TestReorderCut(t *testing.T) {
	now := time.Unix(1000, 0)
	r := reorder{latency: time.Second}
	r.begin(100)
	var got []gk.Index
	deliver := reorderTo(&got)
	offer := func(e gk.Epoch, i gk.Index) {
		u := unit{index: i, epoch: e}
		if r.offer(now, u, bytes.Clone) == placeNow {
			deliver(u)
			r.pop(deliver)
		}
	}
	offer(1, 100)
	offer(1, 101) // the thief's, and so the stream's next
	offer(1, 102)
	offer(1, 105) // held
	freed := 0
	r.cut(2, 101, true, func([]byte) { freed++ })
	offer(2, 101)
	offer(2, 102)
	r.cut(2, 101, true, func([]byte) { freed++ }) // the same again
	offer(2, 103)
	if want := "[100 101 102 101 102 103]"; fmt.Sprint(got) != want || freed != 1 || len(r.held) != 0 {
		t.Errorf("delivered %v, want %v; freed %d, %d held", got, want, freed, len(r.held))
	}
}

// TestReorderCutUntold: until it is told where the new epoch begins, its packets
// wait for those that may come before them.
func TestReorderCutUntold(t *testing.T) {
	for _, told := range []bool{true, false} {
		now := time.Unix(1000, 0)
		r := reorder{latency: time.Second}
		r.begin(100)
		var got []gk.Index
		deliver := reorderTo(&got)
		offer := func(e gk.Epoch, i gk.Index) {
			u := unit{index: i, epoch: e}
			if r.offer(now, u, bytes.Clone) == placeNow {
				deliver(u)
				r.pop(deliver)
			}
		}
		drop := func([]byte) {}
		offer(1, 100)
		offer(1, 101)
		offer(1, 102) // the thief's, and so is the next
		offer(1, 103)
		r.cut(2, 103, false, drop)
		offer(2, 103)
		r.cut(2, 102, false, drop)
		offer(2, 102)
		offer(2, 104)
		if len(got) != 4 {
			t.Fatalf("delivered %v before it was told where to begin", got)
		}
		if told {
			r.cut(2, 102, true, drop)
			r.pop(deliver)
		} else {
			r.giveUp(now.Add(time.Second), deliver)
		}
		offer(2, 105)
		if want := "[100 101 102 103 102 103 104 105]"; fmt.Sprint(got) != want || len(r.held) != 0 {
			t.Errorf("told %v: delivered %v, want %v; %d held", told, got, want, len(r.held))
		}
	}
}

// Where delivery went back to an epoch whose beginning was never told, the beginning
// of a later one does not stand for it: the packets that wait are delivered.
func TestReorderCutUntoldThenLaterTold(t *testing.T) {
	now := time.Unix(1000, 0)
	r := reorder{latency: time.Second}
	r.begin(100)
	var got []gk.Index
	deliver := reorderTo(&got)
	offer := func(e gk.Epoch, i gk.Index) placement {
		u := unit{index: i, epoch: e}
		p := r.offer(now, u, bytes.Clone)
		if p == placeNow {
			deliver(u)
			r.pop(deliver)
		}
		return p
	}
	drop := func([]byte) {}
	offer(1, 100)
	offer(1, 5000) // a thief leaps
	r.giveUp(now.Add(time.Second), deliver)
	r.cut(2, 102, false, drop)
	offer(2, 102)
	offer(2, 103)
	r.cut(3, 105, true, drop)
	r.pop(deliver)
	if p := offer(2, 101); p != placeHold {
		t.Errorf("a packet of the epoch that is waited for: placement %d", p)
	}
	r.giveUp(now.Add(time.Second), deliver)
	offer(2, 104)
	offer(3, 105)
	if want := "[100 5000 101 102 103 104 105]"; fmt.Sprint(got) != want || len(r.held) != 0 {
		t.Errorf("delivered %v, want %v; %d held", got, want, len(r.held))
	}
}

// TestReorderProperty sends every index once through bounded disorder and loss:
// all that arrives in time is delivered, in order, once.
func TestReorderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const latency = 50
		n := rapid.IntRange(1, 80).Draw(t, "packets")
		first := gk.Index(rapid.Uint64Range(1, 1<<30).Draw(t, "first"))
		arrivals := map[int][]gk.Index{}
		lostOnPath := 0
		for i := range n {
			if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				lostOnPath++
				continue
			}
			ms := i + rapid.IntRange(0, latency-1).Draw(t, "delay")
			arrivals[ms] = append(arrivals[ms], first+gk.Index(i))
		}
		r := reorder{latency: latency * time.Millisecond}
		r.begin(first)
		var got []gk.Index
		deliver := reorderTo(&got)
		var lost uint64
		for ms := range n + 3*latency {
			now := time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond)
			r.giveUp(now, deliver)
			lost = r.gaps.count(now, first+gk.Index(ms))
			for _, i := range arrivals[ms] {
				u := unit{index: i, epoch: 1}
				switch r.offer(now, u, bytes.Clone) {
				case placeNow:
					deliver(u)
					r.pop(deliver)
				case placeLate:
					t.Fatalf("packet %d came in time and counts as late", i-first)
				}
			}
		}
		if len(got) != n-lostOnPath || len(r.held) != 0 {
			t.Fatalf("%d of %d delivered, %d held", len(got), n-lostOnPath, len(r.held))
		}
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] {
				t.Fatalf("%d after %d", got[i], got[i-1])
			}
		}
		if lost > uint64(lostOnPath) {
			t.Fatalf("%d lost, the path lost %d", lost, lostOnPath)
		}
	})
}
