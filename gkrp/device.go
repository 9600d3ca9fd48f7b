package gkrp

import (
	"bytes"
	"slices"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// Device is the device's half of the protocol for one session of one stream: a
// pure state machine like [Session]. It passes three stages:
//
//	Asking   HELLO until a CHALLENGE comes
//	Proving  HELLO with the challenge's nonce until a WELCOME comes
//	Running  keys are installed as GRANTs come, each answered by its ACK
//
// A Device lives for one session. A restart is a new one, with a new session id.
type Device struct {
	hello     Hello // the last one sent
	helloHash []byte
	stage     DeviceStage
	retry     backoff
	timing    Timing
	reportAt  time.Time
	number    uint64

	version    Version // chosen
	policy     Policy
	term       uint64 // highest fencing term seen: an earlier owner's commands are refused
	current    gk.Epoch
	installing gk.Epoch
	acks       []*Ack // of the newest epochs, oldest first: a repeated GRANT gets its ACK again
	hashes     map[gk.Epoch][]byte
	sent       [][]byte // hashes of what was sent last in this stage: only that can be answered
	over       bool
}

// DeviceStage is how far a device's session has come.
type DeviceStage uint8

// The stages, in order.
const (
	DeviceAsking DeviceStage = iota + 1
	DeviceProving
	DeviceRunning
)

const (
	keptAcks = 16 // ACKs that a device keeps for repetition
	keptSent = 16 // messages that a service's answer may regard
)

// The inputs of a [Device], besides [Tick] and [Heard].
type (
	// Installed: the key of an epoch was opened, and sending under it begins at First.
	Installed struct {
		Epoch   gk.Epoch
		Confirm []byte
		First   gk.Index
		Prekeys [][]byte // fresh ones, to be sent along
	}
	// InstallFailed: the envelope of an epoch was refused.
	InstallFailed struct{ Epoch gk.Epoch }
	// Sent: what the report that was asked for shall say.
	Sent struct{ Report Report }
	// Finish: the source ended.
	Finish struct {
		End  gk.Index
		Text string
	}
)

func (Installed) input()     {}
func (InstallFailed) input() {}
func (Sent) input()          {}
func (Finish) input()        {}

// The effects of a [Device], besides [Send] and [Over].
type (
	// Start: the session was accepted; media may flow to the addresses as soon as
	// the first key is installed.
	Start struct {
		SSRC       uint32
		Transports []string
		Policy     Policy
		Version    Version
		Suite      Suite
	}
	// Install: open the envelope and use its key; [Installed] answers.
	Install struct {
		Epoch    gk.Epoch
		Reason   gk.Reason
		Envelope []byte
	}
	// WantReport: a report is due; [Sent] answers.
	WantReport struct{ Number uint64 }
	// WantPrekeys: the service has run out of prekeys; send a [Refill].
	WantPrekeys struct{}
	// Refused: the service said no for the moment, and the session will ask again.
	Refused struct {
		Code  Code
		Text  string
		After time.Duration
	}
)

func (Start) effect()       {}
func (Install) effect()     {}
func (WantReport) effect()  {}
func (WantPrekeys) effect() {}
func (Refused) effect()     {}

// NewDevice begins a session. The hello must be complete but for its nonce.
func NewDevice(now time.Time, hello Hello, retry, retryMax time.Duration) (*Device, []Effect) {
	d := &Device{hello: hello, stage: DeviceAsking, timing: Timing{Retry: retry, RetryMax: retryMax}, hashes: map[gk.Epoch][]byte{}}
	d.hello.Nonce = nil
	return d, d.push(now)
}

// Stage tells how far the session has come.
func (d *Device) Stage() DeviceStage { return d.stage }

// Epoch is the epoch that the device sends under; 0 before the first.
func (d *Device) Epoch() gk.Epoch { return d.current }

// Deadline says when the next [Tick] is wanted; zero means never.
func (d *Device) Deadline() time.Time {
	switch {
	case d.over:
		return time.Time{}
	case d.stage < DeviceRunning:
		return d.retry.at
	}
	return d.reportAt
}

// Step takes one input and gives what is to be done about it.
func (d *Device) Step(now time.Time, in Input) []Effect {
	if d.over {
		return nil
	}
	switch in := in.(type) {
	case Tick:
		if d.stage < DeviceRunning {
			if d.retry.due(now) {
				return d.push(now)
			}
		} else if !d.reportAt.IsZero() && !d.reportAt.After(now) {
			d.reportAt = now.Add(d.reportEvery())
			return []Effect{WantReport{d.number + 1}}
		}
	case Heard:
		return d.heard(now, in)
	case Installed:
		return d.installed(now, in)
	case InstallFailed:
		if d.installing == in.Epoch {
			h := d.hashes[in.Epoch]
			d.installing = 0
			delete(d.hashes, in.Epoch)
			return []Effect{Send{&Reject{Session: d.hello.Session, Regarding: h, Code: CodeCannotOpen}}}
		}
	case Sent:
		if d.current != 0 {
			r := in.Report.For(d.version)
			if !d.policy.Tags {
				r.Tags = nil
			}
			d.number++
			r.Stream, r.Session, r.Number, r.Epoch, r.Term = d.hello.Stream, d.hello.Session, d.number, d.current, d.term
			return []Effect{d.send(&r)}
		}
	case Finish:
		d.over = true
		if d.stage == DeviceRunning {
			return []Effect{Send{&Bye{Stream: d.hello.Stream, Session: d.hello.Session, End: in.End, Text: in.Text}}, Over{}}
		}
		return []Effect{Over{}}
	}
	return nil
}

func (d *Device) push(now time.Time) []Effect {
	d.retry.next(now, d.timing)
	h := d.hello
	return []Effect{d.send(&h)}
}

// send sends a message and remembers it: an old answer that a broker kept can
// then be told from one to what was sent just now.
func (d *Device) send(m Message) Effect {
	if h := Hash(must(Encode(m))); !d.isAnswer(h) {
		d.sent = append(d.sent, h)
	}
	if len(d.sent) > keptSent {
		d.sent = slices.Delete(d.sent, 0, 1)
	}
	return Send{m}
}

// isAnswer reports whether hash names a message that was sent lately.
func (d *Device) isAnswer(hash []byte) bool {
	return slices.ContainsFunc(d.sent, func(h []byte) bool { return bytes.Equal(h, hash) })
}

func (d *Device) heard(now time.Time, in Heard) []Effect {
	switch m := in.Message.(type) {
	case *Challenge:
		if d.stage == DeviceRunning || m.Session != d.hello.Session || !d.isAnswer(m.HelloHash) || bytes.Equal(m.Nonce, d.hello.Nonce) {
			return nil
		}
		d.stage = DeviceProving
		d.hello.Nonce = m.Nonce
		d.helloHash = Hash(must(Encode(&d.hello)))
		d.retry = backoff{}
		return d.push(now)
	case *Welcome:
		return d.welcomed(now, m)
	case *Grant:
		if d.stage == DeviceRunning {
			return d.granted(m, in.Payload)
		}
	case *Reject:
		return d.rejected(now, m)
	case *Refill:
		if d.stage == DeviceRunning && m.Session == d.hello.Session {
			return []Effect{WantPrekeys{}}
		}
	case *Stop:
		if m.Session == d.hello.Session {
			d.over = true
			return []Effect{Over{m.Code}}
		}
	}
	return nil
}

// welcomed takes the session's terms, unless they are not an answer to what was
// offered: a broker that shortens the offer would show here.
func (d *Device) welcomed(now time.Time, w *Welcome) []Effect {
	h := &d.hello
	if w.Session != h.Session || d.stage == DeviceAsking || !bytes.Equal(w.HelloHash, d.helloHash) {
		return nil
	}
	if w.Stream != h.Stream || !slices.Equal(w.Versions, h.Versions) || !slices.Equal(w.Suites, h.Suites) ||
		!slices.Contains(h.Versions, w.Version) || !slices.Contains(h.Suites, w.Suite) {
		return nil
	}
	g, err := DecodeGrant(w.Grant)
	if err != nil {
		return nil
	}
	var fx []Effect
	if d.stage != DeviceRunning {
		d.stage, d.version, d.policy, d.sent = DeviceRunning, w.Version, w.Policy.For(w.Version), nil
		fx = append(fx, Start{w.SSRC, w.Transports, d.policy, w.Version, w.Suite})
	}
	return append(fx, d.granted(g, w.Grant)...)
}

// granted has a new key installed, or repeats the ACK of one that is.
func (d *Device) granted(g *Grant, payload []byte) []Effect {
	if g.Session != d.hello.Session || g.Stream != d.hello.Stream || g.Term < d.term {
		return nil
	}
	d.term = g.Term
	for _, a := range d.acks {
		if a.Epoch == g.Epoch {
			return []Effect{d.send(a)}
		}
	}
	if g.Epoch <= d.current || g.Epoch == d.installing {
		return nil
	}
	d.installing = g.Epoch
	d.hashes[g.Epoch] = Hash(payload)
	return []Effect{Install{g.Epoch, g.Reason, g.Envelope}}
}

func (d *Device) installed(now time.Time, in Installed) []Effect {
	if in.Epoch != d.installing {
		return nil
	}
	a := &Ack{
		Stream: d.hello.Stream, Session: d.hello.Session, Epoch: in.Epoch,
		GrantHash: d.hashes[in.Epoch], Confirm: in.Confirm, First: in.First, Prekeys: in.Prekeys,
	}
	delete(d.hashes, in.Epoch)
	d.current, d.installing = in.Epoch, 0
	d.acks = append(d.acks, a)
	if len(d.acks) > keptAcks {
		d.acks = slices.Delete(d.acks, 0, 1)
	}
	if d.reportAt.IsZero() {
		d.reportAt = now.Add(d.reportEvery())
	}
	return []Effect{d.send(a)}
}

func (d *Device) rejected(now time.Time, r *Reject) []Effect {
	if r.Session != d.hello.Session || !d.isAnswer(r.Regarding) {
		return nil
	}
	if r.Code.Final() || d.stage == DeviceRunning {
		d.over = true
		return []Effect{Over{r.Code}}
	}
	after := min(max(time.Duration(r.RetryAfter)*time.Millisecond, d.timing.Retry), time.Minute)
	// Once more from the start: a nonce does not live long.
	d.stage, d.hello.Nonce = DeviceAsking, nil
	d.retry = backoff{at: now.Add(after), wait: d.timing.Retry}
	return []Effect{Refused{r.Code, r.Text, after}}
}

func (d *Device) reportEvery() time.Duration {
	ms := min(max(d.policy.ReportEveryMs, 100), 60000)
	return time.Duration(ms) * time.Millisecond
}
