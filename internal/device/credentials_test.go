package device

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSourcesKeepPasswords: cameras' passwords stand in URLs and command lines, and
// programs repeat what they were given when it does not work. None of it comes into
// errors or logs.
func TestSourcesKeepPasswords(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, program := range []string{"ffmpeg", "srt-live-transmit", "ristreceiver"} {
		script := "#!/bin/sh\necho \"$0: cannot open $*: connection refused\" >&2\nexit 1\n"
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, spec := range []string{
		"rtsp://operator:hunter2@127.0.0.1:1/cam", "rtsps://operator:hunter2@127.0.0.1:1/cam",
		"srt://127.0.0.1:1?passphrase=hunter2&mode=caller", "srt://127.0.0.1:1?mode=caller&PASSPHRASE=hunter2", "rist://127.0.0.1:1?username=u&password=hunter2",
		"exec:ffmpeg -i rtsp://operator:hunter2@127.0.0.1/cam -f mpegts -",
		"exec:true rtsp://operator:hunter2@127.0.0.1/cam",
		"exec:head -c 1000000 /dev/zero # hunter2",
		"http://operator:hunter2@127.0.0.1/cam", "udp://operator:hunter2@127.0.0.1:port", "rtsp://operator:hunter2@",
	} {
		var log bytes.Buffer
		s, err := OpenSource(spec, SourceOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil {
			_, err = s.Probe(t.Context())
			_ = s.Close()
		}
		if err == nil {
			t.Errorf("%s: it worked", spec)
		} else if text := err.Error() + log.String(); strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", spec, text)
		}
	}
	t.Run("a restart", func(t *testing.T) {
		data := newTS(0, time.Millisecond, 10).packets(nil, 3000)
		path := filepath.Join(dir, "x.ts")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := OpenSource("exec:cat '"+path+"'; echo 'rtsp://operator:hunter2@h: gone, passphrase=hunter2' >&2; exit 7 # hunter2", SourceOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s.(*execSource).wait = time.Millisecond
		var b Batch
		for b.Break == "" {
			if err := s.Read(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.Close()
		if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "started again") || !strings.Contains(text, "gone") {
			t.Errorf("logged: %s", text)
		}
	})
}
