// Command gaitkeeper carries live video over SRTP under keys that change
// without losing a frame.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker; see the Makefile.
var version = ""

// commands is the command line.
type commands struct {
	ConfigFile string `name:"config" type:"path" placeholder:"FILE" help:"Configuration file; without it, gaitkeeper.yml in the data directory is read if it is there."`

	Serve        serveCommand         `cmd:"" help:"Run the services: key management, transport, processing, bus and API."`
	Enroll       enrollCommand        `cmd:"" help:"Print a one-time token with which a device joins."`
	Device       deviceCommand        `cmd:"" help:"Send an encoder's output as a joined device."`
	Demo         demoCommand          `cmd:"" help:"Everything on this machine at once: live video, changing keys, and an attacker."`
	Streams      streamsCommand       `cmd:"" help:"List the streams, or show one."`
	Keys         keysCommand          `cmd:"" help:"List the keys of a stream, or change what all keys are wrapped with."`
	Rotate       rotateCommand        `cmd:"" help:"Change the key of a stream now."`
	Devices      devicesCommand       `cmd:"" help:"List the enrolled devices."`
	Revoke       revokeCommand        `cmd:"" help:"Trust a device no more: its media ends, and it is given no key again."`
	Audit        auditCommand         `cmd:"" help:"Verify the audit trail."`
	Alerts       alertsCommand        `cmd:"" help:"List what was noticed, or show one alert with its evidence."`
	Explain      explainCommand       `cmd:"" help:"Show how a stream is judged: responses, profile, scores with their cut-offs."`
	Profile      profileCommand       `cmd:"" help:"Show what was learned of a stream; approve it, or have it learned anew."`
	Planned      plannedChangeCommand `cmd:"" name:"planned-change" help:"Announce that a source will change, so that nobody is alarmed."`
	Feedback     feedbackCommand      `cmd:"" help:"Say whether an alert was real: the thresholds follow."`
	ReportMissed reportMissedCommand  `cmd:"" name:"report-missed" help:"Say that something happened that nothing noticed."`
	Tune         tuneCommand          `cmd:"" help:"Propose a stream's thresholds from what is known of it; apply them, show their history, go back."`
	Analyze      analyzeCommand       `cmd:"" help:"Run the detection engine on packet captures."`
	Eval         evalCommand          `cmd:"" help:"Measure the detection engine on labelled captures."`
	Synth        synthCommand         `cmd:"" help:"Make labelled captures: real encoders over model networks, with attacks."`
	Bus          busSetupCommand      `cmd:"" name:"bus-setup" help:"Make certificates and configuration for NATS servers and the processes that meet on them."`
	Doctor       doctorCommand        `cmd:"" help:"Look at a deployment with its settings: what is wrong, and what to do about it."`
	Config       configCommand        `cmd:"" help:"Print a configuration file with every setting and its default."`
	Version      versionCommand       `cmd:"" help:"Print the version."`
}

// console is what commands read and write.
type console struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // out is a terminal
}

// exit statuses
const (
	statusOK = iota
	statusFailed
	statusUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], console{os.Stdin, os.Stdout, os.Stderr, isTerminal(os.Stdout)}))
}

// run is the program without its process.
func run(ctx context.Context, args []string, con console) int {
	exited := -1
	parser, err := newParser(con, func(status int) { exited = status })
	if err != nil {
		fmt.Fprintln(con.err, "gaitkeeper:", err)
		return statusFailed
	}
	cmd, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and printed
		return exited
	}
	if err != nil {
		var usage *kong.ParseError
		fmt.Fprintln(con.err, "gaitkeeper:", err)
		if errors.As(err, &usage) {
			fmt.Fprintln(con.err, "Run gaitkeeper --help for what there is.")
		}
		return statusUsage
	}
	cmd.BindTo(ctx, (*context.Context)(nil))
	if err := cmd.Run(con); err != nil {
		fmt.Fprintln(con.err, "gaitkeeper:", err)
		return statusFailed
	}
	return statusOK
}

func newParser(con console, exit func(int)) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("gaitkeeper"),
		kong.Description("Live video over SRTP, under keys that change without losing a frame."),
		kong.Vars{"data_dir": "~/.gaitkeeper"},
		kong.NamedMapper("path", kong.MapperFunc(homePath)),
		kong.DefaultEnvars("GAITKEEPER"),
		kong.Writers(con.out, con.err),
		kong.Exit(exit),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(describe),
		kong.ExplicitGroups([]kong.Group{
			{Key: "place", Title: "What and where:"},
			{Key: "network", Title: "Network:"},
			{Key: "keys", Title: "Keys:"},
			{Key: "behaviour", Title: "Behaviour:"},
			{Key: "media", Title: "Media:"},
			{Key: "devices", Title: "Devices:"},
			{Key: "logging", Title: "Logging:"},
			{Key: "attack", Title: "The attacker:"},
			{Key: "path", Title: "What the media path does to packets:"},
		}),
	)
}

// describe adds to a setting's help its default and its variable.
func describe(v *kong.Value) string {
	help := v.Help
	if v.HasDefault && v.Default != "" && !strings.Contains(help, "Default: ") {
		help += " Default: " + v.Default + "."
	}
	if len(v.Tag.Envs) > 0 && v.Flag != nil && !v.IsBool() {
		help += " [$" + v.Tag.Envs[0] + "]"
	}
	return help
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "unknown"
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
