package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// TestDeviceAnnouncesItsEncodersRestart: an agent runs ffmpeg itself. Killed, it is begun
// anew: one alert that says so, one new key, the media goes on, and the profile is as it
// was. Changed by its owner, it is announced in the regime that he names.
func TestDeviceAnnouncesItsEncodersRestart(t *testing.T) {
	need(t, "ffmpeg")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	s := newSite(t, "--learn-for=8s", "--provisional-after=6s", "--probation=5s")
	s.serve()
	dir := t.TempDir()
	file, pid := filepath.Join(dir, "source"), filepath.Join(dir, "pid")
	encoder := func(regime, size string) {
		text := fmt.Sprintf("regime: %s\nexec:echo $$ > %s\nexec ffmpeg -v error -re -f lavfi -i testsrc2=size=%s:rate=25 -vf noise=alls=20:allf=t:all_seed=$$ "+
			"-c:v libx264 -preset ultrafast -g 25 -b:v 300k -minrate 300k -maxrate 300k -bufsize 300k -f mpegts -\n", regime, pid, size)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	encoder("day", "320x180")
	camera := start(t, program, s.device("cam-1", "@"+file)...)
	var p bus.ProfileInfo
	profile := func() bus.ProfileInfo {
		p = bus.ProfileInfo{}
		s.ask(&p, "profile", "show", "cam-1")
		return p
	}
	var alerts []bus.Alert
	newest := func() bus.Alert {
		alerts = nil
		s.ask(&alerts, "alerts", "--stream", "cam-1")
		if len(alerts) == 0 {
			return bus.Alert{}
		}
		return alerts[0]
	}
	delivered := func() (n uint64) {
		var all []bus.StreamInfo
		s.ask(&all, "streams")
		for _, i := range all {
			for _, u := range i.Status {
				n += u.Delivered
			}
		}
		return n
	}
	until(t, "a stream", func() bool { return strings.Contains(string(s.run("streams")), "cam-1") })
	until(t, "a mature profile", func() bool { return profile().Stage == bus.StageMature })
	until(t, "the end of probation", func() bool { return profile().Probation == 0 })
	before := profile()
	if len(before.Modes) != 1 || before.Modes[0].Name != "day" || before.Encoder == nil || before.Encoder.Regime != "day" || before.Encoder.Changes != 0 {
		t.Fatalf("%+v, encoder %+v", before, before.Encoder)
	}

	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the announced restart among the alerts", func() bool { return newest().Announced == "failed" && newest().Rotated != 0 })
	first := newest()
	at := delivered()
	until(t, "its end", func() bool { return !newest().Closed.IsZero() })
	a := newest()
	want := bus.OutcomeAccepted
	if a.Closed.Sub(a.Opened) > 29*time.Second { // a machine so busy that the source came late to itself
		want = bus.OutcomeCalm
	}
	if a.ID != first.ID || a.Outcome != want || a.Regime != "day" || a.Ask != "" || len(alerts) != 1 {
		t.Errorf("%+v", alerts)
	}
	if now := delivered(); now <= at {
		t.Errorf("%d packets were delivered, %d when the restart was announced", now, at)
	}
	after := profile()
	if after.Stage != bus.StageMature || after.Version != before.Version || len(after.Modes) != 1 || after.Encoder.Changes != 1 || after.Encoder.Taken != 1 {
		t.Errorf("%+v, encoder %+v", after, after.Encoder)
	}
	t.Logf("closed after %v, done %s, kind %s, evidence %q", a.Closed.Sub(a.Opened).Round(time.Millisecond), a.Done, a.Kind, a.Evidence)
	if out := string(s.run("alerts", "show", a.ID)); !strings.Contains(out, "announced by the device: it began its encoder anew (failed), in the regime day") {
		t.Errorf("%s", out)
	}

	encoder("night", "480x270")
	if err := camera.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the announced change", func() bool { return newest().Regime == "night" })
	if a := newest(); a.Announced != "changed" || !a.Closed.IsZero() || a.ID == first.ID {
		t.Errorf("%+v", a)
	}
	if p := profile(); p.Encoder.Regime != "night" || p.Encoder.Known || p.Version != before.Version {
		t.Errorf("%+v, encoder %+v", p, p.Encoder)
	}
}
