package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// Command is the command line of the agent, for both programs that have it. Its
// tags are read by kong.
type Command struct {
	Source    []string      `short:"i" sep:"none" required:"" placeholder:"URL" env:"GAITKEEPER_SOURCE" help:"Where the encoder's output comes in: udp://HOST:PORT (MPEG-TS), rtp://HOST:PORT, FILE.ts, - (stdin), exec:'COMMAND', srt://, rtsp://, rist://, or @FILE that holds one of these, read again at SIGHUP. Repeatable: one agent carries many streams."`
	Join      string        `placeholder:"TOKEN" env:"GAITKEEPER_JOIN" help:"Join token that gaitkeeper enroll printed, or @FILE that holds it. Needed at the first start; harmless at later ones."`
	Stream    []string      `sep:"none" placeholder:"NAME" env:"GAITKEEPER_STREAM" help:"Name of the stream, one for each --source in order. Default of the first: the device's name."`
	State     string        `type:"path" placeholder:"DIR" env:"GAITKEEPER_STATE" help:"Directory that holds this device's identity. Default: .gaitkeeper/devices/DEVICE in the home directory."`
	Broker    string        `name:"mqtt-broker" placeholder:"URL" env:"GAITKEEPER_MQTT_BROKER" help:"MQTT broker to use instead of the one that was named when this device joined: mqtts://HOST:PORT."`
	BrokerCA  string        `name:"mqtt-ca" type:"path" placeholder:"FILE" env:"GAITKEEPER_MQTT_CA" help:"CA certificate of that broker in PEM form, where it is none of the system's."`
	User      string        `name:"mqtt-user" placeholder:"NAME" env:"GAITKEEPER_MQTT_USER" help:"User name at a broker that wants one. The device's certificate is always shown to those that ask for it."`
	Password  string        `name:"mqtt-password-file" type:"path" placeholder:"FILE" env:"GAITKEEPER_MQTT_PASSWORD_FILE" help:"File whose first line is the password of the MQTT user."`
	Loop      bool          `help:"Play files again from the start when they end."`
	Wait      time.Duration `default:"30s" placeholder:"TIME" help:"How long to try to reach the broker at the start before giving up. Once connected, it is tried for ever. Default: 30s."`
	JSON      bool          `name:"json" help:"Print one JSON object with counts on standard output at the end."`
	LogLevel  string        `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" env:"GAITKEEPER_LOG_LEVEL" help:"Least severe message to log: debug, info, warn or error."`
	LogFormat string        `default:"text" enum:"text,json" placeholder:"FORMAT" env:"GAITKEEPER_LOG_FORMAT" help:"Form of log lines: text or json."`
}

// Std are the streams that a command uses.
type Std struct {
	In       io.Reader
	Out, Err io.Writer
}

// OSStd are the process's own.
func OSStd() Std { return Std{os.Stdin, os.Stdout, os.Stderr} }

