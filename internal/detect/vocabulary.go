package detect

import (
	"cmp"
	"slices"

	"github.com/gaitkeeper/gaitkeeper/internal/feature"
)

// Word is a token of the baseline.
type Word struct {
	Token feature.Token
	Count uint32 // occasions in the baseline
	First uint32 // hop of the first
}

// vocabularyRoom bounds a vocabulary: a stream that says more is not told by words.
const vocabularyRoom = 4096

// Vocabulary is the set of tokens that a source uses, and per family how complete
// the baseline shows it to be.
type Vocabulary struct {
	Words    []Word // by token
	Families [feature.Families]FamilyLimit
	Form     feature.Form
	Quantum  int  // greatest common step of the RTP timestamp in ticks, 0 if there is none
	Partial  bool // of packets that were cut
}

// FamilyLimit is how many occasions of unknown words within 10 s accuse.
type FamilyLimit struct {
	Known int // words
	Late  int // of them, first seen in the later half of the baseline
	// Worst is the most occasions within 10 s of words that the first half did not
	// have: what novelty the source itself makes.
	Worst float64
	Limit float64 // 0: the family is too varied to accuse
}

// said reports whether the source used t itself.
func (y *Vocabulary) said(t feature.Token) bool {
	_, ok := slices.BinarySearchFunc(y.Words, t, func(w Word, t feature.Token) int { return cmp.Compare(w.Token, t) })
	return ok
}

// Has reports whether the source used t, a word that the picture might have turned into
// t, or a timestamp step that is a multiple of its quantum.
func (y *Vocabulary) Has(t feature.Token) bool {
	kin, ok := t.Kin()
	switch {
	case y.said(t) || ok && y.said(kin) || t.Stuffing():
		return true
	case t.Filler(y.Form) || y.grouped(t):
		return true
	case t.Disposable():
		return y.says(feature.FamilyUnit, feature.Token.Reordering)
	case y.Form == feature.Opaque && t.Family() == feature.FamilyUnit:
		return y.flagsOf(t)
	case y.Form == feature.TS && y.phased(t):
		return true
	case t.Varied(): // a burst brings together what came apart
		return y.Families[t.Family()].Known >= variedKnown
	}
	if t.Family() != feature.FamilyStep || t.Step() < 0 && !y.stepsBack() {
		return false
	}
	return onQuantum(t.Step(), y.Quantum) || y.sumOfSteps(t.Step()) || y.wanders(t.Step())
}

// phased reports whether a TS that says t may have said it all the time: where a receiver
// sees one TS packet of seven, the phase of the multiplexer's cycle decides which, and how
// much room their headers leave for the beginning of a key picture; a baseline without a
// key picture does not know how they begin, nor one without a PES header of a stream what
// those are like; and a picture of MPEG-2 shows as many of its rows as are small.
func (y *Vocabulary) phased(t feature.Token) bool {
	switch {
	case t.Access() && t.Plain() != y.says(feature.FamilySlice, feature.Token.Plain):
		return false // of another codec
	case t.Access():
		return y.Partial || !t.Plain() && !y.keyed() || !y.says(feature.FamilySlice, feature.Token.Access)
	case t.Row(): // key pictures do not show their coding type behind their headers
		return y.says(feature.FamilySlice, feature.Token.Restarting)
	case !y.Partial:
		return false
	case t.Table():
		return true
	}
	if pid, _, ok := t.Opens(); ok {
		return y.unopened(pid)
	}
	if stream, ok := t.Describes(); ok {
		return !y.opens(stream) && y.says(feature.FamilyUnit, func(have feature.Token) bool {
			pid, _, carries := have.Carries()
			return carries && y.unopened(pid)
		})
	}
	pid, ok := t.Clock()
	if !ok {
		pid, _, ok = t.Carries()
	}
	return ok && y.carries(pid)
}

