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

// Take takes a token, and reports whether there was one.
func (b *Budget) Take(now time.Time) bool {
	if b.spent > 0 && b.Every > 0 {
		if back := int(now.Sub(b.since) / b.Every); back > 0 {
			b.spent = max(0, b.spent-back)
			b.since = b.since.Add(time.Duration(back) * b.Every)
		}
	}
	if b.spent == 0 {
		b.since = now
	}
	if b.spent >= b.Burst {
		return false
	}
	b.spent++
	return true
}
