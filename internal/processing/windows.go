package processing

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
	"github.com/gaitkeeper/gaitkeeper/internal/tune"
)

// Windows as they are stored: recordings of quiet traffic, and what was around alerts.

// packWindows compresses windows that encoded themselves ([feature.Window.AppendTo]),
// each behind its length.
func packWindows(all [][]byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	var plain []byte
	for _, w := range all {
		plain = append(binary.AppendUvarint(plain, uint64(len(w))), w...)
	}
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// readWindows reads what packWindows wrote, most windows of it at most. The error may
// wrap [feature.ErrBadWindow].
func readWindows(b []byte, most int) ([]feature.Window, error) {
	const longest = 4096 // bytes of a window
	plain := new(bytes.Buffer)
	if _, err := plain.ReadFrom(io.LimitReader(flate.NewReader(bytes.NewReader(b)), int64(most)*longest)); err != nil {
		return nil, err
	}
	var out []feature.Window
	for rest := plain.Bytes(); len(rest) > 0 && len(out) < most; {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return nil, feature.ErrBadWindow
		}
		var w feature.Window
		if err := w.Decode(rest[k : k+int(n)]); err != nil {
			return nil, err
		}
		out, rest = append(out, w), rest[k+int(n):]
	}
	return out, nil
}

// reel is a stretch of windows around an alert, without a break.
type reel struct {
	from    time.Time
	form    feature.Form
	by      uint64 // what judged the stream then: see printOf
	flags   []tune.Flags
	windows []feature.Window
}

// reelRecord is a part of a reel as it is stored.
type reelRecord struct {
	From    time.Time    `cbor:"1,keyasint"`
	Form    feature.Form `cbor:"2,keyasint"`
	By      uint64       `cbor:"3,keyasint"`
	Flags   []byte       `cbor:"4,keyasint"` // of each window
	Windows []byte       `cbor:"5,keyasint"` // see packWindows
}

// readReel reads a part of a reel. The error wraps [feature.ErrBadWindow] where its
// windows are of another version of this program.
func readReel(b []byte) (*reel, error) {
	var v reelRecord
	if err := cbor.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("windows around an alert do not read: %w", err)
	}
	r := &reel{from: v.From, form: v.Form, by: v.By}
	if v.Form > feature.Hidden || len(v.Flags) > partHops {
		return nil, fmt.Errorf("windows around an alert do not read: %d of them, of form %d", len(v.Flags), v.Form)
	}
	for _, f := range v.Flags {
		if tune.Flags(f) > tune.Wide|tune.Excused|tune.Unanswered {
			return nil, fmt.Errorf("windows around an alert do not read: circumstances %#x", f)
		}
		r.flags = append(r.flags, tune.Flags(f))
	}
	var err error
	if r.windows, err = readWindows(v.Windows, partHops); err != nil {
		return nil, fmt.Errorf("windows around an alert do not read: %w", err)
	}
	if len(r.windows) != len(r.flags) {
		return nil, fmt.Errorf("windows around an alert do not read: %d of them with circumstances of %d", len(r.windows), len(r.flags))
	}
	return r, nil
}

// end is when the last window ends.
func (r *reel) end() time.Time { return r.from.Add(time.Duration(len(r.windows)) * feature.Hop) }

// goOn appends the part that follows; false where it does not go on from there.
func (r *reel) goOn(o *reel) bool {
	if !o.from.Equal(r.end()) || o.form != r.form || o.by != r.by {
		return false
	}
	r.flags, r.windows = append(r.flags, o.flags...), append(r.windows, o.windows...)
	return true
}
