package main

import (
	"slices"

	"github.com/alecthomas/kong"

	"github.com/gaitkeeper/gaitkeeper/internal/app"
)

// fileCommands are the commands whose settings the configuration file may hold.
// Of the others it gives only the data directory, by which they find the server.
var fileCommands = []string{"serve", "device", "doctor", "rotate-kek"}

// notInFile are flags that say how one run is done rather than what is set up.
var notInFile = []string{"help", "json", "config"}

// BeforeResolve reads the configuration file between the environment, which
// stands above it, and the defaults.
func (c *commands) BeforeResolve(ctx *kong.Context) error {
	selected := ctx.Selected()
	if selected == nil {
		return nil
	}
	named, dataDir := "", app.DefaultDataDir()
	for _, f := range slices.Concat(ctx.Model.Flags, selected.Flags) {
		switch f.Name {
		case "config":
			named = ctx.FlagValue(f).(string)
		case "data":
			if dir := ctx.FlagValue(f).(string); dir != "" {
				dataDir = dir
			}
		}
	}
	settings := fileFlags(ctx.Model.Node)
	file, err := app.FindConfigFile(named, dataDir, settings)
	if err != nil {
		return err
	}
	ctx.AddResolver(scoped{file, selected})
	return nil
}

// fileFlags lists the flags that the file may set.
func fileFlags(root *kong.Node) []*kong.Flag {
	var flags []*kong.Flag
	for _, cmd := range root.Children {
		if !slices.Contains(fileCommands, cmd.Name) {
			continue
		}
		for _, f := range cmd.Flags {
			if !slices.Contains(notInFile, f.Name) && !f.Hidden {
				flags = append(flags, f)
			}
		}
	}
	return flags
}

// scoped hands the file's values only to the commands that they are meant for.
type scoped struct {
	*app.ConfigFile
	selected *kong.Node
}

func (s scoped) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	meant := slices.Contains(fileCommands, s.selected.Name)
	if !meant && (flag.Name != "data" || s.selected.Name == "demo") {
		return nil, nil
	}
	return s.ConfigFile.Resolve(ctx, parent, flag)
}

type configCommand struct{}

// Run prints the sample that is made from the flags themselves.
func (c *configCommand) Run(k *kong.Kong, con console) error {
	_, err := con.out.Write(app.SampleConfig(fileFlags(k.Model.Node)))
	return err
}
