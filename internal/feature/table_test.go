package feature

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Over many hops, whatever words come and go, a table says of each hop what counting in
// a map says; and remembered places change nothing.
func TestTokenTableEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newTokenTable()
		var got TokenSet
		var remembered [4]place
		at := int64(0)
		for hop := range rapid.IntRange(1, 12).Draw(t, "hops") {
			said, last := map[Token]uint32{}, map[Token]int64{}
			var numbers [Families]map[Token]bool
			kinds := rapid.Uint32Range(1, 40).Draw(t, "kinds")
			for range rapid.IntRange(0, 150).Draw(t, "occasions") {
				at += rapid.Int64Range(0, occasionGap).Draw(t, "gap")
				f := rapid.SampledFrom([]Family{FamilyHeader, FamilyUnit, FamilySlice, FamilyParameter, FamilyStep, FamilySize}).Draw(t, "family")
				tok := token(f, uint32(hop)*7+rapid.Uint32Range(0, kinds).Draw(t, "value"))
				if p := rapid.IntRange(0, 2*len(remembered)).Draw(t, "way"); p < len(remembered) {
					if w := table.of(&remembered[p], tok); at-w.last >= occasionGap {
						table.occasion(w, at)
					}
				} else {
					table.add(tok, at)
				}
				if f >= FamilyStep {
					if numbers[f] == nil {
						numbers[f] = map[Token]bool{}
					}
					if !numbers[f][tok] && len(numbers[f]) >= numberRoom {
						tok = token(f, variedValue)
					}
					if tok.Value() != variedValue {
						numbers[f][tok] = true
					}
				}
				if before, ok := last[tok]; !ok || at-before >= occasionGap {
					said[tok]++
					last[tok] = at
				}
			}
			table.roll(&got)
			var want TokenSet
			var words []Token
			for tok := range said {
				words = append(words, tok)
			}
			slices.Sort(words)
			to := tokenWriter{to: &want}
			for _, tok := range words {
				to.put(TokenCount{tok, said[tok]})
			}
			if got != want {
				t.Fatalf("hop %d:\n%v, overflow %d, want\n%v, overflow %d", hop, got.All(), got.Overflow, want.All(), want.Overflow)
			}
		}
	})
}

// More words than a hop has room for are said to be that, and the next hop is whole again.
func TestTokenTableOverflows(t *testing.T) {
	table := newTokenTable()
	for hop := range uint32(3) {
		for i := range uint32(2 * wordsMost) {
			table.add(token(FamilyUnit, hop<<12|i), int64(hop))
		}
		var s TokenSet
		table.roll(&s)
		if want := uint32(2*wordsMost - tokenRoom[FamilyUnit]); s.Overflow != want || !s.Full[FamilyUnit] {
			t.Fatalf("hop %d: %d occasions overflow, full %v, want %d", hop, s.Overflow, s.Full, want)
		}
		for i := range uint32(tokenRoom[FamilyUnit]) {
			if tok := token(FamilyUnit, hop<<12|i); !s.Has(tok) {
				t.Fatalf("hop %d: %v is missing", hop, tok)
			}
		}
		table.add(token(FamilyHeader, hop), 0)
		table.roll(&s)
		if s.Overflow != 0 || len(s.All()) != 1 {
			t.Fatalf("hop %d leaves %v and overflow %d behind", hop, s.All(), s.Overflow)
		}
	}
}
