package main

import (
	"context"
	"fmt"
	"net/url"
	"os/user"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

type feedbackCommand struct {
	server
	ID    string `arg:"" name:"alert" help:"Name of the alert: STREAM.NUMBER."`
	True  bool   `name:"true" xor:"answer" required:"" help:"It was real: somebody or something had changed the stream."`
	False bool   `name:"false" xor:"answer" required:"" help:"It was a false alarm."`
	Note  string `placeholder:"TEXT" help:"Why, for whoever reads it later."`
}

func (c *feedbackCommand) Run(ctx context.Context, con console) error {
	in := map[string]any{"real": c.True, "note": c.Note, "by": whoAmI()}
	return c.answer(ctx, con, "/v1/alerts/"+url.PathEscape(c.ID)+"/feedback", in)
}

// answer sends an operator's word and prints what follows.
func (s server) answer(ctx context.Context, con console, path string, in map[string]any) error {
	var rep bus.FeedbackReply
	if err := s.ask(ctx, "POST", path, in, &rep); err != nil {
		return err
	}
	if s.JSON {
		return printJSON(con.out, rep)
	}
	fmt.Fprintf(con.out, "%s: %s\n", rep.Stream, rep.Text)
	if rep.Proposed > 0 {
		what := "more"
		if rep.Proposed < rep.Sensitivity {
			what = "less"
		}
		fmt.Fprintf(con.out, "it is to notice %s: a detector alarms at %.2f times its limit now, and at %.2f when that was tried beside it for as long as shadow-for says (sensitivity %.3f, then %.3f); how it stands: gaitkeeper tune %s\n",
			what, tune.CutoffOf(rep.Sensitivity), tune.CutoffOf(rep.Proposed), rep.Sensitivity, rep.Proposed, rep.Stream)
	}
	return nil
}

// whoAmI is who gives the answer, for the audit trail.
func whoAmI() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

type reportMissedCommand struct {
	server
	Stream string `arg:"" help:"Name of the stream."`
	From   string `required:"" placeholder:"TIME" help:"When it began: 15:04, 15:04:05, or 2006-01-02T15:04:05Z07:00."`
	To     string `required:"" placeholder:"TIME" help:"When it ended."`
	Kind   string `placeholder:"WORD" help:"What it was, for example swap, loop or injection."`
	Note   string `placeholder:"TEXT" help:"More, for whoever reads it later."`
}

func (c *reportMissedCommand) Run(ctx context.Context, con console) error {
	now := time.Now()
	from, err := clock(c.From, now)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	to, err := clock(c.To, now)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	if !from.Before(to) {
		const full = "2006-01-02 15:04:05"
		return fmt.Errorf("--from %s (%s) is not before --to %s (%s): turn them round, or write both with a date; a time of day that has not come yet is yesterday's",
			c.From, from.Format(full), c.To, to.Format(full))
	}
	in := map[string]any{"from": from, "to": to, "kind": c.Kind, "note": c.Note, "by": whoAmI()}
	return c.answer(ctx, con, "/v1/streams/"+url.PathEscape(c.Stream)+"/missed", in)
}

// clock reads a time. One without a date is the last that there was.
func clock(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		if t.After(now) {
			t = t.AddDate(0, 0, -1)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write a time of day as 15:04 or 15:04:05, or with a date as 2006-01-02T15:04:05Z", text)
}
