package demo

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

var (
	stories = flag.Int("stories", 0, "how many times TestMeasureAttacks tells each story")
	only    = flag.String("only", "", "the one kind of attack that TestMeasureAttacks measures")
	stages  = flag.Int("stages", 6, "how many stories are told at a time")
)

// brisk is a story without pauses.
var brisk = Tempo{Learn: 8 * time.Second, Clean: time.Second, Linger: time.Second, Calm: time.Second}

type told struct {
	cfg Config
	sum Summary
	err error
}

func (o told) name() string { return o.cfg.Attack + " from " + o.cfg.From }

// tell tells stories, some at a time: they mostly wait.
func tell(t *testing.T, cfgs []Config) []told {
	t.Helper()
	out := make([]told, len(cfgs))
	free := make(chan struct{}, *stages)
	var all sync.WaitGroup
	for i, cfg := range cfgs {
		cfg.Listen = "127.0.0.1:0"
		cfg.Data = t.TempDir()
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			sum, err := Run(t.Context(), cfg, app.Options{Log: slog.New(slog.DiscardHandler), Version: "test"}, func(State) {})
			out[i] = told{cfg, sum, err}
		})
	}
	all.Wait()
	return out
}

// film is what every story may show, encoded once, at 2 Mb/s and more.
var film = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filmDir, "camera.ts")
	return path, encodeClip(context.Background(), path, 0, 100*time.Second, cameraFilter, cameraEncoder("50")...)
})

var filmDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if filmDir, err = os.MkdirTemp("", "gaitkeeper-film-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(filmDir)
		return m.Run()
	}())
}

// needEncoder skips where ffmpeg is missing, but not where all must run.
func needEncoder(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("ffmpeg is missing: make test installs it")
		}
		t.Skip("ffmpeg is missing: make packages installs it")
	}
}

func camera(t *testing.T) string {
	t.Helper()
	needEncoder(t)
	path, err := film()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (o told) check(t *testing.T) {
	t.Helper()
	if o.err != nil {
		t.Fatal(o.err)
	}
	a := o.sum.Attacks[0]
	ms := func(x *float64) string {
		if x == nil || a.OnsetMS == nil {
			return "never"
		}
		return fmt.Sprintf("%.0f ms", *x-*a.OnsetMS)
	}
	t.Logf("%d packets sent; alarm after %s (%s: %s), device ready %s, new key in force %s; %d displaced, %d lost after the switch",
		o.sum.PacketsSent, ms(a.AlarmMS), a.Class, a.Evidence, ms(a.RotatedMS), ms(a.LockedOutMS), o.sum.Displaced, o.sum.LostAfterSwitch)
	if fault := o.sum.Fault(); fault != "" {
		t.Error(fault)
	}
	if o.sum.LostAfterSwitch != 0 || o.sum.FalseAlarms != 0 {
		t.Errorf("%d lost after the switch, %d false alarms", o.sum.LostAfterSwitch, o.sum.FalseAlarms)
	}
}

// still has footage of its own, with key frames every 10 s: they must be learned.
func still(c Config) Config {
	c.Input, c.Tempo.Learn = "", 12*time.Second
	return c
}

// own is a story with the footage that it needs.
func own(c Config) Config {
	k, err := find(c.Attack)
	switch {
	case c.Attack == "freeze" && c.From == Input:
		return still(c)
	case err == nil && k.steady:
		c.Input = ""
	}
	return c
}

// TestAttacks tells a story of each sort on real sockets, at 2 Mb/s and more: a
// thief of the media key, from another address and from the source's own; somebody
// before the device; somebody in the path, and an outsider, neither of whom may
// change a key. [Summary.Fault] holds each against what is promised.
func TestAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	film := camera(t)
	var cfgs []Config
	for _, c := range []Config{
		{Attack: "inject", From: Aside}, {Attack: "inject", From: Path},
		{Attack: "replay", From: Aside}, {Attack: "replay", From: Path},
		{Attack: "swap", From: Input}, {Attack: "swap", From: Aside}, {Attack: "swap", From: Path},
		{Attack: "flood", From: Input}, {Attack: "freeze", From: Input}, {Attack: "mitm", From: Path},
	} {
		c.Tempo = brisk
		c.Input = film
		cfgs = append(cfgs, own(c))
	}
	for _, o := range tell(t, cfgs) {
		t.Run(o.name(), o.check)
	}
}

// TestForgedFloodAndReplayOfTheLastMinute: an outsider without a key floods the
// stream at ten times its rate and then sends the ciphertext of the last minute once
// more. No key changes, nobody is held, one alert is opened, and nothing is lost.
func TestForgedFloodAndReplayOfTheLastMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("records for a minute")
	}
	t.Parallel()
	film := camera(t)
	minute := brisk
	minute.Clean = time.Minute - minute.Learn
	for _, o := range tell(t, []Config{{Attack: "outsider", From: Aside, Input: film, Tempo: minute}, {Attack: "outsider", From: Path, Input: film, Tempo: brisk}}) {
		t.Run(o.name(), func(t *testing.T) {
			o.check(t)
			s := o.sum
			if s.Rotations.Count != 0 || s.PacketsLost != 0 || s.PacketsDelivered != s.PacketsSent || s.SHA256Delivered != s.SHA256Sent {
				t.Errorf("%d rotations; %d packets sent, %d delivered", s.Rotations.Count, s.PacketsSent, s.PacketsDelivered)
			}
			if len(s.alerts) != 1 || s.alerts[0] != string(bus.ClassNoise) {
				t.Errorf("alerts: %v", s.alerts)
			}
			t.Logf("%d forged, %d replayed", s.forged, s.replayed)
			if s.forged < 9*s.PacketsSent/100 || s.replayed < s.PacketsSent/4 {
				t.Errorf("%d forged, %d replayed of %d: the test shows little", s.forged, s.replayed, s.PacketsSent)
			}
		})
	}
}

// TestMeasureAttacks prints how long it takes until the device is ready under the
// new key, for every kind of attack from every place: -stories N -v.
func TestMeasureAttacks(t *testing.T) {
	if *stories == 0 {
		t.Skip("give -stories N -v for figures of N runs each")
	}
	film := camera(t)
	for _, k := range kinds {
		if *only != "" && k.name != *only {
			continue
		}
		for _, place := range k.from {
			c := Config{Attack: k.name, From: place, Tempo: brisk, Input: film}
			c = own(c)
			outs := tell(t, slices.Repeat([]Config{c}, *stories))
			t.Run(outs[0].name(), func(t *testing.T) {
				var ready []time.Duration
				var displaced, lost, alarms uint64
				for _, o := range outs {
					if o.err != nil || o.sum.Fault() != "" {
						t.Errorf("%v %s", o.err, o.sum.Fault())
						continue
					}
					if r := o.sum.Attacks[0].Ready(); r > 0 {
						ready = append(ready, r)
					}
					displaced, lost, alarms = displaced+o.sum.Displaced, lost+o.sum.LostAfterSwitch, alarms+o.sum.FalseAlarms
				}
				q := quantiles(ready)
				t.Logf("%d runs, %d rotated: ready after median %.0f ms, longest %.0f ms; displaced %d, lost after the switch %d, false alarms %d",
					len(outs), len(ready), q.P50, q.Max, displaced, lost, alarms)
			})
		}
	}
}
