package feature

import "math"

// tokenTable counts tokens at packet time. A source says in a hop mostly what it said in
// the one before. So words keep their places and their order from hop to hop, and only
// what is new is sorted in; and who says the same word again and again remembers its
// place.
type tokenTable struct {
	index [256]place // by hash
	words [256]word  // from 1 on
	order [256]place // of the words, by token
	known int        // words in the table

	families [Families]uint8 // words known of each family
	tight    bool            // of some family there are more than a window has room for

	numbers  [2]uint8 // different words of FamilyStep and FamilySize in this hop
	overflow uint32
	full     [Families]bool
}

// place is where in the table a word stands, 0 is nowhere. What stands there must be
// compared with the token after the end of a hop.
type place uint8

// word is a token and its occasions in this hop.
type word struct {
	token Token
	count uint32
	last  int64 // when the newest occasion began; never, where there is none yet
}

const (
	numberRoom  = 24        // different numbers of a family in a hop
	variedValue = 0x7ffffff // the word that stands for the others

	wordsMost = 255 // different words in a hop
	// wordsKept is how many words go from hop to hop: with those that a window has room
	// for, no more than wordsMost.
	wordsKept = wordsMost - tokensMost

	noToken     = ^Token(0)                           // of no family
	firstNumber = Token(FamilyStep) << tokenValueBits // tokens from here on are numbers, and noToken
	never       = math.MinInt64 / 2
)

func newTokenTable() (t tokenTable) {
	t.clear()
	return t
}

// clear forgets all words.
func (t *tokenTable) clear() {
	for i := range t.known + 1 {
		t.words[i] = word{token: noToken, last: never}
	}
	t.index, t.known = [256]place{}, 0
	t.families, t.tight = [Families]uint8{}, false
}

// of is the word tok; p is where it stood the last time, and is set to where it stands.
func (t *tokenTable) of(p *place, tok Token) *word {
	if t.words[*p].token != tok {
		*p = t.find(tok)
	}
	return &t.words[*p]
}

func (t Token) hash() uint8 { return uint8(uint32(t) * 0x9e3779b1 >> 24) }

// add counts an occasion of tok.
func (t *tokenTable) add(tok Token, at int64) {
	w := &t.words[t.index[tok.hash()]]
	if w.token != tok {
		w = &t.words[t.find(tok)]
	}
	if at-w.last >= occasionGap {
		t.occasion(w, at)
	}
}

// occasion counts one of w that is far enough from the one before.
func (t *tokenTable) occasion(w *word, at int64) {
	if w.token >= firstNumber && w.count == 0 {
		t.first(w, at)
		return
	}
	w.count++
	w.last = at
}

// first counts the first occasion in this hop of a number, or of a word without room.
func (t *tokenTable) first(w *word, at int64) {
	f := w.token.Family()
	switch {
	case f >= Families: // no room was found
		t.overflow++
		return
	case t.crowded(w.token):
		t.add(token(f, variedValue), at)
		return
	}
	t.numbers[f-FamilyStep]++
	w.count, w.last = 1, at
}

// crowded reports whether tok is one word with others: of a family whose words are
// numbers, only the first few of a hop are told apart.
func (t *tokenTable) crowded(tok Token) bool {
	f := tok.Family()
	return f >= FamilyStep && t.numbers[f-FamilyStep] >= numberRoom && tok.Value() != variedValue
}

// find is the place of tok, new or not. Without room for it that is noted, and the place
// is 0, whose occasions overflow.
func (t *tokenTable) find(tok Token) place {
	i := tok.hash()
	for ; t.index[i] != 0; i++ {
		if p := t.index[i]; t.words[p].token == tok {
			return p
		}
	}
	switch {
	case t.crowded(tok):
		return t.find(token(tok.Family(), variedValue))
	case t.known == wordsMost:
		t.full[tok.Family()] = true
		return 0
	}
	k := t.known
	for ; k > 0 && t.words[t.order[k-1]].token > tok; k-- {
		t.order[k] = t.order[k-1]
	}
	t.known++
	f := tok.Family()
	t.families[f]++
	t.tight = t.tight || int(t.families[f]) > tokenRoom[f]
	p := place(t.known)
	t.index[i], t.order[k] = p, p
	t.words[p] = word{token: tok, last: never}
	return p
}

// roll moves the counts into out and begins the next hop. It reports whether places
// that somebody remembers hold no longer.
func (t *tokenTable) roll(out *TokenSet) (moved bool) {
	written := out.n
	out.Overflow, out.Full = t.overflow, t.full
	if t.tight {
		t.tell(out)
	} else {
		// All that is known has room. What was not said is written over by the next
		// word: whether there was an occasion cannot be foreseen.
		n := 0
		for _, p := range t.order[:t.known] {
			w := &t.words[p]
			out.items[n] = TokenCount{w.token, w.count}
			if w.count > 0 {
				n++
			}
			w.count, w.last = 0, never
		}
		out.n = n
		written = max(written, min(n+1, tokensMost))
	}
	clear(out.items[out.n:max(out.n, written)]) // behind the words of a set there is nothing
	t.numbers, t.overflow, t.full = [2]uint8{}, 0, [Families]bool{}
	if t.known <= wordsKept {
		return false
	}
	t.clear()
	return true
}

// tell moves the counts into out, as far as there is room for their words.
func (t *tokenTable) tell(out *TokenSet) {
	out.n = 0
	to := tokenWriter{to: out}
	for _, p := range t.order[:t.known] {
		if w := &t.words[p]; w.count > 0 {
			to.put(TokenCount{w.token, w.count})
			w.count, w.last = 0, never
		}
	}
}
