package gkrp

import (
	"fmt"
	"testing"
	"time"

	gk "github.com/gaitkeeper/gaitkeeper"
)

// play is a device, the service and what stands around it as one sequence of
// steps, each of which one role takes alone. Whatever is under way between two
// steps is a queue; a role that crashes forgets all but what it wrote down, and
// what it still had to do or wait for is not done.
type play struct {
	t    *testing.T
	name string
	now  time.Time

	queue []task
	steps int
	lives map[string]int // how often each role has crashed
	early bool           // a crash came before anything was on record

	// The key service and its store.
	first   map[gk.SessionID]gk.Epoch
	last    gk.Epoch
	prekeys map[string]gk.Epoch
	known   gk.Epoch // the highest in the backup that the store was set back to; 0: it never was
	// The processing service's store, and the service.
	record *Record
	cfg    *StreamConfig
	svc    *Stream
	// The transport.
	armed map[gk.SessionID]map[gk.Epoch]bool
	// The device, and its state directory.
	high    gk.Epoch
	device  *Device
	session gk.SessionID
	made    int
	opened  map[gk.Epoch]gk.SessionID
	overs   int
	done    int
	blind   int // keys that the device took up and the transport had not armed
}

// task is one step, taken by a role for the life of the role that waits for it.
type task struct {
	by, of string
	life   int // of the role of
	do     func()
}

const (
	roleDevice     = "device"
	roleProcessing = "processing"
	roleTransport  = "transport"
	roleKMS        = "kms"
)

func newPlay(t *testing.T, name string) *play {
	p := &play{
		t: t, name: name, now: t0, lives: map[string]int{}, first: map[gk.SessionID]gk.Epoch{}, prekeys: map[string]gk.Epoch{},
		armed: map[gk.SessionID]map[gk.Epoch]bool{}, opened: map[gk.Epoch]gk.SessionID{},
	}
	p.serve()
	p.begin()
	return p
}

// then has a role take a step for the role that asked for it.
func (p *play) then(by, of string, do func()) {
	p.queue = append(p.queue, task{by, of, p.lives[of], do})
}

func (p *play) serve() {
	p.cfg = &StreamConfig{
		Timing: func([]gk.TransportID) Timing {
			t := testTiming
			t.Every, t.Packets = 0, 0
			return t
		},
		Place: func(time.Time) []gk.TransportID { return []gk.TransportID{"t1"} },
		SSRC:  func(gk.StreamID) uint32 { return 7 }, Term: uint64(p.lives[roleProcessing] + 1), Started: p.now,
		SilentAfter: time.Second, BusyRetry: 200 * time.Millisecond, Urgent: Budget{Burst: 100, Every: time.Second},
	}
	p.svc = NewStream("cam-1", "cam-1", p.cfg)
	if p.record != nil && !p.record.Ended {
		p.service(p.svc.Resume(p.now, *p.record))
	}
}

func (p *play) begin() {
	p.made++
	p.session = gk.SessionID{byte(p.made)}
	h := Hello{Device: "cam-1", Stream: "cam-1", Session: p.session, Versions: []Version{0, 1}, Suites: []Suite{SuiteMLKEM768X25519}, HighWater: p.high}
	for range 4 {
		h.Prekeys = append(h.Prekeys, p.prekey())
	}
	var fx []Effect
	p.device, fx = NewDevice(p.now, h, 100*time.Millisecond, time.Second)
	p.act(fx)
}

func (p *play) prekey() []byte {
	p.made++
	return fmt.Appendf(nil, "prekey %d", p.made)
}

func (p *play) crash(role string) {
	p.lives[role]++
	p.early = p.record == nil
	switch role {
	case roleProcessing:
		p.serve()
	case roleDevice:
		p.begin()
	case roleTransport:
		clear(p.armed)
		p.then(roleProcessing, roleProcessing, func() { p.input(TransportLost{"t1"}) })
	}
}

