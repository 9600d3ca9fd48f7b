package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

type tuneCommand struct {
	server
	Stream  string  `arg:"" optional:"" help:"Name of the stream."`
	Fleet   bool    `help:"Weights and persistence over all streams, instead of one stream's sensitivity."`
	Apply   bool    `xor:"do" help:"Put what is proposed in the shadow; it decides afterwards, if it did there what is expected."`
	History bool    `xor:"do" help:"Show what was set, when, why and from what."`
	Revert  *string `xor:"do" placeholder:"REV" help:"Go back to an earlier revision; 0 is the one before."`
	Auto    *string `xor:"do" placeholder:"on|off" help:"Let the system take its own proposals, or not."`
}

// tuneTimeout is for a search and what is read before it.
const tuneTimeout = 70 * time.Second

func (c *tuneCommand) Run(ctx context.Context, con console) error {
	c.timeout = tuneTimeout
	if c.Fleet {
		return c.fleet(ctx, con)
	}
	if c.Stream == "" {
		return errors.New("name a stream (gaitkeeper streams lists them), or say --fleet for all of them")
	}
	path := "/v1/streams/" + url.PathEscape(c.Stream) + "/tuning"
	in := map[string]any{"do": bus.TuningPropose, "by": whoAmI()}
	switch {
	case c.History:
		in = nil
	case c.Apply:
		in["do"] = bus.TuningApply
	case c.Revert != nil:
		to, err := strconv.ParseUint(*c.Revert, 10, 64)
		if err != nil {
			return fmt.Errorf("--revert: %q is no revision: gaitkeeper tune %s --history lists them", *c.Revert, c.Stream)
		}
		in["do"], in["to"] = bus.TuningRevert, to
	case c.Auto != nil && *c.Auto != "on" && *c.Auto != "off":
		return fmt.Errorf("--auto: %q is neither on nor off: write --auto on or --auto off", *c.Auto)
	case c.Auto != nil:
		in["do"], in["auto"] = bus.TuningAuto, *c.Auto == "on"
	}
	var i bus.TuningInfo
	method := "POST"
	var body any = in
	if in == nil {
		method, body = "GET", nil
	}
	if err := c.ask(ctx, method, path, body, &i); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, i)
	}
	if c.History {
		return printHistory(con.out, i)
	}
	return printTuning(con.out, i)
}

func (c *tuneCommand) fleet(ctx context.Context, con console) error {
	if c.Stream != "" || c.History || c.Revert != nil || c.Auto != nil {
		return errors.New("--fleet goes with --apply alone: the rest is each stream's own")
	}
	var i bus.FleetInfo
	if err := c.ask(ctx, "POST", "/v1/tuning", map[string]any{"apply": c.Apply, "by": whoAmI()}, &i); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(con.out, i)
	}
	fmt.Fprintf(con.out, "streams that have been judged: %d; new ones begin with: %s\n", i.Streams, settingText(i.Prior))
	if i.Proposal == nil {
		fmt.Fprintln(con.out, "nothing to search in: no stream has kept scores yet, see score-history")
		return nil
	}
	if err := printProposal(con.out, i.Proposal); err != nil {
		return err
	}
	switch {
	case len(i.Applied) > 0:
		fmt.Fprintf(con.out, "streams that have it in their shadow now: %d; new ones begin with it\n", len(i.Applied))
	case c.Apply:
		fmt.Fprintln(con.out, "no stream changes by it; new ones begin with it")
	}
	return nil
}

// settingText is a setting in one line.
func settingText(s bus.TuningSetting) string {
	text := fmt.Sprintf("a detector alarms at %.2f times its limit (sensitivity %.3f)", s.Cutoff, s.Sensitivity)
	if s.Persistence > 1 {
		text += fmt.Sprintf(", %d windows in a row", s.Persistence)
	}
	var weights []string
	for _, g := range []string{"words", "numbers", "repetition", "volume"} {
		if w := s.Weights[g]; w != 1 {
			weights = append(weights, fmt.Sprintf("%s × %.2f", g, w))
		}
	}
	if len(weights) > 0 {
		text += ", " + strings.Join(weights, ", ")
	}
	return text
}

func effect(s bus.TuningSetting) string {
	if s.Hours == 0 {
		return "not known yet: the first five minutes of quiet traffic are not full"
	}
	return fmt.Sprintf("%s a day; %s of quiet traffic show that it is %s to %s", rateText(s.FalsePerDay), hoursText(s.Hours), rateText(s.Low), rateText(s.High))
}

