package demo

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// moment is a story's state at one time, for its picture.
type moment struct {
	at        time.Duration // since the first packet
	score     float64       // of the newest window; negative before there is one
	delivered int           // the camera's packets
	foreign   int           // packets delivered that are not the camera's
	sent      uint64        // the attacker's
}

// trace collects moments.
type trace struct {
	mu  sync.Mutex
	all []moment
}

func (t *trace) taken() []moment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// follow writes moments down until ctx ends, four times a second as windows come. The
// score is what gaitkeeper explain tells.
func (d *demo) follow(ctx context.Context) {
	client, err := app.NewClient(app.ClientConfig{Data: d.dir})
	if err != nil {
		d.opts.Log.Warn("the picture will show no scores", "error", err)
	}
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m := moment{at: d.meter.running(time.Now()), score: -1, sent: d.story.sent()}
		if m.at == 0 {
			continue
		}
		m.delivered, m.foreign = d.story.account.counts()
		if client != nil {
			var e bus.Explanation
			if client.Do(ctx, "GET", "/v1/streams/"+string(demoStream)+"/explain", nil, &e) == nil && len(e.Detectors) > 0 {
				m.score = e.Score
			}
		}
		d.trace.mu.Lock()
		d.trace.all = append(d.trace.all, m)
		d.trace.mu.Unlock()
	}
}

// sent is how many packets the attacker sent or changed so far.
func (s *story) sent() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.thief != nil:
		st, _ := s.thief.Stats()
		return st.Sent
	case s.outsider != nil:
		st, _ := s.outsider.Stats()
		return st.Forged + st.Replayed
	}
	return 0
}

// scenes are what happened in a story, for its picture. Times are since the first
// packet; zero where it did not happen.
type scenes struct {
	learned, onset, over time.Duration
	does                 string // the attacker
	alarms               []alarmScene
	keys                 []keyScene
}

type alarmScene struct {
	at          time.Duration
	class, kind string
	evidence    string
	score       float64 // 0: it rests on no score
}

type keyScene struct {
	epoch      gk.Epoch
	ready, cut time.Duration // the device sends under it; the transport opened its first packet
}

// scenes of the story. The caller holds mu.
func (s *story) scenes() scenes {
	since := func(t time.Time) time.Duration {
		if ms := s.demo.meter.since0(t); ms != nil {
			return time.Duration(*ms * float64(time.Millisecond))
		}
		return 0
	}
	c := scenes{learned: since(s.learned), onset: since(s.onset()), over: since(s.over), does: s.kind.words[s.place]}
	for _, a := range s.alerts {
		score, _ := strconv.ParseFloat(a.score, 64) // proof has none
		if class := bus.Class(a.class); class != bus.ClassSource && class != bus.ClassPath {
			score = 0
		}
		c.alarms = append(c.alarms, alarmScene{since(a.at), a.class, a.kind, a.evidence, score})
	}
	for _, e := range s.rotated {
		c.keys = append(c.keys, keyScene{e.Epoch, since(s.ready[e.Epoch]), since(s.opened[e.Epoch])})
	}
	return c
}
