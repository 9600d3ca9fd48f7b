package gkrp

import (
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Input is something that happened.
type Input interface{ input() }

// The inputs of a [Session].
type (
	// Tick is the passing of time; [Session.Deadline] says when one is wanted.
	Tick struct{}
	// Opened: the key management service allocated the session's first epoch.
	Opened struct{ Epoch gk.Epoch }
	// Recorded: the record with this epoch and pending rotation is written down.
	Recorded struct {
		Epoch   gk.Epoch
		Pending gk.Reason
	}
	// Released: an epoch's key was sealed.
	Released struct {
		Epoch      gk.Epoch
		Device     []byte
		Confirm    []byte
		Transports map[gk.TransportID][]byte
	}
	// Armed: a transport can open the epoch.
	Armed struct {
		Transport gk.TransportID
		Epoch     gk.Epoch
	}
	// Heard: a message of the device whose signature verified.
	Heard struct {
		Message Message
		Payload []byte // the message as it was encoded, for its hash
	}
	// Rotate: a new epoch is wanted. Where the reason is proof, Known is the epoch
	// whose key is known to somebody else.
	Rotate struct {
		Reason gk.Reason
		Known  gk.Epoch
	}
	// TransportLost: a transport restarted and has no keys any more.
	TransportLost struct{ Transport gk.TransportID }
	// PrekeyRefused: the key management service does not accept the prekey that
	// the next key was to be sealed to.
	PrekeyRefused struct{}
	// KeyUnknown: the key management service gives no key for an epoch that is in
	// use or on its way, as after its store was restored from a backup, or when the
	// epoch was sealed to too many prekeys already.
	KeyUnknown struct{ Epoch gk.Epoch }
	// KeyRetired: the key of an epoch is not given any more, because a later one
	// is in use.
	KeyRetired struct{ Epoch gk.Epoch }
	// End: the session is to end now.
	End struct{ Code Code }
)

func (Tick) input()          {}
func (Opened) input()        {}
func (Recorded) input()      {}
func (Released) input()      {}
func (Armed) input()         {}
func (Heard) input()         {}
func (Rotate) input()        {}
func (TransportLost) input() {}
func (PrekeyRefused) input() {}
func (KeyUnknown) input()    {}
func (KeyRetired) input()    {}
func (End) input()           {}

// Effect is something to be done.
type Effect interface{ effect() }

// The effects of a [Session].
type (
	// OpenKeys asks the key management service to open the session; [Opened] answers.
	OpenKeys struct{ HighWater gk.Epoch }
	// Write asks for the record to be written down; [Recorded] answers.
	Write struct{ Record Record }
	// Release asks for the key of an epoch, or where that is 0, of the session's
	// first epoch after After; [Released] answers.
	Release struct {
		Epoch      gk.Epoch
		After      gk.Epoch
		Prekey     []byte // nil: for transports only
		Transports []gk.TransportID
	}
	// Arm gives a transport the key of an epoch; [Armed] answers.
	Arm struct {
		Transport gk.TransportID
		Epoch     gk.Epoch
		Envelope  []byte
		Reason    gk.Reason
		Joining   bool
		Near      gk.Index
	}
	// Send signs and sends a message to the device.
	Send struct{ Message Message }
	// SendGrant signs and sends a stored GRANT payload to the device.
	SendGrant struct{ Payload []byte }
	// Switch tells every transport where an epoch begins, or what index is near.
	Switch struct {
		Epoch       gk.Epoch
		First, Near gk.Index
	}
	// Activate moves a key to active, and the one before it to deactivated.
	Activate struct{ Epoch, Before gk.Epoch }
	// Close wipes the session's keys everywhere.
	Close struct{}
	// Outranked: the device heeds a later term than the session's. Either another
	// instance commands it now, or the store that counts terms was restored from a
	// backup; then nothing helps but a new session.
	Outranked struct{}
	// Reported hands on a report that was taken, for whoever watches behaviour. It was
	// on its way for Late at least, where that can be known.
	Reported struct {
		Report *Report
		Late   time.Duration
	}
	// Tell announces an event; the runner fills device, stream and session in.
	Tell struct{ Event gk.Event }
	// Over is the last effect of a session.
	Over struct{ Code Code }
)

func (OpenKeys) effect()  {}
func (Write) effect()     {}
func (Release) effect()   {}
func (Arm) effect()       {}
func (Send) effect()      {}
func (SendGrant) effect() {}
func (Switch) effect()    {}
func (Activate) effect()  {}
func (Close) effect()     {}
func (Reported) effect()  {}
func (Outranked) effect() {}
func (Tell) effect()      {}
func (Over) effect()      {}