// Run joins if need be, and sends until the sources end or ctx does; both are
// success. software is told to the service: name and version.
func (c *Command) Run(ctx context.Context, std Std, software string) error {
	log, err := c.logger(std.Err)
	if err != nil {
		return err
	}
	names, err := c.streams()
	if err != nil {
		return err
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	dir, err := c.stateDir(token)
	if err != nil {
		return err
	}
	state, err := OpenState(dir)
	if err != nil {
		return err
	}
	defer state.Close()
	// Sources first: a mistake in them uses no token up.
	cfg := Config{State: state, Software: software}
	closeAll := func() {
		for _, s := range cfg.Streams {
			_ = s.Source.Close() // they were only opened
		}
	}
	files := make([]SourceFile, len(c.Source))
	for i, arg := range c.Source {
		file, err := ReadSource(arg)
		var src Source
		if err == nil {
			src, err = OpenSource(file.Spec, SourceOptions{Loop: c.Loop, Stdin: std.In, Regime: file.Regime, Log: log})
		}
		files[i] = file
		if err != nil {
			closeAll()
			return err
		}
		cfg.Streams = append(cfg.Streams, StreamConfig{ID: names[i], Source: src})
	}
	if token != "" {
		cfg.Identity, err = Join(ctx, token, state)
	} else {
		cfg.Identity, err = state.Identity()
	}
	if err != nil {
		closeAll()
		return err
	}
	log = log.With("device", cfg.Identity.Device)
	cfg.Log = log
	cfg.Tell = func(e gk.Event) {
		log.Info(string(e.Kind), "stream", e.Stream, "session", e.Session, "epoch", e.Epoch, "reason", e.Reason, "index", e.Index, "took", e.Took)
	}
	courier, err := BrokerAccess{URL: c.Broker, CA: c.BrokerCA, User: c.User, PasswordFile: c.Password}.Connect(ctx, cfg.Identity, c.Wait, log)
	if err != nil {
		closeAll()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer courier.Close()
	agent, err := New(cfg, courier)
	if err != nil {
		closeAll()
		return err
	}
	defer c.reread(cfg.Streams, files, log)()
	err = agent.Run(ctx)
	if c.JSON {
		summary := struct {
			Device  gk.DeviceID   `json:"device"`
			Streams []StreamStats `json:"streams"`
			Error   string        `json:"error,omitempty"`
		}{Device: cfg.Identity.Device, Streams: agent.Stats()}
		if err != nil {
			summary.Error = err.Error()
		}
		err = errors.Join(err, json.NewEncoder(std.Out).Encode(summary))
	}
	return err
}

// reread has the files that name sources read again at every SIGHUP, until what it
// gives is called.
func (c *Command) reread(streams []StreamConfig, files []SourceFile, log *slog.Logger) (stop func()) {
	if !slices.ContainsFunc(c.Source, func(arg string) bool { return strings.HasPrefix(arg, "@") }) {
		return func() {}
	}
	hup, quit, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(hup, syscall.SIGHUP)
	go func() { // ends with quit
		defer close(done)
		for {
			select {
			case <-hup:
				c.changed(streams, files, log)
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hup)
		close(quit)
		<-done
	}
}

// changed looks which of the files say something else than before, and has those
// sources changed. What cannot be goes on as it is.
func (c *Command) changed(streams []StreamConfig, files []SourceFile, log *slog.Logger) {
	for i, arg := range c.Source {
		to, err := ReadSource(arg)
		if err == nil && to != files[i] {
			if err = change(streams[i].Source, to); err == nil {
				files[i] = to
			}
		}
		if err != nil {
			log.Error("the source stays as it was", "source", i+1, "err", hideCredentials(err.Error()))
		}
	}
}

func (c *Command) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", c.LogLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// streams gives every source its stream's name; the first may do without.
func (c *Command) streams() ([]gk.StreamID, error) {
	if len(c.Stream) > len(c.Source) || len(c.Source) > 1 && len(c.Stream) != len(c.Source) {
		return nil, fmt.Errorf("%d sources and %d stream names: give one --stream for each --source, in the same order", len(c.Source), len(c.Stream))
	}
	names := make([]gk.StreamID, len(c.Source))
	stdin := 0
	for i, spec := range c.Source {
		if spec == "-" {
			stdin++
		}
		if i < len(c.Stream) {
			name, err := gk.ParseStreamID(c.Stream[i])
			if err != nil {
				return nil, fmt.Errorf("--stream: %w", err)
			}
			names[i] = name
		}
	}
	if stdin > 1 {
		return nil, errors.New("--source: standard input can be the source of one stream only")
	}
	return names, nil
}

func (c *Command) token() (string, error) {
	path, isFile := strings.CutPrefix(c.Join, "@")
	if !isFile {
		return c.Join, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--join: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// stateDir is the directory asked for, or the one that belongs to the token's
// device, or the only one there is.
func (c *Command) stateDir(token string) (string, error) {
	if c.State != "" {
		return c.State, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w: name a directory with --state", err)
	}
	all := filepath.Join(home, ".gaitkeeper", "devices")
	if token != "" {
		t, err := gkrp.ParseJoinToken(token)
		if err != nil {
			return "", err
		}
		return filepath.Join(all, string(t.Device)), nil
	}
	found, err := os.ReadDir(all)
	switch {
	case err != nil || len(found) == 0:
		return "", fmt.Errorf("%w: give a token with --join (gaitkeeper enroll prints one)", ErrNotJoined)
	case len(found) > 1:
		return "", fmt.Errorf("%s holds %d devices: name the directory of one with --state", all, len(found))
	}
	return filepath.Join(all, found[0].Name()), nil
}
