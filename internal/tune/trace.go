package tune

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gaitkeeper/gaitkeeper/internal/episode"
)

// Layout says what the levels of a trace belong to. Traces of different layouts are
// not mixed: a detector that came or went changes what replays mean.
type Layout struct {
	Kinds []string // detectors that accuse, in the engine's order
	Path  []bool   // of each: it is about the network
}

// Equal reports whether two layouts are the same.
func (l *Layout) Equal(o *Layout) bool {
	return slices.Equal(l.Kinds, o.Kinds) && slices.Equal(l.Path, o.Path)
}

// Flags are the circumstances of a hop.
type Flags uint8

// The circumstances.
const (
	Wide    Flags = 1 << iota // margins are wide: the profile is young or in probation
	Excused                   // the device said that its source was restarted
	// Unanswered: an alert was open that nobody had spoken of yet, or a change was
	// announced. It changes no weight; what happens there is counted nowhere.
	Unanswered

	flagBits   = 3
	weightBits = 2 // flags that change weights
	levelBits  = 7
)

// Trace is what detectors said of one stretch of a stream without a break, hop by
// hop. It starts with a decision that knows of no episode.
type Trace struct {
	Layout *Layout
	From   time.Time
	rows   []byte // of each hop: the levels, then the flags

	peaks      []byte // of each hop: the greatest level; see scan
	unanswered bool   // some hop is
}

// scan notes what lets replays pass over hops in which nothing happens.
func (t *Trace) scan() {
	n := t.Len()
	if len(t.peaks) == n {
		return
	}
	t.peaks, t.unanswered = make([]byte, n), false
	for i := range n {
		row, f := t.row(i)
		t.peaks[i] = slices.Max(row)
		t.unanswered = t.unanswered || f&Unanswered != 0
	}
}

// Len is the number of hops.
func (t *Trace) Len() int { return len(t.rows) / (len(t.Layout.Kinds) + 1) }

// Add appends a hop. levels are in the layout's order.
func (t *Trace) Add(levels []episode.Level, f Flags) {
	for _, l := range levels {
		t.rows = append(t.rows, byte(l))
	}
	t.rows = append(t.rows, byte(f))
}

// row gives the levels and the flags of a hop.
func (t *Trace) row(i int) ([]byte, Flags) {
	n := len(t.Layout.Kinds)
	r := t.rows[i*(n+1) : (i+1)*(n+1)]
	return r[:n], Flags(r[n])
}

// Join appends o, which goes on where t ends.
func (t *Trace) Join(o *Trace) { t.rows = append(t.rows, o.rows...) }

// Cut gives the hops from one index to another, sharing their memory.
func (t *Trace) Cut(from, to int) *Trace {
	w := len(t.Layout.Kinds) + 1
	return &Trace{Layout: t.Layout, From: t.At(from), rows: t.rows[from*w : to*w : to*w]}
}

// hop is the length of a hop.
const hop = time.Second / episode.HopsPerSecond

// At is when a hop began.
func (t *Trace) At(i int) time.Time { return t.From.Add(time.Duration(i) * hop) }

// Index is the hop in which a time lies, or the nearest one there is; to a trace's
// length.
func (t *Trace) Index(at time.Time) int {
	return min(max(int(at.Sub(t.From)/hop), 0), t.Len())
}

// Bounds of what is read.
const (
	maxHops  = 1 << 14 // an hour and a bit: the longest context of a label
	maxKinds = 64
	maxName  = 64
)

var errTrace = errors.New("no trace of scores")

// Append writes a trace: detector by detector, hop by hop, compressed: a few bytes a
// second in quiet. How many at worst, [Trace.AppendWithin] says.
func (t *Trace) Append(b []byte) ([]byte, error) {
	head := binary.AppendVarint(nil, t.From.UnixNano())
	head = binary.AppendUvarint(head, uint64(len(t.Layout.Kinds)))
	for i, k := range t.Layout.Kinds {
		path := byte(0)
		if t.Layout.Path[i] {
			path = 1
		}
		head = append(append(binary.AppendUvarint(head, uint64(len(k))), k...), path)
	}
	head = binary.AppendUvarint(head, uint64(t.Len()))
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(append(head, transposed(t.rows, t.Len())...))
	err = errors.Join(err, z.Close())
	return append(b, out.Bytes()...), err
}

// transposed turns a table of n rows into its columns, or back.
func transposed(rows []byte, n int) []byte {
	if n == 0 {
		return nil
	}
	width := len(rows) / n
	out := make([]byte, len(rows))
	for i, v := range rows {
		out[i%width*n+i/width] = v
	}
	return out
}

// ReadTrace reads what Append wrote.
func ReadTrace(b []byte) (*Trace, error) {
	z := io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxHops*(maxKinds+1))
	plain, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errTrace, err)
	}
	r := bytes.NewReader(plain)
	from, err1 := binary.ReadVarint(r)
	kinds, err2 := binary.ReadUvarint(r)
	if err1 != nil || err2 != nil || kinds < 1 || kinds > maxKinds {
		return nil, fmt.Errorf("%w: %d detectors", errTrace, kinds)
	}
	t := &Trace{Layout: &Layout{}, From: time.Unix(0, from).UTC()}
	for range kinds {
		n, err := binary.ReadUvarint(r)
		if err != nil || n < 1 || n > maxName {
			return nil, fmt.Errorf("%w: a name of %d bytes", errTrace, n)
		}
		name := make([]byte, n+1)
		if _, err := io.ReadFull(r, name); err != nil || name[n] > 1 {
			return nil, fmt.Errorf("%w: a name is cut", errTrace)
		}
		t.Layout.Kinds, t.Layout.Path = append(t.Layout.Kinds, string(name[:n])), append(t.Layout.Path, name[n] == 1)
	}
	hops, err := binary.ReadUvarint(r)
	if err != nil || hops > maxHops || uint64(r.Len()) != hops*(kinds+1) {
		return nil, fmt.Errorf("%w: %d hops in %d bytes", errTrace, hops, r.Len())
	}
	columns := plain[len(plain)-r.Len():]
	for i, v := range columns {
		if flags := uint64(i) >= hops*kinds; v >= 1<<levelBits || flags && v >= 1<<flagBits {
			return nil, fmt.Errorf("%w: level %d", errTrace, v)
		}
	}
	if hops > 0 {
		t.rows = transposed(columns, int(kinds+1))
	}
	return t, nil
}

// AddShifted appends hop i of o, its levels that are not 0 moved by some steps of 5 %.
func (t *Trace) AddShifted(o *Trace, i, steps int) {
	row, f := o.row(i)
	for _, l := range row {
		if l != 0 {
			l = byte(min(max(int(l)+steps, 0), 1<<levelBits-1))
		}
		t.rows = append(t.rows, l)
	}
	t.rows = append(t.rows, byte(f))
}