// run takes steps until time has gone on so far, and stops after the given one.
func (p *play) run(d time.Duration, stopAfter int) (reached bool) {
	for end := p.now.Add(d); p.now.Before(end); {
		for len(p.queue) > 0 {
			q := p.queue[0]
			p.queue = p.queue[1:]
			if q.life != p.lives[q.of] {
				continue
			}
			q.do()
			if p.steps++; p.steps == stopAfter {
				return true
			}
		}
		next := end
		for _, t := range []time.Time{p.svc.Deadline(), p.device.Deadline()} {
			if !t.IsZero() && t.Before(next) {
				next = t
			}
		}
		if p.now.Before(next) {
			p.now = next
		}
		if t := p.svc.Deadline(); !t.IsZero() && !t.After(p.now) {
			p.then(roleProcessing, roleProcessing, func() { p.input(Tick{}) })
		}
		if t := p.device.Deadline(); !t.IsZero() && !t.After(p.now) {
			p.then(roleDevice, roleDevice, func() { p.act(p.device.Step(p.now, Tick{})) })
		}
	}
	return false
}

func (p *play) input(in Input) { p.service(p.svc.Step(p.now, in)) }

func (p *play) outcome(x *Session, in Input) {
	p.then(roleProcessing, roleProcessing, func() { p.input(Outcome{x, in}) })
}

// service does what the service's state machine wants.
func (p *play) service(fx []Of) {
	for _, of := range fx {
		x := of.Session
		switch f := of.Effect.(type) {
		case OpenKeys:
			p.then(roleKMS, roleProcessing, func() {
				if p.first[x.Record.Session] == 0 {
					p.last = max(p.last, f.HighWater) + 1
					p.first[x.Record.Session] = p.last
				}
				p.outcome(x, Opened{p.first[x.Record.Session]})
			})
		case Write:
			p.then(roleProcessing, roleProcessing, func() {
				p.record = &f.Record
				p.outcome(x, Recorded{f.Record.Epoch, f.Record.Pending})
			})
		case Release:
			p.then(roleKMS, roleProcessing, func() { p.release(x, f) })
		case Arm:
			p.then(roleTransport, roleProcessing, func() {
				if p.armed[x.Record.Session] == nil {
					p.armed[x.Record.Session] = map[gk.Epoch]bool{}
				}
				p.armed[x.Record.Session][f.Epoch] = true
				p.outcome(x, Armed{f.Transport, f.Epoch})
			})
		case Send:
			p.toDevice(f.Message)
		case SendGrant:
			g, err := DecodeGrant(f.Payload)
			if err != nil {
				p.t.Fatal(err)
			}
			p.toDevice(g)
		case Close:
			delete(p.armed, x.Record.Session)
		case Tell:
			if f.Event.Kind == gk.EventRotationDone {
				p.done++
			}
		}
	}
}

// release gives an epoch as the key service does: the same for the same question.
func (p *play) release(x *Session, f Release) {
	e := f.Epoch
	if e == 0 {
		e = max(f.After+1, p.first[x.Record.Session])
	}
	p.last = max(p.last, e)
	r := Released{Epoch: e, Transports: map[gk.TransportID][]byte{"t1": {1}}}
	if f.Prekey != nil {
		if was, used := p.prekeys[string(f.Prekey)]; used && was != e {
			p.outcome(x, PrekeyRefused{})
			return
		}
		p.prekeys[string(f.Prekey)] = e
		r.Device, r.Confirm = f.Prekey, confirmation(x.Record.Session, e)
		if p.known != 0 && e > p.known && e <= p.high {
			r.Confirm = make([]byte, 32) // another key than the device's
		}
	}
	p.outcome(x, r)
}

func confirmation(s gk.SessionID, e gk.Epoch) []byte { return Hash(fmt.Appendf(nil, "%s %d", s, e)) }

func (p *play) toDevice(m Message) {
	// The network is nobody's: what was sent arrives, whoever crashes meanwhile.
	payload := must(Encode(m))
	p.then(roleDevice, "", func() { p.act(p.device.Step(p.now, Heard{m, payload})) })
}

