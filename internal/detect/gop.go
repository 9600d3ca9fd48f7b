package detect

import "github.com/gaitkeeper/gaitkeeper/internal/feature"

// grouped reports whether t says how an encoder groups its pictures, and no more than it
// may choose anew at every picture (see feature/gop.go).
func (y *Vocabulary) grouped(t feature.Token) bool {
	if c, ok := t.Picture(y.Form); ok && y.Form == feature.TS {
		return t.Codecs()&y.codecs() != 0
	} else if ok {
		return y.says(t.Family(), func(have feature.Token) bool {
			h, ok := have.Picture(y.Form)
			return ok && h.HEVC == c.HEVC && (c.Key || h.Last == c.Last)
		})
	}
	if unit, kind, pps, ok := t.Slice(); ok {
		return y.sliced(unit, kind, pps)
	}
	if t.Heading(y.Form) && !y.keyed() {
		return true
	}
	if m, ok := t.Message(y.Form); ok && m {
		return true
	}
	other, ok := t.Apart(y.Form)
	return ok && y.said(other) && y.aggregates()
}

// keyed reports whether the baseline showed a key picture. One without does not know how
// they look: of an encoder that refreshes bit by bit, or was told to make none until
// somebody asks for one.
func (y *Vocabulary) keyed() bool {
	family := feature.FamilyUnit
	if y.Form == feature.TS {
		family = feature.FamilySlice
	}
	return y.says(family, func(t feature.Token) bool { return keyed(t, y.Form) })
}

// sliced reports whether a slice of H.264 goes with those of the baseline: of a picture
// parameter set that they use. Noise makes an encoder code all of its pictures without
// others, and what moves a little none, so that the type of a slice says what was seen; but
// an encoder that tells with the type that all of a picture's slices are alike (5 to 9 of
// H.264 table 7-6) always does, but for key pictures that the baseline did not have.
func (y *Vocabulary) sliced(unit, kind, pps uint8) bool {
	const idr, all = 5, 5
	first, any, with := unit == idr, false, false
	for _, w := range y.family(feature.FamilySlice) {
		u, _, p, ok := w.Token.Slice()
		any = any || ok
		with = with || ok && p == pps
		first = first && !(ok && u == idr)
	}
	switch {
	case kind >= 2*all || any && !with:
		return false
	case first || !any: // no picture stood near enough to its packet's beginning
		return any || y.codecs() == feature.AVC
	}
	return y.says(feature.FamilySlice, func(have feature.Token) bool {
		_, k, p, ok := have.Slice()
		return ok && p == pps && k/all == kind/all
	})
}

// codecs are those that may say all that the baseline's pictures in TS begin with.
func (y *Vocabulary) codecs() feature.Codecs {
	all := feature.AVC | feature.HEVC | feature.MPEG
	some := false
	for _, w := range y.family(feature.FamilySlice) {
		if c := w.Token.Codecs(); c != 0 {
			some = true
			all &= c
		}
	}
	if !some {
		return 0
	}
	return all
}

// aggregates reports whether the sender puts units together, or may: one that sent
// parameter sets one by one, and nothing together, does not.
func (y *Vocabulary) aggregates() bool {
	alone := false
	return y.says(feature.FamilyUnit, func(have feature.Token) bool {
		alone = alone || have.ParameterSet(y.Form)
		return have.Aggregated(y.Form)
	}) || !alone
}

// choices is what a hop shows an encoder choose, by which other words of the hop are no
// news.
type choices struct {
	reorders bool // a picture may be out of its order
	begins   bool // its messages are only about beginning with a picture
}

func (y *Vocabulary) choicesOf(w *feature.Window) (c choices) {
	about, other := false, false
	for _, n := range w.Tokens.All() {
		c.reorders = c.reorders || n.Token.Between(y.Form)
		if begins, ok := n.Token.Message(y.Form); ok {
			about, other = about || begins, other || !begins
		}
	}
	c.begins = about && !other
	return c
}

// knows reports whether t is no news in a hop with such choices.
func (y *Vocabulary) knows(t feature.Token, c choices) bool { return y.Has(t) || c.explain(y, t) }

// explain reports whether the hop's choices make t no news.
func (c choices) explain(y *Vocabulary, t feature.Token) bool {
	switch {
	case t.Family() == feature.FamilyStep:
		return c.reorders && t.Step() < 0 && t.Step() >= -reorderMost*y.Quantum && onQuantum(t.Step(), y.Quantum)
	case t.Family() == feature.FamilyUnit:
		return c.begins && t.Messages(y.Form)
	}
	return false
}

// reorderMost is by how many frames at most a picture comes early: a decoder keeps 16
// (H.264 §A.3.1).
const reorderMost = 16
