package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/clip"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
)

// The kinds of footage.
const (
	FootageAuto    = "auto"
	FootageClip    = "clip"
	FootageEncoded = "encoded"
)

const (
	footageSpare = 45 * time.Second // behind the attack's longest
	otherFrom    = 80 * time.Second // where in the clip the other encoder's pictures are from
	otherLength  = 40 * time.Second
	frozenFor    = 15 * time.Second
	frozenSlack  = 4 * time.Second // behind the time in which a profile is learned
	clipFPS      = 25
	clipLength   = 160 * time.Second
)

// footage is what the encoders of a story sent.
type footage struct {
	words  string
	main   string        // file; empty: the clip as it is
	other  []byte        // another encoder's; nil where none is needed
	frozen time.Duration // when the picture of main stands still, in its own time; 0: never
}

// haveEncoder finds ffmpeg.
func haveEncoder() bool {
	_, err := exec.LookPath("ffmpeg")
	return err == nil
}

// shoot makes the footage of a story in dir; say is told what takes its time.
func shoot(ctx context.Context, cfg Config, k kind, place string, tempo Tempo, dir string, say func(string)) (f footage, err error) {
	encode := k.steady || cfg.Footage == FootageEncoded || cfg.Footage == FootageAuto && cfg.Attack != "" && haveEncoder()
	frozen := k.name == "freeze" && place == Input
	other := k.name == "swap"
	switch {
	case k.steady && cfg.Footage == FootageClip:
		return f, fmt.Errorf("attack %s: the clip's rate goes up and down by itself, which hides it: leave --footage out", k.name)
	case (frozen || other || encode && cfg.Input == "") && !haveEncoder():
		return f, fmt.Errorf("attack %s from %s: needs ffmpeg, to play the encoder: apt install ffmpeg", k.name, place)
	case frozen && cfg.Input != "":
		return f, fmt.Errorf("attack freeze: what is encoded already cannot be made to stand still: leave --input out")
	case frozen && cfg.Footage == FootageClip:
		return f, fmt.Errorf("attack freeze: the clip as it is does not stand still: leave --footage out")
	}
	switch {
	case cfg.Input != "":
		f.words = cfg.Input
	case encode || frozen:
		f.main = filepath.Join(dir, "camera.ts")
		f.words = "the clip, encoded anew by x264 (ffmpeg) at up to 4 Mb/s"
		length := tempo.Learn + tempo.Clean + k.within + footageSpare
		filter, gop := cameraFilter, "50"
		if frozen {
			f.frozen = tempo.Learn + tempo.Clean + frozenSlack
			gop = "250" // with key frames every 2 s, a noisy still is no quiet stream
			filter += fmt.Sprintf(",loop=loop=%d:size=1:start=%d,setpts=N/%d/TB",
				int(frozenFor.Seconds()*clipFPS), int(f.frozen.Seconds()*clipFPS), clipFPS)
		}
		encoder := cameraEncoder(gop)
		if k.steady {
			f.words, encoder = "the clip, encoded anew by x264 (ffmpeg) at a constant 2 Mb/s", steadyEncoder
		}
		say(fmt.Sprintf("ffmpeg encodes %.0f s of the camera's footage: that takes some seconds", min(length, clipLength).Seconds()))
		err = encodeClip(ctx, f.main, 0, length, filter, encoder...)
	default:
		f.words = "the program's clip, 0.25 Mb/s"
	}
	if err != nil || !other {
		return f, err
	}
	say("ffmpeg encodes the other encoder's")
	path := filepath.Join(dir, "other.ts")
	if err = encodeClip(ctx, path, otherFrom, otherLength, "hflip,noise=alls=10:allf=t:all_seed=9",
		"-preset", "veryfast", "-profile:v", "high", "-bf", "2", "-g", "60", "-crf", "27", "-maxrate", "4M", "-bufsize", "4M"); err != nil {
		return f, err
	}
	f.other, err = os.ReadFile(path)
	return f, err
}

// cameraFilter adds a sensor's noise to the clip.
const cameraFilter = "noise=alls=12:allf=t:all_seed=7"

func cameraEncoder(gop string) []string {
	return []string{"-preset", "superfast", "-tune", "zerolatency", "-g", gop, "-crf", "26", "-maxrate", "4M", "-bufsize", "4M"}
}

// steadyEncoder holds its rate, with filler where the picture needs less.
var steadyEncoder = []string{
	"-preset", "superfast", "-tune", "zerolatency", "-g", "50", "-b:v", "2M", "-minrate", "2M", "-maxrate", "2M", "-bufsize", "1M",
	"-x264-params", "nal-hrd=cbr",
}

// encodeClip runs ffmpeg over a part of the clip, as fast as it goes.
func encodeClip(ctx context.Context, out string, from, length time.Duration, filter string, encoder ...string) error {
	args := []string{
		"-v", "error", "-nostdin", "-y", "-f", "mpegts", "-i", "-", "-ss", fmt.Sprint(from.Seconds()), "-t", fmt.Sprint(length.Seconds()),
		"-map", "0:v", "-vf", filter, "-c:v", "libx264",
	}
	args = append(args, encoder...)
	args = append(args, "-f", "mpegts", "-mpegts_flags", "+resend_headers", "-pcr_period", "20", out)
	cmd := exec.CommandContext(ctx, "ffmpeg", args...)
	cmd.Stdin = clip.Open()
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ffmpeg could not encode the footage (it needs libx264): %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// open opens the footage as the device's source.
func (f footage) open(input string, o device.SourceOptions) (device.Source, error) {
	switch {
	case input != "":
		return device.OpenSource(input, o)
	case f.main != "":
		return device.OpenSource(f.main, o)
	}
	o.Stdin = clip.Open()
	return device.OpenSource("-", o)
}
