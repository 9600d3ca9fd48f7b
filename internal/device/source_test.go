package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/media"
)

// mp4 begins like an MP4 file.
var mp4 = append([]byte("\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"), make([]byte, 100_000)...)

func TestBadInputIsNamedWithItsMend(t *testing.T) {
	m2ts := make([]byte, 192*40)
	for i := 4; i < len(m2ts); i += 192 {
		m2ts[i] = 0x47
	}
	noClock := newTS(0, time.Millisecond, 1<<30)
	noClock.n = 1
	for _, c := range []struct {
		name  string
		data  []byte
		wants []string
	}{
		{"mp4", mp4, []string{"MP4 (ftyp box)", "ffmpeg -i ", "-c copy -f mpegts"}},
		{"matroska", append([]byte("\x1a\x45\xdf\xa3"), mp4...), []string{"Matroska"}},
		{"annex b", append([]byte{0, 0, 0, 1, 0x67}, mp4...), []string{"elementary stream", "-c copy -f mpegts"}},
		{"program stream", append([]byte{0, 0, 1, 0xba}, mp4...), []string{"program stream"}},
		{"text", []byte(strings.Repeat("hello, world\n", 6000)), []string{`text ("hello, world")`, "-f mpegts"}},
		{"short text", []byte("oops\n"), []string{"text"}},
		{"empty", nil, []string{"found nothing"}},
		{"blu-ray", m2ts, []string{"192-byte packets"}},
		{"noise", bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 30_000), []string{"unknown data", "de ad be ef"}},
		{"no clock", noClock.packets(nil, 500), []string{"without a program clock reference", "re-multiplex"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "input.bin")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, spec := range []string{path, "file:" + path, "-", "exec:cat " + path} {
				if spec[0] == 'e' && (c.name == "empty" || c.name == "no clock") {
					continue // a command may write whatever it likes, at its own pace
				}
				s, err := OpenSource(spec, SourceOptions{Stdin: bytes.NewReader(c.data)})
				if err == nil {
					_, err = s.Probe(t.Context())
				}
				if err == nil {
					t.Fatalf("%s: taken for MPEG-TS", spec)
				}
				for _, want := range c.wants {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s: error %q does not say %q", spec, err, want)
					}
				}
				if s != nil {
					_ = s.Close() // a command that was cut off ends as it likes
				}
			}
		})
	}
}

func TestBadSpecs(t *testing.T) {
	for spec, want := range map[string]string{
		"nosuch.ts":                     "no such file",
		t.TempDir():                     "is a directory",
		"udp://127.0.0.1":               "write udp://HOST:PORT",
		"rtp://127.0.0.1:0/x":           "write rtp://HOST:PORT",
		"rtp://127.0.0.1:0?clock=fast":  "no clock rate",
		"http://example.com/x.ts":       "no kind of source",
		"exec:":                         "names no command",
		"rtsp:":                         "names no host",
		"udp://224.0.0.1:0?interface=x": "interface=x",
	} {
		s, err := OpenSource(spec, SourceOptions{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", spec)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q does not say %q", spec, err, want)
		}
	}
}

// played is one unit as it was handed out.
type played struct {
	at    time.Duration
	units []Unit
	data  []byte
	brk   string
}

// play reads a source to its end.
func play(t *testing.T, s Source) []played {
	t.Helper()
	var out []played
	var b Batch
	begin := time.Time{}
	for {
		if err := s.Read(t.Context(), &b); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if begin.IsZero() {
			begin = time.Now()
		}
		p := played{at: time.Since(begin), brk: b.Break}
		for _, u := range b.Units {
			p.data = append(p.data, u.Payload...)
			u.Payload = nil
			p.units = append(p.units, u)
		}
		out = append(out, p)
	}
}

func all(ps []played) (data []byte) {
	for _, p := range ps {
		data = append(data, p.data...)
	}
	return data
}

func TestFileIsPacedByItsClock(t *testing.T) {
	for _, c := range []struct {
		name  string
		start uint64
		step  time.Duration
		each  int
	}{
		{"slow", 0, 5 * time.Millisecond, 8},
		{"fast", 12345, 100 * time.Microsecond, 50},
		{"clock wraps", pcrCycle - 27_000_000, 2 * time.Millisecond, 20},
		{"rare references", 0, time.Millisecond, 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 5000
			want := newTS(c.start, c.step, c.each).packets(nil, n)
			synctest.Test(t, func(t *testing.T) {
				s := NewClipSource(bytes.NewReader(want), false)
				ps := play(t, s)
				if got := all(ps); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came out, %d went in, or they differ", len(got), len(want))
				}
				i := 0
				for _, p := range ps {
					if p.brk != "" {
						t.Errorf("break at packet %d: %s", i, p.brk)
					}
					for _, u := range p.units {
						due := c.step * time.Duration(i)
						if d := p.at - due; d < -slack || d > time.Microsecond {
							t.Fatalf("packet %d sent at %v, its time is %v", i, p.at, due)
						}
						if d := int64(u.Timestamp) - int64(clock90k(due)); d < -1 || d > 1 {
							t.Fatalf("packet %d has timestamp %d, its time is %v", i, u.Timestamp, due)
						}
						if u.Type != media.PayloadTypeTS {
							t.Fatalf("payload type %d", u.Type)
						}
						i += media.TSPerRTP
					}
				}
			})
		})
	}
}