// act does what the device's state machine wants.
func (p *play) act(fx []Effect) {
	for _, f := range fx {
		switch f := f.(type) {
		case Send:
			m, payload := f.Message, must(Encode(f.Message))
			p.then(roleProcessing, "", func() { p.input(From{Heard: Heard{m, payload}}) })
		case Install:
			if was, again := p.opened[f.Epoch]; again {
				p.t.Errorf("%s: epoch %d was of session %s and is given to %s", p.name, f.Epoch, was, p.session)
			}
			if f.Epoch <= p.high {
				p.t.Errorf("%s: epoch %d after %d", p.name, f.Epoch, p.high)
			}
			if !p.armed[p.session][f.Epoch] {
				p.blind++
			}
			p.opened[f.Epoch], p.high = p.session, f.Epoch
			p.act(p.device.Step(p.now, Installed{f.Epoch, confirmation(p.session, f.Epoch), gk.Index(100 * f.Epoch), [][]byte{p.prekey()}}))
		case WantReport:
			p.act(p.device.Step(p.now, Sent{Report{From: 1, To: gk.Index(100*p.high) + 1, Packets: 1}}))
		case WantPrekeys:
			var keys [][]byte
			for range MaxPrekeys {
				keys = append(keys, p.prekey())
			}
			p.act([]Effect{Send{&Refill{Stream: "cam-1", Session: p.session, Prekeys: keys}}})
		case Over:
			p.overs++
			p.begin()
			return
		}
	}
}

// settled wants device, service and transport to agree, and a rotation to pass.
func (p *play) settled() {
	p.t.Helper()
	calm := func() bool {
		live := p.svc.Live()
		return live != nil && live.Record.Session == p.session && live.rot == nil && live.Record.Epoch == p.device.Epoch() &&
			p.armed[p.session][p.device.Epoch()] && p.record != nil && p.record.Epoch == p.device.Epoch()
	}
	for i := 0; i < 40 && !calm(); i++ {
		p.run(time.Second, -1)
	}
	for range 2 {
		live := p.svc.Live()
		if live == nil || live.Record.Session != p.session || live.Record.Epoch != p.device.Epoch() || p.device.Epoch() == 0 {
			p.t.Errorf("%s: device at epoch %d of %s, service at %+v", p.name, p.device.Epoch(), p.session, live)
			return
		}
		if e, stage := live.Rotating(); stage != 0 {
			p.t.Errorf("%s: still rotating to %d: %s", p.name, e, stage)
		}
		if !p.armed[p.session][p.device.Epoch()] {
			p.t.Errorf("%s: the transport cannot open epoch %d", p.name, p.device.Epoch())
		}
		if p.record == nil || p.record.Session != p.session || p.record.Epoch != p.device.Epoch() {
			p.t.Errorf("%s: on record is %+v", p.name, p.record)
		}
		was := p.device.Epoch()
		p.input(Rotate{Reason: gk.ReasonOperator})
		p.run(time.Second, -1)
		if p.device.Epoch() <= was {
			p.t.Errorf("%s: no rotation passes any more", p.name)
		}
	}
}

// TestKeyOfARestoredStore: the stores are set back by one, two or more epochs, and
// the key service makes keys for epochs that the device uses others for. The
// session cannot go on, and a new one begins above everything that was used.
func TestKeyOfARestoredStore(t *testing.T) {
	for back := 1; back <= 4; back++ {
		p := newPlay(t, fmt.Sprintf("set back by %d", back))
		p.run(2*time.Second, -1)
		var records []Record
		for range 6 {
			records = append(records, *p.record)
			p.input(Rotate{Reason: gk.ReasonOperator})
			p.run(time.Second, -1)
		}
		used, before := p.high, p.session
		p.record = &records[len(records)-back]
		p.last, p.known = p.record.Epoch, p.record.Epoch
		p.crash(roleProcessing)
		p.settled()
		if p.session == before || p.first[p.session] <= used {
			t.Errorf("%s: session %s begins at epoch %d, %d was used", p.name, p.session, p.first[p.session], used)
		}
	}
}

