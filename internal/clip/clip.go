// Package clip holds the video that `gaitkeeper demo` streams: H.264 and AAC in
// MPEG-TS, 640x360 at 25 frames a second, ten synthetic scenes under a running
// clock. make-clip.sh makes it.
package clip

import (
	"bytes"
	_ "embed"
	"io"
	"time"
)

//go:embed demo.ts
var demo []byte

// Duration is how long the clip plays, by its clock references.
const Duration = 160 * time.Second

// Open returns a reader over the clip from its beginning. Each reader has its
// own position.
func Open() io.ReadSeeker { return bytes.NewReader(demo) }

// Bytes returns the clip itself: whole 188-byte MPEG-TS packets. The caller must
// not change it.
func Bytes() []byte { return demo[:len(demo):len(demo)] }