// carries reports whether the baseline showed payload of pid.
func (y *Vocabulary) carries(pid uint16) bool {
	return y.says(feature.FamilyUnit, func(have feature.Token) bool {
		p, _, carries := have.Carries()
		return carries && p == pid
	})
}

// unopened reports whether the baseline showed payload of pid and no PES header, so that it
// does not know of which stream that is.
func (y *Vocabulary) unopened(pid uint16) bool {
	return pid > feature.LastTable && y.carries(pid) && !y.says(feature.FamilyUnit, func(have feature.Token) bool {
		p, _, opens := have.Opens()
		return opens && p == pid
	})
}

// opens reports whether the baseline showed a PES header of a stream.
func (y *Vocabulary) opens(stream uint8) bool {
	return y.says(feature.FamilyUnit, func(have feature.Token) bool {
		_, s, opens := have.Opens()
		return opens && s == stream
	})
}

// flagsOf reports whether the first octet of an opaque payload is a combination of bits
// that the baseline showed one by one. In the formats of RTP it holds flags (RFC 7741
// section 4.2, RFC 9628 section 4.2, RFC 4629 section 5.1), of which the picture decides:
// first and last packet of a frame, key picture. A baseline in which every picture fits into
// a packet shows no packet that is neither first nor last, and one without a key picture
// none of those. A baseline of nothing but zeros is of whole pictures that begin with a start
// code (RFC 6416 section 5.1): the others' octets are the picture.
func (y *Vocabulary) flagsOf(t feature.Token) bool {
	b, ok := t.Octet()
	if !ok {
		return false
	}
	var zero, one uint8 // bits that were so
	for _, w := range y.family(feature.FamilyUnit) {
		if have, ok := w.Token.Octet(); ok {
			zero |= ^have
			one |= have
		}
	}
	const (
		start8         = 0x10       // S of VP8
		start9, end9   = 0x08, 0x04 // B and E of VP9
		inter9, about9 = 0x40, 0x02 // P, and V: the structure, with key pictures
		mayFall        = start8 | start9 | end9 | inter9
	)
	return zero == 0xff && one == 0 || b&^(one|about9) == 0 && ^b&^(zero|mayFall) == 0
}

// says reports whether the source used a word of a family that is so.
func (y *Vocabulary) says(f feature.Family, so func(feature.Token) bool) bool {
	return slices.ContainsFunc(y.family(f), func(w Word) bool { return so(w.Token) })
}

// stepsBack reports whether the source sends frames out of their order in time. A
// missing frame lengthens a step; only an encoder turns one round.
func (y *Vocabulary) stepsBack() bool {
	// In a TS whose packets hold several pictures, the first's time does not show it.
	if y.Form == feature.TS && y.says(feature.FamilyUnit, feature.Token.Reordering) {
		return true
	}
	for _, w := range y.family(feature.FamilyStep) {
		if w.Token.Step() < 0 && !w.Token.Varied() {
			return true
		}
	}
	return false
}

// sumOfSteps reports whether a step is two known ones in one: what left apart met in
// one packet.
func (y *Vocabulary) sumOfSteps(step int) bool {
	steps := y.family(feature.FamilyStep)
	for i, a := range steps {
		for _, b := range steps[i:] {
			if d := step - a.Token.Step() - b.Token.Step(); a.Count >= 3 && b.Count >= 3 && d >= -2 && d <= 2 {
				return true
			}
		}
	}
	return false
}

// family are the words of a family: they lie together.
func (y *Vocabulary) family(f feature.Family) []Word {
	at := func(f feature.Family) int {
		i, _ := slices.BinarySearchFunc(y.Words, f, func(w Word, f feature.Family) int { return cmp.Compare(w.Token.Family(), f) })
		return i
	}
	return y.Words[at(f):at(f+1)]
}

// variedKnown is how many words of a family make many at once no news.
const variedKnown = 10

