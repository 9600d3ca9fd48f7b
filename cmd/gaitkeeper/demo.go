package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/app"
	"github.com/gaitkeeper/gaitkeeper/internal/demo"
)

type demoCommand struct {
	demo.Config
	JSON     bool   `name:"json" help:"Print one JSON object at the end; progress goes to standard error."`
	LogLevel string `default:"warn" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Least severe message to log: debug, info, warn or error."`
}

// Run exits with an error unless the story came out as promised; without an
// attacker, unless every packet that the path let through arrived as it was sent.
func (c *demoCommand) Run(ctx context.Context, con console) error {
	view := &demoView{out: con.out, live: con.terminal, total: c.Duration}
	if c.JSON {
		view.out, view.live = con.err, false
	}
	opts := app.Options{Log: app.NewLogger(con.err, c.LogLevel, "text"), Version: buildVersion()}
	sum, err := demo.Run(ctx, c.Config, opts, view.show)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(con.out, sum)
	} else {
		printSummary(con.out, sum)
	}
	if c.Plot != "" {
		err = errors.Join(err, os.WriteFile(c.Plot, sum.Picture(), 0o644))
	}
	if fault := sum.Fault(); fault != "" {
		err = errors.Join(err, errors.New("the demonstration failed: "+fault))
	}
	return err
}

// demoView shows a running demonstration: news as they come, above a block that is
// drawn anew on a terminal; a line now and then elsewhere.
type demoView struct {
	out   io.Writer
	live  bool
	total time.Duration

	shown  int // lines of the block on the screen
	news   int // lines of the story that were told
	told   time.Duration
	before demo.State
	rate   app.BitRate
	began  bool
}

func (v *demoView) show(s demo.State) {
	if !v.began && s.Sent > 0 {
		v.began = true
		fmt.Fprintf(v.out, "Watch it:  ffplay %s\n", s.URL)
	}
	if dt := s.Running - v.before.Running; dt >= time.Second {
		v.rate = app.BitRate(float64(s.Bytes-v.before.Bytes) * 8 / dt.Seconds())
		v.before = s
	}
	if len(s.News) > v.news {
		v.erase()
		for _, n := range s.News[v.news:] {
			fmt.Fprintln(v.out, v.line(n))
		}
		v.news = len(s.News)
	}
	if s.Sent == 0 {
		return
	}
	if v.live {
		v.draw(s)
		return
	}
	every := time.Second
	if s.Act != "" {
		every = 5 * time.Second // the news are what matters
	}
	if s.Running-v.told >= every {
		v.told = s.Running.Truncate(every)
		fmt.Fprintf(v.out, "%4.0f s  epoch %d  key %.1f s  sent %d  delivered %d  dropped by the path %d  %s  rotations %d (last %s)\n",
			s.Running.Seconds(), s.Epoch, s.KeyAge.Seconds(), s.Sent, s.Delivered, s.Dropped, v.rate, s.Rotations, took(s.Last))
	}
}

// line is a piece of news, the loud ones bold on a terminal.
func (v *demoView) line(n demo.Line) string {
	text := fmt.Sprintf("%7.2f s  %s", n.At.Seconds(), n.Text)
	if v.live && n.Loud {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

// erase takes the block off the screen.
func (v *demoView) erase() {
	if v.live && v.shown > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.shown)
		v.shown = 0
	}
}

func (v *demoView) draw(s demo.State) {
	clock := fmt.Sprintf("%.0f s", s.Running.Seconds())
	if v.total > 0 {
		clock = fmt.Sprintf("%.0f s of %.0f s", min(s.Running, v.total).Seconds(), v.total.Seconds())
	}
	if s.Act != "" {
		clock += ", " + s.Act
	}
	last := "none yet"
	if s.Rotations > 0 {
		last = fmt.Sprintf("last: %s, took %s", s.Why, took(s.Last))
	}
	v.erase()
	lines := []string{
		"",
		fmt.Sprintf("  stream     %-12s %s", "demo", clock),
		fmt.Sprintf("  epoch      %-12d key age %.1f s", s.Epoch, s.KeyAge.Seconds()),
		fmt.Sprintf("  rotations  %-12d %s", s.Rotations, last),
		fmt.Sprintf("  sent       %-12d packets, %s", s.Sent, v.rate),
		fmt.Sprintf("  delivered  %-12d packets", s.Delivered),
		fmt.Sprintf("  dropped    %-12d by the media path", s.Dropped),
	}
	for _, l := range lines {
		fmt.Fprintf(v.out, "\x1b[2K%s\n", l)
	}
	v.shown = len(lines)
}

func printSummary(w io.Writer, s demo.Summary) {
	if s.Told() {
		printStory(w, s)
		return
	}
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
`, s.PacketsSent, s.PacketsDelivered, s.PacketsLost, s.Dropped(), s.Undecryptable)
	if s.Rotations.Count == 0 {
		fmt.Fprintln(w, "  rotations     none: it ended before the key was due")
	} else {
		fmt.Fprintf(w, `  rotations     %d (%s)
  decision to device ready   p50 %.1f ms, p99 %.1f ms, max %.1f ms
  decision to first packet   p50 %.1f ms, p99 %.1f ms, max %.1f ms
`, s.Rotations.Count, strings.Join(reasons, ", "), s.RotationMS.P50, s.RotationMS.P99, s.RotationMS.Max,
			s.FirstPacketMS.P50, s.FirstPacketMS.P99, s.FirstPacketMS.Max)
	}
	fmt.Fprintf(w, "  delivered     sha256 %s\n                %s\n", s.SHA256Delivered, same)
}

func printStory(w io.Writer, s demo.Summary) {
	after := func(a demo.Attack, t *float64) string {
		if t == nil || a.OnsetMS == nil {
			return "never"
		}
		return fmt.Sprintf("after %.0f ms", *t-*a.OnsetMS)
	}
	fmt.Fprintln(w)
	for _, a := range s.Attacks {
		fmt.Fprintf(w, "  attack        %s from %s\n", a.Kind, a.From)
		if a.AlarmMS == nil {
			fmt.Fprintln(w, "  alarm         none")
		} else {
			fmt.Fprintf(w, "  alarm         %s, class %s, response %s\n  evidence      %s\n", after(a, a.AlarmMS), a.Class, a.Response, a.Evidence)
		}
		if a.RotatedMS == nil {
			fmt.Fprintln(w, "  new key       none")
		} else {
			fmt.Fprintf(w, "  new key       device ready %s, in force %s\n", after(a, a.RotatedMS), after(a, a.LockedOutMS))
		}
	}
	fmt.Fprintf(w, `  packets       %d sent, %d of them displaced before the switch, %d lost after it (%d dropped by the media path)
  false alarms  %d
  verdict       %s
`, s.PacketsSent, s.Displaced, s.LostAfterSwitch, s.Dropped(), s.FalseAlarms, s.Verdict())
}
