package feature

import (
	"cmp"
	"fmt"
	"slices"
)

// Token is one word of a source's grammar: what its packets are made of, apart
// from the picture. A path does not rewrite bytes, so a word that a source never
// used does not come from the network. The family is in the upper four bits.
type Token uint32

// Family groups tokens of one origin.
type Family uint8

// The families.
const (
	FamilyHeader    Family = iota // RTP header: flags, payload type; alien packets
	FamilyUnit                    // NAL unit type and importance; PID, unit start, adaptation; PES header
	FamilySlice                   // slice type and picture parameter set id; first start codes of a picture
	FamilyParameter               // parameter sets and the encoder's own signature, hashed
	FamilyStep                    // step of the RTP timestamp from frame to frame
	FamilySize                    // size of fragments that fill a packet; remainder of a TS payload over 188
	Families
)

func (f Family) String() string {
	return [...]string{"header", "unit", "slice", "parameter set", "timestamp step", "packet size"}[f]
}

const tokenValueBits = 28

func token(f Family, value uint32) Token {
	return Token(f)<<tokenValueBits | Token(value&(1<<tokenValueBits-1))
}

// Family is the group that the token belongs to.
func (t Token) Family() Family { return Family(t >> tokenValueBits) }

// Value is the token without its family.
func (t Token) Value() uint32 { return uint32(t) & (1<<tokenValueBits - 1) }

// Step is the timestamp step, in ticks of the media clock, of a [FamilyStep] token.
func (t Token) Step() int { return int(int32(t.Value()<<4) >> 4) }

// unitRegular marks a [FamilyUnit] token of a unit that frames or groups of pictures
// bring with them, whatever is in the picture: parameter sets, delimiters, messages.
const unitRegular = 7 << 24

// Varied reports that t stands for numbers of its family that found no room apart.
func (t Token) Varied() bool { return t.Family() >= FamilyStep && t.Value() == variedValue }

// Regular reports whether a source says t by its own rhythm, so that its absence says
// something: the start of each elementary stream, parameter sets, delimiters.
func (t Token) Regular() bool {
	kind := t.Value() >> 24 << 24
	return t.Family() == FamilyUnit && (kind == unitStream || kind == unitRegular)
}

func (t Token) String() string {
	v := t.Value()
	switch t.Family() {
	case FamilyStep, FamilySize:
		if v == variedValue {
			return "many different " + t.Family().String() + "s"
		}
	}
	switch t.Family() {
	case FamilyStep:
		return fmt.Sprintf("timestamp step %d", t.Step())
	case FamilySize:
		if v&sizeTSRemainder != 0 {
			return fmt.Sprintf("TS payload with %d bytes left over", v&0xff)
		}
		return fmt.Sprintf("fragment of %d bytes", v)
	}
	return fmt.Sprintf("%s %07x", t.Family(), v)
}

// TokenCount is a token and on how many occasions it was seen. Packets of one
// token within 5 ms are one occasion: a frame cut into 40 packets says a thing once.
type TokenCount struct {
	Token Token
	Count uint32
}

// tokenRoom is how many different tokens of each family a window holds. Families have
// rooms of their own, so that one with many words pushes no other out: a transport
// stream of many PIDs its parameter sets, say. Steps and sizes of a hop always find
// room (numberRoom).
var tokenRoom = [Families]int{
	FamilyHeader:    8,
	FamilyUnit:      64,
	FamilySlice:     24,
	FamilyParameter: 16,
	FamilyStep:      numberRoom + 1,
	FamilySize:      numberRoom + 1,
}

const tokensMost = 8 + 64 + 24 + 16 + 2*(numberRoom+1)

// TokenSet holds the tokens of a window in rising order. Where a family has more than
// its room, its lowest stay, with exact counts, and the rest is counted in Overflow:
// so adding sets is associative whatever they hold.
type TokenSet struct {
	n        int
	items    [tokensMost]TokenCount
	Overflow uint32         // occasions of tokens that found no room
	Full     [Families]bool // families with such tokens
}

// All are the tokens in rising order. The slice belongs to the set.
func (s *TokenSet) All() []TokenCount { return s.items[:s.n] }

// Has reports whether t is in the set.
func (s *TokenSet) Has(t Token) bool {
	_, ok := slices.BinarySearchFunc(s.All(), t, func(c TokenCount, t Token) int { return cmp.Compare(c.Token, t) })
	return ok
}

// tokenWriter fills a set with tokens in rising order, each once.
type tokenWriter struct {
	to     *TokenSet
	family Family
	taken  int // of the family's room
}

func (w *tokenWriter) put(c TokenCount) {
	f := c.Token.Family()
	if f != w.family {
		w.family, w.taken = f, 0
	}
	if w.taken == tokenRoom[f] {
		w.to.Overflow += c.Count
		w.to.Full[f] = true
		return
	}
	w.to.items[w.to.n] = c
	w.to.n++
	w.taken++
}

// Add merges o into s.
func (s *TokenSet) Add(o *TokenSet) {
	s.Overflow += o.Overflow
	for f, full := range o.Full {
		s.Full[f] = s.Full[f] || full
	}
	if o.n == 0 {
		return
	}
	a := s.items
	b := o.All()
	left := a[:s.n]
	s.n = 0
	w := tokenWriter{to: s}
	for len(left) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(left) > 0 && left[0].Token < b[0].Token:
			w.put(left[0])
			left = left[1:]
		case len(left) == 0 || left[0].Token > b[0].Token:
			w.put(b[0])
			b = b[1:]
		default:
			w.put(TokenCount{left[0].Token, left[0].Count + b[0].Count})
			left, b = left[1:], b[1:]
		}
	}
}

// occasionGap is the shortest time in nanoseconds between two occasions of a token.
const occasionGap = 5e6

// Put adds the occasions of one token.
func (s *TokenSet) Put(c TokenCount) {
	o := TokenSet{n: 1}
	o.items[0] = c
	s.Add(&o)
}
