package sim

import (
	"crypto/ed25519"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"github.com/gaitkeeper/gaitkeeper/gkrp"
	"github.com/gaitkeeper/gaitkeeper/internal/bus"
)

// Deliberate faults: each is what a broken build would do, and each must be
// caught by the invariant that it belongs to.
const (
	breakArming      = "arming"      // a transport confirms keys that it did not take
	breakOpening     = "opening"     // a transport mangles keys that it takes
	breakSecrecy     = "secrecy"     // a thief gets the next key as well
	breakCounting    = "counting"    // the store forgets which epochs were claimed
	breakIndex       = "index"       // a sealer uses an index again
	breakPersistence = "persistence" // the store forgets keys
	breakReturn      = "return"      // the device's ACKs never arrive again
	breakReplay      = "replay"      // a packet that comes twice counts as proof
	breakBudget      = "budget"      // no bound on what evidence may cause
	breakTrail       = "trail"       // the audit trail's chain leaves lines out
	breakRelease     = "release"     // keys are sealed to whoever asks
	breakLease       = "lease"       // transports believe every lease
	breakRevoke      = "revoke"      // transports confirm that they wiped keys, and did not
	breakHold        = "hold"        // an order to hold that comes again is obeyed again
	breakIngress     = "ingress"     // what a device says of its source rotates its key
	breakTurn        = "turn"        // the store takes a lease's record whatever was there
	breakTerm        = "term"        // transports obey whoever has been replaced
)

// Breakages names the deliberate faults, each with the invariant that catches it.
var Breakages = map[string]string{
	breakArming: InvArmed, breakOpening: InvDecrypt, breakSecrecy: InvThief, breakCounting: InvRising, breakIndex: InvIndex,
	breakPersistence: InvPersisted, breakReturn: InvLive, breakReplay: InvKeyless, breakBudget: InvBudget, breakTrail: InvAudit, breakRelease: InvChosen,
	breakLease: InvLease, breakRevoke: InvRevoked, breakHold: InvKeyless, breakIngress: InvKeyless, breakTurn: InvOwner, breakTerm: InvOwner,
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
const releaseSubject = string(bus.TransportRelease) + "."

// mocked answers a request in a service's place where that is to be broken.
func (b *busNet) mocked(subject string, _ []byte) []byte {
	arming := b.broken(breakArming) && b.engine.now > breakAfter && strings.HasPrefix(subject, armSubject)
	wiping := b.broken(breakRevoke) && (strings.HasPrefix(subject, disarmSubject) || strings.HasPrefix(subject, releaseSubject))
	if arming || wiping {
		a, err := cbor.Marshal(reply{Reply: cbor.RawMessage{0xa0}})
		must(err)
		return a
	}
	return nil
}

// provoke brings about what a deliberate fault needs to show.
func (w *world) provoke() {
	var often func()
	switch w.opt.Break {
	case breakBudget, breakSecrecy:
		often = w.steal
	case breakRelease:
		often = w.mallory
	case breakLease:
		w.after(breakAfter, func() {
			w.kms.p.inherit() // so that nobody starts it again
			w.kms.p.kill()
		})
		often = w.forgeLeases
	case breakRevoke:
		often = w.revoke
	case breakHold:
		often = w.forgeHolds
	case breakIngress:
		often = w.lie
	case breakTerm:
		often = w.strand
	default:
		return
	}
	w.every(breakAfter, 700*time.Millisecond, func() bool {
		if !w.quiet {
			often()
		}
		return !w.quiet
	})
}

// forgeHolds makes orders to hold of those that passed, which a transport that does
// not look at their age takes for new ones.
func (w *world) forgeHolds() {
	for _, c := range w.bus.commands {
		var r bus.HoldRequest
		if !strings.HasPrefix(c.subject, holdSubject) || cbor.Unmarshal(c.data, &r) != nil {
			continue
		}
		r.Held, r.Term, r.Beat = true, w.term(), 1<<60
		b, err := cbor.Marshal(r)
		must(err)
		w.bus.again(command{c.subject, b})
	}
}

// gullible takes every signature for good.
type gullible struct{}

func (gullible) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }
func (gullible) Verify(_, _ []byte) error  { return nil }

// kmsVerifier is how the key service makes verifiers.
func (w *world) kmsVerifier(k ed25519.PublicKey) (gkrp.Verifier, error) {
	if w.broken(breakRelease) {
		return gullible{}, nil
	}
	return w.suite.verifier(k)
}
