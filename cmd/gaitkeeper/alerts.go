package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

type alertsCommand struct {
	List alertsListCommand `cmd:"" default:"withargs" help:"List alerts, the newest first."`
	Show alertsShowCommand `cmd:"" help:"Show one alert with its evidence."`
}

type alertsListCommand struct {
	server
	Stream string `placeholder:"NAME" help:"Alerts of this stream alone."`
	Limit  int    `default:"30" placeholder:"N" help:"At most so many."`
}

func (c *alertsListCommand) Run(ctx context.Context, con console) error {
	q := url.Values{"limit": {fmt.Sprint(c.Limit)}}
	if c.Stream != "" {
		q.Set("stream", c.Stream)
	}
	var list bus.AlertsReply
	if err := c.ask(ctx, "GET", "/v1/alerts?"+q.Encode(), nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, list.Alerts)
	}
	if len(list.Alerts) == 0 {
		fmt.Fprintln(con.err, "no alerts")
		return nil
	}
	rows := [][]string{{"ALERT", "OPENED", "CLASS", "KIND", "SCORE", "DONE", "OUTCOME", "EVIDENCE"}}
	for _, a := range list.Alerts {
		evidence := ""
		if len(a.Evidence) > 0 {
			evidence = shorten(strings.TrimPrefix(a.Evidence[0], a.Kind+": "), 70)
		}
		rows = append(rows, []string{a.ID, stamp(a.Opened), string(a.Class), a.Kind, fmt.Sprintf("%.1f", a.Score), string(a.Done), outcome(a), evidence})
	}
	return table(con.out, rows)
}

// outcome is an alert's outcome for people: one that has none yet is open.
func outcome(a bus.Alert) string {
	switch {
	case a.Closed.IsZero() && a.Outcome != bus.OutcomeOpen:
		return "open, " + string(a.Outcome)
	case a.Closed.IsZero():
		return "open"
	}
	return string(a.Outcome)
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

type alertsShowCommand struct {
	server
	ID      string `arg:"" name:"id" help:"Name of the alert: STREAM.NUMBER."`
	Windows bool   `help:"Show what the stream did around it, second by second, and what detectors said of it then and would say now. With --json, every window of 250 ms."`
}

func (c *alertsShowCommand) Run(ctx context.Context, con console) error {
	if c.Windows {
		var e bus.Episode
		if err := c.ask(ctx, "GET", "/v1/alerts/"+url.PathEscape(c.ID)+"/windows", nil, &e); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(con.out, e)
		}
		return printEpisode(con.out, e)
	}
	var a bus.Alert
	if err := c.ask(ctx, "GET", "/v1/alerts/"+url.PathEscape(c.ID), nil, &a); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, a)
	}
	printAlert(con.out, a)
	return nil
}

func printAlert(w io.Writer, a bus.Alert) {
	fmt.Fprintf(w, "%s  %s, %s: %s, score %.2f (limit 1), seen %d times\n", a.ID, a.Severity, a.Class, a.Kind, a.Score, a.Count)
	closed := "open"
	if !a.Closed.IsZero() {
		closed = fmt.Sprintf("closed %s after %s", stamp(a.Closed), a.Closed.Sub(a.Opened).Round(time.Millisecond))
	}
	fmt.Fprintf(w, "  opened %s under epoch %d, profile %s; %s\n", stamp(a.Opened), a.Epoch, orDash(string(a.Stage)), closed)
	done := string(a.Done)
	if a.Rotated != 0 {
		done = fmt.Sprintf("%s to epoch %d %s after the alert (the device took %s)", a.Done, a.Rotated, a.RotatedAt.Sub(a.Opened).Round(100*time.Microsecond), took(time.Duration(a.Took)))
	}
	fmt.Fprintf(w, "  response %s: %s\n  outcome: %s\n", a.Response, done, outcome(a))
	for _, e := range a.Evidence {
		fmt.Fprintf(w, "  - %s\n", e)
	}
	if a.Announced != "" {
		fmt.Fprintf(w, "  announced by the device: it began its encoder anew (%s)%s\n", a.Announced, inRegime(a.Regime))
	}
	if a.Ask != "" {
		fmt.Fprintf(w, "  ? %s\n", a.Ask)
	}
}

