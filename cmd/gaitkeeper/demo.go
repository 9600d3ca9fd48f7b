package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type demoCommand struct {
	app.DemoConfig
	JSON     bool   `name:"json" help:"Print one JSON object at the end; progress goes to standard error."`
	LogLevel string `default:"warn" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Least severe message to log: debug, info, warn or error."`
}

// Run exits with an error unless every packet that the path let through arrived
// as it was sent.
func (c *demoCommand) Run(ctx context.Context, con console) error {
	view := &demoView{out: con.out, live: con.terminal, total: c.Duration}
	if c.JSON {
		view.out, view.live = con.err, false
	}
	opts := app.Options{Log: app.NewLogger(con.err, c.LogLevel, "text"), Version: buildVersion()}
	sum, err := app.RunDemo(ctx, c.DemoConfig, opts, view.show)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(con.out, sum)
	} else {
		printSummary(con.out, sum)
	}
	if fault := sum.Fault(); fault != "" {
		err = errors.Join(err, errors.New("the demonstration failed: "+fault))
	}
	return err
}

// demoView shows a running demonstration: a block that is drawn anew on a
// terminal, a line a second elsewhere.
type demoView struct {
	out   io.Writer
	live  bool
	total time.Duration

	shown  int // lines of the block on the screen
	told   time.Duration
	before app.DemoState
	rate   app.BitRate
	began  bool
}

func (v *demoView) show(s app.DemoState) {
	if s.Sent == 0 {
		return
	}
	if !v.began {
		v.began = true
		fmt.Fprintf(v.out, "Watch it:  ffplay %s\n", s.URL)
	}
	if dt := s.Running - v.before.Running; dt >= time.Second {
		v.rate = app.BitRate(float64(s.Bytes-v.before.Bytes) * 8 / dt.Seconds())
		v.before = s
	}
	if v.live {
		v.draw(s)
		return
	}
	if s.Running-v.told >= time.Second {
		v.told = s.Running.Truncate(time.Second)
		fmt.Fprintf(v.out, "%4.0f s  epoch %d  key %.1f s  sent %d  delivered %d  dropped by the path %d  %s  rotations %d (last %s)\n",
			s.Running.Seconds(), s.Epoch, s.KeyAge.Seconds(), s.Sent, s.Delivered, s.Dropped, v.rate, s.Rotations, took(s.Last))
	}
}

func (v *demoView) draw(s app.DemoState) {
	clock := fmt.Sprintf("%.0f s", s.Running.Seconds())
	if v.total > 0 {
		clock += fmt.Sprintf(" of %.0f s", v.total.Seconds())
	}
	last := "none yet"
	if s.Rotations > 0 {
		last = fmt.Sprintf("last: %s, took %s", s.Why, took(s.Last))
	}
	lines := []string{
		"",
		fmt.Sprintf("  stream     %-12s %s", "demo", clock),
		fmt.Sprintf("  epoch      %-12d key age %.1f s", s.Epoch, s.KeyAge.Seconds()),
		fmt.Sprintf("  rotations  %-12d %s", s.Rotations, last),
		fmt.Sprintf("  sent       %-12d packets, %s", s.Sent, v.rate),
		fmt.Sprintf("  delivered  %-12d packets", s.Delivered),
		fmt.Sprintf("  dropped    %-12d by the media path", s.Dropped),
	}
	if v.shown > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA", v.shown)
	}
	for _, l := range lines {
		fmt.Fprintf(v.out, "\x1b[2K%s\n", l)
	}
	v.shown = len(lines)
}

func printSummary(w io.Writer, s app.DemoSummary) {
	reasons := make([]string, 0, len(s.Rotations.ByReason))
	for _, r := range slices.Sorted(maps.Keys(s.Rotations.ByReason)) {
		reasons = append(reasons, fmt.Sprintf("%d %s", s.Rotations.ByReason[r], gk.Reason(r)))
	}
	same := "identical to what was sent"
	if s.Dropped() > 0 {
		same = "identical to what the path let through"
	}
	if s.SHA256Delivered != s.SHA256Expected {
		same = "NOT what was sent: expected " + s.SHA256Expected
	}
	fmt.Fprintf(w, `
  packets       %d sent, %d delivered, %d lost (%d dropped by the media path), %d undecryptable
  rotations     %d (%s)
  decision to device ready   p50 %.1f ms, p99 %.1f ms, max %.1f ms
  decision to first packet   p50 %.1f ms, p99 %.1f ms, max %.1f ms
  delivered     sha256 %s
                %s
`, s.PacketsSent, s.PacketsDelivered, s.PacketsLost, s.Dropped(), s.Undecryptable,
		s.Rotations.Count, strings.Join(reasons, ", "),
		s.RotationMS.P50, s.RotationMS.P99, s.RotationMS.Max,
		s.FirstPacketMS.P50, s.FirstPacketMS.P99, s.FirstPacketMS.Max,
		s.SHA256Delivered, same)
}