// onQuantum reports whether a step is a whole multiple of q, but for rounding: of the step,
// and of q itself, which comes as often as the multiple has it.
func onQuantum(step, q int) bool {
	if q == 0 {
		return false
	}
	if step < 0 {
		step = -step
	}
	times := (step + q/2) / q
	r := step - times*q
	return max(r, -r) <= max(2, min(2+times/2, q/32))
}

// novelty counts occasions of unknown words in w, by family. Families that do not accuse
// are not looked through: they have thousands of words.
func (y *Vocabulary) novelty(w *feature.Window) (n [feature.Families]float64) {
	begun := y.Partial && y.Form == feature.TS && slices.ContainsFunc(w.Tokens.All(), func(c feature.TokenCount) bool {
		return c.Token.Family() == feature.FamilyParameter && y.said(c.Token)
	})
	chosen := y.choicesOf(w)
	for _, c := range w.Tokens.All() {
		if f := c.Token.Family(); y.Families[f].Limit > 0 && !y.knows(c.Token, chosen) {
			// Behind a parameter set of its own, a source has others, of which a cut packet
			// shows as many as its headers leave room for.
			if f == feature.FamilyParameter && begun {
				continue
			}
			n[f] += float64(c.Count)
		}
	}
	return n
}

// Limits of unknown occasions within 10 s.
const (
	noveltyFloor      = 3
	noveltyLateLimit  = 6 // more late words than this: the family does not accuse
	parameterFloor    = 1
	stepsLimit        = 2 * variedKnown
	stepFloorTS       = 6 // where sound and picture share packets, sizes decide what meets
	parameterLeastRun = 2 // occasions of the baseline's parameter sets
	sizesLeast        = 8 // and of its packets that a picture filled
)

// vocabularyLearner gathers a vocabulary.
type vocabularyLearner struct {
	form     feature.Form
	words    map[feature.Token]*Word
	perHop   []map[feature.Token]uint32
	overfull bool
	partial  bool
}

func newVocabularyLearner(form feature.Form) *vocabularyLearner {
	return &vocabularyLearner{form: form, words: map[feature.Token]*Word{}}
}

func (l *vocabularyLearner) add(w *feature.Window, hop int) {
	seen := make(map[feature.Token]uint32, len(w.Tokens.All()))
	for _, c := range w.Tokens.All() {
		seen[c.Token] = c.Count
		word := l.words[c.Token]
		if word == nil {
			if len(l.words) >= vocabularyRoom {
				l.overfull = true
				continue
			}
			word = &Word{Token: c.Token, First: uint32(hop)}
			l.words[c.Token] = word
		}
		word.Count += c.Count
	}
	l.perHop = append(l.perHop, seen)
	l.partial = l.partial || w.Partial()
	if w.Tokens.Overflow > 0 {
		l.overfull = true
	}
}

