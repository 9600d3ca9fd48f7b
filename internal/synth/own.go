package synth

import (
	"embed"
	"io/fs"
)

//go:embed captures
var captures embed.FS

// Own holds small captures of the project's own clip with their labels, which
// scripts/captures.sh made: every program can measure itself.
func Own() fs.FS {
	own, err := fs.Sub(captures, "captures")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	return own
}
