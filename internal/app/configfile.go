package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// ConfigFile is a read and checked configuration file: a flat YAML mapping
// whose keys are the names of flags. As a [kong.Resolver] it stands below
// flags and environment, above defaults.
type ConfigFile struct {
	path   string
	values map[string][]string
}

// ReadConfigFile reads the file at path. Every key must be the name of one of
// flags and every value must be one that the flag accepts; an error names file
// and line, and for an unknown key the nearest known one. An absent file is an
// error wrapping [fs.ErrNotExist].
func ReadConfigFile(path string, flags []*kong.Flag) (*ConfigFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return parseConfig(path, text, flags)
}

func parseConfig(path string, text []byte, flags []*kong.Flag) (*ConfigFile, error) {
	file := &ConfigFile{path: path, values: map[string][]string{}}
	known := map[string]*kong.Flag{}
	names := make([]string, 0, len(flags))
	for _, f := range flags {
		if known[f.Name] == nil {
			names = append(names, f.Name)
		}
		known[f.Name] = f
	}
	slices.Sort(names)

	parsed, err := parser.ParseBytes(text, 0)
	if syntax := yaml.Error(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var entries []*ast.MappingValueNode
	for _, doc := range parsed.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
		case *ast.MappingNode:
			entries = append(entries, body.Values...)
		case *ast.MappingValueNode:
			entries = append(entries, body)
		default:
			return nil, fmt.Errorf("%s: want lines of the form \"name: value\", found %s", at(path, body), body.Type())
		}
	}
	for _, e := range entries {
		name := e.Key.String()
		flag := known[name]
		switch {
		case flag == nil:
			err := fmt.Errorf("%s: unknown setting %q", at(path, e.Key), name)
			if guess := nearest(name, names); guess != "" {
				err = fmt.Errorf("%w: did you mean %q?", err, guess)
			}
			return nil, err
		case file.values[name] != nil:
			return nil, fmt.Errorf("%s: %q is set twice: keep one of the lines", at(path, e.Key), name)
		}
		words, err := scalars(e.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", at(path, e.Value), name, err)
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("%s: %s is an empty list: remove the line", at(path, e.Value), name)
		}
		if len(words) > 1 && !flag.IsSlice() {
			return nil, fmt.Errorf("%s: %s takes one value, not a list", at(path, e.Value), name)
		}
		if err := try(flag, words); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", at(path, e.Value), name, err)
		}
		file.values[name] = words
	}
	return file, nil
}

func at(path string, n ast.Node) string {
	return fmt.Sprintf("%s:%d", path, n.GetToken().Position.Line)
}

// scalars flattens a value to the words a command line would hold.
func scalars(n ast.Node) ([]string, error) {
	switch n := n.(type) {
	case *ast.NullNode:
		return nil, errors.New("has no value: give one or remove the line")
	case *ast.SequenceNode:
		words := []string{}
		for _, item := range n.Values {
			w, err := scalars(item)
			if err != nil {
				return nil, err
			}
			words = append(words, w...)
		}
		return words, nil
	case *ast.LiteralNode:
		return []string{n.Value.Value}, nil
	case ast.ScalarNode:
		return []string{n.GetToken().Value}, nil
	default:
		return nil, fmt.Errorf("want a value or a list of values, found %s", n.Type())
	}
}

// try decodes words as the flag would, into a value that is thrown away.
func try(flag *kong.Flag, words []string) error {
	scratch := reflect.New(flag.Target.Type()).Elem()
	for _, w := range words {
		ctx := &kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(w, kong.FlagValueToken)}
		if err := flag.Mapper.Decode(ctx, scratch); err != nil {
			return err
		}
		if flag.Enum != "" && !flag.EnumMap()[w] {
			return fmt.Errorf("must be one of %s, not %q", strings.Join(flag.EnumSlice(), ", "), w)
		}
	}
	return nil
}

// Validate is part of [kong.Resolver]; the file was checked when it was read.
func (f *ConfigFile) Validate(*kong.Application) error { return nil }

// Resolve gives a flag its value from the file unless the environment has one.
func (f *ConfigFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	words, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, name := range flag.Tag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	if !flag.IsSlice() {
		return words[0], nil
	}
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = w
	}
	return list, nil
}

// FindConfigFile reads the file that --config names, or, when it names none,
// the one in the data directory if it is there.
func FindConfigFile(named, dataDir string, flags []*kong.Flag) (*ConfigFile, error) {
	if named != "" {
		return ReadConfigFile(named, flags)
	}
	f, err := ReadConfigFile(dataDir+"/gaitkeeper.yml", flags)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return &ConfigFile{}, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("data directory %s cannot be read: it is another user's: work as the user that gaitkeeper serve runs as, or choose another with --data", dataDir)
	}
	return f, err
}