// TestCrashOfEachRoleAtEachStep lets a session begin and change its key, by
// schedule and by proof, and crashes one role after each single step of it: after
// every message sent, answer given and record written. Every time the roles find
// together again, no epoch is used twice or falls, and but for a transport that
// has just lost its keys, nothing is taken up that cannot be opened.
func TestCrashOfEachRoleAtEachStep(t *testing.T) {
	scene := func(p *play, stopAfter int) bool {
		if p.run(1500*time.Millisecond, stopAfter) {
			return true
		}
		for _, r := range []gk.Reason{gk.ReasonOperator, gk.ReasonProof} {
			if x := p.svc.Live(); x != nil {
				p.input(Rotate{Reason: r, Known: x.Record.Epoch})
			}
			if p.run(1500*time.Millisecond, stopAfter) {
				return true
			}
		}
		return false
	}
	whole := newPlay(t, "nobody")
	scene(whole, -1)
	if whole.done != 3 || whole.overs != 0 || whole.blind != 0 {
		t.Fatalf("undisturbed: %d epochs, %d sessions ended, %d blind", whole.done, whole.overs, whole.blind)
	}
	whole.settled()
	for _, role := range []string{roleDevice, roleProcessing, roleTransport, roleKMS} {
		for step := 1; ; step++ {
			p := newPlay(t, fmt.Sprintf("%s after step %d", role, step))
			if !scene(p, step) {
				t.Logf("%s: %d steps", role, step-1)
				break
			}
			if role == roleKMS {
				// What it was asked and has not answered is lost with it.
				rest := p.queue[:0]
				for _, q := range p.queue {
					if q.by != roleKMS {
						rest = append(rest, q)
					}
				}
				p.queue = rest
			}
			p.crash(role)
			p.settled()
			if p.blind > 0 && role != roleTransport {
				t.Errorf("%s: %d keys were taken up that the transport had not armed", p.name, p.blind)
			}
			// A session that nobody has a record of begins anew.
			if role != roleDevice && p.overs > 0 && !(role == roleProcessing && p.early) {
				t.Errorf("%s: the device had to begin anew %d times", p.name, p.overs)
			}
		}
	}
}

// TestProofHastensARotationInFlight: proof that comes while a scheduled rotation
// waits for its record, for a transport or for the device makes it urgent: the
// GRANT waits for no write, and transports learn of the reason.
func TestProofHastensARotationInFlight(t *testing.T) {
	for _, row := range []struct {
		stage Stage
		want  string
	}{
		{StageReleasing, "write(5,proof)"},
		{StageArming, "write(5,proof) arm(t1,6) arm(t2,6)"},
		{StageRecording, "write(5,proof) arm(t1,6) arm(t2,6) grant"},
		{StageGranting, "write(5,proof) arm(t1,6) arm(t2,6)"},
	} {
		t.Run(row.stage.String(), func(t *testing.T) {
			s := begun(t, t0)
			before := s.Record.Epoch
			s.Step(t0, Rotate{Reason: gk.ReasonSchedule})
			if row.stage > StageReleasing {
				s.Step(t0, released(before+1))
			}
			if row.stage > StageArming {
				for _, id := range s.Transports {
					s.Step(t0, Armed{id, before + 1})
				}
			}
			if row.stage > StageRecording {
				s.Step(t0, Recorded{before, gk.ReasonSchedule})
			}
			if _, at := s.Rotating(); at != row.stage {
				t.Fatalf("at stage %s", at)
			}
			fx := s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: before})
			want(t, "proof", fx, row.want)
			for _, f := range fx {
				if a, ok := f.(Arm); ok && a.Reason != gk.ReasonProof {
					t.Errorf("a transport is told of %s", a.Reason)
				}
			}
			want(t, "the same again", s.Step(t0, Rotate{Reason: gk.ReasonProof, Known: before}), "")
			// Without any write being answered it completes, for proof.
			if row.stage == StageReleasing {
				s.Step(t0, released(before+1))
			}
			for _, id := range s.Transports {
				s.Step(t0, Armed{id, before + 1})
			}
			s.Step(t0, ackOf(s, before+1, 900))
			if s.Record.Epoch != before+1 || s.ByReason[gk.ReasonProof] != 1 {
				t.Errorf("epoch %d, %v", s.Record.Epoch, s.ByReason)
			}
		})
	}
}
