package app

import (
	"errors"

	"github.com/gaitkeeper/gaitkeeper/internal/transport"
)

func (c Config) checkHold() error {
	if c.OnHold == string(transport.HoldSlate) && c.Slate == "" {
		return errors.New("on-hold: slate needs a clip: name one with slate")
	}
	return nil
}

// onHold is what a held stream shows, with its clip if that is one.
func (c Config) onHold() (transport.OnHold, *transport.Slate, error) {
	mode := transport.OnHold(c.OnHold)
	if mode != transport.HoldSlate {
		return mode, nil, nil
	}
	s, err := transport.LoadSlate(c.Slate)
	return mode, s, err
}