func (l *vocabularyLearner) finish() Vocabulary {
	var y Vocabulary
	for _, w := range l.words {
		y.Words = append(y.Words, *w)
	}
	slices.SortFunc(y.Words, func(a, b Word) int { return cmp.Compare(a.Token, b.Token) })
	y.Form = l.form
	y.Quantum, y.Partial = l.quantum(), l.partial && l.form == feature.TS
	half := uint32(len(l.perHop) / 2)
	late := map[feature.Token]bool{}
	var occasions [feature.Families]float64
	for _, w := range y.Words {
		f := w.Token.Family()
		y.Families[f].Known++
		occasions[f] += float64(w.Count)
		if w.First >= half && !(f == feature.FamilyStep && onQuantum(w.Token.Step(), y.Quantum)) {
			y.Families[f].Late++
			late[w.Token] = true
		}
	}
	var sums [feature.Families]tally
	for f := range sums {
		sums[f] = newTally(tenSec)
	}
	for _, hop := range l.perHop[half:] {
		var n [feature.Families]float64
		for t, c := range hop {
			if late[t] {
				n[t.Family()] += float64(c)
			}
		}
		for f := range sums {
			y.Families[f].Worst = max(y.Families[f].Worst, sums[f].add(n[f]))
		}
	}
	for f := range y.Families {
		lim := &y.Families[f]
		// What found no room in a window were the highest families.
		if l.overfull && feature.Family(f) >= feature.FamilyStep || lim.Late > noveltyLateLimit {
			continue
		}
		if feature.Family(f) == feature.FamilySlice && y.Partial && !l.startsShow() {
			continue
		}
		// What cut packets never showed cannot be compared.
		if feature.Family(f) == feature.FamilyParameter && lim.Known == 0 && (y.Partial || !y.keyed()) {
			continue
		}
		// Sound and picture in one stream make steps of every length between them.
		if feature.Family(f) == feature.FamilyStep && (lim.Known > stepsLimit || y.timedByVolume()) {
			continue
		}
		// A baseline in which hardly a picture filled a packet does not know how a full one
		// is cut.
		if feature.Family(f) == feature.FamilySize && occasions[f] < sizesLeast {
			continue
		}
		floor := float64(noveltyFloor)
		// Of cut packets one sight is none: what shows of a set hangs on the headers before it.
		if feature.Family(f) == feature.FamilyParameter && !y.Partial && lim.Late == 0 && occasions[f] >= parameterLeastRun {
			floor = parameterFloor
		}
		if feature.Family(f) == feature.FamilyStep && l.form == feature.TS {
			floor = stepFloorTS
		}
		lim.Limit = floor + float64(lim.Late) + 2*lim.Worst
	}
	return y
}

// startsShow reports whether most of the packets in which a video unit begins showed its
// beginning. The first TS packet of a small picture is mostly stuffing, which stands in
// front, so that a cut packet ends before the picture's first word, or before its PES
// header: then greater pictures say what is no news.
func (l *vocabularyLearner) startsShow() bool {
	other, began := map[uint16]bool{}, map[uint16]uint32{}
	var pictures, most uint32 // sights of pictures' start codes, and of the code most seen
	for t, w := range l.words {
		if pid, _, ok := t.Opens(); ok {
			_, video := t.VideoStart()
			other[pid] = !video
		}
		if pid, ok := t.Start(); ok && pid > feature.LastTable {
			began[pid] += w.Count
		}
		if _, ok := t.Picture(l.form); ok {
			pictures += w.Count
		}
		if t.Family() == feature.FamilySlice {
			most = max(most, w.Count)
		}
	}
	var all uint32
	for pid, n := range began {
		if !other[pid] { // video, or a stream whose headers never showed
			all += n
		}
	}
	return 2*max(pictures, most) >= all
}

// quantum finds the largest step of which nearly all others are multiples: a frame's
// time, or what the times of sound and picture have in common.
func (l *vocabularyLearner) quantum() int {
	var total uint32
	var steps []Word
	var candidates []int
	for t, w := range l.words {
		if t.Family() != feature.FamilyStep || t.Varied() {
			continue
		}
		total += w.Count
		steps = append(steps, *w)
		if w.Count >= 3 && t.Step() != 0 {
			candidates = append(candidates, max(t.Step(), -t.Step()))
		}
	}
	for _, a := range candidates {
		for _, b := range candidates {
			candidates = append(candidates, commonStep(a, b))
		}
		if len(candidates) > 1000 {
			break
		}
	}
	best := 0
	for _, q := range candidates {
		if q < leastQuantum || q <= best {
			continue
		}
		var on uint32
		for _, o := range steps {
			if onQuantum(o.Token.Step(), q) {
				on += o.Count
			}
		}
		if float64(on) >= 0.995*float64(total) {
			best = q
		}
	}
	return best
}

// leastQuantum is the shortest step, in ticks, that tells anything: 1/300 s.
const leastQuantum = 300

// commonStep is the greatest common divisor of two steps, but for rounding.
func commonStep(a, b int) int {
	for b > 4 {
		a, b = b, a%b
	}
	return a
}