// printEpisode tells of every second around an alert.
func printEpisode(w io.Writer, e bus.Episode) error {
	const second = 4 // windows
	fmt.Fprintf(w, "%s  opened %s; %.0f s of %s in windows of 250 ms\n", e.Alert, stamp(e.Opened), float64(len(e.Windows))/second, e.Form)
	if e.NotNow != "" {
		fmt.Fprintf(w, "  what would be said now is not known: %s\n", e.NotNow)
	} else {
		what := "no alarm"
		if e.Now >= e.Cutoff {
			what = "an alarm"
		}
		fmt.Fprintf(w, "  to the present profile and detectors it is %s: %s, %.2f of the limit; %.2f is the cut-off\n", what, orDash(e.Kind), e.Now, e.Cutoff)
	}
	score := func(x float64, kind string) string {
		if kind == "" {
			return "-"
		}
		return fmt.Sprintf("%.2f %s", x, kind)
	}
	rows := [][]string{{"  SECONDS", "PACKETS", "KB", "PICTURES", "LOST", "GAP MS", "WORDS", "SCORE THEN", "SCORE NOW"}}
	for i := 0; i < len(e.Windows); i += second {
		var sum bus.EpisodeWindow
		for _, o := range e.Windows[i:min(i+second, len(e.Windows))] {
			sum.Packets, sum.Bytes, sum.Frames, sum.Lost = sum.Packets+o.Packets, sum.Bytes+o.Bytes, sum.Frames+o.Frames, sum.Lost+o.Lost
			sum.MaxGap, sum.Words = max(sum.MaxGap, o.MaxGap), max(sum.Words, o.Words)
			if o.Then >= sum.Then && o.Said != "" {
				sum.Then, sum.Said = o.Then, o.Said
			}
			if o.Now >= sum.Now && o.Says != "" {
				sum.Now, sum.Says = o.Now, o.Says
			}
		}
		at := e.From.Add(time.Duration(i/second) * time.Second).Sub(e.Opened)
		rows = append(rows, []string{fmt.Sprintf("  %+.0f", at.Seconds()), fmt.Sprint(sum.Packets), fmt.Sprintf("%.1f", float64(sum.Bytes)/1000), fmt.Sprint(sum.Frames), fmt.Sprint(sum.Lost),
			fmt.Sprintf("%.0f", float64(sum.MaxGap)/1e6), fmt.Sprint(sum.Words), score(sum.Then, sum.Said), score(sum.Now, sum.Says)})
	}
	return table(w, rows)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type explainCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
}

