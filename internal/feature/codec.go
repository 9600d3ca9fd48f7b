package feature

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// windowLayout stands first in an encoded window. It is computed from the fields of
// [Window], so that whoever has other ones refuses instead of misreading.
var windowLayout = func() (h [2]byte) {
	sum := uint64(1)
	t := reflect.TypeFor[Window]()
	for i := range t.NumField() {
		sum = hashBytes(sum, []byte(t.Field(i).Name+" "+t.Field(i).Type.String()))
	}
	binary.BigEndian.PutUint16(h[:], uint16(sum))
	return h
}()

// ErrBadWindow is wrapped by what [Window.Decode] returns.
var ErrBadWindow = errors.New("not an encoded window")

// AppendTo appends w in its form for the bus: every field in order as a varint,
// signed ones zigzag, a run of zeros as a zero and its length, the tokens as
// differences. It takes about half a kilobyte.
func (w *Window) AppendTo(b []byte) []byte {
	e := windowEncoder{b: append(b, windowLayout[:]...)}
	walk(reflect.ValueOf(w).Elem(), e.add)
	e.flush()
	e.uint(uint64(w.Tokens.n))
	e.uint(uint64(w.Tokens.Overflow))
	last := Token(0)
	for _, c := range w.Tokens.All() {
		e.uint(uint64(c.Token - last))
		e.uint(uint64(c.Count))
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
	d := windowDecoder{b: b}
	walk(reflect.ValueOf(w).Elem(), d.next)
	w.Tokens = TokenSet{}
	n, overflow := d.uint(), d.uint()
	if d.zeros != 0 || n > tokenRoom || overflow > 1<<32-1 {
		return fmt.Errorf("%w: %d tokens", ErrBadWindow, n)
	}
	w.Tokens.n, w.Tokens.Overflow = int(n), uint32(overflow)
	at := uint64(0)
	for i := range w.Tokens.n {
		step, count := d.uint(), d.uint()
		at += step
		if step > 1<<32-1 || at > 1<<32-1 || i > 0 && step == 0 || count > 1<<32-1 {
			return fmt.Errorf("%w: token %d", ErrBadWindow, i)
		}
		w.Tokens.items[i] = TokenCount{Token(at), uint32(count)}
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: cut, too long or out of range", ErrBadWindow)
	}
	return nil
}

// tokensType is the one field of a window with a form of its own.
var tokensType = reflect.TypeFor[TokenSet]()

// walk calls f for every number of a struct, in order.
func walk(v reflect.Value, f func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == tokensType {
			return
		}
		for i := range v.NumField() {
			walk(v.Field(i), f)
		}
	case reflect.Array:
		for i := range v.Len() {
			walk(v.Index(i), f)
		}
	default:
		f(v)
	}
}

type windowEncoder struct {
	b     []byte
	zeros uint64
}

func (e *windowEncoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }

func (e *windowEncoder) flush() {
	if e.zeros > 0 {
		e.uint(0)
		e.uint(e.zeros)
		e.zeros = 0
	}
}

func (e *windowEncoder) add(v reflect.Value) {
	var n uint64
	if v.CanInt() {
		i := v.Int()
		n = uint64(i)<<1 ^ uint64(i>>63)
	} else {
		n = v.Uint()
	}
	if n == 0 {
		e.zeros++
		return
	}
	e.flush()
	e.uint(n)
}

type windowDecoder struct {
	b     []byte
	zeros uint64
	bad   bool
}

func (d *windowDecoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *windowDecoder) next(v reflect.Value) {
	n := uint64(0)
	if d.zeros > 0 {
		d.zeros--
	} else if n = d.uint(); n == 0 && !d.bad {
		if d.zeros = d.uint(); d.zeros == 0 {
			d.bad = true
			return
		}
		d.zeros--
	}
	if v.CanInt() {
		v.SetInt(int64(n>>1) ^ -int64(n&1))
		return
	}
	if v.OverflowUint(n) {
		d.bad = true
		return
	}
	v.SetUint(n)
}
