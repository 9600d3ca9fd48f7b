package attack

import (
	"errors"
	"sync"

	gk "github.com/gaitkeeper/gaitkeeper"
	"github.com/gaitkeeper/gaitkeeper/internal/device"
	"github.com/gaitkeeper/gaitkeeper/internal/keyring"
)

// Loot is what a thief inside the device takes: a copy of every media key, from
// the moment that the device takes it up. It is the only way in which a program
// comes by keys that are not its own, and only demonstrations have it.
type Loot struct {
	mu   sync.Mutex
	keys []Stolen
	err  error
}

// Rob has the device's keys copied. It is to be called before the device is made.
func (l *Loot) Rob(cfg *device.Config) {
	cfg.OnKey = func(_ gk.StreamID, ssrc uint32, epoch gk.Epoch, key keyring.MediaKey) {
		s, err := Steal(ssrc, epoch, key)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil {
			l.err = errors.Join(l.err, err)
			return
		}
		l.keys = append(l.keys, s)
	}
}

// Latest is the key that the device took up last. The error tells that there is
// none, or that one could not be copied.
func (l *Loot) Latest() (Stolen, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && len(l.keys) == 0 {
		return Stolen{}, errors.New("the device has no key yet")
	}
	if l.err != nil {
		return Stolen{}, l.err
	}
	return l.keys[len(l.keys)-1], nil
}

// Wipe forgets everything that was taken.
func (l *Loot) Wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.keys {
		l.keys[i].Key.Wipe()
	}
	l.keys = nil
}