// plain is a time without the units that are nothing.
func plain(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// rateText is a number with two digits that mean something.
func rateText(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

func hoursText(h float64) string {
	if h < 2 {
		return fmt.Sprintf("%.0f minutes", 60*h)
	}
	return fmt.Sprintf("%.0f hours", h)
}

func printTuning(w io.Writer, i bus.TuningInfo) error {
	auto := "on"
	if !i.Auto {
		auto = "off"
	}
	fmt.Fprintf(w, "%s, revision %d: %s\n", i.Stream, i.Revision, settingText(i.Live))
	fmt.Fprintln(w, "the higher the sensitivity, from 0 to 1, the less a detector has to say for an alarm; 0.5 is where its own limit is")
	left := fmt.Sprintf("may change it %d more times now, then you are asked", i.Left)
	switch i.Left {
	case 0:
		left = "does not change it any more for now: you are asked instead"
	case 1:
		left = "may change it once more now, then you are asked"
	}
	fmt.Fprintf(w, "you bear one false change of the key in %s (false-rotation-every); suspicion %s; automatic tuning is %s\n", plain(i.Budget), left, auto)
	if !i.Searched.IsZero() {
		fmt.Fprintf(w, "it last looked for better settings by itself at %s\n", stamp(i.Searched))
	}
	if !i.Next.IsZero() {
		fmt.Fprintf(w, "it looks by itself at %s, or as soon as the service is there after that\n", stamp(i.Next))
	}
	l := i.Labels
	fmt.Fprintf(w, "what you and events said so far: %d false, %d real, %d missed, %d proven; %d contested (called false against proof: not counted)\n", l.False, l.Real, l.Missed, l.Proven, l.Contested)
	if i.Shadow != nil {
		fmt.Fprintf(w, "tried beside it (in the shadow) for %v so far: revision %d, %s\n", i.Observed.Round(time.Second), i.Shadow.Revision, settingText(*i.Shadow))
		fmt.Fprintln(w, "  it decides when it was tried for as long as shadow-for says, unless it would have alarmed more than was expected; nothing changes while an alert about the source is open")
	}
	return printProposal(w, i.Proposal)
}

func printProposal(w io.Writer, p *bus.TuningProposal) error {
	if p == nil {
		return nil
	}
	err := table(w, [][]string{
		{"", "SENSITIVITY", "CUT-OFF", "EXPECTED FALSE ALARMS", "DETECTED"},
		{"now", fmt.Sprintf("%.3f", p.Now.Sensitivity), fmt.Sprintf("%.2f", p.Now.Cutoff), effect(p.Now), detected(p.Now)},
		{"proposed", fmt.Sprintf("%.3f", p.Then.Sensitivity), fmt.Sprintf("%.2f", p.Then.Cutoff), effect(p.Then), detected(p.Then)},
	})
	what := "proposed: " + settingText(p.Then)
	if settingText(p.Then) == settingText(p.Now) {
		what = "proposed: nothing to change"
	} else {
		what += "\n" + direction(p)
	}
	method := "the usual rule (the controller)"
	if p.Method == "bayesian" {
		method = "the search (Bayesian optimisation)"
	}
	fmt.Fprintf(w, "%s\nby %s: %s\nfrom %s; %d settings tried in %v\n", what, method, p.Why, p.Data, p.Tried, p.Took.Round(time.Millisecond))
	if p.HeldOutEpisodes > 0 {
		fmt.Fprintf(w, "of %d more that were simulated, of kinds that nothing was tuned by, it would detect %.0f %%; %d of all that were simulated no sensitivity would show\n", p.HeldOutEpisodes, 100*p.HeldOut, p.Unseen)
	}
	return err
}

// direction says what a proposal means to whoever watches alarms, and what to do with it.
func direction(p *bus.TuningProposal) string {
	what := "it weighs detectors differently"
	switch {
	case p.Then.Sensitivity > p.Now.Sensitivity:
		what = "it notices more: fewer thefts are missed, and there may be more false alarms"
	case p.Then.Sensitivity < p.Now.Sensitivity:
		what = "it notices less: there are fewer false alarms, and a faint theft may be missed"
	}
	return what + "; with --apply it is tried beside the present setting first, and --revert takes it back"
}

func detected(s bus.TuningSetting) string {
	if s.Episodes == 0 {
		return "nothing is known to be real yet"
	}
	return fmt.Sprintf("%.0f %% of %.3g that are real, or simulated", 100*s.Detected, s.Episodes)
}

func printHistory(w io.Writer, i bus.TuningInfo) error {
	rows := [][]string{{"REV", "WHEN", "PHASE", "SENSITIVITY", "CUT-OFF", "BY", "EXPECTED FALSE", "WHY"}}
	for _, s := range i.History {
		why := s.Reason
		if s.Saw != "" {
			why += "; " + s.Saw
		}
		expected := "unknown"
		if s.Hours > 0 {
			expected = rateText(s.FalsePerDay) + " a day"
		}
		rows = append(rows, []string{
			fmt.Sprint(s.Revision), stamp(s.At), s.Phase, fmt.Sprintf("%.3f", s.Sensitivity), fmt.Sprintf("%.2f", s.Cutoff),
			strings.TrimSpace(s.By + " " + s.Method), expected, why,
		})
	}
	return table(w, rows)
}
