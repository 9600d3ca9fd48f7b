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

// tokenRoom is how many different tokens a window holds.
const tokenRoom = 64

// TokenSet holds the tokens of a window in rising order. Where more than 64
// differ, the lowest stay, with exact counts, and the rest is counted in
// Overflow: so adding sets is associative whatever they hold.
type TokenSet struct {
	n        int
	items    [tokenRoom]TokenCount
	Overflow uint32 // occasions of tokens that found no room
}

// All are the tokens in rising order. The slice belongs to the set.
func (s *TokenSet) All() []TokenCount { return s.items[:s.n] }

// Has reports whether t is in the set.
func (s *TokenSet) Has(t Token) bool {
	_, ok := slices.BinarySearchFunc(s.All(), t, func(c TokenCount, t Token) int { return cmp.Compare(c.Token, t) })
	return ok
}

// Add merges o into s.
func (s *TokenSet) Add(o *TokenSet) {
	if o.n == 0 && o.Overflow == 0 {
		return
	}
	a := s.items
	na := s.n
	s.Overflow += o.Overflow
	i, j, n := 0, 0, 0
	for i < na || j < o.n {
		var c TokenCount
		switch {
		case j == o.n || i < na && a[i].Token < o.items[j].Token:
			c = a[i]
			i++
		case i == na || a[i].Token > o.items[j].Token:
			c = o.items[j]
			j++
		default:
			c = TokenCount{a[i].Token, a[i].Count + o.items[j].Count}
			i++
			j++
		}
		if n < tokenRoom {
			s.items[n] = c
			n++
		} else {
			s.Overflow += c.Count
		}
	}
	s.n = n
}

// occasionGap is the shortest time in nanoseconds between two occasions of a token.
const occasionGap = 5e6

// tokenTable counts tokens at packet time: open addressing, emptied every hop.
type tokenTable struct {
	slots    [256]tokenSlot
	used     []uint8  // indices of taken slots
	numbers  [2]uint8 // different words of FamilyStep and FamilySize
	overflow uint32
}

const (
	numberRoom  = 24        // different numbers of a family in a hop
	variedValue = 0x7ffffff // the word that stands for the others
)

type tokenSlot struct {
	token Token // 0 is never a token that is counted; see tokenTable.add
	count uint32
	last  int64
}

func newTokenTable() tokenTable { return tokenTable{used: make([]uint8, 0, 256)} }

// add counts an occasion of tok. Of a family whose words are numbers, only the first
// few of a hop are told apart; the rest are one word.
func (t *tokenTable) add(tok Token, at int64) {
	if f := tok.Family(); f >= FamilyStep && t.numbers[f-FamilyStep] >= numberRoom {
		tok = token(f, variedValue)
	}
	tok++ // so that a free slot is zero
	for i, tries := uint8(uint32(tok)*0x9e3779b1>>24), 0; tries < 16; i, tries = i+1, tries+1 {
		s := &t.slots[i]
		switch s.token {
		case tok:
			if at-s.last >= occasionGap {
				s.count++
				s.last = at
			}
			return
		case 0:
			*s = tokenSlot{tok, 1, at}
			t.used = append(t.used, i)
			if f := (tok - 1).Family(); f >= FamilyStep {
				t.numbers[f-FamilyStep]++
			}
			return
		}
	}
	t.overflow++
}

// roll moves the counts into out and empties the table.
func (t *tokenTable) roll(out *TokenSet) {
	out.n = 0
	out.Overflow = t.overflow
	t.overflow = 0
	var all [256]TokenCount
	for i, u := range t.used {
		s := &t.slots[u]
		all[i] = TokenCount{s.token - 1, s.count}
		*s = tokenSlot{}
	}
	found := all[:len(t.used)]
	t.used = t.used[:0]
	t.numbers = [2]uint8{}
	slices.SortFunc(found, func(a, b TokenCount) int { return cmp.Compare(a.Token, b.Token) })
	for _, c := range found {
		if out.n < tokenRoom {
			out.items[out.n] = c
			out.n++
		} else {
			out.Overflow += c.Count
		}
	}
}

// Put adds the occasions of one token.
func (s *TokenSet) Put(c TokenCount) {
	o := TokenSet{n: 1}
	o.items[0] = c
	s.Add(&o)
}
