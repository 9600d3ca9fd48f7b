package sim

import (
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Deliberate faults: each is what a broken build would do, and each must be
// caught by the invariant that it belongs to.
const (
	breakArming      = "arming"      // a transport confirms keys that it did not take
	breakFirst       = "first"       // the word of where an epoch begins is wrong
	breakSecrecy     = "secrecy"     // a thief gets the next key as well
	breakCounting    = "counting"    // the store forgets which epochs were claimed
	breakIndex       = "index"       // a sealer uses an index again
	breakPersistence = "persistence" // the store forgets keys
	breakReturn      = "return"      // the device's ACKs never arrive again
	breakReplay      = "replay"      // a packet that comes twice counts as proof
	breakBudget      = "budget"      // no bound on what evidence may cause
	breakRelease     = "release"     // keys are sealed to whoever asks
)

// Breakages names the deliberate faults, each with the invariant that catches it.
var Breakages = map[string]string{
	breakArming: InvArmed, breakFirst: InvDecrypt, breakSecrecy: InvThief, breakCounting: InvRising, breakIndex: InvIndex,
	breakPersistence: InvPersisted, breakReturn: InvLive, breakReplay: InvKeyless, breakBudget: InvBudget, breakRelease: InvChosen,
}

// breakAfter is when the faults that begin at a time do.
const breakAfter = 5 * time.Second

func (w *world) broken(what string) bool { return w.opt.Break == what }

// reply is how an answer looks on the bus.
type reply struct {
	Refusal *bus.Refusal    `cbor:"1,keyasint,omitempty"`
	Reply   cbor.RawMessage `cbor:"2,keyasint,omitempty"`
}

const armSubject, switchSubject = string(bus.TransportArm) + ".", string(bus.TransportSwitch) + "."

// mocked answers a request in a service's place where that is to be broken.
func (b *busNet) mocked(subject string, _ []byte) []byte {
	if b.broken(breakArming) && b.engine.now > breakAfter && strings.HasPrefix(subject, armSubject) {
		a, err := cbor.Marshal(reply{Reply: cbor.RawMessage{0xa0}})
		must(err)
		return a
	}
	return nil
}

// tampered changes a request on its way where that is to be broken.
func (b *busNet) tampered(subject string, data []byte) []byte {
	if !b.broken(breakFirst) || !strings.HasPrefix(subject, switchSubject) {
		return data
	}
	var r bus.SwitchRequest
	must(cbor.Unmarshal(data, &r))
	if r.First != 0 && b.engine.now > breakAfter {
		r.First += 40
	}
	data, err := cbor.Marshal(r)
	must(err)
	return data
}