func (c *explainCommand) Run(ctx context.Context, con console) error {
	var e bus.Explanation
	if err := c.ask(ctx, "GET", "/v1/streams/"+url.PathEscape(c.Stream)+"/explain", nil, &e); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, e)
	}
	fmt.Fprintln(con.out, "What is done about evidence:")
	rows := [][]string{}
	for _, class := range slices.Sorted(maps.Keys(e.Responses)) {
		rows = append(rows, []string{"  " + string(class), string(e.Responses[class]), classMeaning[class]})
	}
	if err := table(con.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(con.out)
	printProfile(con.out, e.Profile)
	fmt.Fprintf(con.out, "\nScore now: %.2f (1 is an alert; sensitivity %g)\n", e.Score, e.Sensitivity)
	if f := e.False; f != nil {
		fmt.Fprintf(con.out, "Expected by itself at this sensitivity: %.2g false episodes of class source a day (95 %%: %.2g to %.2g), from %.1f h of its own quiet time and what other streams did\n", f.PerDay, f.Low, f.High, f.Hours)
	}
	if len(e.Detectors) > 0 {
		rows = [][]string{{"  DETECTOR", "CLASS", "SCORE", "VALUE", "CUT-OFF", "ROLE"}}
		for _, d := range e.Detectors {
			role := "accuses"
			if d.Advisory {
				role = "supports"
			}
			rows = append(rows, []string{"  " + d.Kind, string(d.Class), fmt.Sprintf("%.2f", d.Score), fmt.Sprintf("%.3g", d.Value), fmt.Sprintf("%.3g", d.Limit), role})
		}
		if err := table(con.out, rows); err != nil {
			return err
		}
		for _, d := range e.Detectors {
			if d.Text != "" {
				fmt.Fprintf(con.out, "  %s: %s\n", d.Kind, d.Text)
			}
		}
	}
	if i := e.Ingress; i != nil {
		fmt.Fprintf(con.out, "\nAt the device's ingress, %s: %.0f kb/s (usually %.0f), %.0f packets/s, longest gap %d ms, restarts %d, lost before it %d\n  %s\n",
			i.At.Format(time.TimeOnly), i.Rate*8/1000, i.Usual*8/1000, i.Packets, i.GapMs, i.Breaks, i.Missing, i.Says)
	}
	for _, a := range e.Open {
		fmt.Fprintln(con.out, "\nOpen:")
		printAlert(con.out, a)
	}
	if e.Last != nil {
		fmt.Fprintln(con.out, "\nLast episode:")
		printAlert(con.out, *e.Last)
	}
	return nil
}

// classMeaning says what evidence of a class points to.
var classMeaning = map[bus.Class]string{
	bus.ClassProof:    "somebody else has the media key",
	bus.ClassSource:   "the source is no longer itself",
	bus.ClassIdentity: "the device's identity is used twice",
	bus.ClassPath:     "the network",
	bus.ClassNoise:    "an outsider without a key",
	bus.ClassProfile:  "what was learned is in doubt",
}

type profileCommand struct {
	Show     profileShowCommand     `cmd:"" default:"withargs" help:"Show how far a stream's profile is, its regimes, and how far their limits have moved."`
	Approve  profileApproveCommand  `cmd:"" help:"Say that what the source does is right: a profile is anchored where it is, and what is accused is learned as a further regime."`
	Relearn  profileRelearnCommand  `cmd:"" help:"Say that the source was changed: its profile is learned anew."`
	Rollback profileRollbackCommand `cmd:"" help:"Bring back, as a whole, the profile from before the last change."`
}

type profileShowCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
}

func (c *profileShowCommand) Run(ctx context.Context, con console) error {
	return c.profile(ctx, con, c.Stream, "GET", nil)
}

func (s server) profile(ctx context.Context, con console, stream, method string, in any) error {
	var p bus.ProfileInfo
	if err := s.ask(ctx, method, "/v1/streams/"+url.PathEscape(stream)+"/profile", in, &p); err != nil {
		return err
	}
	if s.JSON {
		return printJSON(con.out, p)
	}
	printProfile(con.out, p)
	return nil
}

