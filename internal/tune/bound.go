package tune

import "github.com/gaitkeeper/gaitkeeper/internal/episode"

// MaxRate is what a second of a stream's scores may take where it is kept, in bytes.
const MaxRate = 64

// limitLevel is the level of a score of 1.
var limitLevel = byte(episode.LevelOf(1))

// AppendWithin is [Trace.Append] in most bytes at most. Scores of detectors that never
// rest do not compress; of those, first what is below the limit is kept in steps of
// 10 %, then all, then all in coarser steps, rounded down. fits is false where even the
// names of the detectors are too much.
func (t *Trace) AppendWithin(most int) (b []byte, fits bool, err error) {
	b, err = t.Append(nil)
	for drop := 0; err == nil && len(b) > most && drop < levelBits; drop++ {
		b, err = t.coarse(drop).Append(nil)
	}
	return b, len(b) <= most, err
}

// coarse gives the trace with its levels rounded down by so many bits; by none, with
// those below the limit rounded down by one.
func (t *Trace) coarse(drop int) *Trace {
	w := len(t.Layout.Kinds) + 1
	out := &Trace{Layout: t.Layout, From: t.From, rows: make([]byte, len(t.rows))}
	for i, v := range t.rows {
		switch {
		case i%w == w-1: // flags
		case drop > 0:
			v = v >> drop << drop
		case v < limitLevel:
			v = max(v&^1, min(v, 1)) // what was told from none still is
		}
		out.rows[i] = v
	}
	return out
}
