package device

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
)

// maxSourceFile bounds what is read of a source file, in bytes.
const maxSourceFile = 64 << 10

// SourceFile is a source that a file names, so that it can be changed while the agent
// runs: a program that the agent runs for it is then ended, and the other one begun.
type SourceFile struct {
	Regime string // the owner's name for how the program runs, such as "night"; may be empty
	Spec   string // as for [OpenSource]
}

// ReadSource gives the source that an argument names: itself, or with @ before it, what
// is in that file.
func ReadSource(arg string) (SourceFile, error) {
	path, ok := strings.CutPrefix(arg, "@")
	if !ok {
		return SourceFile{Spec: arg}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return SourceFile{}, fmt.Errorf("source @: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSourceFile+1))
	if err != nil {
		return SourceFile{}, fmt.Errorf("source @%s: %w", path, err)
	}
	s, err := parseSource(b)
	if err != nil {
		return SourceFile{}, fmt.Errorf("source @%s: %w", path, err)
	}
	return s, nil
}

// parseSource reads a source file: lines that begin with # and empty ones are skipped,
// "regime: NAME" may come first, and the source is all that follows, so that a command
// may have many lines.
func parseSource(b []byte) (s SourceFile, err error) {
	if len(b) > maxSourceFile {
		return s, fmt.Errorf("it is longer than %d bytes", maxSourceFile)
	}
	rest := string(b)
	for rest != "" {
		line, after, _ := strings.Cut(rest, "\n")
		line = strings.TrimSpace(line)
		name, isRegime := strings.CutPrefix(line, "regime:")
		switch {
		case line == "" || line[0] == '#':
		case isRegime && s.Regime == "":
			if s.Regime = strings.TrimSpace(name); !gkrp.IsRegime(s.Regime) {
				return SourceFile{}, fmt.Errorf("%q cannot be the name of a regime: use 1 to %d letters, digits, '-' and '_'", s.Regime, gkrp.MaxRegime)
			}
		default:
			s.Spec = strings.TrimSpace(rest)
			return s, nil
		}
		rest = after
	}
	return SourceFile{}, errors.New("it names no source: write for example exec:ffmpeg … -f mpegts -")
}

// change has a running source run otherwise.
func change(s Source, to SourceFile) error {
	r, ok := s.(runner)
	p, runs, err := programOf(to.Spec)
	switch {
	case err != nil:
		return err
	case !ok || !runs:
		return errors.New("only a source that the agent runs a program for (exec:, srt://, rtsp://, rist://) can be changed to another such while it runs: restart the agent")
	}
	r.order(order{program: p, regime: to.Regime})
	return nil
}
