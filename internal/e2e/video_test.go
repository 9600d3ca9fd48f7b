package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

const (
	frameRate = 25
	seconds   = 12
	frames    = frameRate * seconds
)

// splitter passes an encoder's datagrams on and keeps a copy, so that what went
// into the device is known exactly.
type splitter struct {
	in  *net.UDPConn
	mu  sync.Mutex
	all bytes.Buffer
}

func newSplitter(t *testing.T, to string) *splitter {
	t.Helper()
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if err := in.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	s := &splitter{in: in}
	go func() {
		buf := make([]byte, 65536)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.all.Write(buf[:n])
			s.mu.Unlock()
			if _, err := out.Write(buf[:n]); err != nil {
				t.Errorf("device does not take the encoder's output: %v", err)
			}
		}
	}()
	return s
}

func (s *splitter) url() string { return fmt.Sprintf("udp://%s?pkt_size=1316", s.in.LocalAddr()) }

func (s *splitter) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.all.Bytes())
}

// encode makes a clip with motion and noise, so that the bit rate is real.
func encode(t *testing.T, path, codec, rate string) {
	t.Helper()
	args := []string{
		"-v", "error", "-y", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=640x360:rate=%d", frameRate), "-f", "lavfi", "-i", "sine=frequency=440",
		"-t", strconv.Itoa(seconds), "-vf", "noise=alls=40:allf=t", "-c:v", codec, "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", strconv.Itoa(frameRate),
		"-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate,
	}
	if codec == "libx265" {
		args = append(args, "-x265-params", "log-level=error")
	}
	args = append(args, "-c:a", "aac", "-f", "mpegts", path)
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
}

// decodes wants every frame of the file, and no error in any.
func decodes(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", path).CombinedOutput()
	// Streams of a program are listed twice.
	if got := strings.Fields(string(out)); err != nil || len(got) == 0 || got[0] != strconv.Itoa(frames) {
		t.Errorf("ffprobe counts %q frames (%v), want %d", got, err, frames)
	}
	if out, err := exec.Command("ffmpeg", "-v", "error", "-i", path, "-f", "null", "-").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ffmpeg decodes with errors: %v\n%s", err, tail(string(out), 2000))
	}
}

// TestVideoArrivesWhole sends four encoders' output through four devices and one
// server, under keys that change every 400 ms, and wants it back to the byte.
func TestVideoArrivesWhole(t *testing.T) {
	need(t, "ffmpeg", "ffprobe")
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	dir := t.TempDir()
	s := newSite(t, "--rotate-every=400ms", "--output", "file:"+filepath.Join(dir, "{stream}.out.ts"))
	server := s.serve()

	type stream struct {
		name, codec, rate string
		clip              string
		splitter          *splitter
		device, encoder   *process
	}
	streams := []*stream{
		{name: "h264-1M", codec: "libx264", rate: "1M"}, {name: "h264-8M", codec: "libx264", rate: "8M"},
		{name: "h265-1M", codec: "libx265", rate: "1M"}, {name: "h265-8M", codec: "libx265", rate: "8M"},
	}
	for _, v := range streams {
		v.clip = filepath.Join(dir, v.name+".clip.ts")
		encode(t, v.clip, v.codec, v.rate)
	}
	for _, v := range streams {
		addr := freeUDP(t)
		v.device = start(t, program, s.device(v.name, "udp://"+addr)...)
		v.device.says("waiting for the source")
		v.splitter = newSplitter(t, addr)
		v.encoder = start(t, "ffmpeg", "-v", "error", "-re", "-i", v.clip, "-c", "copy", "-f", "mpegts", v.splitter.url())
	}
	until(t, "the stream runs", func() bool { return size(filepath.Join(dir, "h264-8M.out.ts")) > 1<<20 })
	viewed := filepath.Join(dir, "viewed.ts")
	player := start(t, "ffmpeg", "-v", "error", "-t", "3", "-i", "http://"+s.api+"/streams/h264-8M.ts", "-c", "copy", viewed)
	for _, v := range streams {
		v.encoder.wait()
	}
	player.wait()
	codec, err := exec.Command("ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_entries", "stream=codec_name", "-of", "csv=p=0", viewed).Output()
	if err != nil || !strings.HasPrefix(string(codec), "h264") || size(viewed) < 1<<20 {
		t.Errorf("a player that joined in the middle has %d bytes of %q (%v)", size(viewed), codec, err)
	}
	for _, v := range streams {
		t.Run(v.name, func(t *testing.T) {
			path := filepath.Join(dir, v.name+".out.ts")
			sent := v.splitter.bytes()
			until(t, "everything sent was delivered", func() bool { return size(path) >= int64(len(sent)) })
			var info bus.StreamInfo
			s.ask(&info, "streams", v.name)
			if info.Rotations < 20 {
				t.Errorf("only %d rotations", info.Rotations)
			}
			v.device.stop()
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(got) != sha256.Sum256(sent) {
				t.Errorf("%d bytes were sent, %d arrived, and they differ first at %d", len(sent), len(got), firstDifference(sent, got))
			}
			decodes(t, path)
			rate := float64(len(got)) * 8 / seconds / 1e6
			t.Logf("%.2f Mb/s, %d rotations, last %v", rate, info.Rotations, info.LastTook.Round(time.Microsecond))
		})
	}
	server.stop()
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
