// Command gaitkeeper-device is the encoder's agent alone, for small machines: it
// takes an encoder's output, and sends it to a Gaitkeeper service under keys that
// the service grants and changes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/gaitkeeper/gaitkeeper/internal/device"
)

// version is set when the program is built.
var version = "unknown"

func main() {
	var cli struct {
		device.Command
		Version kong.VersionFlag `help:"Print the version and leave."`
	}
	kong.Parse(&cli,
		kong.Name("gaitkeeper-device"),
		kong.Description("Sends an encoder's live video to a Gaitkeeper service, encrypted under keys that change without losing a frame."),
		kong.Vars{"version": version},
		kong.UsageOnError(),
	)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	if err := cli.Run(ctx, device.OSStd(), "gaitkeeper-device "+version); err != nil {
		fmt.Fprintln(os.Stderr, "gaitkeeper-device:", err)
		os.Exit(1)
	}
}
