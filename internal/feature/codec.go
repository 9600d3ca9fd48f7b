package feature

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
)

// wordsVersion rises when a word means something else than before, so that windows with
// the old words are not held against profiles with the new ones.
const wordsVersion = 2

// windowLayout stands first in an encoded window. It is computed from the fields, so
// that whoever has other ones refuses instead of misreading.
var windowLayout = func() (h [2]byte) {
	sum := hashBytes(wordsVersion, []byte{tokensMost})
	t := reflect.TypeFor[Sums]()
	for i := range t.NumField() {
		sum = hashBytes(sum, []byte(t.Field(i).Name+" "+t.Field(i).Type.String()))
	}
	binary.BigEndian.PutUint16(h[:], uint16(sum))
	return h
}()

// ErrBadWindow is wrapped by what [Window.Decode] returns.
var ErrBadWindow = errors.New("not an encoded window")

// AppendTo appends w in its form for the bus: every number in order as a varint,
// signed ones zigzag, a run of zeros as a zero and its length, the tokens as
// differences. It takes two to five hundred bytes.
func (w *Window) AppendTo(b []byte) []byte {
	e := windowCoder{b: append(b, windowLayout[:]...)}
	w.walk(&e)
	e.flush()
	e.put(uint64(w.Tokens.n))
	e.put(uint64(w.Tokens.Overflow))
	full := uint64(0)
	for f, is := range w.Tokens.Full {
		if is {
			full |= 1 << f
		}
	}
	e.put(full)
	last := Token(0)
	for _, c := range w.Tokens.All() {
		e.put(uint64(c.Token - last))
		e.put(uint64(c.Count))
		last = c.Token
	}
	return e.b
}

// Decode reads what AppendTo wrote, all of b. The error wraps [ErrBadWindow]; w is
// then of no use.
func (w *Window) Decode(b []byte) error {
	b, ok := bytes.CutPrefix(b, windowLayout[:])
	if !ok {
		return fmt.Errorf("%w: of another layout", ErrBadWindow)
	}
	d := windowCoder{b: b, reads: true}
	w.walk(&d)
	w.Tokens = TokenSet{}
	n, overflow, full := d.uint(), d.uint(), d.uint()
	if d.zeros != 0 || n > tokensMost || overflow > math.MaxUint32 || full >= 1<<Families {
		return fmt.Errorf("%w: %d tokens", ErrBadWindow, n)
	}
	to := tokenWriter{to: &w.Tokens}
	at := uint64(0)
	for i := range n {
		step, count := d.uint(), d.uint()
		at += step
		if step > 1<<32-1 || at > 1<<32-1 || i > 0 && step == 0 || count > 1<<32-1 || Token(at).Family() >= Families {
			return fmt.Errorf("%w: token %d", ErrBadWindow, i)
		}
		to.put(TokenCount{Token(at), uint32(count)})
	}
	if w.Tokens.n != int(n) {
		return fmt.Errorf("%w: more tokens of a family than it has room for", ErrBadWindow)
	}
	w.Tokens.Overflow = uint32(overflow)
	for f := range w.Tokens.Full {
		w.Tokens.Full[f] = full>>f&1 != 0
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: cut, too long or out of range", ErrBadWindow)
	}
	return nil
}

// walk shows every number of w to c, in order.
func (w *Sums) walk(c *windowCoder) {
	c.signed(&w.Start, &w.End)
	c.short(&w.Hops)
	c.long(&w.Packets, &w.Bytes, &w.SizeSq)
	c.short(&w.SizeMin, &w.SizeMax)
	c.long(&w.PeakBytes)
	for i := range w.Top {
		c.short(&w.Top[i].Size, &w.Top[i].Count)
	}
	c.shorts(w.Sizes[:])
	c.long(&w.Gaps, &w.IATSum, &w.IATSq, &w.MaxGap)
	c.shorts(w.IATs[:])
	c.shorts(w.PerByte[:])
	c.signed(&w.TickCos, &w.TickSin)
	c.long(&w.TickCount)
	c.long(&w.Frames, &w.FrameBytes, &w.FramePackets, &w.FrameSq, &w.Markers, &w.MediaTicks)
	c.signed(&w.Delay, &w.Delay2)
	c.long(&w.Lost, &w.Reordered, &w.Duplicates, &w.Jumps)
	c.long(&w.TwoContents, &w.Stale, &w.Aliens, &w.Violations)
	c.long(&w.Hashed, &w.Echoes, &w.Repeats, &w.HashedFrames, &w.RepeatFrames, &w.LoopFrames, &w.LoopHits)
	c.long(&w.SameTimes, &w.TSPackets, &w.TSNulls, &w.TSStarts, &w.TSGoes, &w.CutPackets)
}

// windowCoder writes numbers to b, or reads them from it.
type windowCoder struct {
	b     []byte
	reads bool
	zeros uint64 // not written yet, or still to be read
	bad   bool
}

// number writes v, or reads a number up to limit.
func (c *windowCoder) number(v, limit uint64) uint64 {
	if c.reads {
		return c.next(limit)
	}
	if v == 0 {
		c.zeros++
		return 0
	}
	c.flush()
	c.put(v)
	return v
}

func (c *windowCoder) signed(vs ...*int64) {
	for _, v := range vs {
		n := c.number(uint64(*v)<<1^uint64(*v>>63), math.MaxUint64)
		*v = int64(n>>1) ^ -int64(n&1)
	}
}

func (c *windowCoder) long(vs ...*uint64) {
	for _, v := range vs {
		*v = c.number(*v, math.MaxUint64)
	}
}

func (c *windowCoder) short(vs ...*uint32) {
	for _, v := range vs {
		*v = uint32(c.number(uint64(*v), math.MaxUint32))
	}
}

func (c *windowCoder) shorts(vs []uint32) {
	for i := range vs {
		vs[i] = uint32(c.number(uint64(vs[i]), math.MaxUint32))
	}
}

func (c *windowCoder) put(v uint64) { c.b = binary.AppendUvarint(c.b, v) }

func (c *windowCoder) flush() {
	if c.zeros > 0 {
		c.put(0)
		c.put(c.zeros)
		c.zeros = 0
	}
}

func (c *windowCoder) uint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *windowCoder) next(limit uint64) uint64 {
	if c.zeros > 0 {
		c.zeros--
		return 0
	}
	n := c.uint()
	if n == 0 && !c.bad {
		if c.zeros = c.uint(); c.zeros > 0 {
			c.zeros--
			return 0
		}
		c.bad = true
	}
	if n > limit {
		c.bad = true
		return 0
	}
	return n
}
