package kms

import (
	"fmt"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// A media key's life, after NIST SP 800-57 part 1 revision 5 §7:
//
//	pre-active ──► active ──► deactivated ──► destroyed
//	     └──────────────────────────────────────▲
//
// Pre-active is the reserved key: created, wrapped, persisted, released to
// nobody. Active begins with the first release. The empty state is invalid.

// checkMove refuses every step that is not an arrow in the picture above.
func checkMove(from, to bus.KeyState) error {
	switch {
	case rank(from) == 0 || rank(to) == 0:
		return fmt.Errorf("key state %q to %q: not states of a key", from, to)
	case from == to:
		return fmt.Errorf("key is %s already", from)
	case from == bus.KeyDestroyed:
		return fmt.Errorf("a destroyed key cannot become %s", to)
	case rank(to) < rank(from):
		return fmt.Errorf("a key that is %s cannot become %s again", from, to)
	case from == bus.KeyPreActive && to == bus.KeyDeactivated:
		return fmt.Errorf("a key that was never active cannot be deactivated: destroy it")
	case from == bus.KeyActive && to == bus.KeyDestroyed:
		return fmt.Errorf("an active key cannot be destroyed: deactivate it first")
	}
	return nil
}

// rank orders the states in time; 0 is no state.
func rank(s bus.KeyState) int {
	switch s {
	case bus.KeyPreActive:
		return 1
	case bus.KeyActive:
		return 2
	case bus.KeyDeactivated:
		return 3
	case bus.KeyDestroyed:
		return 4
	}
	return 0
}

// movesTo lists the single steps that bring a key from one state to another.
// None are needed when a request is repeated, also after a later one.
func movesTo(from, to bus.KeyState) ([]bus.KeyState, error) {
	switch {
	case from == to,
		from == bus.KeyDestroyed && to == bus.KeyDeactivated:
		return nil, nil
	case from == bus.KeyActive && to == bus.KeyDestroyed:
		return []bus.KeyState{bus.KeyDeactivated, bus.KeyDestroyed}, nil
	}
	if err := checkMove(from, to); err != nil {
		return nil, err
	}
	return []bus.KeyState{to}, nil
}
