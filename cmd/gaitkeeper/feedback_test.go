package main

import (
	"strings"
	"testing"
	"time"
)

// TestClock: a time of day is the last that there was.
func TestClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 1, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"01:10":                     "2026-03-01T01:10:00Z",
		"14:02":                     "2026-02-28T14:02:00Z",
		"23:59:58":                  "2026-02-28T23:59:58Z",
		"2026-01-02T03:04:05+01:00": "2026-01-02T02:04:05Z",
	} {
		got, err := clock(text, now)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s is %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "25:00", "yesterday", "14.02"} {
		if got, err := clock(text, now); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// TestTuneCommandLine: what can be asked of tune at once, and what cannot.
func TestTuneCommandLine(t *testing.T) {
	for args, ok := range map[string]bool{
		"cam-1": true, "cam-1 --apply": true, "cam-1 --history": true, "cam-1 --revert=0": true, "cam-1 --auto=off": true, "--fleet --apply": true,
		"cam-1 --apply --history": false, "cam-1 --auto=on --revert=1": false,
	} {
		parser, err := newParser(console{}, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"tune"}, strings.Fields(args)...)); (err == nil) != ok {
			t.Errorf("tune %s: %v", args, err)
		}
	}
}
