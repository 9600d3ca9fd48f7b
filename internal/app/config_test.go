package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// load parses a command line the way the program does, with a file's text.
func load(t *testing.T, file string, args ...string) (Config, error) {
	t.Helper()
	var cfg Config
	options := []kong.Option{kong.Vars{"data_dir": t.TempDir()}, kong.DefaultEnvars("GAITKEEPER"), kong.Writers(io.Discard, io.Discard)}
	flagsOf, err := kong.New(&cfg, options...)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseConfig("gaitkeeper.yml", []byte(file), flagsOf.Model.Flags)
	if err != nil {
		return cfg, err
	}
	k, err := kong.New(&cfg, append(options, kong.Resolvers(parsed))...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return cfg, err
}

func TestDefaultsAreValid(t *testing.T) {
	cfg, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
	if cfg.RotateEvery != 10*time.Minute || cfg.RotatePackets != 1<<23 {
		t.Errorf("defaults are %+v", cfg)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "rotate-every: 1s\nlatency: 2s\ntoken-life: 3s\noutput:\n  - udp://h:1?a=1,b=2\n  - \"file:/tmp/x\"\nmqtt-listen: 127.0.0.1:1\nmedia-buffer: 1MiB\n"
	t.Setenv("GAITKEEPER_LATENCY", "20s")
	t.Setenv("GAITKEEPER_TOKEN_LIFE", "30s")
	cfg, err := load(t, file, "--token-life=300s")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.RotateEvery != time.Second || cfg.Latency != 20*time.Second || cfg.TokenLife != 300*time.Second {
		t.Errorf("file, environment, flag gave %v %v %v", cfg.RotateEvery, cfg.Latency, cfg.TokenLife)
	}
	if len(cfg.Output) != 2 || cfg.Output[0] != "udp://h:1?a=1,b=2" || cfg.MQTTListen != "127.0.0.1:1" || cfg.MediaBuffer != 1<<20 {
		t.Errorf("file gave %+v", cfg)
	}
}

func TestConfigFileErrors(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"# a comment\n\nrotate-evry: 5m\n", `gaitkeeper.yml:3: unknown setting "rotate-evry": did you mean "rotate-every"?`},
		{"rotate_every: 5m\n", `gaitkeeper.yml:1: unknown setting "rotate_every": did you mean "rotate-every"?`},
		{"listne: x\n", `did you mean "listen"?`},
		{"zebra: x\n", `gaitkeeper.yml:1: unknown setting "zebra"`},
		{"listen: 127.0.0.1:1\nrotate-every: soon\n", `gaitkeeper.yml:2: rotate-every: `},
		{"media-buffer: 8 parsec\n", `gaitkeeper.yml:1: media-buffer: "8 parsec" is not a size: write for example 512KiB or 8MiB`},
		{"log-level: loud\n", `gaitkeeper.yml:1: log-level: must be one of debug, info, warn, error, not "loud"`},
		{"listen: [a, b]\n", `gaitkeeper.yml:1: listen takes one value, not a list`},
		{"listen:\n", `gaitkeeper.yml:1: listen: has no value`},
		{"output: []\n", `gaitkeeper.yml:1: output is an empty list`},
		{"listen: {a: b}\n", `gaitkeeper.yml:1: listen: want a value`},
		{"latency: 1s\nlisten: 127.0.0.1:1\nlatency: 2s\n", `gaitkeeper.yml:3: `},
		{"- a\n- b\n", `gaitkeeper.yml:1: want lines of the form "name: value"`},
		{"listen: \"x\n", `gaitkeeper.yml:1: `},
		{"listen: a\n\tlatency: b\n", `gaitkeeper.yml:2: `},
	} {
		_, err := load(t, c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gives %v, want %s", c.file, err, c.want)
		}
	}
}

