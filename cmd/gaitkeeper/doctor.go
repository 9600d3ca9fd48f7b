package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

type doctorCommand struct {
	app.Config
	JSON bool `name:"json" help:"Print JSON."`
}

// Run looks at the deployment that serve would be given with the same settings.
// It fails if that could not work; warnings are no failure.
func (c *doctorCommand) Run(ctx context.Context, con console) error {
	findings := app.Diagnose(ctx, c.Config)
	failures := 0
	for _, f := range findings {
		if f.Verdict == app.Failure {
			failures++
		}
	}
	if c.JSON {
		if err := printJSON(con.out, struct {
			OK       bool          `json:"ok"`
			Findings []app.Finding `json:"findings"`
		}{failures == 0, findings}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			fmt.Fprintf(con.out, "%-8s %s: %s\n", f.Verdict, f.Check, f.Found)
			if f.Mend != "" {
				fmt.Fprintf(con.out, "         → %s\n", f.Mend)
			}
		}
	}
	switch failures {
	case 0:
		return nil
	case 1:
		return errors.New("something does not work: see above")
	}
	return fmt.Errorf("%d things do not work: see above", failures)
}
