package main

import (
	"slices"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// TestJoinStreams: captures of one encoding follow each other, with their labels where
// they belong.
func TestJoinStreams(t *testing.T) {
	layout := &tune.Layout{Kinds: []string{"order"}, Path: []bool{false}}
	capture := func(source string, hops int) *tunedStream {
		tr := &tune.Trace{Layout: layout}
		for range hops {
			tr.Add([]episode.Level{0}, 0)
		}
		return &tunedStream{name: source, source: source, trace: tr, truth: []tune.Span{{From: 2, To: 4}}}
	}
	out := joinStreams([]*tunedStream{capture("a", 10), capture("b", 7), capture("a", 5)})
	if len(out) != 2 || out[0].trace.Len() != 15 || out[1].trace.Len() != 7 {
		t.Fatalf("%d streams", len(out))
	}
	if want := []tune.Span{{From: 2, To: 4}, {From: 12, To: 14}}; !slices.Equal(out[0].truth, want) {
		t.Errorf("labels at %+v", out[0].truth)
	}
}

func TestTurned(t *testing.T) {
	if got := turned([]int{1, 5, 9}, 5, 10, 7); !slices.Equal(got, []int{0, 4, 6}) {
		t.Errorf("from hop 5 on, at %v", got)
	}
	if got := turned([]int{1, 5, 9}, 5, 10, 5); !slices.Equal(got, []int{0, 4}) {
		t.Errorf("the first five hops from 5 on, at %v", got)
	}
}

// TestRails: a simulated stream's settings come to decide after their shadow, are rejected
// in it, and taken back while they are young, as in the service.
func TestRails(t *testing.T) {
	const hops = 11 * 60 * episode.HopsPerSecond
	goal := tune.Goal{Budget: 1}
	set := func(st *tunedState, hours float64) {
		st.propose(tunedDay, tune.Setting{Params: atCutoff(0.8), Basis: tune.Basis{Hours: hours}})
	}
	st := newState(1)
	if set(&st, 0.01); st.guard.InShadow() != nil || st.rails.Refused != 1 {
		t.Errorf("of half a minute: %+v", st.rails)
	}
	if set(&st, 0.1); st.guard.InShadow() == nil || st.guard.InShadow().By != "operator" {
		t.Error("of six minutes nobody may ask")
	}
	st.shadow(tunedDay, goal, hops, []int{100, 300, 500}, nil)
	if st.guard.InShadow() != nil || st.rails.Rejected != 1 || st.rails.Live != 0 {
		t.Errorf("three alarms in the shadow: %+v", st.rails)
	}
	set(&st, 1)
	st.shadow(tunedDay, goal, hops, []int{100, 300, 500}, []int{100, 300, 500})
	if st.rails.Live != 1 || st.params() != atCutoff(0.8) {
		t.Errorf("where what decides alarms as well: %+v", st.rails)
	}
	if st.young(tunedDay.Add(25*time.Hour), goal, hops, []int{100, 300, 500}) {
		t.Error("taken back a day later")
	}
	if !st.young(tunedDay.Add(time.Hour), goal, hops, []int{100, 300, 500}) || st.params() != atCutoff(1) {
		t.Error("three alarms of a young setting do not take it back")
	}
}

func TestMostWithin(t *testing.T) {
	var at []time.Time
	for _, h := range []int{0, 1, 10, 20, 24, 25} {
		at = append(at, tunedDay.Add(time.Duration(h)*time.Hour))
	}
	if n := mostWithin(at, 6*time.Hour); n != 3 {
		t.Errorf("%d within six hours", n)
	}
	if n := mostWithin(at, 24*time.Hour); n != 4 {
		t.Errorf("%d within a day", n)
	}
}
