package audit

import (
	"bytes"
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
)

func trail(t *testing.T, n int) (lines [][]byte) {
	var c Chain
	for range n {
		line, err := c.Line(gk.Event{Kind: gk.EventGrantSent})
		if err != nil {
			t.Fatal(err)
		}
		c.Follow(line)
		lines = append(lines, append(line, '\n'))
	}
	return lines
}

func TestReplayFindsWhatDoesNotFollow(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(lines [][]byte) [][]byte
		holds bool
		lines uint64
	}{
		"whole":            {func(l [][]byte) [][]byte { return l }, true, 5},
		"being written":    {func(l [][]byte) [][]byte { l[4] = l[4][:9]; return l }, true, 4},
		"a line taken out": {func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }, false, 2},
		"a line twice":     {func(l [][]byte) [][]byte { return append(l[:3:3], l[2:]...) }, false, 3},
		"a line changed":   {func(l [][]byte) [][]byte { l[2] = bytes.Replace(l[2], []byte("sent"), []byte("lost"), 1); return l }, false, 3},
		"no record":        {func(l [][]byte) [][]byte { l[2] = []byte("hello\n"); return l }, false, 2},
	} {
		var c Chain
		all := bytes.Join(row.spoil(trail(t, 5)), nil)
		end, err := c.Replay(bytes.NewReader(all))
		if (err == nil) != row.holds || c.Lines != row.lines {
			t.Errorf("%s: %d lines, %v", name, c.Lines, err)
		}
		if err == nil && int(end) != bytes.LastIndexByte(all, '\n')+1 {
			t.Errorf("%s: whole lines end at %d of %d", name, end, len(all))
		}
	}
}