func TestClockJumpIsABreakAndTimeGoesOn(t *testing.T) {
	a := newTS(900_000_000, time.Millisecond, 10)
	b := newTS(27_000, time.Millisecond, 10)
	data := b.packets(a.packets(nil, 1005), 1000)
	synctest.Test(t, func(t *testing.T) {
		ps := play(t, NewClipSource(bytes.NewReader(data), false))
		if !bytes.Equal(all(ps), data) {
			t.Fatal("bytes differ")
		}
		breaks, i := 0, 0
		for _, p := range ps {
			if p.brk != "" {
				breaks++
				if i != 1005 {
					t.Errorf("break at packet %d, want 1005", i)
				}
				if d := p.at - 1005*time.Millisecond; d < -2*time.Millisecond || d > 2*time.Millisecond {
					t.Errorf("the second clock begins at %v", p.at)
				}
			}
			i += len(p.data) / media.TSPacketSize
		}
		if breaks != 1 {
			t.Errorf("%d breaks, want 1", breaks)
		}
		if last := ps[len(ps)-1].at; last < 1990*time.Millisecond || last > 2010*time.Millisecond {
			t.Errorf("2.005 s of stream ended at %v", last)
		}
	})
}

func TestLoopGoesOnForEver(t *testing.T) {
	data := newTS(0, time.Millisecond, 10).packets(nil, 100)
	synctest.Test(t, func(t *testing.T) {
		s := NewClipSource(bytes.NewReader(data), true)
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n, breaks := 0, 0
		var b Batch
		for s.Read(ctx, &b) == nil {
			for _, u := range b.Units {
				n += len(u.Payload) / media.TSPacketSize
			}
			if b.Break != "" {
				breaks++
			}
		}
		if n < 980 || n > 1020 || breaks < 9 || breaks > 11 {
			t.Errorf("%d packets and %d breaks in a second, want about 1000 and 10", n, breaks)
		}
		synctest.Wait()
	})
}

// A pipe that pauses is not made up for in a burst.
func TestPauseOfAPipeIsNotMadeUpFor(t *testing.T) {
	m := newTS(0, time.Millisecond, 10)
	first, second := m.packets(nil, 1001), m.packets(nil, 1000)
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write(first)
			time.Sleep(10 * time.Second)
			_, _ = w.Write(second)
			_ = w.Close()
		}()
		s, err := OpenSource("-", SourceOptions{Stdin: r})
		if err != nil {
			t.Fatal(err)
		}
		ps := play(t, s)
		if !bytes.Equal(all(ps), append(first, second...)) {
			t.Fatal("bytes differ")
		}
		if last := ps[len(ps)-1].at; last < 10900*time.Millisecond || last > 11100*time.Millisecond {
			t.Errorf("the end came at %v, want about 11 s", last)
		}
	})
}

func TestGarbageInAFileIsSkippedAndCounted(t *testing.T) {
	m := newTS(0, 100*time.Microsecond, 10)
	a, b := m.packets(nil, 2000), m.packets(nil, 2000)
	junk := bytes.Repeat([]byte{1, 2, 3}, 333)
	synctest.Test(t, func(t *testing.T) {
		s := NewClipSource(bytes.NewReader(append(append(append([]byte{}, a...), junk...), b...)), false)
		got := all(play(t, s))
		if len(got) < len(a)+len(b)-5*media.TSPacketSize || !media.ValidTS(got) {
			t.Errorf("%d bytes came out of %d", len(got), len(a)+len(b))
		}
		if s.Dropped() < uint64(len(junk)) {
			t.Errorf("%d bytes counted as dropped, want at least %d", s.Dropped(), len(junk))
		}
	})
}

func TestExecSource(t *testing.T) {
	data := newTS(0, time.Millisecond, 10).packets(nil, 3000)
	path := filepath.Join(t.TempDir(), "x.ts")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(command string) Source {
		s, err := OpenSource("exec:"+command, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	if got := all(play(t, open("cat '"+path+"'"))); !bytes.Equal(got, data) {
		t.Errorf("%d bytes came out, %d went in", len(got), len(data))
	}
	for command, want := range map[string]string{
		"echo 'no such camera' >&2; exit 3": "exit status 3) before it wrote MPEG-TS to its standard output; it said: no such camera",
		"true":                              "ended without writing",
		"/no/such/program":                  "not found",
	} {
		if _, err := open(command).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", command, err, want)
		}
	}
	t.Run("restart after a failure", func(t *testing.T) {
		s := open("cat '" + path + "'; exit 7").(*execSource)
		s.wait = time.Millisecond
		n, breaks := 0, 0
		var b Batch
		for breaks < 3 {
			if err := s.Read(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			if b.Break != "" {
				breaks++
				if n%3000 != 0 {
					t.Errorf("break after %d packets", n)
				}
			}
			for _, u := range b.Units {
				n += len(u.Payload) / media.TSPacketSize
			}
		}
	})
	t.Run("the end of the context is the end of a command that hangs", func(t *testing.T) {
		s := open("cat '" + path + "'; exec sleep 1000")
		ctx, cancel := context.WithCancel(t.Context())
		var b Batch
		for n := 0; n < len(data); {
			if err := s.Read(ctx, &b); err != nil {
				t.Fatal(err)
			}
			for _, u := range b.Units {
				n += len(u.Payload)
			}
		}
		cancel()
		if err := s.Read(ctx, &b); !errors.Is(err, context.Canceled) {
			t.Errorf("read gave %v", err)
		}
	})
}

func TestHelperNamesTheMissingPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for spec, want := range map[string]string{
		"srt://h:1":      "apt install srt-tools",
		"rtsp://h:1/cam": "apt install ffmpeg",
		"rist://h:1":     "ristreceiver",
	} {
		if _, err := OpenSource(spec, SourceOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", spec, err, want)
		}
	}
}