func TestCheckNamesTheSetting(t *testing.T) {
	for _, args := range [][]string{
		{"--listen=8080"}, {"--mqtt-listen=x"}, {"--media-listen="}, {"--advertise=http://x"}, {"--advertise="},
		{"--id=a/b"}, {"--rotate-every=1ms"}, {"--rotate-every=-1s"}, {"--latency=1h"}, {"--token-life=0s"}, {"--rotate-packets=0"},
		{"--lease=1s"}, {"--lease=1h"}, {"--min-protocol-version=200"}, {"--urgent-rotations=0"}, {"--urgent-refill=0s"},
		{"--site-urgent-rotations=-1"}, {"--site-urgent-refill=0s"},
		{"--sensitivity=0"}, {"--sensitivity=1.1"}, {"--sensitivity=NaN"}, {"--miss-cost=-1"}, {"--miss-cost=+Inf"}, {"--miss-cost=NaN"},
	} {
		cfg, err := load(t, "", args...)
		if err == nil {
			err = cfg.Check()
		}
		name := strings.TrimPrefix(strings.Split(args[0], "=")[0], "--")
		if err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s gives %v", args[0], err)
		}
	}
}

// Somebody else's data directory is called that.
func TestDataDirectoryOfAnother(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("nothing is closed to root")
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o000); err != nil {
		t.Fatal(err)
	}
	if _, err := FindConfigFile("", dir, nil); err == nil || !strings.Contains(err.Error(), "data directory "+dir+" cannot be read") {
		t.Errorf("error %v", err)
	}
}

func TestFindConfigFile(t *testing.T) {
	dir := t.TempDir()
	if f, err := FindConfigFile("", dir, nil); err != nil || len(f.values) != 0 {
		t.Errorf("no file gives %v, %v", f, err)
	}
	if _, err := FindConfigFile(filepath.Join(dir, "absent.yml"), dir, nil); err == nil {
		t.Error("a named file that is not there is no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "gaitkeeper.yml"), []byte("x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FindConfigFile("", dir, nil); err == nil || !strings.Contains(err.Error(), dir+"/gaitkeeper.yml:1: ") {
		t.Errorf("the file in the data directory gives %v", err)
	}
}

func TestUnits(t *testing.T) {
	var p Percent
	for text, want := range map[string]Percent{"2%": 0.02, "0%": 0, "0": 0, "100%": 1, "0.5 %": 0.005} {
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("percentage %q is %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "2", "-1%", "101%", "%", "x%", "NaN%"} {
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("percentage %q is accepted", text)
		}
	}
	var s Size
	for text, want := range map[string]Size{"0": 0, "1500": 1500, "512KiB": 512 << 10, "8MiB": 8 << 20, "1GB": 1e9, "2 kB": 2000, "7B": 7, "1.5MiB": 3 << 19} {
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("size %q is %d, %v", text, int64(s), err)
		}
		var again Size
		if err := again.UnmarshalText([]byte(want.String())); err != nil || again != want {
			t.Errorf("size %d prints as %s, which reads as %d, %v", int64(want), want, int64(again), err)
		}
	}
	for _, text := range []string{"", "8Mb", "-1", "8 parsec", "MiB", "99999999TiB"} {
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q is accepted", text)
		}
	}
	var r BitRate
	for text, want := range map[string]BitRate{"800k": 800e3, "8M": 8e6, "8Mb/s": 8e6, "1.5 Mbit/s": 15e5, "64000": 64000, "2G": 2e9} {
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("bit rate %q is %d, %v", text, int64(r), err)
		}
	}
	for _, text := range []string{"", "8MB/s", "-1k", "fast", "k"} {
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("bit rate %q is accepted", text)
		}
	}
}

func TestDataDirIsOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory is %v, %v", st.Mode(), err)
	}
	_, err = openDataDir(path)
	if err == nil || !strings.Contains(err.Error(), "is locked by another gaitkeeper (pid ") || !strings.Contains(err.Error(), "--data") {
		t.Errorf("second lock gives %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = openDataDir(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	d.Close()

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(file); err == nil || !strings.Contains(err.Error(), "choose another with --data") {
		t.Errorf("a file as data directory gives %v", err)
	}
}
