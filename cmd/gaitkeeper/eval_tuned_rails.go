package main

import (
	"errors"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// What guards a simulated stream's settings, by the service's rules.

const (
	shadowFor = 10 * time.Minute // the service's defaults
	watchFor  = 24 * time.Hour
	hopTime   = time.Second / episode.HopsPerSecond
)

// tunedRails is how often the rails did something.
type tunedRails struct {
	Asked    int `json:"asked_for"`  // proposals that only an operator may ask for: too little is known
	Refused  int `json:"refused"`    // not even then
	Live     int `json:"live"`       // settings that came to decide
	Rejected int `json:"rejected"`   // in the shadow
	Taken    int `json:"taken_back"` // young ones
}

func (r *tunedRails) add(o tunedRails) {
	r.Asked += o.Asked
	r.Refused += o.Refused
	r.Live += o.Live
	r.Rejected += o.Rejected
	r.Taken += o.Taken
}

// propose has a setting go into the shadow as the service's own, or where too little is
// known for that, as an operator's who asks for it.
func (st *tunedState) propose(now time.Time, set tune.Setting) {
	set.By = "tuning"
	err := st.guard.Propose(now, st.guard.Revision, set)
	if errors.Is(err, tune.ErrEvidence) {
		st.rails.Asked++
		set.By = "operator"
		err = st.guard.Propose(now, st.guard.Revision, set)
	}
	if errors.Is(err, tune.ErrEvidence) {
		st.rails.Refused++
	}
}

// shadow lets what is in the shadow see hops of a stream, in which it alarms at some, and
// what decides at others. It decides when it was there for long enough, or no more comes.
func (st *tunedState) shadow(now time.Time, goal tune.Goal, hops int, alarms, live []int) {
	sh := st.guard.InShadow()
	if sh == nil {
		return
	}
	tally := tune.Tally{Revision: sh.Revision, Expected: sh.Expected}
	long := min(shadowFor, time.Duration(hops)*hopTime)
	for i := range hops {
		open := among(live, i-episodeHops+1, i+1)
		end, saw := tally.Shadow(goal, among(alarms, i, i+1) && !open, !open || i == hops-1, long)
		switch end {
		case tune.Rejected:
			st.rails.Rejected++
			st.guard.Reject(now.Add(time.Duration(i)*hopTime), saw)
			return
		case tune.Live:
			st.rails.Live++
			st.guard.Promote(now.Add(time.Duration(i)*hopTime), watchFor, saw)
			set := st.guard.Live()
			st.watch = tune.Tally{Revision: set.Revision, Expected: set.Expected, Until: st.guard.Watching}
			return
		}
	}
}

// young lets a young setting decide for some hops, in which it alarms at some. It reports
// whether it was taken back.
func (st *tunedState) young(now time.Time, goal tune.Goal, hops int, alarms []int) bool {
	for i := range hops {
		at := now.Add(time.Duration(i) * hopTime)
		if !at.Before(st.watch.Until) {
			break
		}
		calm := !among(alarms, i-episodeHops+1, i+1)
		if end, saw := st.watch.Young(at, goal, among(alarms, i, i+1), calm); end == tune.Reverted && st.guard.TakeBack(at, saw) {
			st.rails.Taken++
			st.watch = tune.Tally{}
			return true
		}
	}
	return false
}

// among reports whether one of the hops, which rise, is within two.
func among(hops []int, from, to int) bool {
	i, _ := slices.BinarySearch(hops, from)
	return i < len(hops) && hops[i] < to
}

// hopsOf are the hops of alarms but those that are not to be counted.
func hopsOf(alarms []tune.Alarm, but func(hop int) bool) (out []int) {
	for _, a := range alarms {
		if !but(a.Hop) {
			out = append(out, a.Hop)
		}
	}
	return out
}

// turned are hops of a stream that comes again and again, from one of them on, as far as
// they are within so many.
func turned(hops []int, from, length, within int) (out []int) {
	for _, h := range hops {
		if h = (h - from + length) % length; h < within {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}
