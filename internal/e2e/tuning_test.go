package e2e

import (
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// otherMultiplexer passes an encoder's datagrams on; while it is on, its output has
// other PIDs than the program tables say, as that of another multiplexer would.
func otherMultiplexer(t *testing.T, to string) (url string, on *atomic.Bool) {
	t.Helper()
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	on = new(atomic.Bool)
	done := make(chan struct{})
	t.Cleanup(func() {
		in.Close()
		<-done
		out.Close()
	})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			if on.Load() {
				for ts := buf[:n]; len(ts) >= media.TSPacketSize; ts = ts[media.TSPacketSize:] {
					if media.PID(ts) > 0x1f {
						ts[2] ^= 0x20
					}
				}
			}
			// The device may be gone before the encoder.
			_, _ = out.Write(buf[:n])
		}
	}()
	return "udp://" + in.LocalAddr().String() + "?pkt_size=1316", on
}

// refused wants a command to fail with a text that says why.
func (s *site) refused(want string, args ...string) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), program, append(args, "--data", s.data)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		s.t.Errorf("gaitkeeper %v: %v, %s; want %q", args, err, out, want)
	}
}

// TestAnswersTuneTheStream: an operator calls an alert false. The setting that follows
// is in the shadow first, decides when the episode is over, is in the history,
// outlives a restart, and is taken back when he says so.
func TestAnswersTuneTheStream(t *testing.T) {
	need(t, "ffmpeg")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	s := newSite(t, "--learn-for=8s", "--provisional-after=6s", "--probation=5s", "--shadow-for=3s")
	server := s.serve()
	at := freeUDP(t)
	camera := start(t, program, s.device("cam-1", "udp://"+at)...)
	url, other := otherMultiplexer(t, at)
	start(t, "ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-vf", "noise=alls=20:allf=t",
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-b:v", "300k", "-minrate", "300k", "-maxrate", "300k", "-bufsize", "300k", "-f", "mpegts", url)

	var p bus.ProfileInfo
	until(t, "a mature profile", func() bool {
		var streams []bus.StreamInfo
		if s.ask(&streams, "streams"); len(streams) == 0 {
			return false
		}
		s.ask(&p, "profile", "show", "cam-1")
		return p.Stage == bus.StageMature
	})
	alert := func() (a bus.Alert) {
		var list []bus.Alert
		s.ask(&list, "alerts", "list", "--stream", "cam-1")
		for _, a := range list {
			if a.Class == bus.ClassSource {
				return a
			}
		}
		return a
	}
	other.Store(true)
	until(t, "an alert", func() bool { return alert().ID != "" })
	id := alert().ID

	s.refused("can't be used together", "feedback", id, "--true", "--false")
	s.refused("there is no alert cam-1.999", "feedback", "cam-1.999", "--false")
	s.refused("no stream", "feedback", "cam-2.1", "--false")
	s.refused("no stream", "tune", "cam-2")
	s.refused("is not before", "report-missed", "cam-1", "--from", "2026-01-02T14:05:00Z", "--to", "2026-01-02T14:02:00Z")
	s.refused("no earlier setting", "tune", "cam-1", "--revert", "77")
	s.refused("is no revision", "tune", "cam-1", "--revert", "1x")
	s.refused("neither on nor off", "tune", "cam-1", "--auto=")

	var rep bus.FeedbackReply
	s.ask(&rep, "feedback", id, "--false", "--note", "the multiplexer was changed")
	if rep.Sensitivity != 0.5 || rep.Proposed >= rep.Sensitivity || rep.Proposed == 0 {
		t.Fatalf("%+v", rep)
	}
	history := func() (i bus.TuningInfo) {
		s.ask(&i, "tune", "cam-1", "--history")
		return i
	}
	if i := history(); alert().Closed.IsZero() && (i.Shadow == nil || i.Live.Sensitivity != 0.5) {
		t.Errorf("while the episode runs: %+v", i)
	}
	other.Store(false)
	until(t, "the setting decides", func() bool { return history().Live.Sensitivity == rep.Proposed })
	i := history()
	if i.Live.By != "feedback" || i.Shadow != nil || i.Labels.False != 1 || len(i.History) != 2 || alert().Closed.IsZero() {
		t.Errorf("%+v", i)
	}
	if text := string(s.run("tune", "cam-1", "--history")); !strings.Contains(text, "a false alarm: sensitivity falls") {
		t.Errorf("the history says\n%s", text)
	}

	server.stop()
	server = s.serve()
	if again := history(); again.Revision != i.Revision || again.Live.Sensitivity != i.Live.Sensitivity || again.Labels != i.Labels {
		t.Errorf("after a restart %+v, before %+v", again, i)
	}
	var around bus.Episode
	if s.ask(&around, "alerts", "show", id, "--windows"); len(around.Windows) < 20 || !around.From.Before(around.Opened) || around.Windows[0].Packets == 0 {
		t.Errorf("%d windows around the alert are shown, from %v on: %+v", len(around.Windows), around.From, around)
	}
	if text := string(s.run("alerts", "show", id, "--windows")); !strings.Contains(text, "SCORE NOW") {
		t.Errorf("around the alert there was\n%s", text)
	}
	s.refused("there is no alert cam-1.999", "alerts", "show", "cam-1.999", "--windows")
	s.ask(&i, "tune", "cam-1", "--revert", "1")
	if i.Live.Sensitivity != 0.5 || i.Live.Revision != i.Revision {
		t.Errorf("taken back: %+v", i)
	}
	var off bus.TuningInfo
	if s.ask(&off, "tune", "cam-1", "--auto", "off"); off.Auto {
		t.Error("automatic tuning is on after it was turned off")
	}
	from := time.Now().Add(-10 * time.Second).UTC()
	var missed bus.FeedbackReply
	s.ask(&missed, "report-missed", "cam-1", "--from", from.Format(time.RFC3339), "--to", from.Add(5*time.Second).Format(time.RFC3339), "--kind", "swap")
	if missed.Proposed != 0 || history().Labels.Missed != 1 {
		t.Errorf("a miss while automatic tuning is off: %+v, %+v", missed, history())
	}
	camera.stop()
	server.stop()
}
