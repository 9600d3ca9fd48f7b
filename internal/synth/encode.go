package synth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// picture is one encoded frame as it left the encoder. Times are in seconds.
type picture struct {
	pts, dts float64
	key      bool
	data     []byte
}

// encoding is what ffmpeg made of a recipe.
type encoding struct {
	recipe   *Recipe
	pictures []picture
	ts       []byte // the same as MPEG-TS, if it can be
}

// Encoder runs ffmpeg and keeps what it made.
type Encoder struct {
	dir     string // of the cache
	version string
	prefix  []string
}

// NewEncoder finds ffmpeg. dir is where encodings are kept. nice, from 0 to 19,
// lowers ffmpeg's priority.
func NewEncoder(ctx context.Context, dir string, nice int) (*Encoder, error) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil, errors.New("ffmpeg is not installed, which encodes the pictures: apt-get install ffmpeg (Debian's package has all encoders)")
	}
	out, err := exec.CommandContext(ctx, path, "-version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s -version: %w", path, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	e := &Encoder{dir: dir, version: strings.TrimSpace(line), prefix: []string{path}}
	if at, err := exec.LookPath("nice"); nice > 0 && err == nil {
		e.prefix = []string{at, "-n", strconv.Itoa(nice), path}
	}
	return e, nil
}

// Version is ffmpeg's first line about itself.
func (e *Encoder) Version() string { return e.version }

func (e *Encoder) key(r *Recipe) string {
	b, _ := json.Marshal([]any{r.Content.Graph, r.Content.Inputs, r.Codec, r.Encoder, r.Sound, r.Mux, r.Seconds, r.Frame.num, r.Frame.den, e.version})
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%x", sum[:12])
}

// has tells whether a recipe is in the cache.
func (e *Encoder) has(r *Recipe) bool {
	_, err := os.Stat(filepath.Join(e.dir, e.key(r)+".txt"))
	return err == nil
}

// encode makes a recipe, or takes it from the cache.
func (e *Encoder) encode(ctx context.Context, r *Recipe) error {
	if e.has(r) {
		return nil
	}
	base := filepath.Join(e.dir, e.key(r))
	tmp, err := os.MkdirTemp(e.dir, "part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	args := append([]string{}, e.prefix[1:]...)
	args = append(args, "-hide_banner", "-nostdin", "-v", "error", "-y", "-filter_threads", "1", "-filter_complex_threads", "1")
	for _, in := range r.Content.Inputs {
		abs, err := filepath.Abs(in)
		if err != nil {
			return err
		}
		args = append(args, "-stream_loop", "-1", "-i", abs)
	}
	graph := r.Content.Graph
	maps := []string{"-map", "[v]"}
	if len(r.Sound) > 0 {
		graph += ";" + r.Sound[0]
		maps = append(maps, "-map", "[a]")
	}
	args = append(args, "-filter_complex", graph)
	args = append(args, maps...)
	args = append(args, "-t", fmt.Sprintf("%.3f", r.Seconds), "-r", fmt.Sprintf("%d/%d", r.Frame.num, r.Frame.den))
	args = append(args, r.Encoder...)
	if len(r.Sound) > 0 {
		args = append(args, r.Sound[1:]...)
	}
	outs := []string{"[f=data:select=\\'v:0\\']es", "[f=framecrc:select=\\'v:0\\']txt"}
	if r.hasTS() {
		outs = append(outs, "[f=mpegts:"+strings.Join(r.Mux, ":")+"]ts")
	}
	args = append(args, "-f", "tee", strings.Join(outs, "|"))
	cmd := exec.CommandContext(ctx, e.prefix[0], args...)
	cmd.Dir = tmp
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("ffmpeg: %w: %s\n  %s", err, lastLines(stderr.String()), strings.Join(cmd.Args, " "))
	}
	for _, end := range []string{"ts", "es", "txt"} { // the table last: with it the encoding is whole
		err := os.Rename(filepath.Join(tmp, end), base+"."+end)
		if err != nil && !(end == "ts" && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func lastLines(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-600):]
}

// load reads an encoding from the cache.
func (e *Encoder) load(r *Recipe) (*encoding, error) {
	base := filepath.Join(e.dir, e.key(r))
	table, err := os.ReadFile(base + ".txt")
	if err != nil {
		return nil, err
	}
	es, err := os.ReadFile(base + ".es")
	if err != nil {
		return nil, err
	}
	enc := &encoding{recipe: r}
	if enc.pictures, err = parseTable(table, es); err != nil {
		return nil, fmt.Errorf("%s.txt: %w: delete it to encode again", base, err)
	}
	if r.hasTS() {
		if enc.ts, err = os.ReadFile(base + ".ts"); err != nil {
			return nil, err
		}
	}
	return enc, nil
}

// parseTable reads what ffmpeg's framecrc writes about each packet ("stream, dts,
// pts, duration, size, checksum, flags") and cuts the bytes accordingly.
func parseTable(table, es []byte) ([]picture, error) {
	var out []picture
	tick := 0.0
	for line := range strings.Lines(string(table)) {
		line = strings.TrimSpace(line)
		if base, ok := strings.CutPrefix(line, "#tb 0: "); ok {
			num, den, _ := strings.Cut(base, "/")
			n, err1 := strconv.ParseUint(num, 10, 31)
			d, err2 := strconv.ParseUint(den, 10, 31)
			if err1 != nil || err2 != nil || d == 0 {
				return nil, fmt.Errorf("line %q: no time base", line)
			}
			tick = float64(n) / float64(d)
		}
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ",")
		if len(f) < 6 {
			return nil, fmt.Errorf("line %q has too few fields", line)
		}
		var n [5]int
		for i := range n {
			v, err := strconv.Atoi(strings.TrimSpace(f[i]))
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			n[i] = v
		}
		if n[4] < 0 || n[4] > len(es) {
			return nil, fmt.Errorf("line %q: there are only %d bytes more", line, len(es))
		}
		// A key frame's flags are not told, those of others are.
		key := !strings.Contains(line, "F=0x")
		out = append(out, picture{dts: tick * float64(n[1]), pts: tick * float64(n[2]), key: key, data: es[:n[4]]})
		es = es[n[4]:]
	}
	if len(out) == 0 {
		return nil, errors.New("no frames")
	}
	return out, nil
}
