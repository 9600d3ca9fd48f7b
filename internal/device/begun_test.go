package device

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

func writeTS(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "x.ts")
	if err := os.WriteFile(path, newTS(0, time.Millisecond, 10).packets(nil, 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeSource(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCommandIsChangedByItsFile: a command that would run for ever is ended, and the one
// that the file names now is begun, in its regime. What the file cannot mean changes
// nothing.
func TestCommandIsChangedByItsFile(t *testing.T) {
	clip, file := writeTS(t), filepath.Join(t.TempDir(), "source")
	command := func(regime, then string) string {
		return fmt.Sprintf("# what runs\n\nregime: %s\nexec:cat '%s'\n%s\n", regime, clip, then)
	}
	writeSource(t, file, command("day", "exec sleep 1000"))
	c := Command{Source: []string{"@" + file}}
	first, err := ReadSource(c.Source[0])
	if err != nil || first.Regime != "day" || !strings.HasPrefix(first.Spec, "exec:cat") {
		t.Fatalf("%+v, %v", first, err)
	}
	s, err := OpenSource(first.Spec, SourceOptions{Regime: first.Regime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var log strings.Builder
	reread := func() {
		c.changed([]StreamConfig{{Source: s}}, []SourceFile{first}, slog.New(slog.NewTextHandler(&log, nil)))
	}
	n := 0
	var b Batch
	read := func() string {
		t.Helper()
		for {
			if err := s.Read(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			for _, u := range b.Units {
				n += len(u.Payload) / media.TSPacketSize
			}
			if b.Break != "" || n%3000 == 0 {
				return b.Break
			}
		}
	}
	if read(); n != 3000 || s.(runner).regime() != "day" {
		t.Fatalf("%d packets", n)
	}
	for _, row := range []struct{ text, want string }{
		{command("day", "exec sleep 1000"), ""},
		{"", "names no source"},
		{command("-night", ""), "cannot be the name of a regime"},
		{"udp://127.0.0.1:5000", "restart the agent"},
		{"exec: ", "names no command"},
	} {
		log.Reset()
		writeSource(t, file, row.text)
		reread()
		if x := s.(*execSource); !strings.Contains(log.String(), row.want) || (log.Len() > 0) != (row.want != "") || x.ordered != nil {
			t.Errorf("%q: %s", row.text, log.String())
		}
	}
	// The old command does not listen; it is made to end.
	writeSource(t, file, command("night", "trap '' TERM; while :; do sleep 1; done"))
	reread()
	if why := read(); why != "the source's command was changed" || b.Begun != gkrp.WhyChanged || b.Regime != "night" {
		t.Fatalf("%q, %q, %q", why, b.Begun, b.Regime)
	}
	for n < 6000 {
		read()
	}
	began := time.Now()
	writeSource(t, file, command("day", "exit 7"))
	reread()
	if read(); b.Begun != gkrp.WhyChanged || b.Regime != "day" || time.Since(began) < termGrace {
		t.Errorf("%q, %q, after %v", b.Begun, b.Regime, time.Since(began))
	}
	// It fails then, and is begun anew by itself; a change interrupts the pause before.
	s.(*execSource).wait = time.Millisecond
	if read(); b.Begun != "" {
		read()
	}
	for b.Begun == "" {
		read()
	}
	if b.Begun != gkrp.WhyFailed || b.Regime != "day" {
		t.Errorf("%q, %q", b.Begun, b.Regime)
	}
	s.(*execSource).wait = time.Hour
	time.AfterFunc(50*time.Millisecond, func() {
		if err := change(s, SourceFile{Regime: "dusk", Spec: "exec:cat '" + clip + "'"}); err != nil {
			t.Error(err)
		}
	})
	for b.Regime != "dusk" {
		read()
	}
	// The last one ends well, and the source with it.
	for {
		if err := s.Read(t.Context(), &b); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherSourcesRunNothing(t *testing.T) {
	s, err := OpenSource(writeTS(t), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.(runner); ok {
		t.Error("a file runs an encoder")
	}
	if s, err := OpenSource("udp://127.0.0.1:0", SourceOptions{Regime: "day"}); err == nil || !strings.Contains(err.Error(), "planned-change") {
		t.Errorf("%v, %v", s, err)
	}
	if err := change(s, SourceFile{Spec: "exec:true"}); err == nil || !strings.Contains(err.Error(), "restart the agent") {
		t.Errorf("%v", err)
	}
}

// TestRestartsAreTold: in every report from the start on, by number, so that one that is
// lost matters to nobody; by a source that runs its encoder alone, and not to a service
// of an earlier version.
func TestRestartsAreTold(t *testing.T) {
	clip := writeTS(t)
	for _, row := range []struct {
		spec    string
		version gkrp.Version
		tells   bool
	}{{"exec:cat '" + clip + "'; sleep 1; exit 7", gkrp.Version3, true}, {"exec:cat '" + clip + "'; sleep 1; exit 7", gkrp.Version2, false}, {clip, gkrp.Version3, false}} {
		regime := ""
		if strings.HasPrefix(row.spec, "exec:") {
			regime = "day"
		}
		s, err := OpenSource(row.spec, SourceOptions{Regime: regime})
		if err != nil {
			t.Fatal(err)
		}
		if x, ok := s.(*execSource); ok {
			x.wait = 10 * time.Millisecond
		}
		r := &rig{t: t, w: newWorld(t), bus: bus.NewMemory(), done: make(chan error, 1)}
		r.svc = newService(t, r.w, r.bus, gkrp.Timing{Policy: gkrp.Policy{ReportEveryMs: 200}})
		r.svc.newest = row.version
		r.begin(s, nil)
		time.Sleep(2500 * time.Millisecond)
		r.cancel()
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		r.close()
		var told []uint64
		for i, rep := range r.svc.reports {
			if (rep.Encoder != nil) != row.tells {
				t.Fatalf("%.20s, version %d: report %d with encoder %+v", row.spec, row.version, i, rep.Encoder)
			}
			if e := rep.Encoder; e != nil {
				told = append(told, e.Changes)
				if e.Regime != "day" || (e.Changes > 0) != (e.Why == gkrp.WhyFailed) || e.AgoMs > 1500 {
					t.Errorf("%+v", e)
				}
			}
		}
		if row.tells && (len(told) < 5 || told[0] != 0 || !slices.IsSorted(told) || told[len(told)-1] < 1) {
			t.Errorf("changes as told: %v", told)
		}
	}
}
