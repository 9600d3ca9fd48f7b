package demo

import (
	"testing"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// The account has to notice what it is there to notice.
func TestAccount(t *testing.T) {
	source := func(i gk.Index) []byte { return []byte{byte(i), 1} }
	thief := []byte("not the camera's")
	const first = 10 // of the new key
	for _, c := range []struct {
		name    string
		deliver func(a *account, i gk.Index)
		first   gk.Index
		want    balance
	}{
		{"all arrives", func(a *account, i gk.Index) { a.delivered(i, source(i)) }, first, balance{}},
		{"a thief takes two indices", func(a *account, i gk.Index) {
			if i == 3 || i == 5 {
				a.delivered(i, thief)
			} else {
				a.delivered(i, source(i))
			}
		}, first, balance{displaced: 2}},
		{"a thief is ahead of the switch", func(a *account, i gk.Index) {
			if i == 9 {
				a.delivered(9, source(9))
				a.delivered(11, thief)
				a.delivered(12, thief)
			} else {
				a.delivered(i, source(i))
			}
		}, first, balance{}},
		{"a thief gets through behind the switch", func(a *account, i gk.Index) {
			a.delivered(i, source(i))
			if i == 12 {
				a.delivered(13, thief)
			}
		}, first, balance{foreignAfter: 1}},
		{"a packet is lost before and one behind", func(a *account, i gk.Index) {
			if i != 4 && i != 15 {
				a.delivered(i, source(i))
			}
		}, first, balance{missing: 1, lostAfter: 1}},
		{"one comes twice behind the switch", func(a *account, i gk.Index) {
			a.delivered(i, source(i))
			if i == 14 {
				a.delivered(i, source(i))
			}
		}, first, balance{foreignAfter: 1}},
		{"no key was changed", func(a *account, i gk.Index) {
			if i != 4 {
				a.delivered(i, thief)
			}
		}, 0, balance{displaced: 19, missing: 1}},
	} {
		a := newAccount()
		for i := gk.Index(1); i <= 20; i++ {
			a.sealed(i, source(i))
			c.deliver(a, i)
		}
		if got := a.settle(c.first); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
