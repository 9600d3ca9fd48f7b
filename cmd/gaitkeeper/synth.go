package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/synth"
)

type synthCommand struct {
	Out      string        `required:"" type:"path" placeholder:"DIR" help:"Where captures (NAME.pcap.gz) and labels (NAME.json) go. What is there already is kept, so that a stopped run goes on."`
	Seed     uint64        `default:"1" help:"What is drawn; the same seed makes the same captures, given the same ffmpeg."`
	Split    string        `enum:"dev,held-out,both" default:"both" help:"Which half of contents and settings is drawn from: dev to make rules on, held-out to measure on, or both."`
	Hours    float64       `default:"1" help:"Hours of harmless captures, baselines left out."`
	PerKind  int           `default:"4" help:"Attacks of each kind."`
	Benign   bool          `help:"Harmless captures only."`
	Attacks  bool          `help:"Captures with attacks only."`
	Kinds    []string      `placeholder:"KIND,..." help:"Only these attacks and network events."`
	Input    []string      `type:"existingfile" placeholder:"FILE" help:"Your own films, which are shown beside what is drawn. Repeatable."`
	Rate     int           `placeholder:"KBIT/S" help:"Rate of every encoder that keeps one. Default: drawn."`
	Paths    int           `default:"6" help:"Captures made of one encoding, each over another network."`
	Length   time.Duration `default:"8m" help:"Length of a harmless capture."`
	Baseline time.Duration `default:"90s" help:"Its clean beginning."`
	Whole    float64       `default:"0.05" help:"Share of captures that hold whole packets; the others hold the first 96 bytes of each."`
	Jobs     int           `default:"2" help:"Encodings at a time."`
	Nice     int           `default:"10" help:"How far ffmpeg stands back for other programs, 0 to 19."`
	Cache    string        `type:"path" placeholder:"DIR" help:"Where encodings are kept. Default: gaitkeeper/synth in the user's cache directory."`
}

func (c *synthCommand) Run(ctx context.Context, con console) error {
	if c.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("no cache directory: %w: name one with --cache", err)
		}
		c.Cache = filepath.Join(dir, "gaitkeeper", "synth")
	}
	encoder, err := synth.NewEncoder(ctx, c.Cache, c.Nice)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	begun := time.Now()
	plan := &synth.Plan{
		Out: c.Out, Seed: c.Seed, Split: synth.Split(c.Split), Hours: c.Hours, PerKind: c.PerKind, Kinds: c.Kinds, Inputs: c.Input, Kbps: c.Rate,
		Paths: c.Paths, Seconds: c.Length.Seconds(), Baseline: c.Baseline.Seconds(), Whole: c.Whole, Jobs: c.Jobs, Encoder: encoder,
		Progress: func(done, all int, what string) {
			left := time.Duration(float64(time.Since(begun)) / float64(done) * float64(all-done)).Round(time.Second)
			if con.terminal {
				fmt.Fprintf(con.err, "\r\x1b[K%d of %d captures, %s left: %s", done, all, left, what)
				if done == all {
					fmt.Fprintln(con.err)
				}
			} else if done%10 == 0 || done == all {
				fmt.Fprintf(con.err, "%d of %d captures, %s left\n", done, all, left)
			}
		},
	}
	switch {
	case c.Benign && !c.Attacks:
		plan.PerKind = 0
	case c.Attacks && !c.Benign:
		plan.Hours = 0
	}
	done, err := synth.Run(ctx, plan)
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "%d captures, %.1f hours of streams, in %s; measure them: gaitkeeper eval %s\n", done.Captures, done.Hours, time.Since(begun).Round(time.Second), c.Out)
	return nil
}