func printProfile(w io.Writer, p bus.ProfileInfo) {
	fmt.Fprintf(w, "Profile of %s: %s", p.Stream, p.Stage)
	if p.Stage == bus.StageLearning || p.Stage == bus.StageProvisional {
		fmt.Fprintf(w, ", %d of %d windows learned (%d refused)", p.Windows, p.Wanted, p.Refused)
	} else if p.Windows > 0 {
		fmt.Fprintf(w, ", version %d, %d windows, %d words of grammar, payload %s", p.Version, p.Windows, p.Words, p.Form)
	}
	fmt.Fprintln(w)
	if !p.Learned.IsZero() {
		fmt.Fprintf(w, "  learned %s", stamp(p.Learned))
		if p.Approved.IsZero() {
			fmt.Fprintln(w, ", not approved by an operator")
		} else {
			fmt.Fprintf(w, ", approved %s\n", stamp(p.Approved))
		}
	}
	if p.Why != "" {
		fmt.Fprintf(w, "  learned anew because of: %s\n", p.Why)
	}
	if len(p.Modes) > 0 {
		fmt.Fprintln(w, "  regimes (distance: how far their limits have moved from the anchor, of how far they may):")
	}
	for i, m := range p.Modes {
		what := []string{fmt.Sprintf("%d windows", m.Windows)}
		if m.Moved != "" {
			what = append(what, fmt.Sprintf("distance %.0f %% (%s)", 100*m.Distance, m.Moved))
		}
		if m.Found {
			what = append(what, "found by itself")
		}
		if m.Now {
			what = append(what, fmt.Sprintf("judged by now, %.1f deviations away", m.Fit))
		}
		fmt.Fprintf(w, "    %d  %s: %s\n", i+1, cmp.Or(m.Name, "unnamed"), strings.Join(what, ", "))
	}
	if p.Before > 0 {
		fmt.Fprintf(w, "  version %d is kept: gaitkeeper profile rollback %s\n", p.Before, p.Stream)
	}
	if p.Probation > 0 {
		fmt.Fprintf(w, "  in probation for %s more: margins are wide\n", time.Duration(p.Probation)*250*time.Millisecond)
	}
	if !p.Planned.IsZero() {
		fmt.Fprintf(w, "  a change is announced until %s\n", stamp(p.Planned))
	}
	if p.Encoder != nil {
		printEncoder(w, *p.Encoder)
	}
}

// printEncoder tells of an encoder that the device runs itself.
func printEncoder(w io.Writer, e bus.Encoder) {
	fmt.Fprintf(w, "  the device runs the encoder itself%s", inRegime(e.Regime))
	if e.Regime != "" && !e.Known {
		fmt.Fprint(w, ", of which nothing is learned yet")
	}
	if e.Changes > 0 {
		fmt.Fprintf(w, "; begun anew %s (%s), number %d since the device's start", stamp(e.At), cmp.Or(e.Why, "no cause told"), e.Changes)
	}
	fmt.Fprintln(w)
	if !e.Until.IsZero() {
		fmt.Fprintf(w, "  its announcement of that is in force until %s\n", stamp(e.Until))
	}
	fmt.Fprintf(w, "  announcements heeded %d, refused %d; %d more would be heeded now\n", e.Taken, e.Refused, e.Left)
}

func inRegime(name string) string {
	if name == "" {
		return ""
	}
	return ", in the regime " + name
}

type profileApproveCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
}

func (c *profileApproveCommand) Run(ctx context.Context, con console) error {
	return c.profile(ctx, con, c.Stream, "POST", map[string]string{"do": bus.ProfileApprove})
}

type profileRelearnCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
}

func (c *profileRelearnCommand) Run(ctx context.Context, con console) error {
	return c.profile(ctx, con, c.Stream, "POST", map[string]string{"do": bus.ProfileRelearn})
}

type profileRollbackCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
}

func (c *profileRollbackCommand) Run(ctx context.Context, con console) error {
	return c.profile(ctx, con, c.Stream, "POST", map[string]string{"do": bus.ProfileRollback})
}

type plannedChangeCommand struct {
	server
	Stream string        `arg:"" help:"Name of the stream."`
	For    time.Duration `default:"5m" placeholder:"TIME" help:"How long the change may take, from now; 0 takes the announcement back."`
}

func (c *plannedChangeCommand) Run(ctx context.Context, con console) error {
	var p bus.ProfileInfo
	if err := c.ask(ctx, "POST", "/v1/streams/"+url.PathEscape(c.Stream)+"/planned-change", map[string]string{"for": c.For.String()}, &p); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, p)
	}
	if p.Planned.IsZero() {
		fmt.Fprintf(con.out, "%s: no change is announced\n", c.Stream)
		return nil
	}
	fmt.Fprintf(con.out, "%s: until %s a changed source changes no key and raises no alarm; what it is then is learned beside what it was\n", c.Stream, stamp(p.Planned))
	return nil
}
