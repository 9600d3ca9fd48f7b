package gkrp

import "time"

// Budget bounds how often something may happen: a bucket of Burst tokens that
// gains one every Every. The zero value allows nothing. It is not safe for
// concurrent use.
type Budget struct {
	Burst int
	Every time.Duration

	spent int
	since time.Time // spent counts from here
}

// Has reports whether [Budget.Take] would find a token.
func (b *Budget) Has(now time.Time) bool {
	b.gain(now)
	return b.spent < b.Burst
}

// Take takes a token, and reports whether there was one.
func (b *Budget) Take(now time.Time) bool {
	if !b.Has(now) {
		return false
	}
	if b.spent == 0 {
		b.since = now
	}
	b.spent++
	return true
}

// Left is how often [Budget.Take] would find a token.
func (b *Budget) Left(now time.Time) int {
	b.gain(now)
	return max(0, b.Burst-b.spent)
}

// gain gives back what has come in since it was last counted.
func (b *Budget) gain(now time.Time) {
	if b.spent == 0 || b.Every <= 0 {
		return
	}
	if back := int(now.Sub(b.since) / b.Every); back > 0 {
		b.spent = max(0, b.spent-back)
		b.since = b.since.Add(time.Duration(back) * b.Every)
	}
}
