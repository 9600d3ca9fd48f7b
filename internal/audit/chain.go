// Package audit is the chain of the audit trail: lines of which each names the one
// before it, so that none can be changed, added or taken out in the middle without
// a trace. That the end was not cut off only a signed head can show.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Record is one line of the trail. Each names the SHA-256 of the line before it.
type Record struct {
	Number   uint64   `json:"n"`
	Previous string   `json:"prev"` // hexadecimal; of the first line: of nothing
	Event    gk.Event `json:"event"`
}

// Chain is how far a trail has come. The zero value is one without lines. It owns
// no file, clock or lock.
type Chain struct {
	Lines uint64
	First [sha256.Size]byte // of the first line: it names the trail
	Last  [sha256.Size]byte // of the last line
}

// Head is the hash, in hexadecimal, that the next line has to name.
func (c *Chain) Head() string {
	if c.Lines == 0 {
		empty := sha256.Sum256(nil)
		return hex.EncodeToString(empty[:])
	}
	return hex.EncodeToString(c.Last[:])
}

// Line gives the line that an event would be, without its end. The chain goes on
// when the line was written and [Chain.Follow] is told.
func (c *Chain) Line(e gk.Event) ([]byte, error) {
	return json.Marshal(Record{Number: c.Lines, Previous: c.Head(), Event: e})
}

// Follow moves the head on to a line.
func (c *Chain) Follow(line []byte) {
	c.Last = sha256.Sum256(line)
	if c.Lines == 0 {
		c.First = c.Last
	}
	c.Lines++
}

// Replay follows a trail and gives the offset behind its last whole line. The error
// names the first line that does not hold.
func (c *Chain) Replay(r io.Reader) (end int64, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		end += int64(len(line))
		line = bytes.TrimSuffix(line, []byte("\n"))
		var rec Record
		if err := json.Unmarshal(line, &rec); err != nil {
			return end, fmt.Errorf("line %d: %w", c.Lines+1, err)
		}
		if rec.Number != c.Lines || rec.Previous != c.Head() {
			return end, fmt.Errorf("line %d does not follow the line before it", c.Lines+1)
		}
		c.Follow(line)
	}
}
