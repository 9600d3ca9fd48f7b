package app

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

const sampleWidth = 78

// SampleConfig writes a configuration file in which every setting is explained
// and stands at its default, commented out.
func SampleConfig(flags []*kong.Flag) []byte {
	var b bytes.Buffer
	b.WriteString("# Gaitkeeper's settings. Every one is also a flag of the same name and a variable\n" +
		"# GAITKEEPER_NAME; a flag stands above the variable, the variable above this file.\n" +
		"# Read from gaitkeeper.yml in the data directory, or from the file of --config.\n")
	group := ""
	seen := map[string]bool{}
	for _, f := range flags {
		if seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		if title := groupTitle(f); title != group {
			group = title
			fmt.Fprintf(&b, "\n# ---- %s\n", strings.TrimSuffix(title, ":"))
		}
		b.WriteString("\n")
		for _, line := range wrap(f.Help, sampleWidth) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		value := f.Default
		switch {
		case f.IsSlice() && value != "":
			value = "[" + strings.ReplaceAll(value, ",", ", ") + "]"
		case f.IsSlice():
			value = "[]"
		case value == "" && f.IsBool():
			value = "false"
		case value == "":
			value = `""`
		}
		fmt.Fprintf(&b, "#%s: %s\n", f.Name, value)
	}
	return b.Bytes()
}

func groupTitle(f *kong.Flag) string {
	if f.Group == nil {
		return "The device agent"
	}
	return f.Group.Title
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
