package capture

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// damages are what was broken in a file, in the order in which it was met.
type damages struct {
	told []string
	more int
}

// toldDamages is how many of a file are told one by one.
const toldDamages = 5

func (d *damages) note(record int, offset int64, format string, args ...any) {
	if len(d.told) >= toldDamages {
		d.more++
		return
	}
	d.told = append(d.told, fmt.Sprintf("record %d at byte %d: ", record, offset)+fmt.Sprintf(format, args...))
}

// lines are for people; none where nothing was broken.
func (d *damages) lines() []string {
	if d.more == 0 {
		return d.told
	}
	return append(d.told[:len(d.told):len(d.told)], fmt.Sprintf("and %d more", d.more))
}

// unpackable reports whether the rest of a compressed file cannot be read. What came before
// is as good as that of a file that ends there.
func unpackable(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.As(err, &corrupt) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader)
}

// records hands whole records of a capture file on, mended where they were broken, so that
// one of them does not end the reading of all: an [io.Reader] for a library that stops at
// the first. take appends to out.
type records struct {
	take func(r *records) error
	in   peeker
	out  []byte
	rest []byte // of out, not read yet
	no   int    // of the record in work, from 1 on
	at   int64  // of in
	log  *damages
}

// peeker is what is needed of a buffered reader.
type peeker interface {
	io.Reader
	Peek(n int) ([]byte, error)
	Discard(n int) (int, error)
}

// peekRoom is how far ahead records are looked at, in bytes: a record that is longer is not
// taken for one where the reading has to find its place again.
const peekRoom = 1 << 19

func (r *records) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		r.out = r.out[:0]
		err := r.take(r)
		r.rest = r.out
		if err == nil || len(r.rest) > 0 {
			continue
		}
		if unpackable(err) {
			r.log.note(r.no, r.at, "what follows cannot be unpacked (%v) and was left out", err)
			return 0, io.EOF
		}
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// pass hands the next n bytes on, of which the first are in r.out already.
func (r *records) pass(n int) error {
	const step = 1 << 16 // a length may be a lie: room is made for what comes
	for n > 0 {
		part := min(n, step)
		have := len(r.out)
		r.out = append(r.out, make([]byte, part)...)
		got, err := io.ReadFull(r.in, r.out[have:])
		r.out, r.at, n = r.out[:have+got], r.at+int64(got), n-got
		if err != nil {
			return err
		}
	}
	return nil
}

// skip leaves n bytes out.
func (r *records) skip(n int) error {
	got, err := r.in.Discard(n)
	r.at += int64(got)
	return err
}

// seek leaves bytes out, step by step, until a record begins there; it is io.EOF where none
// follows.
func (r *records) seek(step int, begins func() bool) error {
	for {
		if err := r.skip(step); err != nil {
			return err
		}
		if begins() {
			return nil
		}
	}
}
